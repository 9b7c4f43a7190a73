// Two runs: what changed, and their distributions side by side.

const numbers = decoded(report.numbers);
const both = [...numbers.slide_id.keys()];
const SIDES = [['before', '#b9c4cf'], ['after', '#24587f']];

function tiles() {
  const changes = (what, kind) => report.changes.filter((row) => row.what === what && (kind === null ? !['new', 'gone'].includes(row.change) : row.change === kind)).length;
  const tile = (n, text) => el('div', { class: 'tile' }, el('b', {}, whole.format(n)), el('span', {}, text));
  byId('tiles').append(tile(changes('specimen', null), 'specimens with another result'), tile(changes('slide', null), 'slides with another result'),
    tile(changes('slide', 'new'), 'slides new'), tile(changes('slide', 'gone'), 'slides gone'), tile(report.settings.length, 'settings and versions that differ'));
}

function changed(what, title) {
  table(`${what}_changes`, {
    title, note: 'A click on a heading sorts.', rows: () => report.changes.filter((row) => row.what === what),
    columns: [['name', what, 'name'], ['change', 'what changed'], ['before', 'before', 'words'], ['after', 'after', 'words']]
      .map(([key, heading, kind]) => ({ words: heading, of: (row) => row[key], kind })),
  });
}

function transitions() {
  const rows = report.transitions;
  const moved = rows.filter((row) => row.before !== row.after).reduce((sum, row) => sum + row.specimens, 0);
  figure('transitions', {
    title: 'HER2 class before and after', note: `${plural(moved, 'specimen')} of both runs changed class; those on the diagonal did not.`,
    data: () => [['before', 'after', 'specimens'], rows.map((row) => [row.before, row.after, row.specimens])],
    draw(body, made) {
      if (!rows.length) return empty(body, 'No specimen is in both runs.');
      const seen = new Set(rows.flatMap((row) => [row.before, row.after]));
      const terms = [...words.classes, { key: words.no_class, words: words.no_class }].filter((term) => seen.has(term.key));
      const names = terms.map((term) => plain(term.words));
      const count = (before, after) => rows.find((row) => row.before === before.key && row.after === after.key)?.specimens ?? 0;
      const z = terms.map((before) => terms.map((after) => count(before, after)));
      const shade = terms.map((_, k) => terms.map((__, j) => (!z[k][j] ? 0 : k === j ? 1 : 2)));
      return plot(body, made, [{
        type: 'heatmap', x: names, y: names, z: shade, zmin: 0, zmax: 2, xgap: 3, ygap: 3, showscale: false, text: z.map((row) => row.map((n) => (n ? whole.format(n) : ''))),
        texttemplate: '%{text}', colorscale: [[0, '#f4f6f8'], [0.5, '#cfdfeb'], [1, '#24587f']], hovertemplate: 'before %{y}, after %{x}: %{text}<extra></extra>',
      }], {
        height: 130 + 38 * terms.length, margin: { l: 10, r: 10, t: 8, b: 60 }, xaxis: { title: { text: 'after' }, type: 'category', fixedrange: true, showgrid: false },
        yaxis: { title: { text: 'before' }, type: 'category', autorange: 'reversed', ticksuffix: '  ', fixedrange: true, showgrid: false },
      });
    },
  });
}

function sideBySide() {
  const groups = [...new Set(report.distributions.map((row) => row.of))];
  groups.forEach((of, at) => {
    byId('sides').append(el('figure', { id: `fig-side${at}` }));
    const rows = report.distributions.filter((row) => row.of === of);
    figure(`side${at}`, {
      title: of === 'slides' ? 'How far slides came, and no further' : `${of} of the specimens`, note: 'Pale: before. Dark: after.',
      data: () => [['value', 'before', 'after'], rows.map((row) => [row.value, row.before, row.after])],
      draw(body, made) {
        const y = rows.map((row) => plain(row.meaning)).reverse();
        plot(body, made, SIDES.map(([side, color]) => ({
          type: 'bar', orientation: 'h', name: side, y, x: rows.map((row) => row[side]).reverse(), marker: { color },
          text: rows.map((row) => whole.format(row[side])).reverse(), textposition: 'outside', cliponaxis: false, hovertemplate: `%{y}, ${side}: %{x}<extra></extra>`,
        })).reverse(), {
          height: 70 + 42 * rows.length, barmode: 'group', margin: { l: 10, r: 30, t: 4, b: 34 },
          xaxis: { title: { text: of === 'slides' ? 'slides' : 'specimens', font: { size: 11 } }, rangemode: 'tozero', range: [0, 1.2 * Math.max(1, ...rows.flatMap((row) => [row.before, row.after]))] },
          yaxis: { ticksuffix: '  ', fixedrange: true, type: 'category' },
        });
      },
    });
  });
}

function measures() {
  const drawn = Object.keys(words.numbers).filter((key) => numbers[key].some((value) => value !== null)).map((key) => ({ key, words: words.numbers[key] }));
  let measure = drawn[0];
  const known = () => (measure ? both.filter((at) => numbers[measure.key][at] !== null) : []);
  const moved = () => known().filter((at) => numbers[measure.key][at] !== 0);
  const again = () => ['numbers', 'largest'].forEach((name) => figures.get(name).update());
  figure('numbers', {
    title: 'After less before', note: () => `${whole.format(moved().length)} of ${plural(known().length, 'slide')} that both runs measured differ.`,
    controls: drawn.length ? [select(drawn, measure?.key, (key) => { measure = drawn.find((one) => one.key === key); again(); })] : [],
    data: () => [['slide_id', measure?.key], known().map((at) => [numbers.slide_id[at], numbers[measure.key][at]])],
    draw(body, made) {
      const values = moved().map((at) => numbers[measure.key][at]);
      if (!values.length) return empty(body, 'No slide that both runs measured differs.');
      const reach = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const counts = new Array(31).fill(0);
      for (const value of values) counts[Math.min(30, Math.floor(((value + reach) / (2 * reach)) * 31))] += 1;
      const step = (2 * reach) / 31;
      return plot(body, made, [{ type: 'bar', x: counts.map((_, k) => -reach + (k + 0.5) * step), y: counts, width: step, marker: { color: '#24587f' }, hovertemplate: 'slides around %{x:.3g}: %{y}<extra></extra>' }], {
        bargap: 0, height: 280, xaxis: { title: { text: plain(`${measure.words}, after less before`) } }, yaxis: { title: { text: 'slides' }, dtick: Math.max(...counts) < 6 ? 1 : undefined },
      });
    },
  });
  table('largest', {
    title: 'The largest differences', note: '', page: 10, rows: () => moved().sort((a, b) => Math.abs(numbers[measure.key][b]) - Math.abs(numbers[measure.key][a])),
    columns: [{ words: 'slide', of: (at) => numbers.slide_id[at], kind: 'name' }, { words: 'difference', of: (at) => numbers[measure.key][at], kind: 'num', digits: 3 }],
  });
}

byId('frame').hidden = false;
byId('cohort').textContent = report.before.cohort === report.after.cohort ? report.after.cohort : `${report.before.cohort} → ${report.after.cohort}`;
byId('meta').textContent = `Before: run ${report.before.id}, finished ${report.before.finished} · After: run ${report.after.id}, finished ${report.after.finished}`;
tiles();
transitions();
changed('specimen', 'Specimens');
changed('slide', 'Slides');
sideBySide();
measures();
table('settings', {
  title: 'Settings and versions that differ', note: '', rows: () => report.settings,
  columns: [['name', 'name', 'name'], ['kind', 'kind'], ['before', 'before', 'words'], ['after', 'after', 'words']].map(([key, heading, kind]) => ({ words: heading, of: (row) => row[key], kind })),
});
printing();
redraw();
window.her2report = { figureData: (name) => figures.get(name).data(), drawAll };
document.documentElement.dataset.ready = 'yes';
