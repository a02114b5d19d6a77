// The map of all images: colors by cluster, names over them, a thumbnail under the mouse, the lasso, search highlights.

import { api } from "../api.js";
import { Analysis, useAnalysis } from "../components/analysis.js";
import { Viewer } from "../components/viewer.js";
import { MapView } from "../map/map-view.js";
import { categoryColor, css, NOISE } from "../map/palette.js";
import { go } from "../route.js";
import { announce, count, html, useEffect, useRef, useState } from "../ui.js";

const MAX_HIGHLIGHTS = 200;

export function MapOfImages({ collection, selection }) {
  const analysis = useAnalysis(collection.name, "map", () =>
    Promise.all([api.map(collection.name), api.clusters(collection.name).catch(() => null)]).then(([points, clusters]) => ({ points, clusters })));
  return html`<div class="fill">
    <${Analysis} analysis=${analysis} title="No map yet" button="Make the map"
      explanation="The map lays all images out on a plane: similar ones lie close together.">
      ${analysis.result && html`<${Board} key=${collection.name} collection=${collection} selection=${selection} result=${analysis.result} start=${analysis.start} />`}
    </${Analysis}></div>`;
}

function Board({ collection, selection, result, start }) {
  const element = useRef();
  const map = useRef();
  const [hover, setHover] = useState();
  const [opened, setOpened] = useState();
  const [words, setWords] = useState("");
  const [hidden, setHidden] = useState(new Set());
  const { points, clusters } = result;
  const names = new Map((clusters?.clusters ?? []).map((cluster) => [cluster.id, cluster.name || `Cluster ${cluster.id}`]));

  useEffect(() => {
    map.current = new MapView(element.current, {
      selection, announce,
      hover: (point, left, top) => setHover(point < 0 ? undefined : { point, left, top }),
      open: setOpened,
    });
    return () => map.current.destroy();
  }, []);
  useEffect(() => {
    map.current.resize();
    map.current.setPoints(points.x, points.y, points.ids);
    map.current.setCategories(points.category);
    map.current.setLabels(labelsOf(points, names));
  }, [result]);
  useEffect(() => map.current.hide((point) => hidden.has(points.category[point])), [hidden, result]);

  const search = async (event) => {
    event.preventDefault();
    if (!words.trim()) return map.current.highlight(undefined);
    const { hits } = await api.search(collection.name, { text: words.trim() }, { k: MAX_HIGHLIGHTS }).catch((error) => { announce(error.message); return { hits: [] }; });
    map.current.highlight(hits.length ? hits.map((hit) => hit.id) : undefined);
    announce(`${count(hits.length, "image")} highlighted`);
  };
  const toggle = (category) => setHidden((now) => {
    const next = new Set(now);
    next.has(category) ? next.delete(category) : next.add(category);
    return next;
  });
  return html`
    <form class="search-line" onSubmit=${search}>
      <input data-search type="search" aria-label="Highlight by words" placeholder="Highlight by words" value=${words} onInput=${(event) => setWords(event.target.value)} />
      <button class="quiet">Highlight</button>
      <button type="button" class="quiet" onClick=${() => map.current.fit()}>Show all</button>
      <button type="button" class="quiet" onClick=${() => start({ refit: true })}>Make anew</button>
    </form>
    <div class="map-board">
      <div ref=${element} class="map-place"></div>
      ${hover && html`<div class="map-hover" ref=${(tip) => tip && place(tip, hover)}>
        <img src=${api.thumbnail(collection.name, points.ids[hover.point])} alt="" />
        ${names.get(points.category[hover.point]) ?? ""}</div>`}
      <${Legend} points=${points} names=${names} hidden=${hidden} toggle=${toggle} />
    </div>
    <p class="soft map-help">Draw with the left button to select; Shift adds, Alt takes away. The wheel zooms, the right button moves.</p>
    ${opened != null && html`<${Viewer} collection=${collection.name} selection=${selection} index=${opened} close=${() => setOpened(undefined)}
      source=${{ count: points.ids.length, get: (at) => ({ id: points.ids[at], title: names.get(points.category[at]) ?? "Image", thumbnail: api.thumbnail(collection.name, points.ids[at]) }), need: async () => {} }}
      actions=${[["More like this", (cell) => go(collection.name, "images", { like: cell.id })]]} />`}`;
}

function Legend({ points, names, hidden, toggle }) {
  const sizes = new Map();
  for (const category of points.category) sizes.set(category, (sizes.get(category) ?? 0) + 1);
  const rows = [...sizes].sort((a, b) => (a[0] === NOISE) - (b[0] === NOISE) || b[1] - a[1]);
  return html`<ul class="legend" aria-label="Clusters">${rows.map(([category, size]) => html`<li><label>
    <input type="checkbox" checked=${!hidden.has(category)} onChange=${() => toggle(category)} />
    <span class="dot" ref=${(dot) => dot && (dot.style.background = css(categoryColor(category)))}></span>
    <span title=${names.get(category)}>${category === NOISE ? (names.size ? "in no cluster" : "all images") : names.get(category) ?? `Cluster ${category}`}</span>
    <span class="soft">${size.toLocaleString("en")}</span></label></li>`)}</ul>`;
}

/** The name of each cluster at the median of its points, the largest cluster first. */
function labelsOf(points, names) {
  const members = new Map();
  points.category.forEach((category, point) => {
    if (category !== NOISE) (members.get(category) ?? members.set(category, []).get(category)).push(point);
  });
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  return [...members].map(([category, rows]) => ({
    text: names.get(category) ?? `Cluster ${category}`,
    x: median(rows.map((row) => points.x[row])),
    y: median(rows.map((row) => points.y[row])),
    size: rows.length,
  })).sort((a, b) => b.size - a.size);
}

/** Put the tip beside the mouse, inside the map. */
function place(tip, { left, top }) {
  const board = tip.parentElement;
  tip.style.left = `${Math.min(left + 14, board.clientWidth - 230)}px`;
  tip.style.top = `${Math.min(top + 14, board.clientHeight - 210)}px`;
}
