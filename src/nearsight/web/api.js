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
  for (const [key, value] of Object.entries(query ?? {})) {
    for (const each of Array.isArray(value) ? value : [value]) if (each != null && each !== "") address.searchParams.append(key, each);
  }
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
const detectorAt = (name, ...parts) => [at(name), "detectors", ...parts].join("/");

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
  trash: (name) => ask("GET", `${at(name)}/trash`),
  moveToTrash: (name, what) => ask("POST", `${at(name)}/trash`, { body: what }),
  restore: (name, id) => ask("POST", `${at(name)}/trash/${id}/restore`),
  remove: (name, ids) => ask("POST", `${at(name)}/items/delete`, { body: { ids } }),

  /** @param {{images?: File[], ids?: string[], text?: string, notText?: string[], where?: string}} query */
  search: (name, { images = [], ids = [], text, notText = [], where }, { k, offset, signal } = {}) =>
    ask("POST", `${at(name)}/search`, {
      signal,
      body: images.length
        ? form({ image: images, id: ids, text, not_text: notText, where, k, offset })
        : { id: ids, text: text || null, not_text: notText, where: where || null, k, offset },
    }),

  /** Analyses run as jobs; the latest result of each is kept. */
  startAnalysis: (name, kind, options = {}) => ask("POST", `${at(name)}/${kind}`, { body: options }),
  duplicates: (name, query) => ask("GET", `${at(name)}/duplicates`, { query }),
  decide: (name, ids, decision) => ask("POST", `${at(name)}/duplicates/decisions`, { body: { ids, decision } }),
  clusters: (name) => ask("GET", `${at(name)}/clusters`),
  /** Edit clusters: "merge", "move", "undo", "ID/split"; a new name of "ID". */
  editClusters: (name, path, body) => ask("name" in body ? "PATCH" : "POST", `${at(name)}/clusters/${path}`, { body }),
  audit: (name) => ask("GET", `${at(name)}/audit`),
  recommend: (name, id, query) => ask("GET", `${at(name)}/items/${id}/recommendations`, { query }),

  recommendationTable: (name) => `${at(name)}/recommendations`,
  baskets: (name) => ask("GET", `${at(name)}/baskets`),
  /** @param {File | string} table  a file of this machine, or the name of one of the server */
  putBaskets: (name, title, table) => ask("PUT", `${at(name)}/baskets/${title}`, { body: table instanceof File ? form({ file: table }) : { file: table } }),
  deleteBaskets: (name, title) => ask("DELETE", `${at(name)}/baskets/${title}`),
  people: (name, query) => ask("GET", `${at(name)}/faces`, { query }),
  person: (name, id, query) => ask("GET", `${at(name)}/faces/people/${id}`, { query }),
  personImages: (name, id) => ask("GET", `${at(name)}/faces/people/${id}/images`),
  crop: (name, face, side) => `${at(name)}/faces/${face}/crop?side=${side}`,
  /** @param {"name" | "confirm" | "reject" | "split" | "merge" | "hide" | "undo" | "forget"} what */
  changeFaces: (name, what, body) => ask("POST", `${at(name)}/faces/${what}`, { body }),

  /** The map: x and y (Float32Array), category (Uint16Array; 65,535 for none), and ids. */
  async map(name) {
    const data = await ask("GET", `${at(name)}/map`);
    const n = data.byteLength / 26;
    const ids = new Uint8Array(data, 10 * n);
    const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
    const id = (point) => {
      let text = "";
      for (let at = 16 * point; at < 16 * point + 16; at++) text += digits[ids[at]];
      return text;
    };
    return {
      x: new Float32Array(data, 0, n),
      y: new Float32Array(data, 4 * n, n),
      category: new Uint16Array(data, 8 * n, n),
      ids: Array.from({ length: n }, (_, point) => id(point)),
    };
  },

  /** The values of a field in the order of the map: codes (Uint16Array), and what they mean. */
  async mapValues(name, field) {
    const { codes, ...facts } = await ask("GET", `${at(name)}/map/values`, { query: { field } });
    return { ...facts, codes: new Uint16Array(Uint8Array.from(atob(codes), (byte) => byte.charCodeAt(0)).buffer) };
  },

  labels: (name, key) => ask("GET", `${at(name)}/labels`, { query: { key } }),
  setClasses: (name, key, classes) => ask("PUT", `${at(name)}/labels/classes`, { body: { key, classes } }),
  /** Each change can be undone by its number: {ids, label}. */
  changeLabels: (name, key, changes) => ask("POST", `${at(name)}/labels`, { body: { key, changes } }),
  undoLabels: (name, key, change) => ask("POST", `${at(name)}/labels/undo`, { body: { key, change } }),
  labelQueue: (name, body) => ask("POST", `${at(name)}/labels/queue`, { body }),
  labelAccuracy: (name, key) => ask("GET", `${at(name)}/labels/accuracy`, { query: { key } }),
  labelTable: (name, key) => `${at(name)}/labels/export?key=${encodeURIComponent(key)}`,
  // The classes were chosen by a person: "none" is one, too.
  fitClassifier: (name, key) => ask("POST", `${at(name)}/classifiers`, { body: { key, doubtful: "keep" } }),
  checkLabels: (name, key) => ask("POST", `${at(name)}/labels/check`, { body: { key, doubtful: "keep" } }),
  labelCheck: (name, key) => ask("GET", `${at(name)}/labels/check`, { query: { key } }),
  confirmLabels: (name, key, ids) => ask("POST", `${at(name)}/labels/confirm`, { body: { key, ids } }),

  detectors: (name) => ask("GET", detectorAt(name)),
  fitDetector: (name, options) => ask("POST", detectorAt(name), { body: options }),
  refitDetector: (...detector) => ask("POST", detectorAt(...detector, "refit")),
  inspectFolder: (name, detector, options) => ask("POST", detectorAt(name, detector, "folders"), { body: options }),
  scoreImages: (name, detector, files) => ask("POST", detectorAt(name, detector, "score"), { body: form({ image: files }) }),
  scoredImages: (name, detector, query) => ask("GET", detectorAt(name, detector, "images"), { query }),
  scoredImage: (name, detector, id, form) => detectorAt(name, detector, "images", id, form),
  decideImages: (name, detector, ids, verdict) => ask("POST", detectorAt(name, detector, "verdicts"), { body: { ids, verdict } }),
  threshold: (...detector) => ask("GET", detectorAt(...detector, "threshold")),
  thresholdEffect: (name, detector, at) => ask("GET", detectorAt(name, detector, "threshold/effect"), { query: { at } }),
  setThreshold: (name, detector, threshold) => ask("PUT", detectorAt(name, detector, "threshold"), { body: { threshold } }),

  /** The heat of a scored image: {width, height, values}, in the unit of the score. */
  async heatmap(name, detector, id) {
    const data = await ask("GET", detectorAt(name, detector, "images", id, "heatmap"));
    const [width, height] = new Uint16Array(data, 0, 2);
    return { width, height, values: new Float32Array(data, 4) };
  },

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
