'use strict';
// Slides of a run: pixels and cells come as tiles, level 0 being the finest; marks stay in this page until they are saved.
// Coordinates of the page and of what is saved are level-0 px from the slide's corner, y downwards, as QuPath has them;
// the map's y points up, so every y changes its sign on the way in and out.

const byId = (id) => document.getElementById(id);
const get = async (path) => {
  const answer = await fetch(path);
  const found = await answer.json().catch(() => ({error: answer.statusText}));
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
};
const make = (tag, properties = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...inside);
  return made;
};
const WORDS = {
  cell_class: 'class', membrane_od_mean: 'membrane OD, mean', membrane_od_median: 'membrane OD, stained part',
  completeness: 'completeness', nucleus_area_um2: 'nucleus, µm²', is_tumour: 'counted as tumour', seed_source: 'found by',
  qc_flag: 'quality flag', her2_signals: 'HER2 signals', cep17_signals: 'CEP17 signals', flags: 'quality flags',
};
// Areas over a slide: their colours, and the words of the legend. Blurred squares stay in the tissue; the others are none of it.
const AREAS = {
  tissue: {tissue: ['#0b7a75', 'tissue that was measured']},
  roi: {roi: ['#d4145a', 'region of interest that was drawn']},
  excluded: {pen: ['#5b3fd6', 'pen over tissue'], folds: ['#c2410c', 'folds'], bubbles: ['#0077aa', 'air bubbles'], blurred: ['#8a6d00', 'out of focus (sampled squares)']},
};
const CONTOURS_UM = 0.5;  // from so many micrometres a pixel of the screen on contours are drawn, coarser ones as rings or bins
const KINDS = {Wrong: '#d4145a', Control: '#0072b2'};
const state = {slides: [], panes: [], active: null, marks: [], unsaved: false, moving: false};

class Pane {
  constructor() {
    this.slide = null;
    this.node = make('section', {className: 'pane'});
    this.target = make('div', {className: 'map'});
    this.title = make('div', {className: 'title'});
    this.legend = make('div', {className: 'legend'});
    this.message = make('div', {className: 'message', textContent: 'Choose a slide.'});
    this.node.append(this.target, this.title, this.legend, this.message);
    byId('panes').append(this.node);
    this.pixels = new ol.TileLayer();
    this.regions = new ol.VectorLayer({source: new ol.VectorSource()});
    this.cells = new ol.TileLayer({className: 'cells'});
    this.contours = new ol.VectorLayer({className: 'contours'});
    this.areas = new ol.VectorLayer({source: new ol.VectorSource()});
    this.marks = new ol.VectorLayer({source: new ol.VectorSource(), style: markStyle});
    this.popup = make('div', {className: 'popup'});
    this.overlay = new ol.Overlay({element: this.popup, offset: [12, 0], positioning: 'center-left', autoPan: {animation: {duration: 150}}});
    this.map = new ol.Map({
      target: this.target, layers: [this.pixels, this.areas, this.regions, this.cells, this.contours, this.marks], overlays: [this.overlay],
      controls: [new ol.Zoom(), new ol.ScaleLine()],
    });
    this.map.on('singleclick', (event) => { if (!this.draw) this.pick(event.coordinate); });
    this.map.on('moveend', () => { this.writeLegend(); if (this === state.active) writeHash(); });
    this.node.addEventListener('pointerdown', () => activate(this), true);
    this.legend.hidden = this.title.hidden = true;
  }

  async show(id, at) {
    this.asked = id;
    this.message.textContent = 'Opening…';
    let slide;
    try {
      slide = await get(`/api/slide/${encodeURIComponent(id)}`);
    } catch (error) {
      this.message.textContent = `${id}: ${error.message}`;
      return;
    }
    if (this.asked !== id) return;
    this.message.textContent = '';
    this.slide = slide;
    this.node.classList.toggle('dark', slide.dark);
    this.extent = [0, -slide.height, slide.width, 0];
    this.projection = new ol.Projection({code: `slide:${id}`, units: 'pixels', extent: this.extent, metersPerUnit: slide.mpp * 1e-6});
    const levels = slide.levels;
    this.grid = new ol.TileGrid({
      extent: this.extent, origin: [0, 0], tileSize: slide.tile,
      resolutions: Array.from({length: levels}, (_, z) => 2 ** (levels - 1 - z)),
    });
    const path = encodeURIComponent(id);
    this.pixels.setExtent(this.extent);
    this.pixels.setSource(this.tiles((level, row, column) => `/tile/${path}/${level}/${row}/${column}`));
    const view = new ol.View({
      projection: this.projection, extent: this.extent, constrainOnlyCenter: true, minResolution: 0.125,
      maxResolution: 2 ** (levels + 1), smoothResolutionConstraint: false, showFullExtent: true,
    });
    this.map.setView(view);
    const other = byId('linked').checked ? state.panes.find((pane) => pane !== this && pane.slide) : undefined;
    if (at) {
      view.setCenter([at.x, -at.y]);
      view.setResolution(at.scale || 1);
      if (other) {
        state.moving = true;
        other.map.getView().setResolution(view.getResolution() * slide.mpp / other.slide.mpp);
        state.moving = false;
      }
    } else {
      view.fit(this.extent, {padding: [20, 20, 20, 20]});
      if (other) view.setResolution(other.place().resolution * other.slide.mpp / slide.mpp);
    }
    view.on(['change:center', 'change:resolution'], () => this.moved());
    this.overlay.setPosition(undefined);
    this.title.replaceChildren([id, slide.assay, resultOf(slide)].filter(Boolean).join(' · '),
      ...(slide.report ? [make('a', {href: `/report#slide=${path}`, target: '_blank', rel: 'noopener', textContent: 'in the report'})] : []));
    this.title.hidden = false;
    this.found = null;
    this.drawn = null;
    this.makeContours();
    this.drawCells();
    this.drawMarks();
    if (this === state.active) writeScales();
    await Promise.all([this.drawRegions(), this.drawAreas()]);
    remember();
  }

  tiles(path) {
    const last = this.slide.levels - 1;
    return new ol.TileImage({
      projection: this.projection, tileGrid: this.grid, transition: 0,
      tileUrlFunction: ([z, x, y]) => path(last - z, y, x),
    });
  }

  // Contours come in blocks as the view meets them; one that cannot be had leaves the rings where they are.
  makeContours() {
    const {slide} = this;
    const edge = slide.block;
    this.waiting = 0;
    this.refused = null;
    if (!edge) {
      this.contours.setSource(null);
      return;
    }
    const path = encodeURIComponent(slide.slide_id);
    const places = ([x0, y0, x1, y1]) => {
      const [left, right, top, bottom] = [Math.max(x0, 0), Math.min(x1, slide.width), Math.max(-y1, 0), Math.min(-y0, slide.height)]
        .map((at, k) => k % 2 ? Math.ceil(at / edge) : Math.floor(at / edge));
      const found = [];
      for (let row = top; row < bottom; row++) for (let column = left; column < right; column++) found.push([row, column]);
      return found;
    };
    const source = new ol.VectorSource({
      strategy: (extent) => places(extent).map(([row, column]) => [column * edge + 1, -(row + 1) * edge + 1, (column + 1) * edge - 1, -row * edge - 1]),
      loader: async (extent) => {
        const [column, row] = [Math.floor(extent[0] / edge), Math.floor(-extent[3] / edge)];
        this.waiting += 1;
        this.writeLegend();
        try {
          const cells = await get(`/api/contours/${path}/${row}/${column}`);
          if (slide === this.slide) source.addFeatures(cells.flatMap(contourFeatures));
        } catch (error) {
          source.removeLoadedExtent(extent);
          if (slide === this.slide && !this.refused) {
            this.refused = error.message;
            this.drawCells();
          }
        }
        if (slide === this.slide) {
          this.waiting -= 1;
          this.writeLegend();
        }
      },
    });
    this.contours.setSource(source);
  }

  drawCells() {
    if (!this.slide) return;
    const by = byId('cells').value;
    const close = CONTOURS_UM / this.slide.mpp;
    const contours = by !== '' && byId('contours').checked && Boolean(this.slide.block) && !this.refused;
    this.contours.setVisible(contours);
    this.contours.setMaxResolution(close);
    this.contours.setOpacity(Number(byId('opacity').value));
    this.contours.setStyle(contourStyle(this.slide, by, byId('others').checked));
    this.cells.setMinResolution(contours ? close : 0);
    this.cells.setVisible(by !== '');
    this.cells.setOpacity(Number(byId('opacity').value));
    this.cells.setExtent(this.extent);
    const wanted = `${this.slide.slide_id}/${by}/${byId('others').checked}`;
    if (by && wanted !== this.drawn) {
      const start = `/cells/${encodeURIComponent(this.slide.slide_id)}/${by}/${Number(byId('others').checked)}`;
      this.cells.setSource(this.tiles((level, row, column) => `${start}/${level}/${row}/${column}`));
      this.drawn = wanted;
    }
    this.writeLegend();
  }

  async drawRegions() {
    if (!this.slide) return;
    const size = byId('regions').value;
    const source = this.regions.getSource();
    source.clear();
    if (size && this.slide.scales.includes(Number(size))) {
      const slide = this.slide;
      const rows = await get(`/api/regions/${encodeURIComponent(slide.slide_id)}/${size}`);
      if (slide !== this.slide) return;
      source.clear();
      source.addFeatures(rows.map((row) => {
        const feature = new ol.Feature(new ol.Polygon([[...row.ring, row.ring[0]].map(([x, y]) => [x, -y])]));
        feature.set('row', row);
        feature.setStyle(regionStyle(slide, row));
        return feature;
      }));
    }
    this.writeLegend();
  }

  async drawAreas() {
    if (!this.slide) return;
    const {slide} = this;
    const source = this.areas.getSource();
    const wanted = Object.keys(AREAS).filter((box) => byId(box).checked);
    if (wanted.length && !this.found) {
      const found = await get(`/api/areas/${encodeURIComponent(slide.slide_id)}`).catch((error) => ({notes: [error.message]}));
      if (slide !== this.slide) return;
      this.found = found;
    }
    source.clear();
    for (const [kind, [colour]] of wanted.flatMap((box) => Object.entries(AREAS[box]))) {
      source.addFeatures((this.found[kind] ?? []).map((rings) => {
        const feature = new ol.Feature(new ol.Polygon(rings.map((ring) => [...ring, ring[0]].map(([x, y]) => [x, -y]))));
        feature.setStyle(areaStyle(colour, byId('excluded').checked && kind in AREAS.excluded));
        return feature;
      }));
    }
    this.writeLegend();
  }

  writeLegend() {
    const {slide} = this;
    if (!slide) return;
    const by = byId('cells').value;
    const parts = [];
    if (by === 'class') {
      parts.push(make('h2', {textContent: slide.assay === 'HER2-IHC' ? 'Cells by class' : 'Nuclei by HER2 signals'}));
      const names = slide.classes.concat(byId('others').checked ? [['not counted', slide.other]] : []);
      parts.push(...names.map(([label, colour]) => legendRow(colour, label)));
    } else if (by) {
      parts.push(make('h2', {textContent: `Cells by ${slide.measure}`}), ...rampRows(slide));
    }
    if (byId('regions').value && this.regions.getSource().getFeatures().length) {
      parts.push(make('h2', {textContent: `Regions of ${byId('regions').value} µm, mean ${slide.measure}`}), ...rampRows(slide));
    }
    if (by && this.contours.getVisible() && this.map.getView().getResolution() < CONTOURS_UM / slide.mpp) {
      parts.push(make('div', {className: 'note', textContent: 'Thick: stained membrane. Dashed: nucleus.'}));
    }
    const areas = Object.keys(AREAS).filter((box) => byId(box).checked).flatMap((box) => Object.entries(AREAS[box]))
      .filter(([kind]) => this.found?.[kind]?.length);
    if (areas.length) parts.push(make('h2', {textContent: 'Areas'}), ...areas.map(([, [colour, label]]) => legendRow(colour, label)));
    const notes = byId('excluded').checked || byId('roi').checked ? [...(this.found?.notes ?? [])] : [];
    if (byId('excluded').checked && this.found && !notes.length && !Object.keys(AREAS.excluded).some((kind) => this.found[kind]?.length)) notes.push('nothing excluded');
    if (by && this.refused && byId('contours').checked) notes.push(`no contours: ${this.refused}`);
    if (this.waiting) notes.push('outlining cells…');
    parts.push(...notes.map((text) => make('div', {className: 'note', textContent: text})));
    this.legend.replaceChildren(...parts);
    this.legend.hidden = !parts.length;
  }

  async pick([x, up]) {
    if (!this.slide) return;
    const {slide} = this;
    const y = -up;
    if (x < 0 || y < 0 || x >= slide.width || y >= slide.height) return;
    const cell = await get(`/api/cell/${encodeURIComponent(slide.slide_id)}/${Math.floor(y)}/${Math.floor(x)}`);
    if (slide !== this.slide) return;
    if (!cell) {
      this.overlay.setPosition(undefined);
      return;
    }
    const rows = Object.entries(cell.values).filter(([, value]) => value !== null).map(([name, value]) => make('tr', {},
      make('td', {textContent: WORDS[name] || name}), make('td', {textContent: inWords(value)})));
    const buttons = Object.keys(KINDS).map((kind) => make('button', {type: 'button', textContent: `Mark as ${kind.toLowerCase()}`,
      onclick: () => { addMark(this, kind, {type: 'Point', coordinates: [cell.x, cell.y]}, cell.id); this.overlay.setPosition(undefined); }}));
    this.popup.replaceChildren(make('strong', {textContent: `x ${cell.x.toFixed(0)}, y ${cell.y.toFixed(0)} px`}),
      make('table', {}, ...rows), make('div', {className: 'buttons'}, ...buttons));
    this.overlay.setPosition([cell.x, -cell.y]);
  }

  drawMarks() {
    const source = this.marks.getSource();
    source.clear();
    if (!this.slide) return;
    for (const mark of state.marks.filter((one) => one.slide === this.slide.slide_id)) {
      const {type, coordinates} = mark.geometry;
      const feature = new ol.Feature(type === 'Point' ? new ol.Point([coordinates[0], -coordinates[1]])
        : new ol.Polygon(coordinates.map((ring) => ring.map(([x, y]) => [x, -y]))));
      feature.set('kind', mark.kind);
      source.addFeature(feature);
    }
  }

  startDrawing() {
    this.draw = new ol.Draw({source: new ol.VectorSource(), type: 'Polygon', freehand: true});
    this.map.addInteraction(this.draw);
    byId('draw').classList.add('on');
    byId('draw').textContent = 'Draw with the mouse held…';
    this.draw.on('drawend', ({feature}) => {
      const rings = feature.getGeometry().getCoordinates().map((ring) => ring.map(([x, y]) => [round(x), round(-y)]));
      setTimeout(() => this.stopDrawing());
      const [x, y] = feature.getGeometry().getInteriorPoint().getCoordinates();
      const choose = (kind) => { if (kind) addMark(this, kind, {type: 'Polygon', coordinates: rings}, null); this.overlay.setPosition(undefined); };
      this.popup.replaceChildren(make('strong', {textContent: 'This region is'}), make('div', {className: 'buttons'},
        ...Object.keys(KINDS).map((kind) => make('button', {type: 'button', textContent: kind.toLowerCase(), onclick: () => choose(kind)})),
        make('button', {type: 'button', textContent: 'nothing', onclick: () => choose(null)})));
      this.overlay.setPosition([x, y]);
    });
  }

  stopDrawing() {
    if (this.draw) this.map.removeInteraction(this.draw);
    this.draw = null;
    byId('draw').classList.remove('on');
    byId('draw').textContent = 'Mark a region';
  }

  place() {
    const view = this.map.getView();
    const [x, y] = view.getCenter();
    return {x, y, resolution: view.getResolution()};
  }

  moved() {  // the other slide goes the same way in micrometres
    const other = state.panes.find((pane) => pane !== this);
    if (state.moving || !other || !other.slide || !byId('linked').checked || !this.kept || !other.kept) return;
    state.moving = true;
    const now = this.place();
    const scale = this.slide.mpp / other.slide.mpp;
    const view = other.map.getView();
    view.setResolution(other.kept.resolution * now.resolution / this.kept.resolution);
    view.setCenter([other.kept.x + (now.x - this.kept.x) * scale, other.kept.y + (now.y - this.kept.y) * scale]);
    state.moving = false;
  }
}

const resultOf = (row) => row.score ?? (row.ish_group ? `ISH group ${row.ish_group}`.replace('group single_', 'single probe, ') : row.state);
const measured = (row) => row.state === 'scored' || row.state === 'indeterminate';
const round = (value) => Math.round(value * 100) / 100;
const rgbOf = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const inWords = (value) => typeof value === 'boolean' ? (value ? 'yes' : 'no')
  : typeof value === 'number' ? String(Number(value.toPrecision(3))) : value;

function remember() {  // where two slides stand when they begin to move together
  for (const pane of state.panes) if (pane.slide) pane.kept = pane.place();
}

function ramp(slide, value) {
  const stops = slide.ramp.map(rgbOf);
  const at = Math.min(Math.max(value / slide.top, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((v, i) => Math.round(v + (stops[low + 1][i] - v) * (at - low)));
}

function regionStyle(slide, row) {
  const colour = row.value === null ? [142, 142, 142] : ramp(slide, row.value);
  const edge = new ol.Stroke({color: slide.dark ? '#ddd' : '#444', width: 1});
  const filled = new ol.Style({fill: new ol.Fill({color: [...colour, 0.45]}), stroke: edge});
  const bare = new ol.Style({fill: new ol.Fill({color: [...colour, 0]}), stroke: edge});
  const finest = 1 / slide.mpp;  // closer than 1 µm a pixel of the screen stain is judged: no fill over it
  return (feature, resolution) => resolution < finest ? bare : filled;
}

// A cell as three features: its nucleus, its contour, and the arcs of the contour on which the membrane is stained.
function contourFeatures(cell) {
  const points = (flat) => Array.from({length: flat.length / 2}, (_, i) => [flat[2 * i], -flat[2 * i + 1]]);
  const closed = (ring) => new ol.Polygon([[...ring, ring[0]]]);
  const [nucleus, ring] = [points(cell.nucleus), points(cell.contour)];
  const n = ring.length;
  const between = (a, b) => [(ring[a][0] + ring[b][0]) / 2, (ring[a][1] + ring[b][1]) / 2];
  const arcs = [];
  const whole = !/[^1]/.test(cell.stain);
  for (let a = 0; a < n && !whole; a++) {
    if (cell.stain[a] !== '1' || cell.stain[(a + n - 1) % n] === '1') continue;
    const arc = [between((a + n - 1) % n, a)];
    let b = a;
    for (; cell.stain[b % n] === '1'; b++) arc.push(ring[b % n]);
    arc.push(between((b + n - 1) % n, b % n));
    arcs.push(arc);
  }
  return [['nucleus', closed(nucleus)], ['contour', closed(ring)], ['arc', new ol.MultiLineString(whole ? [[...ring, ring[0]]] : arcs)]]
    .map(([part, geometry]) => {
      const feature = new ol.Feature(geometry);
      feature.setProperties({part, code: cell.code, value: cell.value}, true);
      return feature;
    });
}

function contourStyle(slide, by, others) {
  const stroke = (color, width, lineDash) => new ol.Style({stroke: new ol.Stroke({color, width, lineDash})});
  const ofColour = (colour) => ({nucleus: stroke('#1f3fbf', 1, [3, 3]), contour: stroke(colour, 1.2), arc: stroke(colour, 3)});
  const grey = ofColour(slide.other);
  const kept = new Map();
  return (feature) => {
    const {code, value, part} = feature.getProperties();
    const counted = code < slide.classes.length && (by !== 'measure' || value !== null);
    if (!counted) return others ? grey[part] : null;
    const colour = by === 'measure' ? `rgb(${ramp(slide, value).join()})` : slide.classes[code][1];
    if (!kept.has(colour)) kept.set(colour, ofColour(colour));
    return kept.get(colour)[part];
  };
}

function areaStyle(colour, filled) {
  return new ol.Style({stroke: new ol.Stroke({color: colour, width: 2}), fill: new ol.Fill({color: [...rgbOf(colour), filled ? 0.25 : 0]})});
}

function markStyle(feature) {
  const color = KINDS[feature.get('kind')];
  return new ol.Style({
    image: new ol.Circle({radius: 9, stroke: new ol.Stroke({color, width: 3}), fill: new ol.Fill({color: '#ffffff55'})}),
    stroke: new ol.Stroke({color, width: 3}), fill: new ol.Fill({color: '#ffffff22'}),
  });
}

function legendRow(colour, label) {
  const box = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  box.setAttribute('width', 14);
  box.setAttribute('height', 14);
  const rect = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  for (const [name, value] of Object.entries({width: 14, height: 14, rx: 2, fill: colour, stroke: '#777'})) rect.setAttribute(name, value);
  box.append(rect);
  return make('div', {className: 'row'}, box, make('span', {textContent: label}));
}

function rampRows(slide) {
  const last = slide.ramp.length - 1;
  return slide.ramp.map((colour, i) => legendRow(colour, `${i === last ? '≥ ' : ''}${round(slide.top * i / last)}`));
}

function addMark(pane, kind, geometry, cell) {
  state.marks.push({slide: pane.slide.slide_id, kind, geometry, cell});
  state.unsaved = true;
  for (const one of state.panes) one.drawMarks();
  writeSave();
}

function writeSave() {
  const id = state.active?.slide?.slide_id;
  const n = state.marks.filter((mark) => mark.slide === id).length;
  byId('save').disabled = !n;
  byId('save').textContent = n ? `Save ${n} mark${n > 1 ? 's' : ''} as GeoJSON` : 'Save marks';
}

function marksOf(id) {
  return {type: 'FeatureCollection', features: state.marks.filter((mark) => mark.slide === id).map((mark) => ({
    type: 'Feature', geometry: mark.geometry,
    properties: {
      objectType: 'annotation',
      classification: {name: mark.kind, color: rgbOf(KINDS[mark.kind])},
      metadata: {slide_id: id, ...(mark.cell ? {cell_id: mark.cell} : {})},
    },
  }))};
}

function save() {
  const id = state.active.slide.slide_id;
  const text = JSON.stringify(marksOf(id), null, 1);
  const url = URL.createObjectURL(new Blob([text], {type: 'application/geo+json'}));
  make('a', {href: url, download: `${id.replace(/[^\w.-]+/g, '_')}-marks.geojson`}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  state.unsaved = false;
}

function activate(pane) {
  if (state.active === pane) return;
  state.active?.stopDrawing();
  state.active = pane;
  for (const one of state.panes) one.node.classList.toggle('active', one === pane && state.panes.length > 1);
  writeScales();
  writeList();
  writeSave();
}

function writeScales() {
  const kept = byId('regions').value;
  const scales = state.active.slide?.scales ?? [];
  byId('regions').replaceChildren(make('option', {value: '', textContent: 'hidden'}),
    ...scales.map((size) => make('option', {value: size, textContent: `${size} µm`})));
  byId('regions').value = scales.includes(Number(kept)) ? kept : '';
}

function writeList() {
  const words = byId('search').value.toLowerCase().split(/\s+/);
  const shown = state.slides.filter((row) => {
    const text = Object.values(row).join(' ').toLowerCase();
    return words.every((word) => text.includes(word));
  });
  byId('slides').replaceChildren(...shown.map((row) => {
    const picture = make('span', {className: 'thumb'});
    if (measured(row)) {
      const image = make('img', {loading: 'lazy', alt: '', src: `/thumbnail/${encodeURIComponent(row.slide_id)}`});
      image.onerror = () => image.remove();
      picture.append(image);
    }
    const about = [row.assay, resultOf(row), row.case_id].filter(Boolean).join(' · ');
    const button = make('button', {type: 'button', onclick: () => open(row.slide_id)}, picture, make('span', {},
      make('div', {className: 'name', textContent: row.slide_id}), make('div', {className: 'about', textContent: about})));
    button.classList.toggle('shown', state.active?.asked === row.slide_id);
    button.disabled = !measured(row);
    return make('li', {}, button);
  }));
}

async function open(id, at) {
  state.active.stopDrawing();
  const shown = state.active.show(id, at);
  writeList();
  await shown;
  writeSave();
  writeHash();
}

function writeHash() {
  const pane = state.active;
  if (!pane?.slide) return;
  const {x, y, resolution} = pane.place();
  const at = `slide=${encodeURIComponent(pane.slide.slide_id)}&x=${Math.round(x)}&y=${Math.round(-y)}&scale=${round(resolution)}`;
  const other = state.panes.find((one) => one !== pane && one.slide);
  history.replaceState(null, '', `#${at}${other ? `&beside=${encodeURIComponent(other.slide.slide_id)}` : ''}`);
}

function readHash() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const id = asked.get('slide');
  if (!state.slides.some((row) => row.slide_id === id)) return false;
  const [x, y, scale] = ['x', 'y', 'scale'].map((name) => parseFloat(asked.get(name)));
  const beside = asked.get('beside');
  const shown = open(id, Number.isFinite(x) && Number.isFinite(y) ? {x, y, scale: scale > 0 ? scale : 1} : undefined);
  if (state.slides.some((row) => row.slide_id === beside)) {
    byId('pair').checked = true;
    shown.then(() => setPair(true, beside));
  }
  return true;
}

// The slide that is put beside another: of the same specimen and another assay before any of the case.
function fellowOf(first) {
  const of = state.slides.filter((row) => row.case_id === first.case_id && row.slide_id !== first.slide_id && measured(row));
  const same = (row) => row.specimen_id === first.specimen_id && row.site === first.site;
  const rank = (row) => (same(row) ? 0 : 2) + (row.assay === first.assay ? 1 : 0);
  return of.sort((a, b) => rank(a) - rank(b))[0];
}

function setPair(two, beside = null) {
  byId('linking').hidden = !two;
  if (two && state.panes.length < 2) {
    const pane = new Pane();
    state.panes.push(pane);
    activate(pane);
    const first = state.panes[0].slide;
    const fellow = beside ?? (first && fellowOf(first)?.slide_id);
    if (fellow) open(fellow);
  } else if (two && beside !== null) {
    activate(state.panes.find((pane) => pane !== state.active));
    open(beside);
  } else if (!two && state.panes.length > 1) {
    const gone = state.panes.pop();
    gone.stopDrawing();
    gone.map.setTarget(null);
    gone.node.remove();
    state.active = null;
    activate(state.panes[0]);
  }
  for (const pane of state.panes) pane.map.updateSize();
}

async function start() {
  state.panes.push(new Pane());
  activate(state.panes[0]);
  byId('search').oninput = writeList;
  for (const id of ['cells', 'contours', 'others', 'opacity']) byId(id).oninput = () => state.panes.forEach((pane) => pane.drawCells());
  for (const id of Object.keys(AREAS)) byId(id).oninput = () => state.panes.forEach((pane) => pane.drawAreas());
  byId('regions').oninput = () => state.panes.forEach((pane) => pane.drawRegions());
  byId('pair').oninput = (event) => setPair(event.target.checked);
  byId('linked').oninput = remember;
  byId('draw').onclick = () => state.active.draw ? state.active.stopDrawing() : state.active.slide && state.active.startDrawing();
  byId('save').onclick = save;
  byId('tools').onsubmit = (event) => event.preventDefault();
  addEventListener('hashchange', readHash);
  addEventListener('beforeunload', (event) => { if (state.unsaved) event.preventDefault(); });
  addEventListener('keydown', (event) => { if (event.key === 'Escape') state.panes.forEach((pane) => { pane.stopDrawing(); pane.overlay.setPosition(undefined); }); });
  state.slides = await get('/api/slides');
  writeList();
  const first = state.slides.find(measured);
  if (!readHash() && first) await open(first.slide_id);
  document.documentElement.dataset.ready = 'yes';
}

window.her2viewer = {state, open, addMark, marksOf, save};
start().catch((error) => { state.panes[0].message.textContent = error.message; });
