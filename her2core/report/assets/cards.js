// Cards of the cases, a page at a time, and the sheet of one case with its pictures at full size.

const CARDS = 12;
let firstCard = 0;
listeners.unshift(() => { firstCard = 0; });

function interval(value, low, high, digits, unit = '') {
  if (value === null || value === undefined) return '–';
  const ends = low === null || low === undefined ? '' : ` (95 %: ${number(low, digits)} to ${number(high, digits)})`;
  return `${number(value, digits)}${unit}${ends}`;
}

function factList(pairs) {
  return el('dl', { class: 'facts' }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== '' && value !== '–')
    .flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]));
}

/** A bar of the classes of a slide's tumour cells, the strongest first. */
function cellBar(i) {
  const counts = words.cells.map(({ key }) => slides[key][i] ?? 0);
  const all = counts.reduce((a, b) => a + b, 0);
  if (!all) return null;
  return el('div', { class: 'stack' }, words.cells.map((term, k) => ({ term, n: counts[k] })).reverse()
    .map(({ term, n }) => el('i', { style: { width: `${(100 * n) / all}%`, background: term.colour }, title: `${term.words}: ${whole.format(n)} cells, ${percent(n, all)}` })));
}

function thumbnail(i) {
  const small = pictured('thumbnails')[i];
  if (small) return el('img', { src: small, alt: `Slide ${slides.slide_id[i]}`, title: slides.slide_id[i], loading: 'lazy' });
  return el('span', { class: 'none' }, slides.picture[i] ? `${slides.slide_id[i]}: see the run’s pictures` : `${slides.slide_id[i]}: no picture`);
}

function card(s) {
  const rows = specimens.slide_rows[s];
  const measured = rows.find((i) => slides.n0[i] !== null);
  return el('article', { class: `case${state.markedSpecimens.has(s) ? ' marked' : ''}`, tabIndex: 0, onclick: () => openCard(s),
    onkeydown: (event) => event.key === 'Enter' && openCard(s) },
  el('header', {}, el('h3', {}, specimens.name[s]), tag(termOf(words.classes, specimens.her2_class[s]), specimens.her2_status[s])),
  el('div', { class: 'thumbs' }, rows.slice(0, 3).map(thumbnail)),
  measured === undefined ? null : cellBar(measured),
  factList([
    ['HER2', specimens.her2_status[s]],
    ['no call', specimens.called[s] ? null : [...new Set(rows.map((i) => slides.left[i]).filter(Boolean))].join('; ')],
    ['IHC', specimens.score[s] && `${specimens.score[s]}${specimens.possible[s] ? `, possible ${specimens.possible[s]}` : ''}, ${plural(specimens.n_scored[s] ?? 0, 'tumour cell')}`],
    ['3+ · ≥2+ · stained', specimens.p3_pct[s] === null ? null : `${number(specimens.p3_pct[s], 1)} · ${number(specimens.p2_pct[s], 1)} · ${number(specimens.p_any_pct[s], 1)} %`],
    ['ISH', specimens.ish_group[s] && `${termOf(words.groups, specimens.ish_group[s])?.words ?? specimens.ish_group[s]}, ratio ${number(specimens.ish_ratio[s], 2)}, ${number(specimens.ish_her2_mean[s], 2)} copies`],
  ]),
  specimens.disagreements[s].length ? el('p', { class: 'note' }, specimens.disagreements[s].map(([kind, text]) => `${words.kinds[kind]}: ${text}`).join('; ')) : null);
}

function makeCards() {
  figure('cases', {
    title: 'Every specimen', long: true,
    note: () => `Those that a person should look at first. ${report.run.n_full} of ${plural(nSlides, 'slide')} have their pictures in this page at full size${report.run.n_full < nSlides ? '; others lie in the run’s folder pictures' : ''}.`,
    draw(body, made) {
      const all = state.specimens.filter((s) => specimens.review[s]).concat(state.specimens.filter((s) => !specimens.review[s]));
      if (!all.length) return empty(body, 'No specimen here.');
      const step = (text, to, disabled) => el('button', { type: 'button', disabled, onclick: () => { firstCard = to; made.update(); made.box.scrollIntoView(); } }, text);
      return body.replaceChildren(el('div', { class: 'cases' }, all.slice(firstCard, firstCard + CARDS).map(card)),
        el('div', { class: 'pager' }, `${firstCard + 1}–${Math.min(firstCard + CARDS, all.length)} of ${whole.format(all.length)}`,
          step('‹ Before', firstCard - CARDS, firstCard === 0), step('Next ›', firstCard + CARDS, firstCard + CARDS >= all.length)));
    },
  });
  window.addEventListener('hashchange', openLinked);
  byId('card').addEventListener('click', (event) => { if (event.target === byId('card')) byId('card').close(); });
}

/** An address that ends in #slide=ID or #case=ID opens a sheet: for links from elsewhere. */
function openLinked() {
  const linked = new URLSearchParams(location.hash.slice(1));
  const i = slides.slide_id.indexOf(linked.get('slide'));
  const s = i < 0 ? specimens.case_id.indexOf(linked.get('case')) : slides.specimen_row[i];
  if (i >= 0) openCard(s, i);
  else if (s >= 0) openCard(s);
}

const PICTURED = { slide: 'The slide, and every cell or nucleus that was counted', fields: 'Six fields at full resolution, plain and with the outlines that were measured', regions: 'Regions' };
const STORED = { slide: 'picture', fields: 'fields_picture', regions: 'regions_picture' };

function picturesOf(i) {
  const full = pictured('pictures')[i] ?? {};
  return words.pictures.filter((kind) => slides[STORED[kind]][i]).map((kind) => {
    const path = slides[STORED[kind]][i];
    const at = report.run.pictures_at;
    const address = full[kind] ?? (at === null ? null : at + path.split('/').map(encodeURIComponent).join('/'));
    const frame = el('figure', { class: 'picture' }, el('figcaption', {}, PICTURED[kind]));
    const gone = () => el('p', { class: 'note' }, `Not in this page. It lies in the run’s output: ${path}`);
    if (address === null) frame.append(gone());
    else {
      frame.append(el('img', { src: address, alt: `${PICTURED[kind]}, ${slides.slide_id[i]}`, loading: 'lazy', title: 'A click shows every pixel',
        onclick: () => frame.classList.toggle('full'), onerror: (event) => event.target.replaceWith(gone()) }));
    }
    return frame;
  });
}

function slideSheet(i) {
  return el('div', { class: 'slide' },
    el('h3', {}, `${slides.slide_id[i]} · ${slides.assay[i]} `, VIEWER && shownIn([i]) !== undefined ? toViewer(slides.slide_id[i], 'open in the viewer') : null),
    el('div', { class: 'two' },
      factList([
        ['state', slides.state_words[i]], ['why no further', slides.left[i]], ['message', slides.message[i]],
        ['IHC score', slides.score[i]], ['possible scores', slides.possible[i]], ['reader', slides.reader[i]],
        ['tumour cells', number(slides.n_scored[i])],
        ['3+', interval(slides.p3_pct[i], slides.p3_low_pct[i], slides.p3_high_pct[i], 1, ' %')],
        ['2+ and more', interval(slides.p2_pct[i], slides.p2_low_pct[i], slides.p2_high_pct[i], 1, ' %')],
        ['stained', interval(slides.p_any_pct[i], slides.p_any_low_pct[i], slides.p_any_high_pct[i], 1, ' %')],
        ['H-score', number(slides.h_score[i], 0)], ['membrane OD', number(slides.membrane_od_mean[i], 3)],
        ['ISH group', slides.ish_group[i]], ['nuclei', number(slides.n_ish[i])],
        ['HER2/CEP17', interval(slides.ish_ratio[i], slides.ish_ratio_low[i], slides.ish_ratio_high[i], 2)],
        ['HER2 copies', interval(slides.ish_her2_mean[i], slides.ish_her2_mean_low[i], slides.ish_her2_mean_high[i], 2)],
        ['CEP17 copies', number(slides.ish_cep17_mean[i], 2)],
      ]),
      factList([
        ['quality', slides.qc_verdict[i]], ['what to know', slides.notes[i].join('; ')], ['outside recommendations', slides.preanalytic[i].join('; ')],
        ['ISH elsewhere', slides.ish_elsewhere[i]], ['tissue', slides.tissue_area_mm2[i] === null ? null : `${number(slides.tissue_area_mm2[i], 2)} mm²`],
        ['pixel', slides.mpp[i] === null ? null : `${slides.mpp[i]} µm`], ['block', slides.block_id[i]], ['scanner', slides.scanner[i]], ['laboratory', slides.laboratory[i]], ['clone', slides.antibody_clone[i]],
        ['rules', slides.rules[i] ?? slides.ish_rules[i]],
      ])),
    cellBar(i), picturesOf(i));
}

/** Ids of the first IHC and the first ISH slide of these that a viewer can open; null without both. */
function pairOf(rows) {
  const of = (ihc) => shownIn(rows.filter((i) => (slides.assay[i] === 'HER2-IHC') === ihc));
  return of(true) === undefined || of(false) === undefined ? null : [of(true), of(false)];
}

/** Open the sheet of a specimen, at one of its slides; of a slide without a specimen, the slide's alone. */
function openCard(s, i = null) {
  const rows = s === null ? [i] : specimens.slide_rows[s];
  const ordered = i === null ? rows : [i, ...rows.filter((one) => one !== i)];
  const close = el('button', { type: 'button', onclick: () => byId('card').close() }, 'Close');
  const pair = VIEWER && pairOf(rows);
  const head = el('header', {}, el('h2', {}, s === null ? slides.slide_id[i] : specimens.name[s]),
    pair ? toViewer(pair[0], 'IHC beside ISH in the viewer', pair[1]) : null, close);
  const parts = s === null ? [] : [el('div', { class: 'two' },
    el('div', {},
      el('p', {}, tag(termOf(words.classes, specimens.her2_class[s]), specimens.class_words[s]), ` HER2 ${specimens.her2_status[s]}`),
      factList([
        ['patient', specimens.patient_id[s]], ['collected', specimens.collection_date[s]],
        ['IHC score', specimens.score[s]], ['possible scores', specimens.possible[s]], ['2026 consensus', specimens.consensus_score[s]],
        ['tumour cells', number(specimens.n_scored[s])],
        ['3+', interval(specimens.p3_pct[s], specimens.p3_low_pct[s], specimens.p3_high_pct[s], 1, ' %')],
        ['2+ and more', interval(specimens.p2_pct[s], specimens.p2_low_pct[s], specimens.p2_high_pct[s], 1, ' %')],
        ['stained', interval(specimens.p_any_pct[s], specimens.p_any_low_pct[s], specimens.p_any_high_pct[s], 1, ' %')],
        ['ISH group', specimens.ish_group[s] && (termOf(words.groups, specimens.ish_group[s])?.words ?? specimens.ish_group[s])],
        ['HER2/CEP17', interval(specimens.ish_ratio[s], specimens.ish_ratio_low[s], specimens.ish_ratio_high[s], 2)],
        ['HER2 copies', interval(specimens.ish_her2_mean[s], specimens.ish_her2_mean_low[s], specimens.ish_her2_mean_high[s], 2)],
        ['ISH result', specimens.ish_result[s]?.replaceAll('_', ' ').toLowerCase()], ['ISH elsewhere', specimens.elsewhere[s].join('; ')],
        ['genetic heterogeneity', specimens.gh_category[s]],
      ])),
    el('div', {},
      el('h3', {}, 'Why, and what to know'),
      specimens.why[s].length ? el('ul', { class: 'why' }, specimens.why[s].map((text) => el('li', {}, text))) : el('p', { class: 'note' }, 'Nothing speaks against the result.'),
      specimens.disagreements[s].length ? el('h3', {}, 'What disagrees') : null,
      el('ul', { class: 'why' }, specimens.disagreements[s].map(([kind, text]) => el('li', {}, `${words.kinds[kind]}: ${text}`))),
      el('h3', {}, 'Rules'),
      factList([['IHC', specimens.rules[s]], ['ISH', specimens.ish_rules[s]], ['both together', specimens.case_rules[s]]])))];
  byId('card').replaceChildren(el('div', { class: 'sheet' }, head, parts, ordered.map(slideSheet)));
  byId('card').showModal();
  byId('card').scrollTop = 0;
}
