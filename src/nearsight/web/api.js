// The only module that knows the addresses of the service.

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.error?.message ?? `the service answered ${status}`);
    this.status = status;
    this.title = problem.title;
  }
}

async function ask(method, path, { body, query, signal } = {}) {
  const address = new URL(path, location.origin);
  for (const [key, value] of Object.entries(query ?? {})) if (value != null && value !== "") address.searchParams.set(key, value);
  const isForm = body instanceof FormData;
  const response = await fetch(address, {
    method,
    signal,
    body: body == null || isForm ? body : JSON.stringify(body),
    headers: body == null || isForm ? {} : { "Content-Type": "application/json" },
  });
  if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})));
  if (response.status === 204) return null;
  const isJson = response.headers.get("Content-Type")?.includes("json");
  return isJson ? response.json() : response.arrayBuffer();
}

const at = (name) => `/v1/collections/${encodeURIComponent(name)}`;

export const api = {
  session: () => ask("GET", "/v1/session"),
  signIn: (key) => ask("POST", "/v1/session", { body: { key } }),
  signOut: () => ask("DELETE", "/v1/session"),
  models: () => ask("GET", "/v1/models"),

  collections: () => ask("GET", "/v1/collections"),
  collection: (name) => ask("GET", at(name)),
  createCollection: (name) => ask("POST", "/v1/collections", { body: { name } }),

  items: (name, query) => ask("GET", `${at(name)}/items`, { query }),
  item: (name, id) => ask("GET", `${at(name)}/items/${id}`),
  thumbnail: (name, id) => `${at(name)}/items/${id}/thumbnail`,
  original: (name, id) => `${at(name)}/items/${id}/original`,
  upload: (name, files) => ask("POST", `${at(name)}/items`, { body: form({ image: files }) }),
  tag: (name, ids, metadata) => ask("PATCH", `${at(name)}/items`, { body: { ids, metadata } }),
  remove: (name, ids) => ask("POST", `${at(name)}/items/delete`, { body: { ids } }),

  /** @param {{images?: File[], ids?: string[], text?: string, notText?: string[], where?: string}} query */
  search: (name, { images = [], ids = [], text, notText = [], where }, { k, offset, signal } = {}) =>
    ask("POST", `${at(name)}/search`, {
      signal,
      body: images.length
        ? form({ image: images, id: ids, text, not_text: notText, where, k, offset })
        : { id: ids, text: text || null, not_text: notText, where: where || null, k, offset },
    }),

  indexFolder: (name, folder) => ask("POST", `${at(name)}/index`, { body: { folder } }),
  jobs: () => ask("GET", "/v1/jobs"),
  job: (id) => ask("GET", `/v1/jobs/${id}`),
  cancelJob: (id) => ask("DELETE", `/v1/jobs/${id}`),
  resumeJob: (id) => ask("POST", `/v1/jobs/${id}/resume`),

  /** Follow a job until it ends. Returns what stops following. */
  followJob(id, told) {
    const events = new EventSource(`/v1/jobs/${id}/events`);
    const tell = (event) => told(JSON.parse(event.data));
    events.addEventListener("progress", tell);
    events.addEventListener("end", (event) => {
      // A stream that ended would be opened again and again by the browser.
      events.close();
      tell(event);
    });
    return () => events.close();
  },
};

function form(fields) {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const part of Array.isArray(value) ? value : [value]) if (part != null && part !== "") data.append(name, part);
  }
  return data;
}
