// One image, large, with what is known of it. The arrow keys go through the grid that it was opened from.

import { Photograph } from "./photograph.js";
import { go } from "../route.js";
import { Dialog, fileName, html, number, steps, useAnswer, useChanges, useKeys, useState } from "../ui.js";

export function Viewer({ source, index: first, close, selection, more = ({ id }) => go(source.collection, "images", { like: id }) }) {
  const { collection } = source;
  const [index, setIndex] = useState(first);
  const [loaded] = useAnswer(() => source.need(index, index).then(() => source.get(index)), [index]);
  const cell = loaded ?? source.get(first);
  const step = (by) => setIndex((at) => Math.min(Math.max(at + by, 0), source.count - 1));
  useChanges(selection);
  useKeys("Image", {
    ...steps("image", step),
    Space: ["select or deselect", () => cell && selection.toggle(cell.id)],
  });
  const [facts] = useAnswer(() => (cell ? collection.item(cell.id) : Promise.resolve()), [cell?.id]);
  if (!cell) return null;
  return html`<${Dialog} title=${cell.title} close=${close} wide>
    <div class="viewer">
      <figure><${Photograph} key=${cell.id} collection=${collection} id=${cell.id} alt=${cell.title}
        broken=${html`<figcaption class="soft">The file cannot be shown; this is the thumbnail.</figcaption>`} /></figure>
      <aside>
        <p class="soft">${number(index + 1)} of ${number(source.count)}${cell.note ? ` · similarity ${cell.note}` : ""}</p>
        <div class="buttons">
          <button aria-label="Previous image" disabled=${index === 0} onClick=${() => step(-1)}>←</button>
          <button aria-label="Next image" disabled=${index === source.count - 1} onClick=${() => step(1)}>→</button>
          <button onClick=${() => { close(); more(cell); }}>More like this</button>
          <button aria-pressed=${selection.has(cell.id)} onClick=${() => selection.toggle(cell.id)}>${selection.has(cell.id) ? "Selected" : "Select"}</button></div>
        ${facts?.id === cell.id && html`<${Facts} facts=${facts} />`}
      </aside>
    </div><//>`;
}

export function FactList({ rows }) {
  return html`<dl class="facts">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Facts({ facts }) {
  const rows = [
    ["File", fileName(facts.path)], ["Folder", facts.path.split("/").slice(0, -1).join("/")],
    ["Size", facts.width ? `${facts.width} × ${facts.height}` : null],
    ["Taken", facts.taken?.replace("T", " ")], ["Camera", facts.camera], ["Lens", facts.lens],
    ["Place", facts.lat == null ? null : `${facts.lat.toFixed(4)}, ${facts.lon.toFixed(4)}`],
    ...Object.entries(facts.metadata ?? {}).map(([key, value]) => [key, String(value)]),
  ].filter(([, value]) => value != null && value !== "");
  return html`<${FactList} rows=${rows} />`;
}
