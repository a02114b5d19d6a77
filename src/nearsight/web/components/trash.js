// The trash: files that go there, and come back; some may not be moved.

import { count, Dialog, fileName, html, number, useState } from "../ui.js";

export const names = (paths) => `${paths.slice(0, 3).map(fileName).join(", ")}${paths.length > 3 ? ` and ${number(paths.length - 3)} more` : ""}`;

/** Returns {discard, restore, takeOut, stayed}: what was done is told, with the way back; `stayed` is the dialog of files that did not move. */
export function useTrash(collection, tell) {
  const [refused, setRefused] = useState([]);
  const restore = (id) => collection.post(`trash/${id}/restore`).then(({ paths }) => `${count(paths.length, "file")} put back`);
  const discard = async (what) => {
    const { entry, refused } = await collection.post("trash", what);
    setRefused(refused);
    // Of images without files, how many.
    if (entry) await tell(`In the trash: ${entry.paths.length ? names(entry.paths) : count(entry.ids.length, "image")}`, () => restore(entry.id));
    return entry;
  };
  const takeOut = (ids) => collection.post("items/delete", { ids }).then(({ removed }) => tell(`${count(removed, "image")} taken out`));
  return { discard, restore, takeOut, stayed: html`<${RefusedFiles} ...${{ refused, takeOut }} close=${() => setRefused([])} />` };
}

/** Files that may not be moved; their images can leave the collection all the same. */
function RefusedFiles({ refused, close, takeOut }) {
  if (!refused.length) return null;
  const images = [...new Set(refused.map(({ id }) => id))];
  return html`<${Dialog} title=${`${count(refused.length, "file")} stayed where ${refused.length === 1 ? "it is" : "they are"}`} close=${close}>
    <ul>${refused.slice(0, 50).map(({ path, reason }) => html`<li><strong>${fileName(path)}</strong>: ${reason}</li>`)}</ul>
    <div class="buttons"><button onClick=${() => { close(); takeOut(images); }}>Take only the images out of the collection</button><button class="main" onClick=${close}>Leave them</button></div><//>`;
}
