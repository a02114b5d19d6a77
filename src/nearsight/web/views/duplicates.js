// Near-duplicates: side by side, by a slider or by swapping; what was decided holds for all later searches.

import { api } from "../api.js";
import { Analysis, useAnalysis } from "../components/analysis.js";
import { addKeys } from "../keys.js";
import { announce, count, Dialog, Empty, fileName, html, useAnswer, useEffect, useRef, useState } from "../ui.js";

const PAGE = 100;

export function Duplicates({ collection, reload }) {
  const analysis = useAnalysis(collection.name, "duplicates", () => api.duplicates(collection.name, { limit: PAGE }));
  const { result } = analysis;
  const [at, setAt] = useState(0);
  const [asksCertain, setAsksCertain] = useState(false);
  const groups = result?.groups ?? [];
  const group = groups[Math.min(at, groups.length - 1)];
  const changed = () => { analysis.reload(); reload(); };
  const decide = async (ids, decision) => { await api.decide(collection.name, ids, decision); announce("remembered"); changed(); };
  const remove = async (ids) => { await api.remove(collection.name, ids); announce(`${count(ids.length, "image")} taken out`); changed(); };

  useEffect(() => addKeys("Duplicates", {
    "ArrowRight j": ["next group", () => setAt((now) => Math.min(now + 1, groups.length - 1))],
    "ArrowLeft k": ["group before", () => setAt((now) => Math.max(now - 1, 0))],
    n: ["not duplicates: remember that they differ", () => group && decide(group.ids, "different")],
    b: ["keep both", () => group && decide(group.ids, "keep_both")],
    x: ["keep the suggested image, take the others out", () => group && remove(group.ids.slice(1))],
  }), [group, groups.length]);

  const certain = groups.filter((each) => each.certain);
  return html`<${Analysis} analysis=${analysis} title="Not searched yet" button="Find duplicates"
      explanation="Finds the same image in other sizes, crops, colors, formats or turns, and says which one lost least.">
    ${result && html`<div class="line"><h1>${count(result.total, "group")} of near-duplicates</h1><span class="space"></span>
        ${certain.length > 0 && html`<button onClick=${() => setAsksCertain(true)}>Clear up the ${certain.length.toLocaleString("en")} certain…</button>`}
        <button class="quiet" onClick=${() => analysis.start()}>Search again</button></div>
      ${!group && html`<${Empty} title="Nothing left to decide"><p>What you decided is remembered.</p></${Empty}>`}
      ${group && html`<${Group} key=${group.ids.join()} collection=${collection.name} group=${group} number=${Math.min(at, groups.length - 1) + 1} total=${result.total}
        step=${(by) => setAt((now) => Math.min(Math.max(now + by, 0), groups.length - 1))} decide=${decide} remove=${remove} />`}
      ${asksCertain && html`<${CertainDialog} collection=${collection.name} groups=${certain} close=${() => setAsksCertain(false)} remove=${remove} />`}`}
  </${Analysis}>`;
}

function Group({ collection, group, number, total, step, decide, remove }) {
  const [other, setOther] = useState(group.ids.find((id) => id !== group.keep));
  const [way, setWay] = useState("side");
  const pair = [group.keep, other];
  const rest = group.ids.filter((id) => id !== group.keep);
  useEffect(() => addKeys("Comparison", {
    s: ["slider or side by side", () => setWay((now) => (now === "side" ? "slider" : "side"))],
  }), []);
  return html`<section class="group" aria-label=${`Group ${number} of ${total}`}>
    <div class="line"><strong>Group ${number.toLocaleString("en")} of ${total.toLocaleString("en")}</strong>
      <span class=${`state ${group.certain ? "done" : ""}`}>${group.certain ? "certain" : "to review"}</span>
      <span class="soft">similarity ${group.similarity.toFixed(3)} · ${group.why}</span></div>
    <div class="buttons">
      <button class="quiet" onClick=${() => step(-1)} aria-label="Group before">←</button>
      <button class="quiet" onClick=${() => step(1)} aria-label="Next group">→</button>
      <button onClick=${() => remove(rest)}>Keep the suggested, take out ${rest.length === 1 ? "the other" : `${rest.length} others`}</button>
      ${rest.length === 1 && html`<button class="quiet" onClick=${() => remove([group.keep])}>Keep the other</button>`}
      <button class="quiet" onClick=${() => decide(group.ids, "keep_both")}>Keep all</button>
      <button class="quiet" onClick=${() => decide(group.ids, "different")}>Not duplicates</button>
      <button class="quiet" aria-pressed=${way === "slider"} onClick=${() => setWay(way === "side" ? "slider" : "side")}>Slider</button>
    </div>
    ${way === "side" ? html`<${SideBySide} collection=${collection} pair=${pair} />` : html`<${Slider} collection=${collection} pair=${pair} />`}
    ${rest.length > 1 && html`<div class="strip" role="listbox" aria-label="The others of the group">${rest.map((id) => html`
      <button class="quiet" role="option" aria-selected=${id === other} onClick=${() => setOther(id)}><img src=${api.thumbnail(collection, id)} alt="" height="80" /></button>`)}</div>`}
  </section>`;
}

/** Two images that are zoomed and moved together. */
function SideBySide({ collection, pair }) {
  const [zoom, setZoom] = useState({ scale: 1, x: 50, y: 50 });
  const move = (event) => {
    if (zoom.scale === 1) return;
    const box = event.currentTarget.getBoundingClientRect();
    setZoom({ ...zoom, x: ((event.clientX - box.left) / box.width) * 100, y: ((event.clientY - box.top) / box.height) * 100 });
  };
  return html`<div class="pair">${pair.map((id, at) => html`<figure>
    <div class="pane" onMouseMove=${move} onClick=${() => setZoom(zoom.scale === 1 ? { ...zoom, scale: 4 } : { scale: 1, x: 50, y: 50 })}>
      <${Photograph} collection=${collection} id=${id} style=${{ transform: `scale(${zoom.scale})`, transformOrigin: `${zoom.x}% ${zoom.y}%` }} /></div>
    <figcaption><${Facts} collection=${collection} id=${id} title=${at ? "The other" : "Suggested to keep"} /></figcaption></figure>`)}</div>`;
}

/** Two images over one another; the slider says how much of each is seen. */
function Slider({ collection, pair }) {
  const [share, setShare] = useState(50);
  const top = useRef();
  useEffect(() => { top.current.style.clipPath = `inset(0 0 0 ${share}%)`; }, [share]);
  return html`<div class="over"><div class="pane"><${Photograph} collection=${collection} id=${pair[0]} />
    <div class="pane above" ref=${top}><${Photograph} collection=${collection} id=${pair[1]} /></div></div>
    <input type="range" min="0" max="100" value=${share} aria-label="Share of the suggested image" onInput=${(event) => setShare(event.target.value)} /></div>`;
}

function Photograph({ collection, id, style }) {
  const [isBroken, setIsBroken] = useState(false);
  return html`<img src=${isBroken ? api.thumbnail(collection, id) : api.original(collection, id)} alt="" onError=${() => setIsBroken(true)} style=${style} />`;
}

function Facts({ collection, id, title }) {
  const [facts] = useAnswer(() => api.item(collection, id), [id]);
  if (!facts) return html`<strong>${title}</strong>`;
  const size = facts.size_bytes > 1e6 ? `${(facts.size_bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(facts.size_bytes / 1e3)} kB`;
  return html`<strong>${title}</strong><br /><span title=${facts.path}>${fileName(facts.path)}</span><br />
    <span class="soft">${facts.width} × ${facts.height} · ${size}${facts.taken ? ` · ${facts.taken.slice(0, 10)}` : ""}${facts.camera ? ` · ${facts.camera}` : ""}</span>`;
}

function CertainDialog({ collection, groups, close, remove }) {
  const others = groups.flatMap((group) => group.ids.filter((id) => id !== group.keep));
  return html`<${Dialog} title=${`Take out ${count(others.length, "image")}?`} close=${close} wide>
    <p>Of each group the suggested image stays. Only groups that are certain are listed: the others lost something, and have nothing that the kept image lacks.</p>
    <div class="buttons"><button class="danger" onClick=${() => { close(); remove(others); }}>Take out ${count(others.length, "image")}</button>
      <button class="quiet" onClick=${close}>Cancel</button></div>
    <ul class="certain">${groups.slice(0, 200).map((group) => html`<li><img src=${api.thumbnail(collection, group.keep)} alt="" height="64" />
      <span class="soft">${group.why}</span>${group.ids.filter((id) => id !== group.keep).map((id) => html`<img class="leaving" src=${api.thumbnail(collection, id)} alt="" height="64" loading="lazy" />`)}</li>`)}</ul>
  </${Dialog}>`;
}
