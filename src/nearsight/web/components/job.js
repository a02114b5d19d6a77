// A job that a dialog started: how far it is, or why it failed.

import { followJob, service } from "../api.js";
import { count, Failure, fileName, html, number, useEffect, useRef, useState } from "../ui.js";

/** The states of a job that has not ended. */
export const OPEN = ["queued", "running", "cancelling"];

/** Returns the job's facts, {run, isRunning, failure}. `run` takes the promise of a started job. */
export function useJob(done) {
  const [state, setState] = useState({});
  const stop = useRef(() => {});
  useEffect(() => () => stop.current(), []);
  const told = (job) => {
    setState(job);
    if (job.state === "done") done(job);
  };
  const run = (started) => {
    setState({ state: "queued" });
    started.then((job) => {
      setState(job ?? {});
      if (job) stop.current = followJob(job.id, told);
    }, (failure) => setState({ failure }));
  };
  return { ...state, run, isRunning: OPEN.includes(state.state) };
}

/** How far a job is. */
export function JobBar({ job }) {
  return html`<progress max=${job.total || 1} value=${job.total ? job.done : null} aria-label="Progress"></progress>
    <span class="soft">${job.message || "waiting"}${job.total ? `: ${number(job.done)} of ${number(job.total)}` : ""}</span>`;
}

export function JobProgress({ job, title, stop = "Cancel" }) {
  if (job.failure) return html`<${Failure} error=${job.failure} />`;
  if (job.state === "failed") return html`<${Failure} error=${{ title: "It failed.", message: job.error }} />`;
  if (!job.isRunning) return null;
  return html`<div class="card job" role="status"><strong>${title}</strong>
    <${JobBar} job=${job} />
    ${job.id && html`<button onClick=${() => service.delete(`jobs/${job.id}`)}>${stop}</button>`}</div>`;
}

/** Files that could not be read, and why. */
export function FailureList({ failed, retry }) {
  if (!failed.length) return null;
  return html`<details class="failures" open=${failed.length <= 5}><summary>${count(failed.length, "image")} could not be read</summary>
    <ul>${failed.slice(0, 500).map(({ path, reason }) => html`<li><span title=${path}>${fileName(path)}</span> <span class="soft">${reason}</span></li>`)}</ul>
    ${failed.length > 500 && html`<p class="soft">and ${number(failed.length - 500)} more</p>`}
    ${retry && html`<button onClick=${retry}>Try these again</button>`}</details>`;
}
