// Add a folder of the server, or files of this machine; follow the jobs that run, and see what failed.

import { service } from "../api.js";
import { FailureList, JobEnd, JobProgress, jobTitle, OPEN, useFollowed } from "../components/job.js";
import { count, Failure, FileButton, Form, html, number, Options, useAnswer, useState, Wait, written } from "../ui.js";

const UPLOAD_BATCH = 8;

export function AddImages({ collection, reload }) {
  const [places, placesError] = useAnswer(() => collection.get("folders"), [collection.name]);
  const [jobs, jobsError, reloadJobs] = useAnswer(
    () => service.get("jobs", { collection: collection.name }).then(({ jobs }) => jobs),
    [collection.name],
  );
  const error = placesError ?? jobsError;
  if (!places || !jobs) return html`<${Wait} error=${error} />`;
  return html`
    <h1>Add images</h1>
    <${Failure} error=${error} />
    <div class="columns">
      <${FolderForm} collection=${collection} ...${places} started=${reloadJobs} />
      <${UploadForm} ...${{ collection, reload }} />
    </div>
    <h2>Jobs</h2>
    ${jobs.length === 0 && html`<p class="soft">No job has run yet.</p>`}
    ${jobs.map((job) => html`<${JobCard} key=${job.id} ...${{ job, collection }} changed=${() => { reload(); reloadJobs(); }} />`)}`;
}

function FolderForm({ collection, folders, roots, started }) {
  const own = folders.length ? folders : roots;
  // Of several the person chooses: a list offers only what begins with the words that are there.
  const [folder, setFolder] = useState(own.every((other) => other.startsWith(own[0])) ? own[0] : "");
  const begin = () => collection.post("index", { folder }).then(started);
  if (!roots.length) return html`<div class="card"><h2>A folder of the server</h2>
    <p>No folder is open to this page. Start the service with <code>nearsight serve --root photos=/path/to/photos</code>.</p></div>`;
  return html`<${Form} class="card" send=${begin}><h2>A folder of the server</h2>
    <p>Unchanged images are passed over, so that a second run takes a moment.</p>
    <label>Folder <input list="folders" required placeholder=${own.slice(0, 3).join(", ")} ...${written(folder, setFolder)} /></label>
    <${Options} id="folders" values=${[...folders, ...roots]} />
    <button class="main">Add the folder</button><//>`;
}

function UploadForm({ collection, reload }) {
  // Of all files since the view was opened.
  const [state, setState] = useState({ done: 0, total: 0, added: 0, exists: 0, failed: [] });
  const [isOver, setIsOver] = useState(false);
  const send = async (images) => {
    setState((now) => ({ ...now, total: now.total + images.length }));
    for (let start = 0; start < images.length; start += UPLOAD_BATCH) {
      const batch = images.slice(start, start + UPLOAD_BATCH);
      const failed = (reason) => batch.map((file) => ({ path: file.name, reason, file }));
      const answer = await collection.upload(batch).catch((error) => ({ added: 0, exists: 0, items: [], refused: failed(error.message) }));
      const items = answer.items.map((item, at) => ({ ...item, path: item.path ?? batch[at]?.name, file: batch[at] }));
      setState((now) => ({
        ...now,
        done: now.done + batch.length,
        added: now.added + answer.added,
        exists: now.exists + answer.exists,
        failed: [...now.failed, ...(answer.refused ?? items.filter((item) => item.status === "failed"))],
      }));
    }
    reload();
  };
  const again = () => { setState((now) => ({ ...now, failed: [] })); send(state.failed.map(({ file }) => file)); };
  const drop = (event) => {
    event.preventDefault();
    setIsOver(false);
    send([...event.dataTransfer.files]);
  };
  return html`<div class=${`card drop ${isOver ? "over" : ""}`} onDragOver=${(event) => { event.preventDefault(); setIsOver(true); }}
    onDragLeave=${() => setIsOver(false)} onDrop=${drop}>
    <h2>Files of this machine</h2>
    <p>Drop images here, or choose them. They are copied to the server.</p>
    <${FileButton} kind="main" send=${send}>Choose images<//>
    ${state.total > 0 && html`<progress max=${state.total} value=${state.done} aria-label="Upload" />
      <p role="status">${count(state.added, "image")} added, ${number(state.exists)} there already${state.failed.length ? `, ${state.failed.length} failed` : ""}.</p>`}
    <${FailureList} failed=${state.failed} retry=${again} />
  </div>`;
}

function JobCard({ job: first, collection, changed }) {
  const [job, setJob] = useState(first);
  const [error, setError] = useState();
  const isOpen = useFollowed(job, (told) => {
    setJob(told);
    if (!OPEN.includes(told.state)) changed();
  });
  // What is in the collection already is passed over.
  const again = () => collection.post("index", job.args).then(changed, setError);
  const result = job.result ?? {};
  if (isOpen) return html`<${JobProgress} job=${job} />`;
  return html`<article class="card job" aria-label=${jobTitle(job)}>
    <header class="line"><strong>${jobTitle(job)}</strong><span class=${`state ${job.state}`}>${job.state}</span></header>
    ${job.state === "done" && job.kind === "index" && html`<p>${resultText(result)}</p>`}
    <${Failure} error=${error} />
    <${FailureList} failed=${result.failed ?? []} retry=${job.kind === "index" && again} />
    ${job.state !== "done" && html`<${JobEnd} job=${job} told=${setJob} />`}
  </article>`;
}

function resultText(result) {
  const same = result.same_content ?? 0;
  const { added, updated, unchanged, removed } = result;
  const counts = Object.entries({ added: added - same, updated, unchanged, removed }).filter(([, n]) => n);
  const parts = counts.map(([words, n]) => `${number(n)} ${words}`);
  if (same) parts.push(`${count(same, "more file")} with the same content`);
  const skipped = Object.entries(result.skipped ?? {}).map(([kind, n]) => `${n} ${kind}`);
  return `${parts.join(", ") || "nothing new"}${skipped.length ? `; passed over: ${skipped.join(", ")}` : ""}.`;
}
