// Defects: fit a detector on good images, watch a folder, look at the heat, set the threshold, confirm, fit again.

import { form, service } from "../api.js";
import { Heat } from "../components/heat.js";
import { FailureList, JobProgress, jobTitle, OPEN, useFollowed } from "../components/job.js";
import { ThresholdControl } from "../components/threshold.js";
import { andMore, announce, count, Empty, Failure, FileButton, fileName, Form, html, NameField, number, Options, sentence, steps, useAnswer, useChange, useEffect, useKeys, useOrder, useRef, useState, Wait, written } from "../ui.js";

const PAGE = 200;

export function Inspection({ collection }) {
  const name = collection.name;
  const [chosen, setChosen] = useState();
  const [jobs, setJobs] = useState([]);
  const [places, setPlaces] = useState({ folders: [], roots: [] });
  const [error, setError] = useState();
  const [makesNew, setMakesNew] = useState(false);
  const [made, setMade] = useState();
  // What is told twice at once is read twice: the later answer counts.
  const [answer, unread, load] = useAnswer(() => collection.get("detectors"), [name]);
  useEffect(() => {
    // Beside those that were started meanwhile.
    service.get("jobs", { collection: name }).then(({ jobs }) => setJobs((now) => [...now, ...jobs.filter((job) => job.kind.startsWith("anomaly_") && !now.some(({ id }) => id === job.id))]), setError);
    collection.get("folders").then(setPlaces, setError);
  }, [name]);
  const start = (asked) => asked.then((job) => { setError(); setJobs((now) => [job, ...now]); return job; }, setError);
  const told = (job) => {
    setJobs((now) => now.map((each) => (each.id === job.id ? job : each)));
    if (job.kind === "anomaly_fit" && job.state === "done") {
      // Who looks at another detector goes on looking at it, unless this one was made to be looked at.
      setChosen((now) => (job.args.detector === made ? made : now ?? job.args.detector));
      if (job.args.detector === made) setMakesNew(false);
      setMade();
    }
    load();
  };
  if (!answer) return html`<${Wait} error=${unread ?? error} />`;
  const { detectors } = answer;
  const detector = detectors.find((each) => each.name === chosen) ?? detectors[0];
  const isLatest = (job) => job === jobs.find(({ kind, args }) => kind === job.kind && args.detector === job.args.detector);
  const shown = jobs.filter((job) => (job.kind === "anomaly_fit" || job.args.detector === detector?.name) && (OPEN.includes(job.state) || isLatest(job)));
  const running = shown.some((job) => job.kind === "anomaly_fit" && OPEN.includes(job.state));
  return html`
    <${Failure} error=${error ?? unread} /><${Options} id="folders" values=${[...places.folders, ...places.roots]} />
    ${!detector && html`<h1>Inspection</h1>`}
    ${detector && html`<div class="line wrap"><h1>Inspection</h1>
      <label><span class="hidden-text">Detector</span><select ...${written(detector.name, setChosen)}>
        ${detectors.map((each) => html`<option value=${each.name}>${each.name}</option>`)}</select></label>
      <span class="soft">fitted on ${count(detector.fit.images, "good image")}, ${detector.fit.held_out} of them held out</span><span class="space" />
      <button onClick=${() => setMakesNew(!makesNew)}>New detector…</button></div>`}
    ${shown.map((job) => html`<${Progress} key=${job.id} ...${{ job, told }}/>`)}
    ${(makesNew || !detector) && html`<${FitForm} places=${places} taken=${detectors} hidden=${running}
        fit=${(options) => { setMade(options.name); return start(collection.post("detectors", options)); }} />`}
    ${detector && html`<${Board} key=${detector.name} ...${{ collection, detector, places, start }} changed=${load} setError=${setError}
      done=${jobs.map((job) => job.id + job.state + job.done).join()} isFitting=${running}
      watched=${shown.filter((job) => job.kind === "anomaly_watch" && OPEN.includes(job.state)).map((job) => job.args.folder)} />`}`;
}

function Progress({ job, told }) {
  useFollowed(job, told);
  const isWatch = job.kind === "anomaly_watch";
  const done = isWatch ? `, ${count(job.done, "image")} so far` : "";
  return html`<${JobProgress} ...${{ job, told }} stop=${isWatch ? "Stop watching" : "Cancel"} title=${jobTitle(job) + done} />`;
}

function FitForm({ places: { folders, roots }, taken, fit, hidden }) {
  const [fields, setFields] = useState({ name: taken.length ? "" : "parts", where: "", rate: "5" });
  // The folders may come after somebody began to write: what was written stays.
  const shown = { folder: folders.find((folder) => /(^|\/)(good|ok|normal)$/i.test(folder)) ?? (folders.length === 1 ? folders[0] : ""), ...fields };
  const field = (name) => ({ value: shown[name], onInput: (event) => setFields((now) => ({ ...now, [name]: event.target.value })) });
  const { name, folder, where, rate } = shown;
  const send = () => fit({ name, false_alarm_rate: rate / 100, ...(where ? { where } : { folder }) });
  return html`<${Form} class="card narrow" ...${{ hidden, send }}><h2>Fit a detector on good images</h2>
    <p>No defective image is needed. Some of the good images are held out: they say where the threshold lies.</p>
    <${NameField} ...${field("name")} />
    <label>Folder of good images <input list="folders" placeholder=${`${folders[0] ?? roots[0] ?? "line"}/good`} required=${!where} disabled=${!!where} ...${field("folder")} /></label>
    <label>or a filter on this collection <input placeholder="label = 'good'" ...${field("where")} /></label>
    <label>False alarms that you accept, in % of good images <input type="number" min="0.1" max="50" step="0.1" required ...${field("rate")} /></label>
    ${rate > 0 && html`<p class="soft">This rate needs at least ${count(Math.ceil(100 / rate - 1 - 1e-9) + 10, "good image")}; several hundred make it sure.</p>`}
    <button class="main">Fit</button><//>`;
}

/** What a detector scored: defects first, one image large. */
function Board({ collection, detector, places, start, changed, setError, done, isFitting, watched }) {
  const [at, open] = useState();
  const [opacity, setOpacity] = useState(70);
  const [trial, setTrial] = useState(detector.threshold);
  const undo = useRef([]);
  const place = `detectors/${detector.name}`;
  const inOrder = useOrder();
  const [lists, failure, load] = useAnswer(() => Promise.all(["defect", "good"].map((side) => collection.get(`${place}/images`, { side, limit: PAGE }))),
    [done, detector.threshold, detector.revision]);
  // A threshold that is tried stays while images arrive.
  useChange(() => setTrial(detector.threshold), [detector.threshold, detector.revision]);
  useEffect(() => failure && setError(failure), [failure]);
  const [defects, good] = lists ?? [];
  const all = lists ? [...defects.images, ...good.images] : [];
  const index = Math.max(all.findIndex(({ id }) => id === at), 0);
  const image = all[index];
  // What is looked at stays, whatever arrives above it.
  useEffect(() => { if (image && !at) open(image.id); }, [image?.id, at]);
  const step = (by) => open(all[index + by]?.id ?? image?.id);
  const decide = async (verdict, id = image?.id, isUndo = false) => {
    if (!id) return;
    // The next one is chosen before the list changes under it.
    const next = isUndo ? id : (all[index + 1] ?? all[index - 1])?.id;
    if (!isUndo) undo.current.push([image.verdict, id, true]);
    open(next);
    announce(verdict ?? "undecided");
    await inOrder(() => collection.post(`${place}/verdicts`, { ids: [id], verdict })).catch(setError);
    load();
    changed();
  };
  const takeBack = () => undo.current.length && decide(...undo.current.pop());
  useKeys("Inspection", {
    ...steps("image", step),
    g: ["confirm: good", () => decide("good")],
    d: ["confirm: defect", () => decide("defect")],
    u: ["take the last decision back", takeBack],
    h: ["heat on or off", () => setOpacity((now) => (now ? 0 : 70))],
  });
  if (!lists) return html`<${Wait} />`;
  const { counts, failed } = defects;
  const shared = { collection, detector, setError, open, image, trial };
  return html`<${Source} ...${shared} ...${{ places, start, load, watched }} />
    <${FailureList} failed=${failed} />
    ${!image && html`<${Empty} title="Nothing scored yet"><p>Watch the folder in which images arrive, or score files.</p><//>`}
    ${image && html`<div class="inspection"><section aria-label="Image">
        <div class="line wrap"><h2 title=${image.path}>${fileName(image.path)}</h2><${Side} ...${shared} />
          <span class="soft">score ${image.score.toFixed(2)}</span><span class="space" />
          <button aria-label="Image before" onClick=${() => step(-1)}>←</button><span class="soft">${index + 1} of ${all.length}</span>
          <button aria-label="Next image" onClick=${() => step(1)}>→</button></div>
        <${Heat} key=${image.id + image.revision} ...${shared} opacity=${opacity} />
        <div class="buttons decisions">${["good", "defect"].map((verdict) => html`<button class=${image.verdict === verdict ? "main" : ""} aria-pressed=${image.verdict === verdict}
            onClick=${() => decide(verdict)}>${verdict === "good" ? "Good" : "Defect"} <kbd>${verdict[0]}</kbd></button>`)}
          <button disabled=${!undo.current.length} onClick=${takeBack}>Undo <kbd>u</kbd></button><span class="space" />
          <label class="line">Heat <input type="range" min="0" max="100" value=${opacity} aria-label="Opacity of the heat" onInput=${(event) => setOpacity(+event.target.value)} /></label></div>
        <div class="heat-scale"><div class="line soft"><span>usual</span><span class="space" />threshold<span class="space" /><span>twice that</span></div></div>
        <p>${trial === detector.threshold && image.why} ${image.notes.map((note) => html`<span class="soft">${sentence(note)} </span>`)}</p></section>
      <aside><${ThresholdControl} ...${shared} ...${{ setTrial, changed }} version=${done + JSON.stringify(counts)} />
        ${counts.undecided < counts.images && html`<div class="card threshold"><p>${counts.confirmed_good} confirmed good, ${counts.confirmed_defects} confirmed as defects: ${count(counts.false_alarms, "false alarm")}, ${counts.missed} missed.</p>
          <div class="buttons"><button disabled=${isFitting} onClick=${() => start(collection.post(`${place}/refit`))}>Fit again with these</button></div>
          <p class="soft">Confirmed good images are learned and defects are left out. The threshold rests on the good images that were held out, as before.</p></div>`}
        <h2>Defects: ${number(defects.total)}</h2><${Cards} ...${shared} list=${defects} />
        ${good.total > 0 && html`<details class="folded"><summary>Good: ${count(good.total, "image")}</summary><${Cards} ...${shared} list=${good} /></details>`}
      </aside></div>`}`;
}

function Side({ image: { verdict, score }, trial }) {
  const isDefect = verdict ? verdict === "defect" : score > trial;
  return html`<span class=${`state ${isDefect ? "failed" : "done"}`}>${isDefect ? "defect" : "good"}${verdict ? ", confirmed" : ""}</span>`;
}

function Cards({ list, collection, detector, image: chosen, open }) {
  const note = ({ verdict, defect }) => verdict && ` · ${defect === (verdict === "defect") ? "confirmed" : defect ? "false alarm" : "missed"}`;
  return html`<ul class="issues scored">${list.images.map((image) => html`<li key=${image.id}>
      <button aria-current=${image.id === chosen.id} onClick=${() => open(image.id)}>
        <img src=${collection.url(`detectors/${detector.name}/images/${image.id}/preview`)} alt="" loading="lazy" />
        <span>${fileName(image.path)}</span><span class="soft">${image.score.toFixed(2)}${note(image)}</span></button></li>`)}</ul>
    ${andMore(list.total - PAGE)}`;
}

/** Where images come from: a folder, once or for good, or files of this machine. */
function Source({ collection, detector, places, start, load, setError, watched }) {
  const [folder, setFolder] = useState("");
  const [left, setLeft] = useState(0);
  const inspect = (watch) => start(collection.post(`detectors/${detector.name}/folders`, { folder, watch }));
  const send = async (files) => {
    setLeft(files.length);
    for (const file of files) {
      await collection.post(`detectors/${detector.name}/score`, form({ image: file })).then(({ failed: [bad] }) => bad && setError({ title: bad.path, message: bad.reason }), setError);
      load();
      setLeft((now) => now - 1);
    }
  };
  return html`<${Form} class="line wrap source" send=${() => inspect(true)}>
    <input aria-label="Folder to inspect" list="folders" required placeholder=${`${[...places.folders, ...places.roots, "line"][0].split("/")[0]}/today`} ...${written(folder, setFolder)} />
    <button class="main" disabled=${watched.includes(folder)}>Watch<span class="long"> the folder</span></button>
    <button type="button" disabled=${!folder} onClick=${() => inspect(false)}>Score once</button>
    <${FileButton} disabled=${left > 0} send=${send}>${left ? `Scoring, ${number(left)} left…` : "Score files…"}<//><//>`;
}
