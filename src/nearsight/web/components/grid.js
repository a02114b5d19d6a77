// A grid of thumbnails that scrolls to image 1,000,000. Only the cells near the window exist.

import { addKeys } from "../keys.js";
import { gestureOf } from "../selection.js";
import { VirtualScroll } from "./virtual-scroll.js";

const MARGIN_SCREENS = 1;
const NOTHING = { count: 0, get: () => undefined, need: async () => {} };

/**
 * @typedef {{id: string, title: string, thumbnail: string, note?: string}} Cell
 * @typedef {{count: number, get: (index: number) => Cell | undefined, need: (first: number, last: number) => Promise<void>}} Source
 *   `get` answers at once, with nothing for an image that is not loaded; `need` loads a range.
 */

export class Grid {
  /**
   * @param {HTMLElement} element  an empty block with a height
   * @param {{selection: import("../selection.js").Selection, open: (index: number) => void, size?: number}} options
   */
  constructor(element, { selection, open, size = 168 }) {
    Object.assign(this, { element, selection, open, size, leastSize: size });
    this.source = NOTHING;
    this.cells = new Map();
    this.focused = 0;
    this.position = 0;
    element.classList.add("grid");
    Object.assign(element, { tabIndex: 0, role: "listbox", ariaMultiSelectable: "true" });
    this.spacer = element.appendChild(division({ className: "grid-spacer", role: "presentation" }));
    element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    element.addEventListener("click", (event) => this.clicked(event));
    element.addEventListener("dblclick", () => this.open(this.focused));
    this.observer = new ResizeObserver(() => this.layout());
    this.observer.observe(element);
    this.reselect = () => this.cells.forEach((cell, index) => this.mark(cell, index));
    selection.addEventListener("change", this.reselect);
    this.removeKeys = addKeys("Images", () => this.keys());
  }

  destroy() {
    this.observer.disconnect();
    this.selection.removeEventListener("change", this.reselect);
    this.removeKeys();
    this.element.replaceChildren();
  }

  setSource(source = NOTHING) {
    this.source = source;
    this.cells.forEach((cell) => cell.remove());
    this.cells.clear();
    this.focused = Math.min(this.focused, Math.max(0, source.count - 1));
    this.layout();
  }

  keys() {
    const step = (by) => (event) => this.moveFocus(this.focused + by(), event.shiftKey);
    const columns = () => this.columns;
    const page = () => this.columns * Math.max(1, Math.floor(this.element.clientHeight / this.size));
    return {
      "ArrowRight Shift+ArrowRight": ["next image (with Shift: select it, too)", step(() => 1)],
      "ArrowLeft Shift+ArrowLeft": ["image before", step(() => -1)],
      "ArrowDown Shift+ArrowDown": ["image below", step(columns)],
      "ArrowUp Shift+ArrowUp": ["image above", step(() => -columns())],
      PageDown: ["one screen down", step(page)],
      PageUp: ["one screen up", step(() => -page())],
      Home: ["first image", () => this.moveFocus(0)],
      End: ["last image", () => this.moveFocus(this.source.count - 1)],
      Space: ["select or deselect", () => this.toggle(this.focused)],
      Enter: ["open the image", () => this.open(this.focused)],
      Escape: ["select nothing", () => this.selection.clear()],
    };
  }

  layout() {
    // The cells fill the width: `size` is the least that they have.
    this.columns = Math.max(1, Math.floor(this.element.clientWidth / this.leastSize));
    this.size = Math.max(1, Math.floor(this.element.clientWidth / this.columns));
    const rows = Math.ceil(this.source.count / this.columns);
    this.scroll = new VirtualScroll(rows * this.size, this.element.clientHeight);
    this.spacer.style.height = `${this.scroll.height}px`;
    this.goTo(this.position);
  }

  /** Show a position among all rows, in pixels from their top. */
  goTo(position) {
    const most = Math.max(0, this.scroll.total - this.element.clientHeight);
    const [reached, scrollTop] = this.scroll.moved(Math.min(Math.max(position, 0), most), this.scroll.scrollTopOf(Math.min(position, most)));
    this.position = reached;
    this.element.scrollTop = scrollTop;
    this.draw();
  }

  scrolled() {
    const before = this.element.scrollTop;
    if (before === this.scroll.last) return;
    const [position, scrollTop] = this.scroll.scrolled(before);
    this.position = position;
    if (scrollTop !== before) this.element.scrollTop = scrollTop;
    this.draw();
  }

  draw() {
    const screen = this.element.clientHeight;
    const firstRow = Math.max(0, Math.floor((this.position - MARGIN_SCREENS * screen) / this.size));
    const lastRow = Math.floor((this.position + (1 + MARGIN_SCREENS) * screen) / this.size);
    const first = firstRow * this.columns;
    const last = Math.min(this.source.count, (lastRow + 1) * this.columns) - 1;
    for (const [index, cell] of this.cells) {
      if (index < first || index > last) {
        cell.remove();
        this.cells.delete(index);
      }
    }
    let missing = false;
    for (let index = first; index <= last; index++) {
      let cell = this.cells.get(index);
      if (!cell) {
        cell = this.element.appendChild(division({ className: "cell", id: `cell-${index}`, role: "option", ariaLabel: `Image ${index + 1}`, ariaPosInSet: index + 1 }));
        cell.dataset.index = index;
        this.cells.set(index, cell);
      }
      if (!cell.dataset.id) missing = !this.fill(cell, index) || missing;
      cell.style.transform = `translate(${(index % this.columns) * this.size}px, ${
        Math.floor(index / this.columns) * this.size - this.scroll.offset}px)`;
      cell.style.width = cell.style.height = `${this.size}px`;
    }
    if (missing) this.load(first, last);
  }

  async load(first, last) {
    const { source } = this;
    await source.need(first, last);
    // Another search may have come meanwhile.
    if (source === this.source) this.cells.forEach((cell, index) => cell.dataset.id || this.fill(cell, index));
  }

  fill(cell, index) {
    const item = this.source.get(index);
    if (!item) return false;
    cell.dataset.id = item.id;
    const image = new Image();
    Object.assign(image, { src: item.thumbnail, alt: item.title, loading: "lazy", decoding: "async", draggable: false });
    const caption = document.createElement("span");
    caption.textContent = caption.title = item.note ? `${item.note} · ${item.title}` : item.title;
    cell.replaceChildren(image, caption);
    cell.ariaLabel = caption.textContent || cell.ariaLabel;
    cell.ariaSetSize = this.source.count;
    this.mark(cell, index);
    return true;
  }

  mark(cell, index) {
    cell.ariaSelected = this.selection.has(cell.dataset.id);
    cell.classList.toggle("focused", index === this.focused);
    if (index === this.focused) this.element.setAttribute("aria-activedescendant", cell.id);
  }

  clicked(event) {
    const cell = event.target.closest("[data-index]");
    if (!cell?.dataset.id) return;
    const index = Number(cell.dataset.index);
    // Its name opens it, also where nobody can click twice.
    if (event.target.matches("span")) this.open(index);
    else if (event.shiftKey) this.selectRange(this.focused, index);
    else if (event.ctrlKey || event.metaKey) this.toggle(index);
    else this.selection.change([cell.dataset.id], gestureOf(event));
    this.moveFocus(index);
  }

  toggle(index) {
    const item = this.source.get(index);
    if (item) this.selection.toggle(item.id);
  }

  async selectRange(from, to) {
    const [first, last] = [Math.min(from, to), Math.max(from, to)];
    const { source } = this, ids = [];
    await source.need(first, last);
    for (let index = first; index <= last; index++) ids.push(source.get(index)?.id);
    this.selection.change(ids.filter(Boolean), "add");
  }

  moveFocus(index, select = false) {
    if (!this.source.count) return;
    this.focused = Math.min(Math.max(index, 0), this.source.count - 1);
    const item = this.source.get(this.focused);
    if (select && item) this.selection.change([item.id], "add");
    const top = Math.floor(this.focused / this.columns) * this.size;
    const screen = this.element.clientHeight;
    if (top < this.position) this.goTo(top);
    else if (top + this.size > this.position + screen) this.goTo(top + this.size - screen);
    else this.draw();
    this.cells.forEach((cell, at) => this.mark(cell, at));
  }
}

const division = (properties) => Object.assign(document.createElement("div"), properties);
