// The map: points, cluster names over them, thumbnails under the mouse, and a lasso.

import { addKeys } from "../keys.js";
import { gestureOf } from "../selection.js";
import { Buckets } from "./buckets.js";
import { categoryColor, css } from "./palette.js";
import { DIMMED, HIDDEN, NORMAL, PointLayer, SELECTED } from "./point-layer.js";

const HOVER_PX = 8;
const FINGER_PX = 20;
const LASSO_STEP_PX = 3;
const SVG = "http://www.w3.org/2000/svg";
// Without WebGL2 the processor draws, and cannot draw all.
const CANVAS_POINTS = 20_000;

export class MapView {
  /**
   * @param {HTMLElement} element  an empty block with a size
   * @param {{selection: import("../selection.js").Selection, announce: (text: string) => void,
   *   hover: (point: number, x: number, y: number) => void, open: (point: number) => void}} options
   */
  constructor(element, { selection, announce, hover, open }) {
    Object.assign(this, { element, selection, announce, hover, open });
    element.classList.add("map");
    this.canvas = element.appendChild(document.createElement("canvas"));
    this.overlay = element.appendChild(document.createElementNS(SVG, "svg"));
    this.overlay.setAttribute("class", "map-overlay");
    this.overlay.setAttribute("tabindex", "0");
    this.outline = this.overlay.appendChild(document.createElementNS(SVG, "polygon"));
    this.overlay.setAttribute("role", "application");
    this.overlay.setAttribute("aria-label", "Map of all images. Arrow keys move, plus and minus zoom, R draws a rectangle.");
    this.names = element.appendChild(document.createElement("div"));
    this.names.className = "map-names";
    try {
      this.layer = new PointLayer(this.canvas);
    } catch {
      this.layer = new CanvasLayer(this.canvas);
      announce(`This browser has no WebGL2. The map shows ${CANVAS_POINTS.toLocaleString("en")} of the images.`);
    }
    this.ids = [];
    this.labels = [];
    this.center = [0, 0];
    this.zoom = 1;
    // Where the fingers are that touch the map, by the number of each.
    this.fingers = new Map();
    this.listen();
    this.removeKeys = addKeys("Map", () => this.keys());
  }

  destroy() {
    this.observer.disconnect();
    this.selection.removeEventListener("change", this.reselect);
    this.removeKeys();
    this.element.replaceChildren();
  }

  /** @param {Float32Array} x @param {Float32Array} y @param {string[]} ids */
  setPoints(x, y, ids) {
    // Where images have only left, who has looked closer goes on looking there.
    const stays = ids.length > 0 && ids.every((id, point) => this.x?.[this.indexOf.get(id)] === x[point]);
    Object.assign(this, { x, y, ids });
    this.indexOf = new Map(ids.map((id, point) => [id, point]));
    this.buckets = new Buckets(x, y);
    this.hidden = new Uint8Array(x.length);
    this.layer.setPoints(x, y);
    if (!stays) this.fit();
    this.restate();
  }

  /** @param {Uint16Array} categories @param {(category: number) => number[]} [colorOf] */
  setCategories(categories, colorOf) {
    if (colorOf && colorOf !== this.colorOf) this.layer.setColors((this.colorOf = colorOf));
    this.layer.upload("category", categories);
    this.draw();
  }

  /** @param {{text: string, x: number, y: number, size: number}[]} labels  largest first */
  setLabels(labels) {
    this.labels = labels;
    this.names.replaceChildren(...labels.map(({ text }) => Object.assign(document.createElement("span"), { textContent: text })));
    this.draw();
  }

  /** Bring points into prominence, those of a search for instance: all others are dimmed. Nothing given: none are. */
  highlight(ids) {
    this.highlighted = ids && new Set(ids);
    this.restate();
  }

  /** @param {(point: number) => boolean} isHidden */
  hide(isHidden) {
    for (let point = 0; point < this.hidden.length; point++) this.hidden[point] = Number(isHidden(point));
    this.restate();
  }

  restate() {
    const { selection, highlighted } = this;
    const dim = selection.size > 0 || Boolean(highlighted);
    const states = new Uint8Array(this.ids.length);
    for (let point = 0; point < states.length; point++) {
      const id = this.ids[point];
      states[point] = this.hidden[point] ? HIDDEN : selection.has(id) ? SELECTED : dim && !highlighted?.has(id) ? DIMMED : NORMAL;
    }
    this.layer.upload("state", states);
    this.draw();
  }

  // Places: `data` are the map's coordinates, `px` those of the element, from its top left corner.

  get scale() {
    return this.zoom * this.base;
  }

  toPx(x, y) {
    return [
      this.width / 2 + (x - this.center[0]) * this.scale,
      this.height / 2 - (y - this.center[1]) * this.scale,
    ];
  }

  toData(left, top) {
    return [
      this.center[0] + (left - this.width / 2) / this.scale,
      this.center[1] - (top - this.height / 2) / this.scale,
    ];
  }

  fit() {
    const { buckets } = this;
    if (!buckets) return;
    const [width, height] = [buckets.width * buckets.side, buckets.height * buckets.side];
    this.center = [buckets.left + width / 2, buckets.bottom + height / 2];
    this.base = 0.92 * Math.min(this.width / width, this.height / height);
    this.zoom = 1;
    this.draw();
  }

  zoomAt(factor, left = this.width / 2, top = this.height / 2) {
    const before = this.toData(left, top);
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.5), 400);
    const after = this.toData(left, top);
    this.center = [this.center[0] + before[0] - after[0], this.center[1] + before[1] - after[1]];
    this.draw();
  }

  pan(left, down) {
    this.center = [this.center[0] - left / this.scale, this.center[1] + down / this.scale];
    this.draw();
  }

  resize() {
    this.width = Math.max(1, this.element.clientWidth);
    this.height = Math.max(1, this.element.clientHeight);
    this.canvas.width = Math.round(this.width * devicePixelRatio);
    this.canvas.height = Math.round(this.height * devicePixelRatio);
    // Who has looked closer goes on looking there.
    if (this.zoom === 1) this.fit();
    else this.draw();
  }

  draw() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      if (this.buckets) this.drawNow();
    });
  }

  drawNow() {
    const [scaleX, scaleY] = [(2 * this.scale) / this.width, (2 * this.scale) / this.height];
    this.layer.view = [scaleX, scaleY, -this.center[0] * scaleX, -this.center[1] * scaleY];
    // Points grow as the space between them does, more slowly.
    const size = 11 - 1.9 * Math.log10(1 + this.ids.length) + 1.6 * Math.log2(this.zoom);
    this.layer.pointSize = Math.min(Math.max(size, 1.5), 14) * devicePixelRatio;
    const color = getComputedStyle(this.element).color.match(/\d+/g) ?? [0, 0, 0];
    this.layer.outline = color.slice(0, 3).map((part) => part / 255);
    this.layer.draw();
    this.placeNames();
    this.drawOutline();
  }

  /** Names are placed largest cluster first; one that would lie on another is left out. */
  placeNames() {
    const taken = [];
    this.labels.forEach(({ x, y }, at) => {
      const span = this.names.children[at];
      const [width, height] = [span.offsetWidth || span.textContent.length * 7, 18];
      const [center, top] = this.toPx(x, y);
      // A name near the rim is moved inside, if its place is inside at all.
      const isInside = center >= 0 && center <= this.width;
      const left = isInside ? Math.min(Math.max(center, width / 2 + 4), this.width - width / 2 - 4) : center;
      const box = [left - width / 2, top - height / 2, left + width / 2, top + height / 2];
      const isFree = box[2] > 0 && box[0] < this.width && box[3] > 0 && box[1] < this.height
        && taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
      span.style.transform = `translate(${left}px, ${top}px) translate(-50%, -50%)`;
      span.style.visibility = isFree ? "visible" : "hidden";
      if (isFree) taken.push(box);
    });
  }

  drawOutline() {
    const outline = this.rectangle ? corners(...this.rectangle) : this.lasso ?? [];
    this.outline.setAttribute("points", outline.map((corner) => corner.join(",")).join(" "));
  }

  select(outline, how) {
    const inside = this.buckets.inside(outline.map(([left, top]) => this.toData(left, top)));
    const ids = inside.filter((point) => !this.hidden[point]).map((point) => this.ids[point]);
    this.selection.change(ids, how);
    const n = this.selection.size;
    this.announce(`${n.toLocaleString("en")} ${n === 1 ? "image" : "images"} selected`);
  }

  pointAt(left, top, reach = HOVER_PX) {
    if (!this.buckets) return -1;
    const [x, y] = this.toData(left, top);
    const point = this.buckets.nearest(x, y, reach / this.scale);
    return point >= 0 && this.hidden[point] ? -1 : point;
  }

  listen() {
    const { overlay } = this;
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
    this.reselect = () => this.restate();
    this.selection.addEventListener("change", this.reselect);
    const place = (event) => {
      const box = overlay.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    overlay.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...place(event));
    }, { passive: false });
    overlay.addEventListener("pointerdown", (event) => {
      overlay.setPointerCapture(event.pointerId);
      this.pressed = place(event);
      // The left button draws the lasso, and one finger where it is asked to; otherwise that moves the map, as the other buttons do.
      // Two fingers zoom it, a tap selects.
      const isMouse = event.pointerType === "mouse";
      const isAlone = isMouse || this.fingers.set(event.pointerId, this.pressed).size === 1;
      this.tap = !isMouse && isAlone && this.pressed;
      this.lasso = isAlone && (isMouse ? event.button === 0 : this.fingerDraws) ? [this.pressed] : undefined;
    });
    overlay.addEventListener("pointermove", (event) => {
      const at = place(event), before = [...this.fingers.values()];
      if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, at);
      if (before.length === 2) this.pinch(before, [...this.fingers.values()]);
      else this.moved(at);
    });
    overlay.addEventListener("pointerup", (event) => {
      this.fingers.delete(event.pointerId);
      // Fingers have no Shift: what they draw is added, as what they tap is.
      this.released(place(event), event.pointerType === "mouse" ? gestureOf(event) : "add");
      [this.pressed] = this.fingers.values();
    });
    overlay.addEventListener("pointercancel", () => { this.fingers.clear(); this.cancel(); });
    overlay.addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && this.hover(-1, 0, 0));
    overlay.addEventListener("contextmenu", (event) => event.preventDefault());
    overlay.addEventListener("dblclick", (event) => {
      const point = this.pointAt(...place(event));
      if (point >= 0) this.open(point);
    });
  }

  moved([left, top]) {
    const far = (from) => Math.hypot(left - from[0], top - from[1]);
    if (!this.pressed) {
      this.hover(this.pointAt(left, top), left, top);
      return;
    }
    if (this.tap && far(this.tap) <= HOVER_PX) return;
    this.tap = undefined;
    if (this.lasso) {
      if (far(this.lasso.at(-1)) >= LASSO_STEP_PX) this.lasso.push([left, top]);
      this.draw();
    } else {
      this.pan(left - this.pressed[0], top - this.pressed[1]);
      this.pressed = [left, top];
    }
  }

  /** Two fingers were at two places, and are at two others: what is between them stays there. */
  pinch(before, now) {
    const span = ([a, b]) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const [from, to] = [middle(before), middle(now)];
    this.pan(to[0] - from[0], to[1] - from[1]);
    this.zoomAt(span(now) / span(before), ...to);
  }

  released(at, how) {
    const { lasso, tap } = this;
    this.cancel();
    if (!lasso && !tap) return;
    if (lasso?.length > 2) {
      this.select(lasso, how);
      return;
    }
    const point = this.pointAt(...at, tap ? FINGER_PX : HOVER_PX);
    if (tap) this.hover(point, ...at);
    if (tap && point >= 0) this.selection.toggle(this.ids[point]);
    else if (point >= 0) this.selection.change([this.ids[point]], how);
    else if (how === "replace") this.selection.clear();
  }

  cancel() {
    this.pressed = this.lasso = this.tap = this.rectangle = undefined;
    this.draw();
  }

  keys() {
    const arrow = (left, down) => () => {
      if (!this.rectangle) this.pan(-left * 40, -down * 40);
      else {
        this.rectangle[1] = [this.rectangle[1][0] + left * 20, this.rectangle[1][1] + down * 20];
        this.draw();
      }
    };
    const take = (how) => () => {
      if (!this.rectangle) return;
      this.select(corners(...this.rectangle), how);
      this.cancel();
    };
    return {
      ArrowLeft: ["move left, or narrow the rectangle", arrow(-1, 0)],
      ArrowRight: ["move right, or widen the rectangle", arrow(1, 0)],
      ArrowUp: ["move up, or flatten the rectangle", arrow(0, -1)],
      ArrowDown: ["move down, or heighten the rectangle", arrow(0, 1)],
      "+ =": ["zoom in", () => this.zoomAt(1.25)],
      "-": ["zoom out", () => this.zoomAt(0.8)],
      0: ["show all", () => this.fit()],
      r: ["draw a rectangle from the center", () => {
        const middle = [this.width / 2, this.height / 2];
        this.rectangle = [middle.map((value) => value - 60), middle.map((value) => value + 60)];
        this.draw();
      }],
      Enter: ["select what is in the rectangle", take("replace")],
      "Shift+Enter": ["add what is in the rectangle", take("add")],
      "Alt+Enter": ["take what is in the rectangle out of the selection", take("subtract")],
      Escape: ["drop the rectangle, or select nothing", () => (this.rectangle ? this.cancel() : this.selection.clear())],
    };
  }
}

/** Where there is no WebGL2: a sample of the points, drawn by the processor. */
class CanvasLayer {
  constructor(canvas) {
    Object.assign(this, { canvas, view: [1, 1, 0, 0], pointSize: 4, outline: [0, 0, 0], colorOf: categoryColor });
  }

  setPoints(x, y) {
    Object.assign(this, { x, y, category: new Uint16Array(x.length), state: new Uint8Array(x.length) });
  }

  upload(name, values) {
    this[name] = values;
  }

  setColors(colorOf) {
    this.colorOf = colorOf;
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.clearRect(0, 0, width, height);
    const step = Math.max(1, Math.ceil(this.x.length / CANVAS_POINTS));
    for (let point = 0; point < this.x.length; point += step) {
      const state = this.state[point];
      if (state === HIDDEN) continue;
      context.globalAlpha = state === DIMMED ? 0.12 : 0.85;
      context.fillStyle = css(this.colorOf(this.category[point]));
      const left = ((this.x[point] * this.view[0] + this.view[2] + 1) / 2) * width;
      const top = ((1 - this.y[point] * this.view[1] - this.view[3]) / 2) * height;
      const size = state === SELECTED ? this.pointSize + 3 : this.pointSize;
      context.fillRect(left - size / 2, top - size / 2, size, size);
    }
  }
}

function corners([left, top], [right, bottom]) {
  return [[left, top], [right, top], [right, bottom], [left, bottom]];
}
