// What pages share: reading their data, elements, words and colours, CSV. Texts become text nodes, never markup.

const read = (name) => JSON.parse(document.getElementById(`data-${name}`).textContent);
const report = read('report');
const words = report.vocabulary;
const named = report.run?.id ?? `${report.before.id}-${report.after.id}`; // in the names of exports
const NONE = '–';

/** A column as an array: repeated texts are stored once. */
function column(stored) {
  return Array.isArray(stored) ? stored : stored.i.map((at) => (at < 0 ? null : stored.d[at]));
}

function decoded(stored) {
  const found = {};
  for (const [name, values] of Object.entries(stored)) found[name] = column(values);
  return found;
}

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === 'class') made.className = value;
    else if (name === 'style') Object.assign(made.style, value);
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== 'list') made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Address of slides in a viewer; null where none is known. `beside` is a slide to stand at its side. */
const VIEWER = document.querySelector('meta[name="her2-viewer"]')?.content || null;
function viewed(id, beside = null) {
  if (!VIEWER || id === undefined) return null;
  const also = beside === null || !VIEWER.includes('#slide=') ? '' : `&beside=${encodeURIComponent(beside)}`;
  return VIEWER.replaceAll('{slide_id}', () => encodeURIComponent(id)) + also;
}
const toViewer = (id, text, beside = null) => el('a', { href: viewed(id, beside), target: '_blank', rel: 'noopener', class: 'viewer', title: `Open ${id} in the viewer`, onclick: (event) => event.stopPropagation() }, text);

const byId = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat('en');
/** A number as people read it; a dash where there is none. */
function number(value, digits = null) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (digits === null && Number.isInteger(value)) return whole.format(value);
  return value.toFixed(digits ?? 2);
}

function percent(part, of) {
  return of ? `${((100 * part) / of).toFixed(part && part < of / 100 ? 1 : 0)} %` : '–';
}

function plural(count, one, many = `${one}s`) {
  return `${whole.format(count)} ${count === 1 ? one : many}`;
}

/** Text for Plotly, which takes some markup. */
function plain(text) {
  return String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

const termOf = (terms, key) => terms.find((term) => term.key === key);
const colourOf = (terms, key) => termOf(terms, key)?.colour ?? words.other;

/** Near-black or white, whichever is legible on a colour (WCAG 2). */
function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const level = parseInt(colour.slice(at, at + 2), 16) / 255;
    return level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.179 ? '#ffffff' : '#1d2833';
}

function tag(term, fallback = '–') {
  if (!term) return el('span', {}, fallback);
  return el('span', { class: 'tag', style: { background: term.colour, color: inkOn(term.colour) } }, term.words);
}

/** CSV of rows of plain values; no cell is a formula to a spreadsheet. */
function asCsv(names, rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return '';
    let text = Array.isArray(value) ? value.map((one) => (Array.isArray(one) ? one.join(': ') : one)).join('; ') : String(value);
    if (typeof value !== 'number' && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows].map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n';
}

function download(name, text, type = 'text/csv;charset=utf-8') {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el('a', { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function quantile(sorted, share) {
  const place = (sorted.length - 1) * share;
  const low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}
