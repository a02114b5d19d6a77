// The map of all images: colors by cluster or by any field, names over them, a thumbnail under the mouse, the lasso, search highlights.

import { Analysis, useAnalysis } from "../components/analysis.js";
import { Viewer } from "../components/viewer.js";
import { address } from "../route.js";
import { IdSource } from "../sources.js";
import { MapView } from "./map-view.js";
import { categoryColor, css, NOISE, valueColor } from "./palette.js";
import { announce, count, Failure, html, number, useAnswer, useChange, useChoice, useEffect, useMemo, useOrder, useRef, useState, written } from "../ui.js";

const MAX_HIGHLIGHTS = 200;
// The share of the shown images from which it is said that others have left.
const MANY_LEFT = 0.1;
const OTHER = 10;
// What every image has, or may have, besides its metadata.
const FACTS = [["taken", "Date taken"], ["camera", "Camera"], ["lens", "Lens"], ["modified", "Date of the file"], ["added", "Date added"],
  ["size_bytes", "Bytes"], ["width", "Width"], ["height", "Height"]];

export function MapOfImages({ collection, selection }) {
  const analysis = useAnalysis(collection, "map", (all) =>
    Promise.all([collection.get("map").then(pointsOf), all.includes("clusters") ? collection.get("clusters") : null]).then(([points, clusters]) => ({ points, clusters })));
  return html`<div class="fill"><h1 class="hidden-text">Map of ${collection.name}</h1>
    <${Analysis} analysis=${analysis} title="No map yet" button="Make the map"
      explanation="The map lays all images out on a plane: similar ones lie close together.">
      ${analysis.result && html`<${Board} key=${collection.name} ...${{ collection, selection }} result=${analysis.result} start=${analysis.start} />`}
    <//></div>`;
}

function Board({ collection, selection, result, start }) {
  const element = useRef();
  const map = useRef();
  const [hover, setHover] = useState();
  const [opened, setOpened] = useState();
  const [draws, setDraws] = useState(false);
  const [words, setWords] = useState("");
  const [hidden, toggle, leave] = useChoice();
  const [field, setField] = useState("");
  const [facts] = useAnswer(() => collection.facts(), [collection.name]);
  const [values, failure] = useAnswer(() => (field ? collection.get("map/values", { field }).then((its) => ({ ...its, field })) : Promise.resolve()), [field, result]);
  const { points, clusters } = result;
  const byCluster = useMemo(() => clusterColoring(points, clusters), [result]);
  const byValue = useMemo(() => values && valueColoring(values, points), [values, result]);
  // Of the field that is chosen: the values of another may come late.
  const isByValue = field && values?.field === field;
  const coloring = isByValue ? byValue : byCluster;
  const { codes, names } = coloring;

  useEffect(() => {
    map.current = new MapView(element.current, {
      selection, announce,
      hover: (point, left, top) => setHover(point < 0 ? undefined : { point, left, top }),
      open: setOpened,
    });
    return () => map.current.destroy();
  }, []);
  useEffect(() => {
    setHover();
    map.current.resize();
    map.current.setPoints(points.x, points.y, points.ids);
    map.current.setLabels(labelsOf(points, byCluster));
  }, [result]);
  useEffect(() => map.current.setCategories(codes, coloring.colorOf), [codes]);
  useChange(() => leave(hidden), [isByValue && field]);
  useEffect(() => {
    const those = new Set(hidden);
    map.current.hide((point) => those.has(codes[point]));
  }, [hidden, codes]);

  const inOrder = useOrder();
  const search = async (event) => {
    event.preventDefault();
    const text = words.trim();
    const { hits } = await inOrder(() => (text ? collection.search({ text }, { k: MAX_HIGHLIGHTS }) : { hits: [] })).catch((error) => { announce(error.message); return { hits: [] }; });
    map.current.highlight(hits.length ? hits.map((hit) => hit.id) : undefined);
    announce(`${count(hits.length, "image")} highlighted`);
  };
  return html`
    <form class="search-line" onSubmit=${search}>
      <input data-search type="search" aria-label="Highlight by words" placeholder="Highlight by words" ...${written(words, setWords)} />
      <button>Highlight</button>
      <select aria-label="Color by" ...${written(field, setField)}>
        <option value="">Color by cluster</option>
        ${Object.keys(facts?.metadata ?? {}).map((key) => html`<option value=${key}>Color by ${key}</option>`)}
        ${FACTS.map(([key, title]) => html`<option value=${key}>${title}</option>`)}</select>
      <button type="button" onClick=${() => map.current.fit()}>Show all</button>
      ${matchMedia("(any-pointer: coarse)").matches && html`<button type="button" aria-pressed=${draws}
        onClick=${() => setDraws((map.current.fingerDraws = !draws))}>Lasso</button>`}
      <button type="button" onClick=${() => start({ refit: true })}>Make anew</button>
    </form>
    <${Failure} error=${failure} />
    <div class="map-board">
      <div ref=${element} class="map-place" />
      ${hover && html`<div class="map-hover" ref=${(tip) => tip && place(tip, hover)}>
        <img src=${collection.thumbnail(points.ids[hover.point])} alt="" />
        ${names.get(codes[hover.point]) ?? ""}</div>`}
      <${Legend} ...${{ coloring, hidden, toggle }}>${!clusters && html`<p class="soft"><a href=${address(collection, "clusters")}>Find clusters</a>: they give colors and names.</p>`}<//>
    </div>
    <p class="soft map-help">${points.nLeft > MANY_LEFT * points.ids.length && `${count(points.nLeft, "image")} of this map have left the collection. `}
      ${matchMedia("(hover: hover)").matches ? "Draw to select; Shift adds, Alt takes away. The wheel zooms, the right button moves."
      : draws ? "Draw with one finger to select; two move and zoom the map." : "Tap to select. One finger moves the map, two zoom it."}</p>
    ${opened != null && html`<${Viewer} selection=${selection} index=${opened} close=${() => setOpened()}
      source=${new IdSource(collection, points.ids, (at) => names.get(codes[at]) ?? "Image")} />`}`;
}

function Legend({ coloring, hidden, toggle, children }) {
  const { codes, names, colorOf, scale } = coloring;
  const sizes = useMemo(() => {
    const counted = new Map();
    for (const code of codes) counted.set(code, (counted.get(code) ?? 0) + 1);
    return counted;
  }, [codes]);
  // Other values and none come last, whatever their number is.
  const isLast = (code) => (code === NOISE) * 2 + (coloring.isValue && code === OTHER);
  const rows = [...sizes].filter(([code]) => !scale || code === NOISE).sort((a, b) => isLast(a[0]) - isLast(b[0]) || b[1] - a[1]);
  return html`<div class="legend">${scale && html`<${Scale} ends=${scale} colorOf=${colorOf} />`}
    <ul aria-label="Colors">${rows.map(([code, size]) => html`<li><label>
    <input type="checkbox" checked=${!hidden.includes(code)} onChange=${() => toggle(code)} />
    <span class="dot" style=${{ background: css(colorOf(code)) }} />
    <span>${names.get(code) ?? `Cluster ${code}`}</span>
    <span class="soft">${number(size)}</span></label></li>`)}</ul>${children}</div>`;
}

/** A scale of numbers or dates, from its lower to its upper end. */
function Scale({ ends, colorOf }) {
  const stops = Array.from({ length: 9 }, (_, at) => css(colorOf(Math.round((at / 8) * 1023))));
  return html`<div class="scale"><div class="scale-bar" style=${{ background: `linear-gradient(to right, ${stops})` }} /><div class="scale-ends"><span>${ends[0]}</span><span>${ends[1]}</span></div></div>`;
}

/**
 * The points of the map as the service sends them: x and y (Float32Array), category (Uint16Array; 65,535 for none), and ids.
 * Images that have left the collection have no position (NaN): `rows` are those of the others.
 */
function pointsOf(data) {
  const n = data.byteLength / 26;
  const x = new Float32Array(data, 0, n);
  const rows = Uint32Array.from(x.keys()).filter((row) => !isNaN(x[row]));
  const taken = (column) => column.constructor.from(rows, (row) => column[row]);
  const bytes = new Uint8Array(data, 10 * n);
  const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
  const id = (row) => {
    let text = "";
    for (let at = 16 * row; at < 16 * row + 16; at++) text += digits[bytes[at]];
    return text;
  };
  return {
    x: taken(x),
    y: taken(new Float32Array(data, 4 * n, n)),
    category: taken(new Uint16Array(data, 8 * n, n)),
    ids: Array.from(rows, id),
    rows,
    nLeft: n - rows.length,
  };
}

/** How points are colored: a code for each, its name and its color. The clusters are those that the page shows now. */
function clusterColoring(points, clusters) {
  const names = new Map((clusters?.clusters ?? []).map((cluster) => [cluster.id, cluster.name || `Cluster ${cluster.id}`]));
  names.set(NOISE, names.size ? "in no cluster" : "all images");
  const of = new Map(clusters?.noise.map((id) => [id, NOISE]));
  for (const cluster of clusters?.clusters ?? []) for (const id of cluster.ids) of.set(id, cluster.id);
  const codes = Uint16Array.from(points.ids, (id, at) => of.get(id) ?? points.category[at]);
  return { codes, names, colorOf: categoryColor };
}

function valueColoring(values, { rows }) {
  const all = new Uint16Array(Uint8Array.from(atob(values.codes), (byte) => byte.charCodeAt(0)).buffer);
  const names = new Map(values.categories.map(([name], code) => [code, name]));
  names.set(OTHER, "other values").set(NOISE, "no value");
  const isScale = values.kind !== "category";
  return { codes: Uint16Array.from(rows, (row) => all[row]), names: isScale ? new Map([[NOISE, "no value"]]) : names, scale: isScale && values.ends, isValue: !isScale, colorOf: (code) => valueColor(code, isScale) };
}

/** The name of each cluster at the median of its points, the largest cluster first. */
function labelsOf(points, { codes, names }) {
  const members = Map.groupBy(codes.keys(), (point) => codes[point]);
  members.delete(NOISE);
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
