// Figures: a title, what to read in it, its data as CSV; drawn when they come into view.

const listeners = []; // called when what is shown changes
const figures = new Map();
const FONT = { family: 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, "Noto Sans", sans-serif', size: 12, color: '#1d2833' };
const EDGE = 'rgba(29, 40, 51, 0.45)';
const MARK = '#e0006c';
const GRID = { gridcolor: '#e8ecf0', zerolinecolor: '#c3ccd6', linecolor: '#c3ccd6', automargin: true };

/**
 * A figure of the page.
 * `draw(body)` fills it; `data()` gives its [names, rows]; `controls` are put above it.
 */
function figure(name, { title, note, draw, data, controls = [], long = false }) {
  const box = byId(`fig-${name}`);
  const body = el('div', { class: 'body' });
  const caption = el('p', { class: 'note' });
  const links = el('span', {},
    data ? el('button', { type: 'button', class: 'link', title: 'The data of this figure, as filtered',
      onclick: () => download(`${name}-${named}.csv`, asCsv(...data())) }, 'CSV') : null);
  if (long) box.classList.add('long');
  box.append(el('header', {}, el('h3', {}, title), links), caption,
    controls.length ? el('div', { class: 'controls' }, controls) : '', body);
  const made = { name, box, body, links, data, dirty: true, seen: false, plot: null, update() {
    caption.textContent = typeof note === 'function' ? note() : note ?? '';
    draw(body, made);
    made.dirty = false;
  } };
  figures.set(name, made);
  watcher.observe(box);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const made = figures.get(entry.target.id.slice(4));
    made.seen = entry.isIntersecting;
    if (made.seen && made.dirty) made.update();
  }
}, { rootMargin: '400px' });

function redraw() {
  for (const made of figures.values()) {
    made.dirty = true;
    if (made.seen) made.update();
  }
}
listeners.push(redraw);

function empty(body, text) {
  purge(body);
  body.replaceChildren(el('p', { class: 'empty' }, text));
}

function purge(body) {
  for (const div of body.querySelectorAll('.plot')) div.drawn.finally(() => Plotly.purge(div)); // never while it draws
}

/** Draw with Plotly into a figure's body. */
function plot(body, made, traces, layout, onclick) {
  let div = body.querySelector(':scope > .plot');
  const fresh = !div;
  if (fresh) {
    div = el('div', { class: 'plot' });
    body.replaceChildren(div);
    if (!made.links.querySelector('.svg')) {
      made.links.append(el('button', { type: 'button', class: 'link svg', title: 'This figure as a drawing',
        onclick: () => Plotly.downloadImage(made.body.querySelector('.plot'), { format: 'svg', filename: `${made.name}-${named}` }) }, 'SVG'));
    }
  }
  const full = {
    font: FONT, margin: { l: 10, r: 16, t: 8, b: 36 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    hoverlabel: { font: { size: 12 }, bgcolor: '#ffffff', bordercolor: '#c3ccd6' }, bargap: 0.25, height: 300, dragmode: 'zoom',
    hovermode: 'closest', showlegend: false, ...layout,
    xaxis: { ...GRID, ...layout.xaxis }, yaxis: { ...GRID, ...layout.yaxis },
  };
  div.style.height = `${full.height}px`;
  div.drawn = Plotly.react(div, traces, full, { displayModeBar: false, responsive: true, doubleClick: 'reset' });
  if (fresh) div.on('plotly_click', (event) => made.click?.(event.points[0]));
  made.click = onclick;
}

function select(options, chosen, onchange) {
  return el('select', { onchange: (event) => onchange(event.target.value) },
    options.map(({ key, words: text }) => el('option', { value: key, selected: key === chosen }, text)));
}

function boxOf(values) {
  const sorted = values.slice().sort((a, b) => a - b);
  const [q1, median, q3] = [0.25, 0.5, 0.75].map((share) => quantile(sorted, share));
  const reach = 1.5 * (q3 - q1);
  return { q1, median, q3, low: sorted.find((v) => v >= q1 - reach), high: sorted.findLast((v) => v <= q3 + reach), n: sorted.length };
}

function rowButton(text, n, share, on, onclick) {
  return el('button', { type: 'button', class: `row-button${on ? ' on' : ''}`, onclick },
    el('i', { style: { width: `${100 * share}%` } }), el('span', {}, text), el('span', { class: 'n' }, whole.format(n)));
}

function drawAll() {
  for (const made of figures.values()) if (made.dirty) made.update();
}

/** For print everything is drawn, as wide as the paper; and then as it was. */
function printing() {
  const plots = () => [...figures.values()].map((made) => [made, made.body.querySelector('.plot')]).filter(([, div]) => div);
  window.addEventListener('beforeprint', () => {
    drawAll();
    for (const [made, div] of plots()) {
      const half = made.box.parentElement.classList.contains('grid') && !made.box.classList.contains('wide');
      div.drawn = Plotly.relayout(div, { width: half ? 325 : 665, autosize: false, 'font.size': 9 });
    }
  });
  window.addEventListener('afterprint', () => {
    for (const [, div] of plots()) div.drawn = Plotly.relayout(div, { width: null, autosize: true, 'font.size': FONT.size });
  });
}
