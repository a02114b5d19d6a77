// Near-duplicates: side by side, by a slider or by swapping; what was decided holds for all later searches.

import { Analysis, useAnalysis } from "../components/analysis.js";
import { Photograph } from "../components/photograph.js";
import { names, useTrash } from "../components/trash.js";
import { announce, count, Dialog, Empty, Failure, fileName, html, number, steps, useAnswer, useChange, useChoice, useKeys, useOrder, useState } from "../ui.js";

const PAGE = 100;

export function Duplicates({ collection, reload, tell }) {
  // At once: what is left and what is in the trash belong together.
  const analysis = useAnalysis(collection, "duplicates", () => Promise.all([collection.get("duplicates", { limit: PAGE }), collection.get("trash")])
    .then(([groups, { entries }]) => ({ ...groups, entries })));
  const { result } = analysis;
  const [at, setAt] = useState(0);
  const [dialog, setDialog] = useState();
  const [error, setError] = useState();
  const trash = useTrash(collection, tell);
  // What is undone elsewhere may change no number of images.
  useChange(() => { analysis.reload(); }, [collection]);
  // A group that was decided, and what was put back, is not shown while that is sent: the next key belongs to the next one.
  const [decided, setDecided] = useState([]);
  const inOrder = useOrder();
  const groups = (result?.groups ?? []).filter(({ keep }) => !decided.includes(keep));
  const group = groups[Math.min(at, groups.length - 1)];
  const entries = (result?.entries ?? []).filter(({ id }) => !decided.includes(id));
  const changed = () => { reload(); return analysis.reload(); };
  /** Ask the service for a change; what follows is seen whatever comes of it. */
  const change = (ask, keep) => {
    setError();
    setDecided((now) => [...now, keep]);
    return inOrder(() => ask().catch(setError).finally(changed)).finally(() => setDecided((now) => now.filter((each) => each !== keep)));
  };
  const decide = (decision) => group?.ids.length > 1 && change(() => collection.post("duplicates/decisions", { ids: group.ids, decision }).then(() => announce("remembered")), group.keep);
  const discard = (what) => change(() => trash.discard(what), what.ids ? group?.keep : what.redundant_of[0]);
  const restore = (id) => change(() => trash.restore(id).then(tell), id);
  /** All but the suggested image: of a certain group the service checks once more what may go. */
  const keepSuggested = (each) => discard(each.certain ? { redundant_of: [each.keep] } : { ids: each.ids.filter((id) => id !== each.keep) });

  const step = (by) => setAt((now) => Math.min(Math.max(now + by, 0), groups.length - 1));
  useKeys("Duplicates", {
    ...steps("group", step),
    n: ["not duplicates: remember that they differ", () => decide("different")],
    b: ["keep both", () => decide("keep_both")],
    x: ["keep the suggested image, put the others into the trash", () => group && keepSuggested(group)],
  });

  const nCertain = groups.filter((each) => each.certain).length;
  return html`<${Analysis} analysis=${analysis} title="Not searched yet" button="Find duplicates"
      explanation="Finds the same image in other sizes, crops, colors, formats or turns, and says which one lost least.">
    ${result && html`<div class="line wrap"><h1>${count(result.total, "group")} of near-duplicates</h1><span class="space" />
        ${nCertain > 0 && html`<button class="main" onClick=${() => setDialog("certain")}>Clear up all certain…</button>`}
        ${entries.length > 0 && html`<button onClick=${() => setDialog("trash")}>Trash…</button>`}
        <button onClick=${() => analysis.start()}>Search again</button></div>
      <${Failure} error=${error} />
      ${!group && decided.length > 0 && html`<p class="wait">Saving…</p>`}
      ${!group && !decided.length && html`<${Empty} title="Nothing left to decide"><p>No other images look like near-duplicates. What you decided is remembered.</p><//>`}
      ${group && html`<${Group} key=${group.keep + group.ids.join()} ...${{ collection, group }} position=${groups.indexOf(group) + 1} total=${result.total}
        ...${{ step, decide, discard }} keepSuggested=${() => keepSuggested(group)} />`}
      ${dialog === "certain" && html`<${CertainDialog} collection=${collection} close=${() => setDialog()} discard=${discard} />`}
      ${dialog === "trash" && html`<${TrashDialog} ...${{ collection, entries }} close=${() => setDialog()} restore=${restore} />`}
      ${trash.stayed}`}
  <//>`;
}

function Group({ collection, group, position, total, step, decide, discard, keepSuggested }) {
  const [other, setOther] = useState(group.ids.find((id) => id !== group.keep));
  const [way, setWay] = useState("side");
  const [isSwapped, setIsSwapped] = useState(false);
  const pair = isSwapped ? [other, group.keep] : [group.keep, other];
  const compared = { collection, pair, keep: group.keep };
  const rest = group.ids.filter((id) => id !== group.keep);
  const isOneImage = rest.length === 0;
  useKeys("Comparison", {
    s: ["slider or side by side", () => setWay((now) => (now === "side" ? "slider" : "side"))],
    w: ["swap the two images", () => setIsSwapped((now) => !now)],
  });
  return html`<section class="group" aria-label=${`Group ${position} of ${total}`}>
    <div class="line wrap"><strong>Group ${number(position)} of ${number(total)}</strong>
      <button onClick=${() => step(-1)} aria-label="Group before">←</button>
      <button onClick=${() => step(1)} aria-label="Next group">→</button>
      ${!isOneImage && html`<button aria-pressed=${isSwapped} onClick=${() => setIsSwapped(!isSwapped)}>Swap</button>
      <button aria-pressed=${way === "slider"} onClick=${() => setWay(way === "side" ? "slider" : "side")}>Slider</button>`}
      <span class="soft"><span class=${`state ${group.certain ? "done" : ""}`}>${group.certain ? "certain" : "to review"}</span> ${isOneImage ? "identical files" : `similarity ${group.similarity.toFixed(3)}`} · ${group.why}</span></div>
    <div class="buttons decisions">
      <button class="main" onClick=${keepSuggested}>Keep <span class="long">the </span>suggested<span class="long">, trash ${isOneImage ? count(group.redundant.length, "file") : rest.length === 1 ? "the other" : `${rest.length} others`}</span></button>
      ${rest.length === 1 && html`<button aria-label="Keep the other" onClick=${() => discard({ ids: [group.keep] })}><span class="long">Keep the </span>other</button>`}
      ${!isOneImage && html`<button onClick=${() => decide("keep_both")}><span class="long">Keep </span>all</button>
      <button onClick=${() => decide("different")}>Not duplicates</button>`}</div>
    ${isOneImage ? html`<div class="pair"><div class="pane"><${Photograph} collection=${collection} id=${group.keep} /></div>
        <ul>${group.paths.map((path) => html`<li>${path} <span class="soft">${group.redundant.includes(path) ? "can go" : "stays"}</span></li>`)}</ul></div>`
      : way === "side" ? html`<${SideBySide} ...${compared} />` : html`<${Slider} ...${compared} />`}
    ${rest.length > 1 && html`<div class="strip" role="listbox" aria-label="The others of the group">${rest.map((id, at) => html`
      <button role="option" aria-selected=${id === other} aria-label=${`Image ${at + 1}`} onClick=${() => setOther(id)}><img src=${collection.thumbnail(id)} alt="" height="80" /></button>`)}</div>`}
  </section>`;
}

function SideBySide({ collection, pair, keep }) {
  const [zoom, setZoom] = useState({ scale: 1, x: 50, y: 50 });
  const toggle = (place) => setZoom(({ scale }) => ({ scale: scale === 1 ? 4 : 1, x: 50, y: 50, ...place }));
  useKeys("Zoom", { z: ["look closely at both, or at all of them again", () => toggle()] });
  const placeOf = ({ currentTarget, clientX, clientY }) => {
    const box = currentTarget.getBoundingClientRect();
    return { x: ((clientX - box.left) / box.width) * 100, y: ((clientY - box.top) / box.height) * 100 };
  };
  const move = (event) => zoom.scale > 1 && setZoom({ ...zoom, ...placeOf(event) });
  return html`<div class="pair">${pair.map((id) => html`<figure key=${id}>
    <div class=${`pane ${zoom.scale > 1 ? "close" : ""}`} onPointerMove=${move} onClick=${(event) => toggle(placeOf(event))}>
      <${Photograph} ...${{ collection, id }} style=${{ transform: `scale(${zoom.scale})`, transformOrigin: `${zoom.x}% ${zoom.y}%` }} /></div>
    <figcaption><${Facts} ...${{ collection, id }} title=${id === keep ? "Suggested to keep" : "The other"} /></figcaption></figure>`)}</div>`;
}

/** Two images over one another; the slider says how much of each is seen. */
function Slider({ collection, pair, keep }) {
  const [share, setShare] = useState(50);
  return html`<div class="over"><div class="pane"><${Photograph} key=${pair[0]} collection=${collection} id=${pair[0]} />
    <div class="pane above" style=${{ clipPath: `inset(0 0 0 ${share}%)` }}><${Photograph} key=${pair[1]} collection=${collection} id=${pair[1]} /></div></div>
    <input type="range" min="0" max="100" value=${share} aria-label=${`Share of the ${pair[0] === keep ? "suggested" : "other"} image`} onInput=${(event) => setShare(event.target.value)} /></div>`;
}

function Facts({ collection, id, title }) {
  const [facts] = useAnswer(() => collection.item(id), [id]);
  if (!facts) return html`<strong>${title}</strong>`;
  const size = facts.size_bytes > 1e6 ? `${(facts.size_bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(facts.size_bytes / 1e3)} kB`;
  return html`<strong>${title}</strong><br /><span title=${facts.path}>${fileName(facts.path)}</span><br />
    <span class="soft">${facts.width} × ${facts.height} · ${size}${facts.taken ? ` · ${facts.taken.slice(0, 10)}` : ""}${facts.camera ? ` · ${facts.camera}` : ""}</span>`;
}

/** All certain groups, not only those of the first page. */
async function certainGroups(collection) {
  const certain = [];
  for (let offset = 0; offset != null;) {
    const { groups, next } = await collection.get("duplicates", { offset, limit: 1000 });
    certain.push(...groups.filter((group) => group.certain));
    offset = next;
  }
  return certain;
}

function CertainDialog({ collection, close, discard }) {
  const [groups, error] = useAnswer(() => certainGroups(collection), []);
  const [left, toggle] = useChoice();
  const chosen = groups?.filter(({ keep }) => !left.includes(keep)) ?? [];
  const nFiles = chosen.reduce((sum, group) => sum + group.redundant.length, 0);
  return html`<${Dialog} title="Clear up all certain" close=${close} wide>
    <p>Of each group the suggested image stays. Only groups that are certain are listed: the others lost something, and have nothing that the kept image lacks.</p>
    <div class="buttons"><button class="danger" disabled=${!nFiles} onClick=${() => { close(); discard({ redundant_of: chosen.map(({ keep }) => keep) }); }}>Put ${count(nFiles, "file")} into the trash</button>
      <button onClick=${close}>Cancel</button></div>
    <${Failure} error=${error} />
    <ul class="certain">${groups?.map((group) => html`<li><input type="checkbox" checked=${!left.includes(group.keep)} onChange=${() => toggle(group.keep)} aria-label=${`Clear up the group of ${names(group.redundant)}`} />
      <img src=${collection.thumbnail(group.keep)} alt="" height="64" loading="lazy" />
      ${group.ids.filter((id) => id !== group.keep).map((id) => html`<img class="leaving" src=${collection.thumbnail(id)} alt="" height="64" loading="lazy" />`)}
      <span class="space">goes: ${names(group.redundant)}<br /><span class="soft">stays: ${group.why}</span></span></li>`)}</ul>
  <//>`;
}

function TrashDialog({ collection, entries, close, restore }) {
  return html`<${Dialog} title="Trash" close=${close} wide>
    <p>Nothing here is deleted. Put back, files are where they were, and their images are in the collection again. To free the space, empty the folder <code>.nearsight-trash</code> on the machine itself.</p>
    <ul class="certain">${entries.map((entry) => html`<li><button onClick=${() => restore(entry.id)}>Put back</button>
      ${entry.ids.slice(0, 4).map((id) => html`<img src=${collection.thumbnail(id)} alt="" height="64" loading="lazy" />`)}
      <span>${names(entry.paths)}</span><span class="soft">${new Date(entry.when).toLocaleString("en")}</span></li>`)}</ul>
    ${!entries.length && html`<p class="soft">It is empty.</p>`}<//>`;
}
