// Clusters as stacks: look into one, rename it, select its images.

import { api } from "../api.js";
import { Analysis, useAnalysis } from "../components/analysis.js";
import { GridView } from "../components/grid-view.js";
import { Viewer } from "../components/viewer.js";
import { go } from "../route.js";
import { announce, count, Failure, html, useMemo, useState } from "../ui.js";

export function Clusters({ collection, query, selection }) {
  const analysis = useAnalysis(collection.name, "clusters", () => api.clusters(collection.name));
  const [k, setK] = useState("");
  const { result } = analysis;
  const chosen = query.cluster != null && result?.clusters.find(({ id }) => String(id) === query.cluster);
  const start = (event) => { event.preventDefault(); analysis.start(k ? { k: Number(k) } : {}); };
  return html`<${Analysis} analysis=${analysis} title="No clusters yet" button="Find clusters"
      explanation="Clusters gather images that show the same kind of thing. Images that belong to none stay apart.">
    ${result && (chosen
      ? html`<${Cluster} key=${chosen.id} collection=${collection} cluster=${chosen} selection=${selection} renamed=${analysis.reload} />`
      : html`<div class="line"><h1>${count(result.clusters.length, "cluster")}</h1><span class="space"></span>
          <form class="search-line one" onSubmit=${start}><label class="soft" for="k">Number</label><input id="k" type="number" min="1" max="1000" value=${k} placeholder="as found" onInput=${(event) => setK(event.target.value)} />
          <button class="quiet">Cluster again</button></form></div>
        <ul class="stacks">${result.clusters.map((cluster) => html`<${Stack} collection=${collection.name} cluster=${cluster} />`)}
          ${result.noise.length > 0 && html`<li><button class="stack" onClick=${() => selection.change(result.noise)}>
            <span class="pile none"></span><strong>In no cluster</strong><span class="soft">${count(result.noise.length, "image")}</span></button></li>`}</ul>`)}
  </${Analysis}>`;
}

function Stack({ collection, cluster }) {
  const shown = (cluster.representatives?.length ? cluster.representatives : cluster.ids).slice(0, 4);
  return html`<li><button class="stack" onClick=${() => go(collection, "clusters", { cluster: cluster.id })}>
    <span class="pile">${shown.map((id) => html`<img src=${api.thumbnail(collection, id)} alt="" loading="lazy" />`)}</span>
    <strong>${cluster.name || `Cluster ${cluster.id}`}</strong><span class="soft">${count(cluster.size, "image")}</span></button></li>`;
}

function Cluster({ collection, cluster, selection, renamed }) {
  const [name, setName] = useState(cluster.name ?? "");
  const [error, setError] = useState();
  const [opened, setOpened] = useState();
  const source = useMemo(() => new IdSource(collection.name, cluster.ids), [cluster]);
  const rename = (event) => {
    event.preventDefault();
    api.renameCluster(collection.name, cluster.id, name.trim()).then(() => { announce("renamed"); renamed(); }, setError);
  };
  return html`<div class="fill">
    <form class="search-line" onSubmit=${rename}>
      <button type="button" class="quiet" onClick=${() => go(collection.name, "clusters")}>← All clusters</button>
      <input aria-label="Name of the cluster" required maxlength="100" value=${name} onInput=${(event) => setName(event.target.value)} />
      <button disabled=${name.trim() === (cluster.name ?? "")}>Rename</button>
      <button type="button" class="quiet" onClick=${() => selection.change(cluster.ids)}>Select all ${cluster.size.toLocaleString("en")}</button>
    </form>
    ${error && html`<${Failure} error=${error} />`}
    <${GridView} source=${source} selection=${selection} open=${setOpened} size=${168} />
    ${opened != null && html`<${Viewer} collection=${collection.name} source=${source} index=${opened} selection=${selection} close=${() => setOpened(undefined)}
      actions=${[["More like this", (cell) => go(collection.name, "images", { like: cell.id })]]} />`}
  </div>`;
}

/** Images that are named by their ids. */
export class IdSource {
  constructor(collection, ids, note = () => undefined) {
    Object.assign(this, { collection, ids, note, count: ids.length });
  }

  get(index) {
    const id = this.ids[index];
    return id && { id, title: this.note(index) ?? "", thumbnail: api.thumbnail(this.collection, id) };
  }

  async need() {}
}
