// The figures of a run.

const MOST_POINTS = 2000; // more are drawn as density: no element of the page for each of ten thousand slides
const BINS = 30;

/** How many of some rows have each value; rows that are marked by the highlight apart. */
function tally(rows, values, marked) {
  const counts = new Map();
  for (const row of rows) {
    const value = values[row] ?? NONE;
    const count = counts.get(value) ?? { n: 0, marked: 0 };
    count.n += 1;
    if (marked.has(row)) count.marked += 1;
    counts.set(value, count);
  }
  return counts;
}

/** Terms that occur in the run, those of the rows without one last. */
function present(terms, values, rows = everySpecimen) {
  const seen = new Set(rows.map((row) => values[row] ?? NONE));
  const known = new Set(terms.map((term) => term.key));
  const extra = [...seen].filter((key) => !known.has(key) && key !== NONE).sort()
    .map((key) => ({ key, words: key, colour: words.other }));
  const none = seen.has(NONE) ? [{ key: NONE, words: 'none', colour: '#ffffff' }] : [];
  return [...terms.filter((term) => seen.has(term.key)), ...extra, ...none];
}

/** Bars of specimens by one of their columns; a click filters. */
function bars(name, { title, note, key, terms, always = [] }) {
  const shown = () => {
    const there = present(terms, specimens[key]);
    return terms.filter((term) => always.includes(term.key) || there.includes(term)).concat(there.filter((t) => !terms.includes(t)));
  };
  const counts = () => tally(state.specimens, specimens[key], state.markedSpecimens);
  figure(name, {
    title, note,
    data: () => [[key, 'meaning', 'specimens'], shown().map((t) => [t.key === NONE ? null : t.key, t.words, counts().get(t.key)?.n ?? 0])],
    draw(body, made) {
      const of = counts();
      const all = shown().reverse();
      const n = (term) => of.get(term.key)?.n ?? 0;
      const most = Math.max(1, ...all.map(n));
      const dim = state.filters.has(key) ? (term) => (filtered(key, term.key) ? 1 : 0.35) : () => 1;
      const y = all.map((term) => plain(term.words));
      const traces = [{
        type: 'bar', orientation: 'h', y, x: all.map(n), customdata: all.map((term) => term.key),
        marker: { color: all.map((term) => term.colour), opacity: all.map(dim), line: { color: EDGE, width: 1 } },
        text: all.map((term) => `${whole.format(n(term))}  (${percent(n(term), state.specimens.length)})`), textposition: 'outside',
        cliponaxis: false, hovertemplate: '%{y}<br>specimens: %{x}<extra></extra>',
      }];
      if (state.markedSpecimens.size) {
        traces.push({
          type: 'bar', orientation: 'h', y, x: all.map((term) => of.get(term.key)?.marked ?? 0), customdata: all.map((term) => term.key),
          marker: { color: MARK }, width: 0.16, offset: -0.08, hovertemplate: '%{x} highlighted<extra></extra>',
        });
      }
      plot(body, made, traces, {
        height: 60 + 31 * all.length, barmode: 'overlay', margin: { l: 10, r: 20, t: 4, b: 34 },
        xaxis: { title: { text: 'specimens', font: { size: 11 } }, range: [0, most * 1.4], dtick: most < 6 ? 1 : undefined, rangemode: 'tozero' },
        yaxis: { ticksuffix: '  ', fixedrange: true, type: 'category' },
      }, (point) => toggle(key, point.customdata));
    },
  });
}

/** How a cloud is to be read. */
function cloudNote(n) {
  return n > MOST_POINTS ? 'Darker is more slides; filter to fewer than 2000 for single ones, or highlight some.' : 'A point is a slide; a click opens the case.';
}

/** A cloud of slides, or of many their density and those that are marked. */
function cloud(body, made, { rows, x, y, group, terms, xaxis, yaxis, shapes = [], annotations = [] }) {
  const known = rows.filter((i) => x(i) !== null && y(i) !== null && x(i) !== undefined && y(i) !== undefined);
  if (!known.length) return empty(body, 'No slide here has both measures.');
  const hover = (i) => `${plain(slides.slide_id[i])}<br>${plain(xaxis.words)} ${number(x(i))}<br>${plain(yaxis.words)} ${number(y(i), 3)}`;
  const traces = [];
  const points = (some, extra) => ({
    type: 'scatter', mode: 'markers', x: some.map(x), y: some.map(y), customdata: some, text: some.map(hover),
    hovertemplate: '%{text}<extra></extra>', ...extra,
  });
  if (known.length > MOST_POINTS) {
    const scale = xaxis.log ? (i) => Math.log10(x(i)) : x;
    const scaleY = yaxis.log ? (i) => Math.log10(y(i)) : y;
    const [left, top] = [scale, scaleY].map((of) => {
      const all = known.map(of).filter(Number.isFinite);
      const low = all.reduce((a, b) => Math.min(a, b), Infinity);
      const high = all.reduce((a, b) => Math.max(a, b), -Infinity);
      return { low, step: (high - low || 1) / 40 };
    });
    const z = Array.from({ length: 40 }, () => new Array(40).fill(null));
    for (const i of known) {
      const across = Math.min(39, Math.floor((scale(i) - left.low) / left.step));
      const up = Math.min(39, Math.floor((scaleY(i) - top.low) / top.step));
      if (Number.isFinite(across) && Number.isFinite(up)) z[up][across] = (z[up][across] ?? 0) + 1;
    }
    const middles = ({ low, step }, log) => Array.from({ length: 40 }, (_, k) => (log ? 10 ** (low + (k + 0.5) * step) : low + (k + 0.5) * step));
    traces.push({
      type: 'heatmap', x: middles(left, xaxis.log), y: middles(top, yaxis.log), z: z.map((row) => row.map((n) => (n ? Math.sqrt(n) : null))), text: z,
      hoverongaps: false, showscale: false, zmin: 0, colorscale: [[0, '#e3edf5'], [0.3, '#9dbdd6'], [0.6, '#4a7fa8'], [1, '#0f2f4a']],
      hovertemplate: 'slides: %{text}<extra></extra>',
    });
  } else {
    for (const term of present(terms, Object.fromEntries(known.map((i) => [i, group(i)])), known)) {
      const some = known.filter((i) => (group(i) ?? NONE) === term.key);
      const faded = state.marked.size ? some.map((i) => (state.marked.has(i) ? 1 : 0.25)) : 0.9;
      traces.push(points(some, { name: plain(term.words), marker: { size: 9, color: term.colour, opacity: faded, line: { color: EDGE, width: 1 } } }));
    }
  }
  const marked = known.filter((i) => state.marked.has(i)).slice(0, MOST_POINTS);
  if (marked.length) {
    traces.push(points(marked, { name: 'highlighted', marker: { size: 14, symbol: 'circle-open', color: MARK, line: { width: 2, color: MARK } } }));
  }
  return plot(body, made, traces, {
    height: 360, showlegend: known.length <= MOST_POINTS, shapes, annotations,
    legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, font: { size: 11 } }, margin: { l: 10, r: 16, t: 30, b: 40 },
    xaxis: { title: { text: plain(xaxis.words) }, type: xaxis.log ? 'log' : 'linear', ...alone(xaxis, known.map(x)), ...xaxis.more },
    yaxis: { title: { text: plain(yaxis.words) }, type: yaxis.log ? 'log' : 'linear', ...alone(yaxis, known.map(y)), ...yaxis.more },
  }, (point) => Number.isInteger(point.customdata) && openCard(slides.specimen_row[point.customdata], point.customdata));
}

// A single value would stand in the middle of an axis that also has what no measure can be.
const alone = (axis, values) => (!axis.log && new Set(values).size < 2 ? { rangemode: 'tozero' } : {});

function makeFigures() {
  figure('funnel', {
    title: 'How far slides came', note: 'A bar filters the slides that reached its stage and came no further.',
    data: () => [['stage', 'meaning', 'slides', 'specimens', 'patients'], stages()],
    draw(body) {
      body.replaceChildren(el('div', { class: 'funnel' }, stages().map(([stage, meaning, n, ofSpecimens, patients]) => el('div', { class: 'step' },
        el('span', {}, stage),
        el('button', { type: 'button', class: 'bar', style: { padding: 0, border: 0 }, title: `slides that came to “${stage}” and no further`, onclick: () => toggle('stage', stage) },
          el('i', { style: { width: `${(100 * n) / Math.max(1, state.slides.length)}%` } }),
          el('b', {}, whole.format(n), el('small', {}, ` ${n === 1 ? 'slide' : 'slides'} · ${plural(ofSpecimens, 'specimen')} · ${plural(patients, 'patient')}`))),
        el('span', { class: 'what' }, meaning)))));
    },
  });
  figure('exclusions', {
    title: 'Why slides came no further', long: true,
    note: () => (causes().length ? 'The first cause of each slide; a click filters.' : 'Every slide led to a result.'),
    data: () => [['stage', 'why', 'slides'], causes()],
    draw(body) {
      const most = Math.max(1, ...causes().map(([, , n]) => n));
      const groups = words.stages.map(({ key }) => [key, causes().filter(([stage]) => stage === key)]).filter(([, some]) => some.length);
      body.replaceChildren(el('div', { class: 'causes' }, groups.flatMap(([stage, some]) => [
        el('h4', {}, `${stage}, but not ${words.stages[words.stages.findIndex((s) => s.key === stage) + 1].key}`),
        ...some.slice(0, 14).map(([, why, n]) => rowButton(why, n, n / most, filtered('left', why), () => toggle('left', why))),
      ])));
    },
  });
  bars('her2_classes', {
    title: 'HER2 class of the specimens', key: 'her2_class', terms: words.classes,
    note: 'From IHC and ISH together. Low and ultralow are derived from the IHC score; ASCO/CAP has no such categories.',
    always: ['pos_IHC3', 'low_2plus', 'low_1plus', 'ultralow', 'null'],
  });
  bars('ihc_scores', { title: 'IHC score', key: 'score', terms: words.scores.slice().reverse(), note: 'Tumour cells of all slides of a specimen, pooled.', always: ['0', '1+', '2+', '3+'] });
  bars('ish_groups', { title: 'ISH group', key: 'ish_group', terms: words.groups, note: 'ASCO/CAP groups by ratio and HER2 copies; none where no ISH slide could be grouped.' });

  let level = 'membrane_od_mean';
  const LEVELS = [['membrane_od_mean', 'membrane OD'], ['h_score', 'H-score'], ['p_any_pct', 'stained cells, %'], ['p2_pct', 'cells of 2+ and more, %'], ['p3_pct', 'cells of 3+, %'],
    ['completeness_mean', 'completeness of membranes']].map(([key, text]) => ({ key, words: text }));
  const levelled = () => state.slides.filter((i) => slides[level][i] !== null);
  figure('expression', {
    title: 'Expression by IHC score', note: () => `${plural(levelled().length, 'IHC slide')}; colours are scores of slides.`,
    controls: [select(LEVELS, level, (key) => { level = key; figures.get('expression').update(); })],
    data: () => [['slide_id', 'score', level], levelled().map((i) => [slides.slide_id[i], slides.score[i], slides[level][i]])],
    draw(body, made) {
      const rows = levelled();
      if (!rows.length) return empty(body, 'No IHC slide was measured here.');
      const top = everySlide.reduce((most, i) => Math.max(most, slides[level][i] ?? 0), 0) || 1;
      const step = top / BINS;
      const x = Array.from({ length: BINS }, (_, k) => (k + 0.5) * step);
      const stacked = new Array(BINS).fill(0);
      for (const i of rows) stacked[Math.min(BINS - 1, Math.floor(slides[level][i] / step))] += 1;
      const traces = present(words.scores, slides.score, rows).map((term) => {
        const counts = new Array(BINS).fill(0);
        for (const i of rows) if ((slides.score[i] ?? NONE) === term.key) counts[Math.min(BINS - 1, Math.floor(slides[level][i] / step))] += 1;
        return { type: 'bar', name: plain(term.words), x, y: counts, width: step, marker: { color: term.colour, line: { color: EDGE, width: 0.7 } }, hovertemplate: `slides around %{x:.3g}: %{y}<extra>${plain(term.words)}</extra>` };
      });
      return plot(body, made, traces, {
        barmode: 'stack', bargap: 0, showlegend: true, legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, font: { size: 11 } }, margin: { l: 10, r: 16, t: 28, b: 40 },
        xaxis: { title: { text: LEVELS.find((one) => one.key === level).words }, rangemode: 'tozero' }, yaxis: { title: { text: 'slides' }, rangemode: 'tozero', dtick: Math.max(...stacked) < 6 ? 1 : undefined },
      });
    },
  });
  const inIsh = () => state.slides.filter((i) => slides.ish_her2_mean[i] !== null);
  if (everySlide.some((i) => slides.ish_her2_mean[i] !== null)) {
    figure('ish', {
      title: 'ISH: ratio and copies', note: () => `Lines are the cut-offs of ASCO/CAP: ratio 2.0, and 4.0 and 6.0 HER2 copies. ${cloudNote(inIsh().length)}`,
      data: () => [['slide_id', 'ish_group', 'ish_ratio', 'ish_her2_mean'], inIsh().map((i) => [slides.slide_id[i], slides.ish_group[i], slides.ish_ratio[i], slides.ish_her2_mean[i]])],
      draw(body, made) {
        const line = (axis, at) => ({ type: 'line', layer: 'below', line: { color: '#5a6776', width: 1.2, dash: 'dash' },
          ...(axis === 'x' ? { x0: at, x1: at, yref: 'paper', y0: 0, y1: 1 } : { y0: at, y1: at, xref: 'paper', x0: 0, x1: 1 }) });
        cloud(body, made, {
          rows: inIsh(), x: (i) => slides.ish_ratio[i], y: (i) => slides.ish_her2_mean[i], group: (i) => slides.ish_group[i], terms: words.groups,
          xaxis: { words: 'HER2/CEP17 ratio', log: true, more: { showgrid: false, tickvals: [0.5, 1, 2, 4, 8, 16], range: ranged(inIsh().map((i) => slides.ish_ratio[i]), 0.8, 4) } },
          yaxis: { words: 'HER2 copies a nucleus', log: true, more: { showgrid: false, tickvals: [1, 2, 4, 6, 10, 20], range: ranged(inIsh().map((i) => slides.ish_her2_mean[i]), 1.5, 9) } },
          shapes: [line('x', 2), line('y', 4), line('y', 6)],
        });
      },
    });
  } else byId('fig-ish').remove();

  figure('coverage', {
    title: 'Which specimens have what', long: true,
    note: () => `Rows are combinations, the commonest first; a click filters. ${absent()}`,
    data: () => [[...words.coverage, 'specimens'], combinations().map(([bits, n]) => [...words.coverage.map((_, at) => Boolean(bits & (1 << at))), n])],
    draw: drawCoverage,
  });

  const drawn = words.measures.filter(({ key }) => everySlide.some((i) => slides[key][i] !== null));
  let measure = drawn[0];
  const measured = () => state.slides.filter((i) => measure && slides[measure.key][i] !== null);
  const at = () => (measure?.ish ? 'ish_her2_mean' : 'membrane_od_mean');
  figure('heterogeneity', {
    title: 'How mixed the slides are, against their level',
    note: () => `${plural(measured().length, 'slide')} with this measure. Some spread follows from the level alone, so compare slides of like level. ${cloudNote(measured().length)}`,
    controls: drawn.length ? [select(drawn, measure?.key, (key) => { measure = drawn.find((one) => one.key === key); figures.get('heterogeneity').update(); })] : [],
    data: () => [['slide_id', 'score', at(), measure?.key], measured().map((i) => [slides.slide_id[i], slides.score[i], slides[at()][i], slides[measure.key][i]])],
    draw(body, made) {
      if (!measure) return empty(body, 'No slide has a measure of heterogeneity.');
      return cloud(body, made, {
        rows: measured(), x: (i) => slides[at()][i], y: (i) => slides[measure.key][i],
        group: (i) => (measure.ish ? slides.ish_group[i] : slides.score[i]), terms: measure.ish ? words.groups : words.scores,
        xaxis: { words: measure.ish ? 'HER2 copies a nucleus' : 'mean membrane OD' }, yaxis: { words: measure.words },
      });
    },
  });

  figure('disagreements', {
    title: 'Specimens in which something disagrees', note: () => (kinds().some(([, n]) => n) ? 'A click filters.' : 'Nothing disagrees here.'),
    data: () => [['between', 'specimens'], kinds().map(([kind, n]) => [words.kinds[kind], n])],
    draw(body) {
      const most = Math.max(1, ...kinds().map(([, n]) => n));
      body.replaceChildren(el('div', { class: 'causes' }, kinds().map(([kind, n]) => rowButton(words.kinds[kind], n, n / most, filtered('kind', kind), () => n && toggle('kind', kind)))));
    },
  });
  const read = () => state.slides.filter((i) => slides.reader[i] && slides.machine[i]);
  figure('reader_machine', {
    title: 'Reader and machine', note: () => agreement(read()),
    data: () => [['reader', 'machine', 'slides'], pairs(read())],
    draw(body, made) {
      if (!read().length) return empty(body, 'No slide has both a score of a reader and one of this run.');
      const [readers, machines] = [slides.reader, slides.machine].map((of) => levelsOf(read().map((i) => of[i])));
      const counts = new Map(pairs(read()).map(([reader, machine, n]) => [`${reader}|${machine}`, n]));
      const z = readers.map((reader) => machines.map((machine) => counts.get(`${reader}|${machine}`) ?? 0));
      return plot(body, made, [{
        type: 'heatmap', x: machines.map((one) => plain(one)), y: readers.map((one) => plain(one)), z, xgap: 3, ygap: 3, showscale: false,
        colorscale: [[0, '#f4f6f8'], [0.001, '#dbe8f2'], [1, '#24587f']], customdata: readers.map((reader) => machines.map((machine) => `${reader} → ${machine}`)),
        text: z.map((row) => row.map((n) => (n ? whole.format(n) : ''))), texttemplate: '%{text}', hovertemplate: 'reader %{y}, machine %{x}<br>slides: %{z}<extra></extra>',
      }], {
        height: 90 + 46 * readers.length, margin: { l: 10, r: 10, t: 8, b: 40 },
        xaxis: { title: { text: 'machine' }, fixedrange: true, type: 'category', showgrid: false }, yaxis: { title: { text: 'reader' }, ticksuffix: ' ', fixedrange: true, type: 'category', showgrid: false },
      },
      (point) => point.z && toggle('pair', point.customdata));
    },
  });

  figure('quality', {
    title: 'Quality control', note: `Distance from the median of the assay, in units of the usual spread. Beyond ${words.outlying} a slide is an outlier (points, drawn at 12 if further; a click opens the case).`,
    data: () => [['slide_id', 'measure', 'value', 'score'], words.quality.flatMap(({ words: text }, q) => state.slides.filter((i) => slides.quality_values[q][i] !== null)
      .map((i) => [slides.slide_id[i], text, slides.quality_values[q][i], slides.quality_scores[q][i]]))],
    draw: drawQuality,
  });
  drawBatches();
}

// What a run's tables do not hold, where no table beside them was named.
function absent() {
  const none = [['outcome', '--clinical'], ['RNA', '--rna']].filter(([item]) => !words.coverage.includes(item));
  return none.map(([item, option]) => `Who has ${item} is shown with her2 report ${option} TABLE.`).join(' ');
}

function ranged(values, low, high) {
  const known = values.filter((value) => value > 0);
  return [Math.log10(Math.min(low, ...known) * 0.9), Math.log10(Math.max(high, ...known) * 1.1)];
}

function stages() {
  return words.stages.map(({ key, meaning }, at) => {
    const reached = state.slides.filter((i) => slides.stage[i] >= at);
    return [key, meaning, reached.length, new Set(reached.map((i) => slides.specimen_row[i])).size, new Set(reached.map((i) => slides.patient_id[i] ?? slides.case_id[i])).size];
  });
}

function causes() {
  const counts = new Map();
  for (const i of state.slides) {
    if (!slides.left[i]) continue;
    const key = `${slides.stage[i]}|${slides.left[i]}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].map(([key, n]) => [Number(key[0]), key.slice(2), n]).sort((a, b) => a[0] - b[0] || b[2] - a[2] || (a[1] < b[1] ? -1 : 1))
    .map(([stage, why, n]) => [words.stages[stage].key, why, n]);
}

function kinds() {
  return Object.keys(words.kinds).map((kind) => [kind, state.specimens.filter((s) => specimens.disagreements[s].some(([one]) => one === kind)).length]);
}

function pairs(rows) {
  const counts = new Map();
  for (const i of rows) {
    const key = `${slides.reader[i]}|${slides.machine[i]}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const before = (a, b) => (a < b ? -1 : Number(a > b));
  return [...counts].map(([key, n]) => [...key.split('|'), n]).sort((a, b) => before(a[0], b[0]) || before(a[1], b[1]));
}

/** Agreement in words; kappa belongs to her2 agreement. */
function agreement(rows) {
  if (!rows.length) return '';
  const tier = (level) => level.split(' ')[0];
  const same = rows.filter((i) => tier(slides.reader[i]) === tier(slides.machine[i])).length;
  return `${whole.format(same)} of ${plural(rows.length, 'slide')} agree on the score (${percent(same, rows.length)}), null and ultralow taken together. A click filters.`;
}

/** Rows or columns of reader beside machine: all scores, and the parts of 0 that occur in place of the 0 that does not. */
function levelsOf(levels) {
  const seen = new Set(levels);
  const zeros = ['0', '0 null', '0 ultralow'].filter((level) => seen.has(level));
  const steps = words.scores.map((term) => term.key).filter((step) => step !== '0');
  const others = [...seen].filter((level) => level !== '0' && !level.startsWith('0 ') && !steps.includes(level)).sort();
  return [...(zeros.length ? zeros : ['0']), ...steps, ...others];
}

function combinations() {
  const counts = new Map();
  for (const s of state.specimens) counts.set(specimens.covered[s], (counts.get(specimens.covered[s]) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || b[0] - a[0]);
}

function drawCoverage(body) {
  const all = combinations();
  if (!all.length) return empty(body, 'No specimen here.');
  const most = all[0][1];
  const total = words.coverage.map((_, at) => state.specimens.filter((s) => specimens.covered[s] & (1 << at)).length);
  return body.replaceChildren(el('div', { class: 'scroll' }, el('table', { class: 'matrix' },
    el('thead', {}, el('tr', {}, words.coverage.map((item) => el('th', { scope: 'col' }, item)), el('th', {}, 'specimens'))),
    el('tbody', {}, all.slice(0, 24).map(([bits, n]) => el('tr', {},
      words.coverage.map((item, at) => el('td', { class: bits & (1 << at) ? 'has' : 'not', title: item }, el('i'))),
      el('td', {}, rowButton('', n, n / most, filtered('covered', String(bits)), () => toggle('covered', String(bits)))))),
    el('tr', { class: 'total' }, total.map((n) => el('td', {}, whole.format(n))), el('td', {}, `have it, of ${whole.format(state.specimens.length)}`))))),
  all.length > 24 ? el('p', { class: 'note' }, `${all.length - 24} rarer combinations are not shown.`) : '');
}

function drawQuality(body, made) {
  const traces = [];
  const names = [];
  const clip = (score) => Math.max(-12, Math.min(12, score));
  const outliers = { x: [], y: [], customdata: [], text: [] };
  words.quality.forEach(({ words: text, unit }, q) => {
    const known = state.slides.filter((i) => slides.quality_scores[q][i] !== null);
    if (!known.length) return;
    names.push(text);
    const box = boxOf(known.map((i) => slides.quality_scores[q][i]));
    traces.push({
      type: 'box', orientation: 'h', y: [text], q1: [box.q1], median: [box.median], q3: [box.q3], lowerfence: [clip(box.low)], upperfence: [clip(box.high)],
      fillcolor: '#cfdfeb', line: { color: '#4a7fa8', width: 1.2 }, hoverinfo: 'skip', width: 0.5,
    });
    for (const i of known) {
      const score = slides.quality_scores[q][i];
      if (Math.abs(score) <= words.outlying || outliers.x.length >= MOST_POINTS) continue;
      outliers.x.push(clip(score));
      outliers.y.push(text);
      outliers.customdata.push(i);
      outliers.text.push(`${plain(slides.slide_id[i])}<br>${plain(text)} ${number(slides.quality_values[q][i], 3)} ${plain(unit)} (${number(score, 1)} spreads)`);
    }
  });
  if (!names.length) return empty(body, 'Too few slides of one assay (8 are needed) to say which stand out.');
  traces.push({ type: 'scatter', mode: 'markers', ...outliers, hovertemplate: '%{text}<extra></extra>',
    marker: { size: 8, color: outliers.customdata.map((i) => (state.marked.has(i) ? MARK : '#c0502a')), opacity: 0.8, line: { color: '#ffffff', width: 0.8 } } });
  const rule = (at) => ({ type: 'line', x0: at, x1: at, yref: 'paper', y0: 0, y1: 1, layer: 'below', line: { color: '#7c8894', width: 1, dash: 'dot' } });
  return plot(body, made, traces, {
    height: 70 + 32 * names.length, shapes: [rule(-words.outlying), rule(words.outlying)], margin: { l: 10, r: 16, t: 6, b: 40 },
    xaxis: { title: { text: 'spreads from the median' }, range: [-12.8, 12.8], zeroline: true },
    yaxis: { type: 'category', categoryorder: 'array', categoryarray: names.slice().reverse(), ticksuffix: '  ', fixedrange: true },
  }, (point) => Number.isInteger(point.customdata) && openCard(slides.specimen_row[point.customdata], point.customdata));
}

const MOST_GROUPS = 24;

function drawBatches() {
  const distinct = (key) => new Set(slides[key].filter((value) => value !== null)).size;
  const factors = words.factors.filter(({ key }) => distinct(key) > 1);
  const measures = words.batch_measures.filter(({ key }) => everySlide.some((i) => slides[key][i] !== null));
  let [factor, value] = [factors[0], measures[0]];
  const rows = () => state.slides.filter((i) => factor && value && slides[factor.key][i] !== null && slides[value.key][i] !== null);
  const again = () => figures.get('batches').update();
  figure('batches', {
    title: 'A measure by group',
    note: () => (factors.length ? 'Boxes hold the middle half; numbers of slides stand below. Groups may differ because their patients do.' : ''),
    controls: factors.length ? [select(measures, value?.key, (key) => { value = measures.find((one) => one.key === key); again(); }), 'by',
      select(factors, factor?.key, (key) => { factor = factors.find((one) => one.key === key); again(); })] : [],
    data: () => [['slide_id', factor?.words, value?.words], rows().map((i) => [slides.slide_id[i], slides[factor.key][i], slides[value.key][i]])],
    draw(body, made) {
      if (!factors.length) {
        const known = words.factors.filter(({ key }) => distinct(key) === 1).map(({ key, words: text }) => `${text} ${slides[key].find((one) => one !== null)}`);
        return empty(body, `There is one group of slides only${known.length ? ` (${known.join('; ')})` : ''}: the manifest’s columns scanner, laboratory, antibody_clone, collection_date and others tell groups apart.`);
      }
      const groups = new Map();
      for (const i of rows()) {
        const group = slides[factor.key][i];
        if (!groups.has(group)) groups.set(group, []);
        groups.get(group).push(slides[value.key][i]);
      }
      let all = [...groups].sort(([a], [b]) => (a < b ? -1 : 1));
      const left = Math.max(0, all.length - MOST_GROUPS);
      if (left) all = factor.key === 'f_month' ? all.slice(-MOST_GROUPS) : all.sort(([, a], [, b]) => b.length - a.length).slice(0, MOST_GROUPS);
      if (!all.length) return empty(body, 'No slide here has this measure.');
      const boxes = all.map(([, values]) => boxOf(values));
      const x = all.map(([group, values]) => `${plain(group)}<br>n = ${whole.format(values.length)}`);
      return plot(body, made, [{
        type: 'box', x, q1: boxes.map((b) => b.q1), median: boxes.map((b) => b.median), q3: boxes.map((b) => b.q3), lowerfence: boxes.map((b) => b.low), upperfence: boxes.map((b) => b.high),
        fillcolor: '#cfdfeb', line: { color: '#24587f', width: 1.3 }, width: Math.min(0.5, 0.12 * all.length), customdata: all.map(([group]) => group),
      }], { height: 320, xaxis: { type: 'category', tickangle: all.length > 8 ? -40 : 0, title: { text: left ? `${left} more groups are not shown` : '' } }, yaxis: { title: { text: value.words } } },
      (point) => toggle(factor.key, all[point.pointNumber ?? point.pointIndex]?.[0] ?? point.customdata));
    },
  });
  figure('batch_tests', {
    title: 'Which groups differ', long: true,
    note: 'Kruskal–Wallis over all slides of the run, whatever is filtered; q is p adjusted for all of these tests. The effect is the share of the variance of ranks that lies between groups.',
    data: () => [['factor', 'measure', 'groups', 'n', 'effect', 'p', 'q'], report.tests.map((t) => [t.factor, t.measure, t.groups, t.n, t.effect, t.p, t.q])],
    draw(body) {
      if (!report.tests.length) return empty(body, 'No two groups have five slides each.');
      const p = (value) => (value < 0.001 ? '< 0.001' : value.toFixed(3));
      return body.replaceChildren(el('div', { class: 'scroll' }, el('table', {},
        el('thead', {}, el('tr', {}, ['measure', 'by', 'groups', 'slides', 'effect', 'q'].map((text, k) => el('th', { class: k > 1 ? 'num' : '' }, text)))),
        el('tbody', {}, report.tests.slice(0, 12).map((t) => el('tr', {}, el('td', { class: 'wrap' }, t.measure), el('td', { class: 'wrap' }, t.factor), ...[t.groups, whole.format(t.n), t.effect.toFixed(2), p(t.q)].map((cell) => el('td', { class: 'num' }, cell))))))),
      report.tests.length > 12 ? el('p', { class: 'note' }, `${report.tests.length - 12} weaker ones are in the CSV.`) : '');
    },
  });
}
