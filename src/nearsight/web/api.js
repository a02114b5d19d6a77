// The service: its routes are resources, most of them below a collection.

class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.error?.message ?? `the service answered ${status}`);
    this.status = status;
  }
}

/** The fields that say something, each value of a list by itself: [[name, value], ...] */
const filled = (fields) => Object.entries(fields).flatMap(([name, value]) => [value].flat().filter((part) => part != null && part !== "").map((part) => [name, part]));

async function ask(method, path, body, { query, signal, headers, tagged } = {}) {
  const address = new URL(path, location.origin);
  for (const pair of filled(query ?? {})) address.searchParams.append(...pair);
  const isForm = body instanceof FormData;
  const response = await fetch(address, {
    method,
    signal,
    body: body == null || isForm ? body : JSON.stringify(body),
    headers: { ...headers, ...(body != null && !isForm && { "Content-Type": "application/json" }) },
  }).catch((error) => { throw error.name === "AbortError" ? error : new Error("the service does not answer; it may have been stopped."); });
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})));
  if (response.status === 204) return null;
  const isJson = response.headers.get("Content-Type")?.includes("json");
  const answer = await (isJson ? response.json() : response.arrayBuffer());
  return tagged ? { ...answer, tag: response.headers.get("ETag") } : answer;
}

/** The fields of a form; files are sent as they are. */
export function form(fields) {
  const data = new FormData();
  for (const pair of filled(fields)) data.append(...pair);
  return data;
}

class Resource {
  constructor(place) {
    this.place = place;
  }

  url = (path) => `${this.place}/${path}`;
  get = (path, query) => ask("GET", this.url(path), null, { query });
  post = (path, body = {}, options) => ask("POST", this.url(path), body, options);
  put = (path, body) => ask("PUT", this.url(path), body);
  // What several people may change at once, with its tag: only what has this tag is replaced.
  read = (path) => ask("GET", this.url(path), null, { tagged: true });
  replace = (path, body, tag) => ask("PUT", this.url(path), body, { headers: { "If-Match": tag }, tagged: true });
  patch = (path, body) => ask("PATCH", this.url(path), body);
  delete = (path) => ask("DELETE", this.url(path));
}

/** What belongs to no collection: collections, the session, jobs. */
export const service = new Resource("/v1");

/** A collection, and what the service says of it: name, images, model, dim. */
export class Collection extends Resource {
  constructor(facts) {
    super(`/v1/collections/${encodeURIComponent(facts.name)}`);
    Object.assign(this, facts);
  }

  facts = () => ask("GET", this.place);
  item = (id) => this.get(`items/${id}`);
  thumbnail = (id) => this.url(`items/${id}/thumbnail`);
  original = (id) => this.url(`items/${id}/original`);
  upload = (files) => this.post("items", form({ image: files }));

  // A part is a `file` or the `id` of an image. `by` is the model that an upgrade moves to: it finds one page.
  search({ parts = [], text, notText = [], where, cluster, by }, { k, offset, signal } = {}) {
    const of = (key, isNot) => parts.filter((part) => part[key] && Boolean(part.isNot) === isNot).map((part) => part[key]);
    const query = { id: of("id", false), not_id: of("id", true), text, not_text: notText, where, cluster, k, ...(by ? { model: by } : { offset }) };
    const files = { image: of("file", false), not_image: of("file", true) };
    const asked = Object.fromEntries(Object.entries(query).filter(([, value]) => value != null && value.length !== 0));
    return this.post("search", parts.some(({ file }) => file) ? form({ ...files, ...query }) : asked, { signal });
  }
}

/** Follow a job until it ends. Returns what stops following. */
export function followJob(id, told) {
  const events = new EventSource(service.url(`jobs/${id}/events`));
  const tell = (event) => told(JSON.parse(event.data));
  events.addEventListener("progress", tell);
  events.addEventListener("end", (event) => {
    // A stream that ended would be opened again and again by the browser.
    events.close();
    tell(event);
  });
  return () => events.close();
}
