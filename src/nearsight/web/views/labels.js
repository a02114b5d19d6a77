// Labels: the next best image and a key for each class; likely mistakes; how good the classifier is meanwhile.

import { quoted } from "../components/conditions.js";
import { Photograph } from "../components/photograph.js";
import { LabelQueue, MistakeQueue } from "../label-queue.js";
import { address, go } from "../route.js";
import { announce, count, Empty, Failure, fileName, Form, html, number, Options, percent, useAnswer, useChanges, useEffect, useEvent, useKeys, useMemo, useState, Wait, written } from "../ui.js";

// A key for each of the first classes; the others are clicked.
const KEYS = [..."123456789qweruiop"];
const TABS = { next: "Label next", mistakes: "Likely mistakes", classes: "Classes" };

export function Labels({ collection, query, reload }) {
  const key = query.key ?? "label";
  const [answer, error, again] = useAnswer(() => collection.get("labels", { key }).then((facts) => [facts, query.tab]), [collection.name, key, query.tab]);
  const [facts, when] = answer ?? [];
  // What was true before the other tab was open is old; what is of other labels belongs to them.
  if (facts?.key !== key || when !== query.tab) return html`<${Wait} error=${error} />`;
  const tab = facts.classes.length ? query.tab ?? "next" : "classes";
  const field = `metadata.${key}`;
  const show = (where) => where && go(collection, "images", { where });
  return html`<div class="fill">
    <div class="line wrap"><h1>Labels</h1>
      ${facts.classes.length > 0 && html`<nav class="buttons" aria-label="Labels">${Object.entries(TABS).map(([name, title]) => html`
        <a class="button" href=${address(collection, "labels", { key: query.key, tab: name })} aria-current=${name === tab ? "page" : null}>${title}</a>`)}</nav>`}
      <span class="space" />
      ${facts.labeled > 0 && html`<label><span class="hidden-text">Show</span><select onChange=${(event) => show(event.target.value)}>
        <option value="">Show images…</option><option value=${`${field} IS NOT NULL`}>labeled (${facts.labeled})</option><option value=${`${field} IS NULL`}>not labeled</option>
        ${facts.classes.map(({ label, images }) => html`<option value=${`${field} = ${quoted(label)}`}>${label} (${images})</option>`)}</select></label>
        <a href=${collection.url(`labels/export?key=${encodeURIComponent(key)}`)} download>Export CSV</a>`}</div>
    ${tab === "classes" ? html`<${Classes} ...${{ collection, facts }} done=${() => { reload(); again(); }} />`
      : html`<${Labeler} key=${tab + key} ...${{ collection, facts }} Queue=${tab === "next" ? LabelQueue : MistakeQueue} />`}
  </div>`;
}

function Classes({ collection, facts, done }) {
  const [key, setKey] = useState(facts.key);
  const [text, setText] = useState(facts.classes.map(({ label }) => label).join("\n"));
  const classes = text.split(/[,\n]/).map((name) => name.trim()).filter(Boolean);
  const save = async () => {
    await collection.put("labels/classes", { key: key.trim(), classes });
    go(collection, "labels", { key: key.trim() });
    done();
  };
  return html`<${Form} class="card narrow" send=${save}>
    <p>You label a few images, and a classifier learns from them. It chooses the images that teach it the most, and says how good it is.</p>
    <label for="classes">Classes, in the order of their keys</label>
    <textarea id="classes" rows="8" required ...${written(text, setText)} placeholder=${"dress\nhat\nshoes"} />
    <label>Saved in the metadata as <input required list="label-keys" pattern="[A-Za-z_][A-Za-z0-9_]*" ...${written(key, setKey)} /></label>
    <${Options} id="label-keys" values=${facts.keys} />
    ${facts.keys.length > 0 && html`<p class="soft">Labels that are there: ${facts.keys.map((name) => html`<a href=${address(collection, "labels", { key: name })}>${name}</a> `)}</p>`}
    <button class="main" disabled=${!classes.length}>${classes.length ? `Label with ${count(classes.length, "class", "classes")}` : "Start labeling"}</button><//>`;
}

function Labeler({ collection, facts, Queue }) {
  const queue = useMemo(() => new Queue(collection, facts), []);
  useChanges(queue);
  useEvent("beforeunload", (event) => queue.waiting.length && event.preventDefault());
  useEffect(() => { queue.learn(); }, []);
  const { images: [image], check } = queue;
  // A hint would change what a person sees in an image that measures the classifier.
  const hint = image && !image.check && !image.unknown && image.label;
  const names = facts.classes.map(({ label }) => label);
  const give = (label) => {
    if (!queue.images.length || !label) return;
    queue.give(label);
    announce(label);
  };
  const skip = () => queue.images.length && queue.skip();
  const undo = () => { queue.undo(); announce("taken back"); };
  useKeys("Labels", {
    ...Object.fromEntries(names.slice(0, KEYS.length).map((label, at) => [KEYS[at], [label, () => give(label)]])),
    "0 s": ["skip", skip],
    z: ["take the last label or skip back", undo],
    Enter: ["accept what the classifier says", () => give(hint)],
    ...(check && { k: ["keep the label: it is right", () => give(image?.own)] }),
  });
  const last = queue.history.at(-1);
  const side = (label) => (label === hint ? html`<span class="long">${check ? "looks like this" : "perhaps"}, </span>${percent(image.probability)} <kbd class="long">Enter</kbd>`
    : label === image?.own ? "the label" : number(queue.counts.get(label) ?? 0));
  const labeled = [...queue.counts.values()].reduce((sum, n) => sum + n, 0);
  return html`<div class="labeler">
    <figure class="stage">${image ? html`<${Photograph} key=${image.id} collection=${collection} id=${image.id} alt="The image to label" />
      <figcaption class="soft">${fileName(image.path)}${image.check ? " · drawn at random, to measure accuracy" : ""}${image.likely ? " · among the most doubtful" : ""}${image.unknown && image.label && !image.check ? " · looks like none of the classes" : ""}</figcaption>`
      : queue.isLearning !== false ? html`<p class="wait">${Queue === LabelQueue ? "Choosing images…" : "Each label is judged by the others…"}</p>`
      : html`<${Empty} title="Nothing is left"><p>${queue.skipped.size ? `You skipped ${count(queue.skipped.size, "image")}.` : check ? "No other label is doubted." : "Every image has a label."}</p><//>`}</figure>
    <aside>
      <${Failure} error=${queue.error} />
      ${image?.own && html`<p>Labeled <strong>${image.own}</strong>, looks like <strong>${image.label}</strong>.</p>`}
      <ul class="classes" aria-label="Classes">${names.map((label, at) => html`<li><button aria-current=${label === hint || null} onClick=${() => give(label)}>
        <kbd>${KEYS[at] ?? "·"}</kbd><span>${label}</span><span class="soft">${side(label)}</span></button></li>`)}</ul>
      <div class="buttons">${image?.own && html`<button onClick=${() => give(image.own)}><kbd>k</kbd> Keep</button>`}
        <button onClick=${skip}><kbd>s</kbd> Skip</button>
        <button class="undo" disabled=${!last} onClick=${undo}><kbd>z</kbd> Undo ${last && (last.label ?? "the skip")}</button></div>
      <div class="card" role="status"><strong>${number(labeled)} of ${count(facts.images, "image")} labeled</strong>
        <span class="soft">${queue.waiting.length ? `saving ${queue.waiting.length}…` : labeled > 0 && "all saved"}${queue.isLearning ? " learning…" : ""}</span>
        ${queue.accuracy && html`<${Accuracy} facts=${queue.accuracy} />`}
        ${check && html`<p>${count(queue.images.length, "image looks", "images look")} more like another class. The first ones are the most doubtful; images that were chosen because they are difficult are often labeled right.</p>`}</div>
      ${check && html`<${Confusion} check=${check} />`}
    </aside></div>`;
}

function Accuracy({ facts }) {
  const { judged, right, accuracy, interval, mean_probability: sure, calibration } = facts;
  if (accuracy == null) return html`<p>After 8 labeled images that were drawn at random, it is said here how good the classifier is. So far: ${judged}.</p>`;
  const mean = sure != null && percent(sure), share = right / judged;
  return html`<p><strong class="figure">${percent(accuracy)}</strong> of the images that nobody has labeled should get the right label (between ${percent(interval[0])} and ${percent(interval[1])}).</p>
    <p class="soft">Measured on ${judged} images drawn at random, ${right} of them right (${percent(share)}), each by a classifier that had not seen it.
      ${percent(share) !== percent(accuracy) && ` The figure above leaves out images that are labeled already: they are ${accuracy > share ? "more" : "less"} difficult than the others.`}</p>
    <p>${{
      too_few: "Too few random images to say whether its probabilities can be believed.",
      fits: `Its probabilities can be believed: it is ${mean} sure on average.`,
      too_sure: `It is too sure of itself: ${mean} on average.`,
      too_cautious: `It is too cautious: ${mean} sure on average.`,
    }[calibration]}</p>`;
}

function Confusion({ check }) {
  return html`<details><summary>Which classes are confused</summary><p class="soft">Rows: labels. Columns: what the images look like to a classifier that has not seen them.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Confusion"><table class="confusion">
    <thead><tr><td></td>${check.classes.map(({ label }) => html`<th scope="col">${label}</th>`)}</tr></thead>
    <tbody>${check.classes.map(({ label }, row) => html`<tr><th scope="row">${label}</th>${check.confusion[row].map((n, column) => html`
      <td class=${n ? (row === column ? "right" : "wrong") : ""}>${n || "·"}</td>`)}</tr>`)}</tbody></table></div></details>`;
}
