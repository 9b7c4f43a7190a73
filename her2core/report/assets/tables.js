// Tables: sorted by a click on a heading, a page at a time.

const PAGE = 25;

/**
 * A table of a figure. `columns` have `words`, `of(row)` (the value that sorts), and may have `show(row)`,
 * `kind` (num, name, words). A click on a row opens its case.
 */
function table(name, { title, note, columns, rows, marked, open, csv, page = PAGE }) {
  let [sorted, down, first] = [null, false, 0];
  const ordered = () => {
    const all = rows().slice();
    if (sorted === null) return all;
    const { of } = columns[sorted];
    const compare = (a, b) => (typeof a === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true }));
    return all.sort((a, b) => {
      const [x, y] = [of(a), of(b)];
      if (x === null || x === undefined) return y === null || y === undefined ? 0 : 1;
      if (y === null || y === undefined) return -1;
      return down ? compare(y, x) : compare(x, y);
    });
  };
  listeners.unshift(() => { first = 0; });
  figure(name, {
    title, note, data: csv ?? (() => [columns.map((c) => c.words), ordered().map((row) => columns.map((c) => c.of(row)))]), long: true,
    draw(body, made) {
      const all = ordered();
      if (!all.length) return empty(body, 'Nothing here.');
      first = Math.min(first, Math.floor((all.length - 1) / page) * page);
      const head = columns.map((c, k) => {
        const sort = sorted === k ? (down ? 'descending' : 'ascending') : 'none';
        return el('th', { scope: 'col', class: c.kind === 'num' ? 'num' : '', 'aria-sort': sort },
          el('button', { type: 'button', onclick: () => { down = sorted === k && !down; sorted = k; first = 0; made.update(); } }, c.words));
      });
      const lines = all.slice(first, first + page).map((row) => el('tr', {
        class: `open${marked?.(row) ? ' marked' : ''}`, onclick: () => open(row),
      }, columns.map((c) => el('td', { class: c.kind }, c.show?.(row) ?? (c.kind === 'num' ? number(c.of(row), c.digits) : c.of(row) ?? '–')))));
      const step = (words_, to, disabled) => el('button', { type: 'button', disabled, onclick: () => { first = to; made.update(); } }, words_);
      return body.replaceChildren(
        el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr', {}, head)), el('tbody', {}, lines))),
        el('div', { class: 'pager' }, `${whole.format(first + 1)}–${whole.format(Math.min(first + page, all.length))} of ${whole.format(all.length)}`,
          step('‹ Before', first - page, first === 0), step('Next ›', first + page, first + page >= all.length)));
    },
  });
}

function makeTables() {
  const bySlide = (key, heading, kind, digits) => ({ words: heading, of: (i) => slides[key][i], kind, digits });
  const bySpecimen = (key, heading, kind, digits) => ({ words: heading, of: (s) => specimens[key][s], kind, digits });
  const placeIn = (terms, key) => { const at = terms.findIndex((term) => term.key === key); return at < 0 ? null : terms.length - at; };
  table('specimens', {
    title: 'Specimens', note: 'A click opens the case; a click on a heading sorts.',
    rows: () => state.specimens, marked: (s) => state.markedSpecimens.has(s), open: (s) => openCard(s),
    csv: () => [SPECIMEN_COLUMNS, state.specimens.map((s) => SPECIMEN_COLUMNS.map((key) => specimens[key][s]))],
    columns: [
      bySpecimen('name', 'specimen', 'name'),
      { words: 'HER2', of: (s) => specimens.her2_status[s] },
      { words: 'class', of: (s) => placeIn(words.classes, specimens.her2_class[s]), show: (s) => tag(termOf(words.classes, specimens.her2_class[s]), words.no_class) },
      bySpecimen('score', 'IHC'),
      bySpecimen('n_scored', 'cells', 'num'), bySpecimen('p3_pct', '3+ %', 'num', 1), bySpecimen('p2_pct', '≥2+ %', 'num', 1), bySpecimen('p_any_pct', 'stained %', 'num', 1),
      { words: 'ISH', of: (s) => specimens.ish_group[s], show: (s) => termOf(words.groups, specimens.ish_group[s])?.words ?? specimens.ish_group[s] ?? '–' },
      bySpecimen('ish_ratio', 'ratio', 'num', 2), bySpecimen('ish_her2_mean', 'copies', 'num', 2),
      { words: 'what to know', of: (s) => specimens.why[s].join('; '), kind: 'words' },
    ],
  });
  table('slides', {
    title: 'Slides', note: 'Every slide of the manifest, whatever became of it.',
    rows: () => state.slides, marked: (i) => state.marked.has(i), open: (i) => openCard(slides.specimen_row[i], i),
    csv: () => [[...SLIDE_COLUMNS, 'stage', 'why', 'notes'], state.slides.map((i) => [...SLIDE_COLUMNS.map((key) => slides[key][i]), words.stages[slides.stage[i]].key, slides.left[i], slides.notes[i]])],
    columns: [
      bySlide('slide_id', 'slide', 'name'), bySlide('case_id', 'case'), bySlide('assay', 'assay'), bySlide('state_words', 'state'),
      bySlide('score', 'IHC'), bySlide('reader_score', 'reader'), bySlide('ish_group', 'ISH group'), bySlide('qc_verdict', 'QC'),
      bySlide('n_scored', 'cells', 'num'), bySlide('h_score', 'H-score', 'num', 0), bySlide('ish_ratio', 'ratio', 'num', 2), bySlide('ish_her2_mean', 'copies', 'num', 2),
      { words: 'what to know', of: (i) => [slides.left[i], ...slides.notes[i]].filter((text, at, all) => text && all.indexOf(text) === at).join('; '), kind: 'words' },
    ],
  });
  const disagreeing = () => state.specimens.flatMap((s) => specimens.disagreements[s].map(([kind, text]) => ({ s, kind, text })));
  table('disagreeing', {
    title: 'Each disagreement', note: '', page: 12, rows: disagreeing, marked: ({ s }) => state.markedSpecimens.has(s), open: ({ s }) => openCard(s),
    columns: [
      { words: 'specimen', of: ({ s }) => specimens.name[s], kind: 'name' },
      { words: 'between', of: ({ kind }) => words.kinds[kind] },
      { words: 'class', of: ({ s }) => specimens.her2_class[s], show: ({ s }) => tag(termOf(words.classes, specimens.her2_class[s]), words.no_class) },
      { words: 'what', of: ({ text }) => text, kind: 'words' },
    ],
  });
  const outliers = () => words.quality.flatMap((of, q) => state.slides.filter((i) => Math.abs(slides.quality_scores[q][i] ?? 0) > words.outlying).map((i) => ({ i, q })))
    .sort((a, b) => Math.abs(slides.quality_scores[b.q][b.i]) - Math.abs(slides.quality_scores[a.q][a.i]));
  table('outliers', {
    title: 'Outliers', note: 'Slides that differ from the others of their assay, the furthest first.', page: 10, rows: outliers, marked: ({ i }) => state.marked.has(i),
    open: ({ i }) => openCard(slides.specimen_row[i], i),
    columns: [
      { words: 'slide', of: ({ i }) => slides.slide_id[i], kind: 'name' },
      { words: 'measure', of: ({ q }) => words.quality[q].words },
      { words: 'value', of: ({ i, q }) => slides.quality_values[q][i], kind: 'num', digits: 3, show: ({ i, q }) => `${number(slides.quality_values[q][i], 3)} ${words.quality[q].unit}` },
      { words: 'spreads', of: ({ i, q }) => slides.quality_scores[q][i], kind: 'num', digits: 1 },
      { words: 'QC', of: ({ i }) => slides.qc_verdict[i] },
    ],
  });
}
