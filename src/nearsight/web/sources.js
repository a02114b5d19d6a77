// Where a grid takes its images from: a listing or a search, page by page, whatever is scrolled to.

import { fileName } from "./ui.js";

/** What people call an item. */
export const titleOf = ({ metadata, path }) => String(metadata?.title ?? metadata?.name ?? fileName(path));

const PAGE = 500;
// Pages that are kept; the grid asks again for others.
const MAX_PAGES = 40;

class PagedSource {
  constructor(collection) {
    this.collection = collection;
    this.count = 0;
    this.pages = new Map();
    this.waiting = new Map();
  }

  open = () => this.load(0);

  get(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  async need(first, last) {
    const pages = [];
    for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page++) pages.push(this.load(page));
    await Promise.all(pages);
  }

  async load(page) {
    if (this.pages.has(page)) return;
    if (!this.waiting.has(page)) this.waiting.set(page, this.read(page).finally(() => this.waiting.delete(page)));
    const cells = await this.waiting.get(page);
    this.pages.set(page, cells);
    if (this.pages.size > MAX_PAGES) this.pages.delete(this.pages.keys().next().value);
  }

  cell(item, note) {
    return { id: item.id, title: titleOf(item), thumbnail: this.collection.thumbnail(item.id), note, item };
  }
}

/** All images, or those that a filter lets through, in the order they came in. */
export class Listing extends PagedSource {
  constructor(collection, { where, cluster }) {
    super(collection);
    this.query = { where, cluster };
  }

  async read(page) {
    const { items, total } = await this.collection.get("items", { ...this.query, offset: page * PAGE, limit: PAGE });
    this.count = total;
    return items.map((item) => this.cell(item));
  }
}

/** The images most similar to a query, the most similar first. */
export class Matches extends PagedSource {
  constructor(collection, query, signal) {
    super(collection);
    this.query = query;
    this.signal = signal;
  }

  async read(page) {
    const { hits, next, bridge } = await this.collection.search(this.query, { k: PAGE, offset: page * PAGE, signal: this.signal });
    // How many there are is known when the last page has come.
    this.count = Math.max(this.count, Math.min(page * PAGE + hits.length + (next ? PAGE : 0), this.collection.images));
    if (!next) this.count = page * PAGE + hits.length;
    this.bridge = bridge;
    // Of a query of several parts, the number is a score of no scale that a person knows.
    const { text, parts, notText } = this.query, isSimilarity = Boolean(text) + parts.length + notText.length === 1;
    return hits.map((hit) => this.cell(hit, isSimilarity ? `${hit.similarity.toFixed(3)}${hit.by === "bridge" ? " (estimated)" : ""}` : ""));
  }
}

/** Images that are known by their ids, and what each is called. */
export class IdSource {
  constructor(collection, ids, title = () => "") {
    Object.assign(this, { collection, ids, title, count: ids.length });
  }

  get(index) {
    const id = this.ids[index];
    return id && { id, title: this.title(index), thumbnail: this.collection.thumbnail(id) };
  }

  async need() {}
}
