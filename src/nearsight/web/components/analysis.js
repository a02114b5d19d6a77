// An analysis: its latest result, or the button that starts it; progress while it runs.

import { followJob, service } from "../api.js";
import { JobProgress, OPEN } from "./job.js";
import { Empty, Failure, html, useEffect, useRef, useState, Wait } from "../ui.js";

/** Returns {result, error, job, start, reload, follow}. `read` answers the latest result. */
export function useAnalysis(collection, kind, read) {
  const [state, setState] = useState({});
  const change = (part) => setState((now) => ({ ...now, ...part }));
  const round = useRef(0);
  const reload = () => {
    // An answer that comes after a later one is old.
    const mine = ++round.current;
    const told = (part) => mine === round.current && change(part);
    return read().then(
      (result) => told({ result, error: undefined, isMissing: false }),
      (error) => told(error.status === 404 ? { isMissing: true } : { error }),
    );
  };
  useEffect(() => {
    reload();
    // One that was started before the page was loaded again is still followed.
    service.get("jobs").then(({ jobs }) => {
      const running = jobs.find((job) => job.kind === kind && job.collection === collection.name && OPEN.includes(job.state));
      if (running) change({ job: running });
    });
  }, [collection.name]);
  useEffect(() => {
    if (!state.job || !OPEN.includes(state.job.state)) return undefined;
    return followJob(state.job.id, (job) => {
      change({ job });
      if (job.state === "done") reload();
    });
  }, [state.job?.id]);
  const start = (options) => collection.post(kind, options).then((job) => change({ job, error: undefined }), (error) => change({ error }));
  return { ...state, start, reload, follow: (job) => change({ job }) };
}

/** Progress, failure, and the first start of an analysis. Children are shown when there is a result. */
export function Analysis({ analysis, title, button, explanation, children }) {
  const { job, error, isMissing, result, start } = analysis;
  const isRunning = job && OPEN.includes(job.state);
  return html`
    ${error && html`<${Failure} error=${error} />`}
    ${job && html`<${JobProgress} job=${{ ...job, isRunning }} title=${button} />`}
    ${isMissing && !isRunning && html`<${Empty} title=${title} isPage><p>${explanation}</p><button class="main" onClick=${() => start()}>${button}</button></${Empty}>`}
    ${result && children}
    ${!result && !isMissing && !error && html`<${Wait} />`}`;
}
