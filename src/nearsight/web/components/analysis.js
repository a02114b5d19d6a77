// An analysis: its latest result, or the button that starts it; progress while it runs.

import { api } from "../api.js";
import { Empty, Failure, html, useEffect, useState } from "../ui.js";

const OPEN = ["queued", "running", "cancelling"];

/** Returns {result, error, job, start, reload, follow}. `read` answers the latest result. */
export function useAnalysis(collection, kind, read) {
  const [state, setState] = useState({});
  const change = (part) => setState((now) => ({ ...now, ...part }));
  const reload = () => read().then(
    (result) => change({ result, error: undefined, isMissing: false }),
    (error) => change(error.status === 404 ? { isMissing: true } : { error }),
  );
  useEffect(() => {
    reload();
    // One that was started before the page was loaded again is still followed.
    api.jobs().then(({ jobs }) => {
      const running = jobs.find((job) => job.kind === kind && job.collection === collection && OPEN.includes(job.state));
      if (running) change({ job: running });
    });
  }, [collection]);
  useEffect(() => {
    if (!state.job || !OPEN.includes(state.job.state)) return undefined;
    return api.followJob(state.job.id, (job) => {
      change({ job });
      if (job.state === "done") reload();
    });
  }, [state.job?.id]);
  const start = (options) => api.startAnalysis(collection, kind, options).then((job) => change({ job, error: undefined }), (error) => change({ error }));
  return { ...state, start, reload, follow: (job) => change({ job }) };
}

/** Progress, failure, and the first start of an analysis. Children are shown when there is a result. */
export function Analysis({ analysis, title, button, explanation, children }) {
  const { job, error, isMissing, result, start } = analysis;
  const isRunning = job && OPEN.includes(job.state);
  return html`
    ${error && html`<${Failure} error=${error} />`}
    ${isRunning && html`<div class="card job" role="status"><strong>${button}</strong>
      <progress max=${job.total || 1} value=${job.total ? job.done : null} aria-label="Progress"></progress>
      <span class="soft">${job.message || "waiting"}${job.total ? `: ${job.done.toLocaleString("en")} of ${job.total.toLocaleString("en")}` : ""}</span>
      <button class="quiet" onClick=${() => api.cancelJob(job.id)}>Cancel</button></div>`}
    ${job?.state === "failed" && html`<${Failure} error=${{ title: "It failed.", message: job.error }} />`}
    ${isMissing && !isRunning && html`<${Empty} title=${title}><p>${explanation}</p><button onClick=${() => start()}>${button}</button></${Empty}>`}
    ${result && children}
    ${!result && !isMissing && !error && html`<p class="wait">Loading…</p>`}`;
}
