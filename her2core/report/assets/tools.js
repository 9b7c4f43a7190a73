// The toolbox: one search, one set of filters and one highlight for every figure, table and card.

/** What slides are filtered by: of a slide, or (specimen: true) of its specimen. */
const FACETS = [
  { key: 'review', title: 'A person should look', specimen: true, of: (s) => (specimens.review[s] ? 'yes' : 'no') },
  { key: 'her2_class', title: 'HER2 class', specimen: true, of: (s) => specimens.her2_class[s], terms: words.classes },
  { key: 'her2_status', title: 'HER2 status', specimen: true, of: (s) => specimens.her2_status[s], terms: words.statuses },
  { key: 'score', title: 'IHC score', specimen: true, of: (s) => specimens.score[s], terms: words.scores },
  { key: 'ish_group', title: 'ISH group', specimen: true, of: (s) => specimens.ish_group[s], terms: words.groups },
  { key: 'kind', title: 'Disagreement', specimen: true, many: true, of: (s) => specimens.disagreements[s].map(([kind]) => kind),
    name: (kind) => words.kinds[kind] },
  { key: 'stage', title: 'How far it came', of: (i) => words.stages[slides.stage[i]].key },
  { key: 'left', title: 'Why no further', of: (i) => slides.left[i] },
  { key: 'assay', title: 'Assay', of: (i) => slides.assay[i] },
  { key: 'qc_verdict', title: 'Quality control', of: (i) => slides.qc_verdict[i] },
  { key: 'outlier', title: 'QC outlier', of: (i) => (outlying(i) ? 'yes' : 'no') },
  ...words.factors.map((factor) => ({
    key: factor.key, title: factor.words[0].toUpperCase() + factor.words.slice(1), of: (i) => slides[factor.key][i],
  })),
  { key: 'covered', title: 'Data', specimen: true, hidden: true, of: (s) => String(specimens.covered[s]),
    name: (bits) => words.coverage.filter((_, at) => bits & (1 << at)).join(', ') || 'nothing' },
  { key: 'pair', title: 'Reader, machine', hidden: true,
    of: (i) => (slides.reader[i] && slides.machine[i] ? `${slides.reader[i]} → ${slides.machine[i]}` : null) },
];
const facetOf = Object.fromEntries(FACETS.map((facet) => [facet.key, facet]));
const MOST_VALUES = 60;

function outlying(i) {
  return slides.quality_scores.some((scores) => scores[i] !== null && Math.abs(scores[i]) > words.outlying);
}

/** Values of a facet of a slide, as texts. */
function valuesOf(facet, i) {
  const at = facet.specimen ? slides.specimen_row[i] : i;
  const value = at === null ? null : facet.of(at);
  if (facet.many) return value === null || !value.length ? [NONE] : value;
  return [value ?? NONE];
}

function nameOf(facet, value) {
  if (value === NONE) return 'none';
  return facet.name?.(value) ?? termOf(facet.terms ?? [], value)?.words ?? value;
}

const texts = everySlide.map((i) => {
  const s = slides.specimen_row[i];
  const parts = [slides.slide_id[i], slides.case_id[i], slides.patient_id[i], slides.specimen_id[i], slides.block_id[i],
    slides.site[i], slides.scanner[i], slides.antibody_clone[i], slides.left[i], slides.message[i], ...slides.notes[i]];
  if (s !== null) parts.push(specimens.class_words[s], ...specimens.why[s]);
  return parts.filter(Boolean).join('\n').toLowerCase();
});

const state = {
  search: '', highlight: '', filters: new Map(),
  slides: everySlide, specimens: everySpecimen, marked: new Set(), markedSpecimens: new Set(),
};

function passes(i, except = null) {
  for (const [key, wanted] of state.filters) {
    if (key !== except && !valuesOf(facetOf[key], i).some((value) => wanted.has(value))) return false;
  }
  return found(i, state.search);
}

/** Whether a slide's texts hold every word of a search. */
function found(i, search) {
  return !search || search.split(/\s+/).every((word) => texts[i].includes(word));
}

function apply() {
  state.slides = everySlide.filter((i) => passes(i));
  const seen = new Set(state.slides.map((i) => slides.specimen_row[i]));
  const bare = !state.filters.size && !state.search;
  state.specimens = bare ? everySpecimen : everySpecimen.filter((s) => seen.has(s));
  state.marked = new Set(state.highlight ? state.slides.filter((i) => found(i, state.highlight)) : []);
  state.markedSpecimens = new Set([...state.marked].map((i) => slides.specimen_row[i]));
  drawToolbox();
  for (const listener of listeners) listener();
}

/** Filter by a value, or undo it. */
function toggle(key, value) {
  const wanted = state.filters.get(key) ?? new Set();
  if (wanted.has(value)) wanted.delete(value);
  else wanted.add(value);
  if (wanted.size) state.filters.set(key, wanted);
  else state.filters.delete(key);
  apply();
}

function filtered(key, value) {
  return state.filters.get(key)?.has(value) ?? false;
}

function drawToolbox() {
  byId('count').textContent = `${whole.format(state.specimens.length)} of ${plural(nSpecimens, 'specimen')}, `
    + `${whole.format(state.slides.length)} of ${plural(nSlides, 'slide')}`;
  const chips = [...state.filters].flatMap(([key, values]) => [...values].map((value) => el('button', {
    type: 'button', class: 'chip', title: 'Remove this filter', onclick: () => toggle(key, value),
  }, `${facetOf[key].title}: ${nameOf(facetOf[key], value)} ×`)));
  byId('shown').hidden = !chips.length && !state.search;
  byId('shown').textContent = `Not the whole run: ${byId('count').textContent}. ${[
    ...[...state.filters].map(([key, values]) => `${facetOf[key].title}: ${[...values].map((value) => nameOf(facetOf[key], value)).join(' or ')}`),
    ...(state.search ? [`search: ${state.search}`] : []),
  ].join('; ')}`;
  if (chips.length || state.search || state.highlight) {
    chips.push(el('button', { type: 'button', class: 'link', id: 'reset', onclick: reset }, 'Reset all'));
  }
  byId('active').replaceChildren(...chips);
  for (const facet of FACETS) if (facet.list?.open) fillFacet(facet);
}

function reset() {
  Object.assign(state, { search: '', highlight: '', filters: new Map() });
  byId('search').value = byId('highlight').value = '';
  apply();
}

/** Counts of a facet's values among what the other filters leave. */
function fillFacet(facet) {
  const counts = new Map(facet.values.map((value) => [value, new Set()]));
  for (const i of everySlide) {
    if (!passes(i, facet.key)) continue;
    for (const value of valuesOf(facet, i)) counts.get(value)?.add(facet.specimen ? slides.specimen_row[i] : i);
  }
  facet.box.replaceChildren(...facet.values.map((value) => {
    const term = termOf(facet.terms ?? [], value);
    return el('label', {},
      el('input', { type: 'checkbox', checked: filtered(facet.key, value), onchange: () => toggle(facet.key, value) }),
      term ? el('i', { class: 'swatch', style: { background: term.colour } }) : null,
      el('span', { title: nameOf(facet, value) }, nameOf(facet, value)),
      el('span', { class: 'n' }, whole.format(counts.get(value).size)));
  }));
}

function makeFacets() {
  for (const facet of FACETS) {
    if (facet.hidden) continue;
    const seen = new Set(everySlide.flatMap((i) => valuesOf(facet, i)));
    const order = facet.terms ? facet.terms.map((term) => term.key) : facet.key === 'stage' ? words.stages.map((s) => s.key) : ['yes', 'no'];
    facet.values = [...order.filter((value) => seen.has(value)),
      ...[...seen].filter((value) => !order.includes(value)).sort()].slice(0, MOST_VALUES);
    if (facet.values.length < 2) continue;
    facet.box = el('div');
    facet.list = el('details', { class: 'facet', ontoggle: () => facet.list.open && fillFacet(facet) },
      el('summary', {}, facet.title), facet.box);
    facet.list.open = ['review', 'her2_class'].includes(facet.key);
    byId('facets').append(facet.list);
  }
}

function typed(input, name) {
  let waiting;
  byId(input).addEventListener('input', (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state[name] = event.target.value.trim().toLowerCase();
      apply();
    }, nSlides > 2000 ? 250 : 60);
  });
}

const SLIDE_COLUMNS = Object.keys(words.headings);
const SPECIMEN_COLUMNS = ['name', 'case_id', 'patient_id', 'specimen_id', 'site', 'collection_date', 'her2_status', 'her2_class',
  'score', 'consensus_score', 'ish_group', 'ish_result', 'n_scored', 'p3_pct', 'p2_pct', 'p_any_pct', 'h_score', 'n_ish', 'ish_ratio',
  'ish_her2_mean', 'ish_cep17_mean', 'review', 'possible', 'why', 'disagreements', 'rules', 'case_rules', 'ish_rules'];

function slidesCsv() {
  const names = [...SLIDE_COLUMNS, 'stage', 'why', 'notes', 'message'];
  return asCsv(names, state.slides.map((i) => [...SLIDE_COLUMNS.map((name) => slides[name][i]),
    words.stages[slides.stage[i]].key, slides.left[i], slides.notes[i], slides.message[i]]));
}

function specimensCsv() {
  return asCsv(SPECIMEN_COLUMNS, state.specimens.map((s) => SPECIMEN_COLUMNS.map((name) => specimens[name][s])));
}

function makeToolbox() {
  makeFacets();
  typed('search', 'search');
  typed('highlight', 'highlight');
  byId('export-slides').addEventListener('click', () => download(`slides-${named}.csv`, slidesCsv()));
  byId('export-specimens').addEventListener('click', () => download(`specimens-${named}.csv`, specimensCsv()));
  byId('print').addEventListener('click', () => window.print());
  if (window.innerWidth <= 820) byId('toolbox').open = false;
}
