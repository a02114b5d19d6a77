// A job that a dialog started: how far it is, or why it failed.

import { followJob, service } from "../api.js";
import { count, Failure, fileName, html, number, useEffect, useState } from "../ui.js";

/** The states of a job that has not ended. */
export const OPEN = ["queued", "running", "cancelling"];

/** Follow a job as long as it runs. Returns whether it does. */
export function useFollowed(job, told) {
  const isOpen = OPEN.includes(job?.state);
  useEffect(() => isOpen && job.id && followJob(job.id, told), [job?.id, isOpen]);
  return isOpen;
}

/** Returns the job's facts, {run, isRunning, failure}. `run` takes the promise of a started job. */
export function useJob(done) {
  const [state, setState] = useState({});
  const isRunning = useFollowed(state, (job) => {
    setState(job);
    if (job.state === "done") done(job);
  });
  const run = (started) => {
    setState({ state: "queued" });
    started.then((job) => setState(job ?? {}), (failure) => setState({ failure }));
  };
  return { ...state, run, isRunning };
}

export function JobBar({ job }) {
  return html`<progress max=${job.total || 1} value=${job.total ? job.done : null} aria-label="Progress" />
    <span class="soft">${job.message || (job.state === "queued" ? "waiting for its turn" : "starting")}${job.total ? `: ${number(job.done)} of ${number(job.total)}` : ""}</span>`;
}

export function JobProgress({ job, title, stop = "Cancel" }) {
  if (job.failure) return html`<${Failure} error=${job.failure} />`;
  if (job.state === "failed") return html`<${Failure} error=${{ title: "It failed.", message: job.error }} />`;
  if (!OPEN.includes(job.state)) return null;
  return html`<div class="card job" role="status"><strong>${title}</strong>
    <${JobBar} job=${job} />
    ${job.id && html`<button onClick=${() => service.delete(`jobs/${job.id}`)}>${stop}</button>`}</div>`;
}

export function FailureList({ failed, retry }) {
  if (!failed.length) return null;
  return html`<details class="failures" open=${failed.length <= 5}><summary>${count(failed.length, "image")} could not be read</summary>
    <ul>${failed.slice(0, 500).map(({ path, reason }) => html`<li><span title=${path}>${fileName(path)}</span> <span class="soft">${reason}</span></li>`)}</ul>
    ${failed.length > 500 && html`<p class="soft">and ${number(failed.length - 500)} more</p>`}
    ${retry && html`<button onClick=${retry}>Try these again</button>`}</details>`;
}
