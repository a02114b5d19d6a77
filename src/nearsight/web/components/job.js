// Jobs: how far each is, what it waits for, or why it failed.

import { followJob, service } from "../api.js";
import { andMore, count, Failure, fileName, html, number, useAnswer, useEffect, useState } from "../ui.js";

/** The states of a job that has not ended. */
export const OPEN = ["queued", "running", "cancelling"];

/** Whether a job has ended before it was done, and nobody wanted that. */
const hasStopped = (job) => ["interrupted", "failed"].includes(job?.state);

const DOES = {
  index: "Add images", duplicates: "Find duplicates", clusters: "Find clusters", cluster_split: "Split a cluster", map: "Make the map",
  faces: "Find faces", faces_upgrade: "Compute faces again", audit: "Audit", upgrade: "Move to another model", classifier: "Learn from labels", predictions: "Classify",
  label_check: "Check labels", baskets: "Learn from orders", recommendations: "Recommend for every item",
  anomaly_fit: "Fit", anomaly_score: "Score a folder", anomaly_watch: "Watch a folder",
};

export const jobTitle = ({ kind, args = {} }) => [DOES[kind] ?? kind, args.folder ?? args.where].filter(Boolean).join(": ");

/** Follow a job as long as it runs. Returns whether it does. */
export function useFollowed(job, told) {
  const isOpen = OPEN.includes(job?.state);
  useEffect(() => isOpen && job.id && followJob(job.id, told), [job?.id, isOpen]);
  return isOpen;
}

/** The latest job of some kinds, also one from before the page was loaded: its facts, and {run, follow, isRunning, failure}. `run` takes the promise of a new one of the first kind. */
export function useJob(collection, kinds, ended) {
  const [job, follow] = useState({});
  useEffect(() => {
    Promise.all(kinds.map((kind) => service.get("jobs", { kind, collection: collection.name, limit: 1 }))).then((answers) => {
      const [latest] = answers.flatMap(({ jobs }) => jobs).sort((a, b) => (a.created < b.created ? 1 : -1));
      // Unless another was started meanwhile. What was done, or given up, before the page was loaded is of no use.
      const isLeft = OPEN.includes(latest?.state) || hasStopped(latest);
      follow((now) => (isLeft && !now.state ? latest : now));
    }, (failure) => follow((now) => ({ ...now, failure })));
  }, [collection.name]);
  const isRunning = useFollowed(job, (told) => {
    follow(told);
    if (!OPEN.includes(told.state)) ended(told);
  });
  const run = (started) => {
    follow({ kind: kinds[0], state: "queued" });
    return started.then((job) => follow(job ?? {}), (failure) => follow({ failure }));
  };
  return { ...job, run, follow, isRunning };
}

// Each has a place of its own; of the others, one runs at a time, the oldest first.
const isStanding = ({ kind }) => kind === "anomaly_watch";

function Waiting({ job }) {
  const [answer, , again] = useAnswer(() => service.get("jobs"), []);
  useEffect(() => { const timer = setInterval(again, 2000); return () => clearInterval(timer); }, []);
  const before = (answer?.jobs ?? []).filter((each) => each.id !== job.id && isStanding(each) === isStanding(job)
    && OPEN.includes(each.state) && (each.state !== "queued" || each.created < job.created));
  const now = before.find(({ state }) => state !== "queued");
  if (!now) return "waiting for its turn";
  const others = before.length > 1 ? ` and ${count(before.length - 1, "other job")}` : "";
  return `waiting for “${jobTitle(now)}” in ${now.collection}${now.total ? `, ${number(now.done)} of ${number(now.total)}` : ""}${others}`;
}

/** Why a job has ended before it was done, and the buttons with which it goes on, or is left so; `told` gets what it is then. */
export function JobEnd({ job, told }) {
  const [refused, setRefused] = useState();
  const send = (asked) => asked.then(told, setRefused);
  const isFailed = job.state === "failed";
  const reason = isFailed ? { title: "It failed:", message: job.error } : { title: "It was interrupted:", message: "the service stopped before it was done." };
  return html`<${Failure} error=${refused ?? (hasStopped(job) && reason)} />
    <div class="buttons"><button class="main" onClick=${() => send(service.post(`jobs/${job.id}/resume`))}>${isFailed ? "Try again" : "Go on"}</button>
      ${hasStopped(job) && html`<button onClick=${() => send(service.delete(`jobs/${job.id}`))}>Leave it</button>`}</div>`;
}

/** How far a job is that runs; or why it has stopped, with the way on. `told` gets what it is then. */
export function JobProgress({ job, told = job.follow, title = jobTitle(job), stop = "Cancel" }) {
  const [refused, setRefused] = useState();
  const failure = job.failure ?? refused;
  if (failure) return html`<${Failure} error=${failure} />`;
  if (hasStopped(job)) return html`<div class="card job"><strong>${title}</strong><${JobEnd} ...${{ job, told }} /></div>`;
  if (!OPEN.includes(job.state)) return null;
  return html`<div class="card job" role="status"><div class="line"><span class="space"><strong>${title}</strong> <span class="soft">${job.state === "queued" && job.id ? html`<${Waiting} job=${job} />` : `${job.message || "starting"}${job.total ? `: ${number(job.done)} of ${number(job.total)}` : ""}`}</span></span>
      ${job.id && html`<button onClick=${() => service.delete(`jobs/${job.id}`).catch(setRefused)}>${stop}</button>`}</div>
    <progress max=${job.total || 1} value=${job.total ? job.done : null} aria-label="Progress" /></div>`;
}

export function FailureList({ failed, retry }) {
  if (!failed.length) return null;
  return html`<details class="failures" open=${failed.length <= 5}><summary>${count(failed.length, "image")} could not be read</summary>
    <ul>${failed.slice(0, 500).map(({ path, reason }) => html`<li><span title=${path}>${fileName(path)}</span> <span class="soft">${reason}</span></li>`)}</ul>
    ${andMore(failed.length - 500)}
    ${retry && html`<button onClick=${retry}>Try these again</button>`}</details>`;
}
