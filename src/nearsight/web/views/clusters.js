// Clusters as stacks: look into one, rename, merge, split it, and move images between them, by mouse or by keyboard.

import { Analysis, useAnalysis } from "../components/analysis.js";
import { GridView } from "../components/grid-view.js";
import { current, go } from "../route.js";
import { IdSource } from "../sources.js";
import { announce, count, Dialog, Failure, Form, html, LastChange, number, useChanges, useChoice, useKeys, useMemo, useOrder, useRef, useState, written } from "../ui.js";

const NONE = -1;
const titleOf = (cluster) => cluster.name || `Cluster ${cluster.id}`;

export function Clusters({ collection, query, selection }) {
  // Of some, all images may have left the collection.
  const analysis = useAnalysis(collection, "clusters", () => collection.get("clusters").then((its) => ({ ...its, clusters: its.clusters.filter(({ size }) => size) })), ["cluster_split"]);
  const [error, setError] = useState();
  const { result } = analysis;
  const chosen = result?.clusters.find(({ id }) => String(id) === query.cluster);
  const state = useRef();
  const inOrder = useOrder();
  state.current = result;
  /** Send an edit of the clusters that are seen; they are read again whatever comes of it. */
  const edit = (made, said) => {
    setError();
    // One after another: each names the revision that the one before has made, and the numbers that clusters have by then.
    return inOrder(() => {
      const [path, body] = made((cluster) => (cluster.ids ? state.current.clusters.find(({ ids }) => ids.includes(cluster.ids[0])) ?? cluster : cluster).id);
      return collection["name" in body ? "patch" : "post"](`clusters/${path}`, { ...body, revision: state.current.revision })
        .then((answer) => { announce(said ?? answer.edits?.at(-1) ?? "done"); return answer; }, (failure) => { setError(failure); throw failure; })
        .finally(analysis.reload);
    });
  };
  const undo = () => state.current?.edits.length && edit(() => ["undo", {}], "undone").catch(() => {});
  const shared = { collection, result, edit, selection };
  return html`<${Analysis} analysis=${analysis} title="No clusters yet" button="Find clusters"
      explanation="Clusters gather images that show the same kind of thing. Images that belong to none stay apart.">
    ${result && html`<div class="fill">
      <${Failure} error=${error} />
      ${result.edits.length > 0 && html`<${LastChange} text=${`Last: ${result.edits.at(-1)}.`} undo=${undo} />`}
      ${chosen ? html`<${Cluster} key=${chosen.id} ...${shared} cluster=${chosen} follow=${analysis.job.follow} />`
        : html`<${Stacks} ...${shared} start=${analysis.start} />`}</div>`}
  <//>`;
}

/** All stacks. Some can be picked and merged; one can be dragged onto another. */
function Stacks({ collection, result, edit, selection, start }) {
  const [k, setK] = useState("");
  // Clusters get other numbers: one is known by its first image.
  const [firsts, pick, leave] = useChoice();
  const stackOf = (id) => result.clusters.find(({ ids }) => ids[0] === id);
  const picked = firsts.map(stackOf).filter(Boolean);
  const merge = (some) => some.every(Boolean) && edit((numberOf) => ["merge", { ids: some.map(numberOf) }]).then(() => leave(some.map(({ ids }) => ids[0])), () => {});
  const mergePicked = () => picked.length > 1 && merge(picked);
  useKeys("Stacks", {
    p: ["pick the stack that has the focus", () => document.activeElement?.closest(".stack-cell")?.querySelector("input")?.click()],
    m: ["merge the picked stacks", mergePicked],
    Escape: ["pick none", () => leave(firsts)],
  });
  return html`<div class="line wrap"><h1>${count(result.clusters.length, "cluster")}</h1><span class="space" />
      <${Form} class="search-line one" send=${() => start(k ? { k: Number(k) } : {})}><label class="soft" for="k">Number</label><input id="k" type="number" min="1" max="1000" ...${written(k, setK)} placeholder="as found" />
      <button>Cluster again</button><//></div>
    ${result.clusters.length > 1 && html`<p class="soft">Drag one stack onto another to merge them, or pick several.</p>`}
    ${picked.length > 0 && html`<div class="line wrap"><strong>${count(picked.length, "stack")} picked</strong>
      <button class="main" disabled=${picked.length < 2} onClick=${mergePicked}>Merge into ${titleOf(picked[0])}</button>
      <button onClick=${() => leave(firsts)}>Pick none</button></div>`}
    <ul class="stacks">${result.clusters.map((cluster) => html`<${Stack} key=${cluster.id} ...${{ collection, cluster }} isPicked=${picked.includes(cluster)} pick=${() => pick(cluster.ids[0])} merge=${(first) => merge([cluster, stackOf(first)])} />`)}
      ${result.noise.length > 0 && html`<li class="stack-cell"><button class="card stack" onClick=${() => selection.change(result.noise)}>
        <span class="fan none" /><strong>In no cluster</strong><span class="soft">select ${count(result.noise.length, "image")}</span></button></li>`}</ul>`;
}

function Stack({ collection, cluster, isPicked, pick, merge }) {
  const drop = useDrop("cluster", (first) => first !== cluster.ids[0] && merge(first));
  const shown = (cluster.representatives.length ? cluster.representatives : cluster.ids).slice(0, 4);
  return html`<li class="stack-cell" ...${drop} draggable="true" onDragStart=${(event) => carry(event, "cluster", cluster.ids[0])}>
    <button class="card stack" onClick=${() => go(collection, "clusters", { cluster: cluster.id })}>
      <span class="fan">${shown.reverse().map((id) => html`<img src=${collection.thumbnail(id)} alt="" loading="lazy" draggable="false" />`)}</span>
      <strong>${titleOf(cluster)}</strong><span class="soft">${count(cluster.size, "image")}</span></button>
    <label class="pick" title="Pick for merging"><input type="checkbox" checked=${isPicked} onChange=${pick} aria-label=${`Pick ${titleOf(cluster)}`} /></label></li>`;
}

/** One stack: its images, which are dragged onto the stacks beside them, or moved by the menu. */
function Cluster({ collection, result, cluster, edit, selection, follow }) {
  const [name, setName] = useState(cluster.name ?? "");
  const [splits, setSplits] = useState(false);
  useChanges(selection);
  const source = useMemo(() => new IdSource(collection, cluster.ids), [cluster]);
  const rename = () => edit((numberOf) => [numberOf(cluster), { name: name.trim() }], "renamed").catch(() => {});
  const members = new Set(cluster.ids);
  const chosen = () => [...selection.ids].filter((id) => members.has(id));
  const move = (ids, to) => edit((numberOf) => ["move", { ids, to: numberOf(to) }]).then((answer) => moved(answer, ids), () => {});
  const moved = (answer, ids) => {
    selection.change(ids, "subtract");
    // Clusters behind one that is empty now have other numbers.
    const here = answer.clusters.find((each) => each.ids.some((id) => members.has(id) && !ids.includes(id)));
    if (current().query.cluster === String(cluster.id) && here?.id !== cluster.id) go(collection, "clusters", here && { cluster: here.id });
  };
  useKeys("Stack", {
    v: ["to the other clusters: Enter moves the selected images there", () => document.querySelector(".target").focus()],
    s: ["split this cluster", () => setSplits(true)],
    u: ["back to all clusters", () => go(collection, "clusters")],
  });
  // The grid makes its cells itself: those of this view can be dragged.
  const drag = (event) => {
    const cell = event.target.closest(".cell[data-id]");
    if (!cell) return;
    const ids = selection.has(cell.dataset.id) ? chosen() : [cell.dataset.id];
    carry(event, "images", ids.join());
  };
  const targets = [...result.clusters.filter(({ id }) => id !== cluster.id), { id: null, name: "New cluster" }, { id: NONE, name: "No cluster" }];
  return html`<h1 class="hidden-text">${titleOf(cluster)}</h1><${Form} class="search-line" send=${rename}>
      <button type="button" onClick=${() => go(collection, "clusters")}>← All clusters</button>
      <input aria-label="Name of the cluster" required maxlength="100" ...${written(name, setName)} />
      <button class="main" disabled=${!name.trim() || name.trim() === (cluster.name ?? "")}>Rename</button>
      <button type="button" onClick=${() => selection.change(cluster.ids)}>Select all ${number(cluster.size)}</button>
      <button type="button" onClick=${() => go(collection, "images", { cluster: cluster.name || cluster.id })}>Search in it</button>
      <button type="button" onClick=${() => setSplits(true)}>Split…</button><//>
    <div class="stack-board">
      <div class="fill" onPointerDown=${(event) => { const cell = event.target.closest(".cell[data-id]"); if (cell) cell.draggable = true; }} onDragStart=${drag}>
        <${GridView} ...${{ source, selection }} /></div>
      <div class="fill"><span class="soft">${chosen().length ? `Move ${count(chosen().length, "image")} to` : "Drag images here, or select them first"}</span>
        <ul class="targets" aria-label="Other clusters">${targets.map((other) => html`<${Target} key=${other.id} ...${{ collection, move, chosen }} cluster=${other} />`)}</ul></div>
    </div>
    ${splits && html`<${SplitDialog} ...${{ cluster, edit, follow }} close=${() => setSplits(false)} done=${() => go(collection, "clusters")} />`}`;
}

/** A stack beside the open one, onto which images are dragged; a click moves the selected ones. */
function Target({ collection, cluster, move, chosen }) {
  const drop = useDrop("images", (ids) => move(ids.split(","), cluster));
  const image = cluster.representative;
  return html`<li><button type="button" class="target" onClick=${() => chosen().length > 0 && move(chosen(), cluster)} ...${drop}>
    ${image ? html`<img src=${collection.thumbnail(image)} alt="" draggable="false" />` : html`<span class="sign" aria-hidden="true">${cluster.id === null ? "+" : "∅"}</span>`}
    <span>${titleOf(cluster)}</span></button></li>`;
}

function SplitDialog({ cluster, edit, follow, close, done }) {
  const [k, setK] = useState("2");
  const [isRunning, setIsRunning] = useState(false);
  const send = () => {
    setIsRunning(true);
    edit((numberOf) => [`${numberOf(cluster)}/split`, k ? { k: Number(k) } : {}], "splitting").then((job) => { follow(job); done(); }, close);
  };
  return html`<${Dialog} title=${`Split ${titleOf(cluster)}`} close=${close}><${Form} send=${send}>
    <p>Its ${count(cluster.size, "image")} are clustered by themselves. Every image stays in one of the parts.</p>
    <label>Parts <input type="number" min="2" max=${Math.max(2, Math.min(1000, cluster.size))} autofocus ...${written(k, setK)} placeholder="as found" /></label>
    <p class="soft">Leave it empty to find the number of parts, too.</p>
    <button class="main" disabled=${isRunning}>Split</button><//><//>`;
}

const typeOf = (kind) => `application/x-nearsight-${kind}`;

function carry(event, kind, text) {
  event.dataTransfer.setData(typeOf(kind), text);
  event.dataTransfer.effectAllowed = "move";
  event.stopPropagation();
}

function useDrop(kind, dropped) {
  const [isOver, setIsOver] = useState(false);
  const fits = (event) => event.dataTransfer.types.includes(typeOf(kind));
  return {
    "data-over": isOver || null,
    onDragOver: (event) => { if (fits(event)) { event.preventDefault(); setIsOver(true); } },
    onDragLeave: () => setIsOver(false),
    onDrop: (event) => {
      setIsOver(false);
      if (!fits(event)) return;
      event.preventDefault();
      dropped(event.dataTransfer.getData(typeOf(kind)));
    },
  };
}
