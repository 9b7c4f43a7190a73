// The tables of a run.

/** Id of the first of these slides that a viewer can open. */
const shownIn = (rows) => slides.slide_id[rows.find((i) => slides.stage[i] > 0)];

function makeTables() {
  const bySlide = (key, heading, kind, digits) => ({ words: heading, of: (i) => slides[key][i], kind, digits });
  const bySpecimen = (key, heading, kind, digits) => ({ words: heading, of: (s) => specimens[key][s], kind, digits });
  const placeIn = (terms, key) => { const at = terms.findIndex((term) => term.key === key); return at < 0 ? null : terms.length - at; };
  table('specimens', {
    title: 'Specimens', note: 'A click opens the case; a click on a heading sorts.',
    rows: () => state.specimens, marked: (s) => state.markedSpecimens.has(s), open: (s) => openCard(s), slide: (s) => shownIn(specimens.slide_rows[s]),
    csv: () => [SPECIMEN_COLUMNS, state.specimens.map((s) => SPECIMEN_COLUMNS.map((key) => specimens[key][s]))],
    columns: [
      bySpecimen('name', 'specimen', 'name'),
      { words: 'HER2', of: (s) => specimens.her2_status[s] },
      { words: 'class', of: (s) => placeIn(words.classes, specimens.her2_class[s]), show: (s) => tag(termOf(words.classes, specimens.her2_class[s]), words.no_class) },
      bySpecimen('score', 'IHC'),
      bySpecimen('n_scored', 'cells', 'num'), bySpecimen('p3_pct', '3+ %', 'num', 1), bySpecimen('p2_pct', '≥2+ %', 'num', 1), bySpecimen('p_any_pct', 'stained %', 'num', 1),
      { words: 'ISH', of: (s) => specimens.ish_group[s], show: (s) => termOf(words.groups, specimens.ish_group[s])?.words ?? specimens.ish_group[s] ?? '–' },
      bySpecimen('ish_ratio', 'ratio', 'num', 2), bySpecimen('ish_her2_mean', 'copies', 'num', 2),
    ],
    below: (s) => specimens.why[s].join('; '),
  });
  table('slides', {
    title: 'Slides', note: 'Every slide of the manifest, whatever became of it.',
    rows: () => state.slides, marked: (i) => state.marked.has(i), open: (i) => openCard(slides.specimen_row[i], i), slide: (i) => shownIn([i]),
    csv: () => [[...SLIDE_COLUMNS, 'stage', 'why', 'notes'], state.slides.map((i) => [...SLIDE_COLUMNS.map((key) => slides[key][i]), words.stages[slides.stage[i]].key, slides.left[i], slides.notes[i]])],
    columns: [
      bySlide('slide_id', 'slide', 'name'), bySlide('case_id', 'case'), bySlide('assay', 'assay'), bySlide('state_words', 'state'),
      bySlide('score', 'IHC'), bySlide('reader', 'reader'), bySlide('ish_group', 'ISH group'), bySlide('qc_verdict', 'QC'),
      bySlide('n_scored', 'cells', 'num'), bySlide('h_score', 'H-score', 'num', 0), bySlide('ish_ratio', 'ratio', 'num', 2), bySlide('ish_her2_mean', 'copies', 'num', 2),
    ],
    below: (i) => [slides.left[i], ...slides.notes[i]].filter((text, at, all) => text && all.indexOf(text) === at).join('; '),
  });
  const disagreeing = () => state.specimens.flatMap((s) => specimens.disagreements[s].map(([kind, text]) => ({ s, kind, text })));
  table('disagreeing', {
    title: 'Each disagreement', note: '', page: 12, rows: disagreeing, marked: ({ s }) => state.markedSpecimens.has(s), open: ({ s }) => openCard(s), slide: ({ s }) => shownIn(specimens.slide_rows[s]),
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
    open: ({ i }) => openCard(slides.specimen_row[i], i), slide: ({ i }) => shownIn([i]),
    columns: [
      { words: 'slide', of: ({ i }) => slides.slide_id[i], kind: 'name' },
      { words: 'measure', of: ({ q }) => words.quality[q].words },
      { words: 'value', of: ({ i, q }) => slides.quality_values[q][i], kind: 'num', digits: 3, show: ({ i, q }) => `${number(slides.quality_values[q][i], 3)} ${words.quality[q].unit}` },
      { words: 'spreads', of: ({ i, q }) => slides.quality_scores[q][i], kind: 'num', digits: 1 },
      { words: 'QC', of: ({ i }) => slides.qc_verdict[i] },
    ],
  });
}
