// Tables: sorted by a click on a heading, a page at a time.

const PAGE = 25;

/**
 * A table of a figure. `columns` have `words`, `of(row)` (the value that sorts), and may have `show(row)`,
 * `kind` (num, name, words). A click on a row opens its case; `slide(row)` is the slide that the viewer opens.
 * `below(row)` is text over the whole width under a row: in a column at the right, few screens would show it.
 */
function table(name, { title, note, columns: own, rows, marked, open, csv, slide, below, page = PAGE }) {
  const columns = VIEWER && slide ? [...own, { words: 'viewer', kind: 'to-viewer', of: (row) => slide(row) ?? null, show: (row) => slide(row) === undefined ? '–' : toViewer(slide(row), 'open') }] : own;
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
    title, note, data: csv ?? (() => [own.map((c) => c.words), ordered().map((row) => own.map((c) => c.of(row)))]), long: true,
    draw(body, made) {
      const all = ordered();
      if (!all.length) return empty(body, 'Nothing here.');
      first = Math.min(first, Math.floor((all.length - 1) / page) * page);
      const head = columns.map((c, k) => {
        const sort = sorted === k ? (down ? 'descending' : 'ascending') : 'none';
        return el('th', { scope: 'col', class: ['num', 'to-viewer'].includes(c.kind) ? c.kind : '', 'aria-sort': sort },
          el('button', { type: 'button', onclick: () => { down = sorted === k && !down; sorted = k; first = 0; made.update(); } }, c.words));
      });
      const line = (row, kind, cells) => el('tr', {
        class: `${kind}${open ? ' open' : ''}${marked?.(row) ? ' marked' : ''}`, onclick: () => open?.(row),
      }, cells);
      const lines = all.slice(first, first + page).flatMap((row) => [line(row, below?.(row) ? 'above' : 'row', columns.map((c) => el('td', { class: c.kind }, c.show?.(row) ?? (c.kind === 'num' ? number(c.of(row), c.digits) : c.of(row) ?? '–')))),
        ...(below?.(row) ? [line(row, 'below', [el('td', { colSpan: columns.length }, below(row))])] : [])]);
      const step = (words_, to, disabled) => el('button', { type: 'button', disabled, onclick: () => { first = to; made.update(); } }, words_);
      return body.replaceChildren(
        el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr', {}, head)), el('tbody', {}, lines))),
        el('div', { class: 'pager' }, `${whole.format(first + 1)}–${whole.format(Math.min(first + page, all.length))} of ${whole.format(all.length)}`,
          step('‹ Before', first - page, first === 0), step('Next ›', first + page, first + page >= all.length)));
    },
  });
}
