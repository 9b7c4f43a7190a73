// The page: heading, key figures, sections, what the run was made with.

function heading() {
  const { run } = report;
  byId('cohort').textContent = run.cohort;
  byId('meta').textContent = [`Run ${run.id}`, `finished ${run.finished}`, run.state === 'complete' ? 'complete' : 'some slides have no result',
    plural(nSlides, 'slide'), plural(run.n_cells, 'cell'), plural(run.n_nuclei, 'nucleus', 'nuclei')].join(' · ');
  byId('nav').append(...[...document.querySelectorAll('main > section')].map((section) => el('a', { href: `#${section.id}` }, section.dataset.nav ?? section.querySelector('h2').textContent)));
}

const isLow = (s) => ['low_1plus', 'low_2plus'].includes(specimens.her2_class[s]);

function tiles() {
  const some = state.specimens;
  const count = (of) => some.filter(of).length;
  const tile = (n, text, colour) => el('div', { class: 'tile' }, el('b', {}, whole.format(n)),
    el('span', {}, `${text} (${percent(n, some.length)})`), el('i', { style: { background: colour } }));
  byId('tiles').replaceChildren(
    el('div', { class: 'tile' }, el('b', {}, whole.format(some.length)), el('span', {}, `${some.length === 1 ? 'specimen' : 'specimens'} of ${plural(new Set(some.map((s) => specimens.patient_id[s] ?? specimens.case_id[s])).size, 'patient')}`)),
    tile(count((s) => specimens.her2_status[s] === 'Positive'), 'positive', colourOf(words.classes, 'pos_IHC3')),
    tile(count(isLow), 'low', colourOf(words.classes, 'low_1plus')),
    tile(count((s) => specimens.her2_class[s] === 'ultralow'), 'ultralow', colourOf(words.classes, 'ultralow')),
    tile(count((s) => specimens.her2_class[s] === 'null'), 'null', colourOf(words.classes, 'null')),
    tile(count((s) => !specimens.called[s]), 'without a call', words.other),
    tile(count((s) => specimens.review[s]), 'for a person to look at', '#e0006c'));
}

function facts() {
  const { run } = report;
  const used = (columns) => [...new Set(columns.flatMap((name) => specimens[name].filter(Boolean)))].sort().join(', ');
  byId('facts').append(el('figure', {}, factList([
    ['manifest', `${run.manifest}, SHA-256 ${run.manifest_sha256.slice(0, 16)}…`],
    ['IHC rules', used(['rules'])], ['ISH rules', used(['ish_rules'])], ['IHC and ISH together', used(['case_rules'])],
    ['made with', Object.entries(run.versions).map(([name, version]) => `${name} ${version}`).join(', ')],
    ['data', `The folder ${run.data_at} beside this page holds the tables behind every figure over the whole run, each as CSV and Parquet; columns.csv says what their columns mean.`],
    ['pictures', `Thumbnails of ${plural(run.n_thumbnails, 'slide')} and the pictures of ${run.n_full} at full size (WebP) are in this page; their files are in the run’s folder pictures.`],
    ['use', 'Research use only. No part is validated for diagnosis.'],
  ])));
}

byId('frame').hidden = false;
heading();
makeToolbox();
listeners.push(tiles);
makeFigures();
makeTables();
makeCards();
facts();
printing();
apply();
openLinked();
window.her2report = {
  state, toggle, reset, apply, slidesCsv, specimensCsv,
  figureData: (name) => figures.get(name).data(),
  drawAll,
};
document.documentElement.dataset.ready = 'yes';
