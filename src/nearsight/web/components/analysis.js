// An analysis: its latest result, or the button that starts it; progress while it runs.

import { JobProgress, useJob } from "./job.js";
import { Empty, Failure, html, NoImages, useAnswer, useRef, Wait } from "../ui.js";

/** Returns {collection, result, error, job, start, reload}. `read` answers the latest result; it gets the names of all analyses that have one. Jobs of `others`, too, change it. */
export function useAnalysis(collection, kind, read, others = []) {
  const latest = useRef();
  latest.current = read;
  // A job that ends reads as the latest render does; images that leave the collection, or come back, change the result.
  const [result, error, reload] = useAnswer(async () => {
    const { analyses } = await collection.get("analyses");
    return analyses.includes(kind) ? latest.current(analyses) : null;
  }, [collection.name, collection.images]);
  const job = useJob(collection, [kind, ...others], ({ state }) => state === "done" && reload());
  return { collection, result, job, error, start: (options) => job.run(collection.post(kind, options)), reload };
}

/** Progress, failure, and the first start of an analysis. Children are shown when there is a result. */
export function Analysis({ analysis, title, button, explanation, children }) {
  const { collection, job, error, result, start } = analysis;
  return html`
    ${result === undefined ? html`<${Wait} error=${error} />` : html`<${Failure} error=${error} /><${JobProgress} job=${job} />`}
    ${result === null && !job.isRunning && (collection.images === 0 ? html`<${NoImages} collection=${collection} isPage />`
      : html`<${Empty} title=${title} isPage><p>${explanation}</p><button class="main" onClick=${() => start()}>${button}</button><//>`)}
    ${result && children}`;
}
