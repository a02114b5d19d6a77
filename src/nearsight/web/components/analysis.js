// An analysis: its latest result, or the button that starts it; progress while it runs.

import { service } from "../api.js";
import { JobProgress, OPEN, useFollowed } from "./job.js";
import { Empty, Failure, html, useAnswer, useEffect, useRef, useState, Wait } from "../ui.js";

/** Returns {result, error, job, start, reload, follow}. `read` answers the latest result; it gets the names of all analyses that have one. */
export function useAnalysis(collection, kind, read) {
  const [job, follow] = useState();
  const [failure, setFailure] = useState();
  const latest = useRef();
  latest.current = read;
  // A job that ends reads as the latest render does; images that leave the collection, or come back, change the result.
  const [result, unread, reload] = useAnswer(async () => {
    const { analyses } = await collection.get("analyses");
    return analyses.includes(kind) ? latest.current(analyses) : null;
  }, [collection.name, collection.images]);
  useEffect(() => {
    // One that was started before the page was loaded again is still followed, unless another was started meanwhile.
    service.get("jobs").then(({ jobs }) => {
      const running = jobs.find((job) => job.kind === kind && job.collection === collection.name && OPEN.includes(job.state));
      follow((now) => now ?? running);
    }, setFailure);
  }, [collection.name]);
  useFollowed(job, (told) => {
    follow(told);
    if (told.state === "done") reload();
  });
  const start = (options) => collection.post(kind, options).then((job) => { setFailure(); follow(job); }, setFailure);
  return { result, job, error: failure ?? unread, start, reload, follow };
}

/** Progress, failure, and the first start of an analysis. Children are shown when there is a result. */
export function Analysis({ analysis, title, button, explanation, children }) {
  const { job, error, result, start } = analysis;
  return html`
    <${Failure} error=${error} />
    ${job && html`<${JobProgress} job=${job} title=${button} />`}
    ${result === null && !OPEN.includes(job?.state) && html`<${Empty} title=${title} isPage><p>${explanation}</p><button class="main" onClick=${() => start()}>${button}</button><//>`}
    ${result && children}
    ${result === undefined && !error && html`<${Wait} />`}`;
}
