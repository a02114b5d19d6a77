// The address of the page: #/COLLECTION/VIEW?name=value. A reload and the back button lead to the same place.

export function current() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [collection, view] = path.split("/").map(decodeURIComponent);
  return { collection: collection || null, view: view || "images", query: Object.fromEntries(new URLSearchParams(query)) };
}

export function address({ name }, view, query = {}) {
  const entries = Object.entries(query).filter(([, value]) => value != null && value !== "");
  const text = new URLSearchParams(entries).toString();
  return `#/${encodeURIComponent(name)}/${view}${text ? `?${text}` : ""}`;
}

export function go(collection, view, query) {
  location.hash = address(collection, view, query);
}

/** Change the query in the address: a step for the back button, but nothing is drawn anew. */
export function note(collection, view, query) {
  // Somebody may have gone elsewhere, and the page not heard of it yet.
  const here = current(), next = address(collection, view, query);
  if (here.collection === collection.name && here.view === view && address(collection, view, here.query) !== next) history.pushState(null, "", next);
}
