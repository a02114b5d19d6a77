// The selected images. Every view shows and changes the same one.

export class Selection extends EventTarget {
  constructor() {
    super();
    this.ids = new Set();
  }

  get size() {
    return this.ids.size;
  }

  has(id) {
    return this.ids.has(id);
  }

  /** @param {Iterable<string>} ids @param {"replace" | "add" | "subtract"} how */
  change(ids, how = "replace") {
    if (how === "replace") this.ids = new Set(ids);
    else for (const id of ids) how === "add" ? this.ids.add(id) : this.ids.delete(id);
    this.dispatchEvent(new Event("change"));
  }

  toggle(id) {
    this.change([id], this.has(id) ? "subtract" : "add");
  }

  clear() {
    this.change([]);
  }
}

/** How a gesture changes the selection: Shift adds, Alt subtracts, neither replaces. */
export function gestureOf(event) {
  return event.altKey ? "subtract" : event.shiftKey ? "add" : "replace";
}
