// Image and map on a canvas of Konva: panes, zoom and pan, and the tools, which give strokes.
// Places in strokes are shares of the width and height of the image, sizes shares of its longer side.

/* global Konva */
import { decode } from './api.js';

const OUTSIDE = 65535; // in a map: not seen by the network
const PAINT = { 1: '#ffffffb0', 0: '#000000b0', eraser: '#8a8f98b0' };

export class Board extends EventTarget {
  #stage;
  #layers; // photo, map and marks, one above the other
  #panes = []; // the second one is shown side by side
  #image = null;
  #map = null;
  #evidence = null;
  #view = { zoom: 1, x: 0, y: 0 }; // beyond fitting into a pane
  #pointers = new Map();
  #gesture = null; // what a pressed pointer does: paint, pan or pinch
  #corners = []; // of an unfinished polygon or rectangle
  #cursor = { x: 0.5, y: 0.5 }; // of the keyboard
  #outlines = [];

  options = { tool: 'brush', value: 1, size: 0.16, strength: 1, softness: 0.3 };
  shown = { map: true, split: false, opacity: 0.6, range: [0, 1], table: new Uint8Array(768) };

  constructor(container) {
    super();
    this.container = container;
    this.#stage = new Konva.Stage({ container, width: 1, height: 1 });
    this.#layers = ['photo', 'map', 'marks'].map(() => new Konva.Layer({ listening: false }));
    this.#stage.add(...this.#layers);
    for (let i = 0; i < 2; i++) {
      const [photo, map, marks] = this.#layers.map((layer) => {
        const clip = new Konva.Group();
        const world = new Konva.Group();
        layer.add(clip.add(world));
        return world;
      });
      this.#panes.push({ photo, map, marks });
    }
    this.#stage.content.addEventListener('contextmenu', (event) => event.preventDefault());
    const listen = (name, action) => container.addEventListener(name, (event) => this.#image && action(event));
    listen('pointerdown', (event) => this.#down(event));
    listen('pointermove', (event) => this.#move(event));
    for (const name of ['pointerup', 'pointercancel']) listen(name, (event) => this.#up(event));
    listen('pointerleave', () => this.#gesture || this.#drawMarks());
    listen('dblclick', () => this.finish());
    listen('wheel', (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), this.#position(event));
    });
    container.addEventListener('keydown', (event) => this.#image && this.#key(event));
    new ResizeObserver(() => this.#layout()).observe(container);
  }

  // What is shown

  setImage(image) {
    this.#image = image;
    this.#map = this.#evidence = null;
    this.#corners = [];
    this.#outlines = [];
    this.#layers[0].imageSmoothingEnabled(Math.max(image.width, image.height) > 128);
    this.fit();
  }

  setMap(map) {
    this.#map = map && { ...map, numbers: decode(map.data, Uint16Array) };
    this.draw();
  }

  setEvidence(map) {
    this.#evidence = map && { ...map, numbers: decode(map.data, Uint16Array) };
    this.#layout();
  }

  setOutlines(outlines) {
    this.#outlines = outlines;
    this.#drawMarks();
  }

  get isSplit() {
    return this.shown.split || this.#evidence !== null;
  }

  draw() {
    const { map, opacity, range } = this.shown;
    this.#panes.forEach((pane, i) => {
      pane.photo.destroyChildren();
      pane.map.destroyChildren();
      if (!this.#image || (i && !this.isSplit)) return;
      const size = { width: this.#image.width, height: this.#image.height };
      pane.photo.add(new Konva.Image({ image: this.#image, ...size }));
      const evidence = i && this.#evidence;
      const shown = evidence || this.#map;
      if (!shown || !(map || i)) return;
      const share = evidence ? opacity : i ? 1 : this.shown.split ? 0 : opacity;
      pane.map.add(new Konva.Image({ image: this.#paint(shown, evidence ? [0, 1] : range), opacity: share, ...size }));
    });
    this.#drawMarks();
  }

  #paint({ width, height, numbers }, [low, high]) {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    const picture = context.createImageData(width, height);
    numbers.forEach((number, i) => {
      if (number === OUTSIDE) return;
      const shade = (number / (OUTSIDE - 1) - low) / (high > low ? high - low : 1);
      const colour = 3 * Math.max(0, Math.min(255, Math.floor(256 * shade)));
      picture.data.set(this.shown.table.subarray(colour, colour + 3), 4 * i);
      picture.data[4 * i + 3] = 255;
    });
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  #layout() {
    const { clientWidth: width, clientHeight: height } = this.container;
    this.#stage.size({ width, height });
    if (!this.#image) return;
    const paneWidth = this.isSplit ? width / 2 : width;
    const fit = 0.97 * Math.min(paneWidth / this.#image.width, height / this.#image.height);
    const scale = fit * this.#view.zoom;
    const x = paneWidth / 2 + this.#view.x - (scale * this.#image.width) / 2;
    const y = height / 2 + this.#view.y - (scale * this.#image.height) / 2;
    this.#panes.forEach((pane, i) => {
      for (const world of [pane.photo, pane.map, pane.marks]) {
        world.setAttrs({ x: i * paneWidth + x, y, scaleX: scale, scaleY: scale });
        world.parent.clip({ x: i * paneWidth, y: 0, width: paneWidth, height });
      }
    });
    this.frame = { x, y, scale, paneWidth };
    this.draw();
  }

  // Zoom and pan

  fit() {
    this.#view = { zoom: 1, x: 0, y: 0 };
    this.#layout();
  }

  zoom(factor, at = null) {
    const { paneWidth } = this.frame;
    const centre = { x: paneWidth / 2, y: this.container.clientHeight / 2 };
    const zoom = Math.max(1, Math.min(40, this.#view.zoom * factor));
    const ratio = zoom / this.#view.zoom;
    const fixed = at ?? centre;
    const move = (axis) => (fixed[axis] - centre[axis]) * (1 - ratio) + this.#view[axis] * ratio;
    this.#view = zoom === 1 ? { zoom, x: 0, y: 0 } : { zoom, x: move('x'), y: move('y') };
    this.#layout();
  }

  #pan(x, y) {
    this.#view.x += x;
    this.#view.y += y;
    this.#layout();
  }

  // Pointers

  /** Position in a pane, in pixels. */
  #position(event) {
    const box = this.container.getBoundingClientRect();
    const x = event.clientX - box.left - this.container.clientLeft;
    const { paneWidth } = this.frame;
    return { x: x < paneWidth ? x : x - paneWidth, y: event.clientY - box.top - this.container.clientTop };
  }

  /** A place as shares of the image, with the pressure of a pen. */
  #place(event) {
    const { x, y } = this.#position(event);
    const share = (value, start, length) => {
      const place = (value - start) / (this.frame.scale * length);
      return Math.round(1e4 * Math.min(1.5, Math.max(-0.5, place))) / 1e4;
    };
    const point = [share(x, this.frame.x, this.#image.width), share(y, this.frame.y, this.#image.height)];
    return event.pointerType === 'pen' ? [...point, Math.max(0.05, Math.round(1e3 * event.pressure) / 1e3)] : point;
  }

  #down(event) {
    this.container.setPointerCapture(event.pointerId);
    this.container.focus({ preventScroll: true });
    this.#pointers.set(event.pointerId, event);
    if (this.#pointers.size === 2) {
      this.#gesture = { kind: 'pinch', last: this.#fingers() };
      this.#drawMarks();
    } else if (event.button === 1 || this.options.tool === 'hand' || this.holdsSpace) {
      this.#gesture = { kind: 'pan', last: event };
    } else if (this.options.tool === 'brush' || this.options.tool === 'eraser') {
      this.#gesture = { kind: 'paint', stroke: this.#stroke([this.#place(event)]) };
      this.#drawMarks();
    } else {
      const [x, y] = this.#place(event);
      this.#cursor = { x, y }; // so that Enter closes a polygon
      this.#corner([x, y]);
      if (this.options.tool === 'rectangle') this.#gesture = { kind: 'rectangle' };
    }
  }

  #move(event) {
    if (this.#pointers.has(event.pointerId)) this.#pointers.set(event.pointerId, event);
    const gesture = this.#gesture;
    if (gesture?.kind === 'pinch') {
      const now = this.#fingers();
      this.#pan(now.x - gesture.last.x, now.y - gesture.last.y);
      this.zoom(now.distance / gesture.last.distance, now);
      gesture.last = now;
    } else if (gesture?.kind === 'pan') {
      this.#pan(event.clientX - gesture.last.clientX, event.clientY - gesture.last.clientY);
      gesture.last = event;
    } else {
      const places = (event.getCoalescedEvents?.() ?? []).map((move) => this.#place(move));
      if (gesture?.kind === 'paint') gesture.stroke.points.push(...(places.length ? places : [this.#place(event)]));
      this.#drawMarks(this.#place(event));
    }
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    const gesture = this.#gesture;
    if (gesture?.kind === 'pinch' && this.#pointers.size) return;
    this.#gesture = null;
    if (gesture?.kind === 'paint' && event.type === 'pointerup') this.#give(gesture.stroke);
    if (gesture?.kind === 'rectangle') {
      const corner = this.#place(event).slice(0, 2);
      const [start] = this.#corners;
      if (start && Math.hypot(corner[0] - start[0], corner[1] - start[1]) > 0.02) this.#corner(corner);
    }
  }

  #fingers() {
    const [a, b] = [...this.#pointers.values()].map((event) => this.#position(event));
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) };
  }

  // Keyboard: arrow keys move a cursor, Enter paints there.

  #key(event) {
    const step = event.shiftKey ? 0.1 : 0.02;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move) {
      const clamp = (value) => Math.round(1e4 * Math.max(0, Math.min(1, value))) / 1e4;
      this.#cursor = { x: clamp(this.#cursor.x + step * move[0]), y: clamp(this.#cursor.y + step * move[1]) };
    } else if (event.key === 'Enter') {
      const place = [this.#cursor.x, this.#cursor.y];
      const isLast = this.options.tool === 'polygon' && this.#corners.length > 2;
      if (isLast && this.#corners.at(-1).every((value, i) => value === place[i])) this.finish();
      else if (['brush', 'eraser'].includes(this.options.tool)) this.#give(this.#stroke([place]));
      else this.#corner(place);
    } else if (event.key === 'Escape' && this.#corners.length) {
      this.cancel();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    this.#drawMarks([this.#cursor.x, this.#cursor.y]);
  }

  // Strokes

  #stroke(points, tool = this.options.tool) {
    const { value, size, strength, softness } = this.options;
    const stroke = { tool, points, strength, softness };
    if (tool !== 'polygon') stroke.size = size;
    if (tool !== 'eraser') stroke.value = value;
    return stroke;
  }

  #corner(place) {
    const { tool } = this.options;
    if (tool === 'object') {
      const outline = this.#outlines.find((points) => isInside(points, place));
      if (outline) this.#give(this.#stroke(outline, 'polygon'));
    } else if (tool === 'polygon') {
      this.#corners.push(place);
    } else if (tool === 'rectangle' && this.#corners.length) {
      const [[left, top], [right, bottom]] = [this.#corners[0], place];
      const points = [[left, top], [right, top], [right, bottom], [left, bottom]]; // prettier-ignore
      this.#give(this.#stroke(points, 'polygon'));
    } else if (tool === 'rectangle') {
      this.#corners = [place];
    }
    this.#drawMarks(place);
  }

  /** Closes an unfinished polygon. */
  finish() {
    if (this.options.tool === 'polygon' && this.#corners.length > 2) this.#give(this.#stroke(this.#corners, 'polygon'));
  }

  cancel() {
    this.#corners = [];
    this.#drawMarks();
  }

  #give(stroke) {
    this.#corners = [];
    this.dispatchEvent(new CustomEvent('stroke', { detail: stroke }));
    this.#drawMarks(null, stroke); // stays until the new map is there
  }

  #drawMarks(place = null, given = null) {
    for (const { marks } of this.#panes.slice(0, this.isSplit ? 2 : 1)) {
      marks.destroyChildren();
      if (!this.#image) continue;
      const { tool, size } = this.options;
      const side = Math.max(this.#image.width, this.#image.height);
      const hair = 1.5 / this.frame.scale;
      const flat = (points) => points.flatMap(([x, y]) => [x * this.#image.width, y * this.#image.height]);
      const add = (points, config) => marks.add(new Konva.Line({ points: flat(points), lineJoin: 'round', ...config }));
      if (tool === 'object') {
        for (const points of this.#outlines) {
          const isHit = place && isInside(points, place);
          const fill = isHit ? PAINT[this.options.value] : null;
          add(points, { closed: true, stroke: '#ffffffa0', strokeWidth: hair / 2, fill });
        }
      }
      const stroke = given ?? this.#gesture?.stroke;
      if (stroke?.tool === 'polygon') {
        add(stroke.points, { closed: true, fill: PAINT[stroke.value] });
      } else if (stroke?.points) {
        const colour = PAINT[stroke.value ?? 'eraser'];
        const [first] = stroke.points;
        const points = stroke.points.length > 1 ? stroke.points : [first, [first[0] + 1e-4, first[1]]];
        add(points, { stroke: colour, strokeWidth: stroke.size * side, lineCap: 'round' });
      }
      if (this.#corners.length) {
        let points = place ? [...this.#corners, place] : this.#corners;
        if (tool === 'rectangle' && place) {
          const [start] = this.#corners;
          points = [start, [place[0], start[1]], place, [start[0], place[1]]];
        }
        add(points, { closed: tool === 'rectangle', stroke: '#fff', strokeWidth: hair, dash: [4 * hair, 4 * hair] });
        add(points, { closed: true, fill: '#ffffff40' });
      }
      if (!place || tool === 'hand') continue;
      const [x, y] = flat([place]);
      const radius = ['brush', 'eraser'].includes(tool) ? (size * side) / 2 : 4 * hair;
      for (const [colour, width] of [
        ['#000', 2 * hair],
        ['#fff', hair],
      ]) {
        marks.add(new Konva.Circle({ x, y, radius, stroke: colour, strokeWidth: width })); // prettier-ignore
      }
    }
    this.#layers[2].batchDraw();
  }
}

/** Whether a place is inside of an outline, by the number of its sides to the right. */
function isInside(points, [x, y]) {
  let inside = false;
  points.forEach(([x1, y1], i) => {
    const [x2, y2] = points.at(i - 1);
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  });
  return inside;
}
