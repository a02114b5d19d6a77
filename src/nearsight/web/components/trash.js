// What the trash says: which files, and which of them stayed.

import { count, Dialog, fileName, html, number } from "../ui.js";

export const names = (paths) => `${paths.slice(0, 3).map(fileName).join(", ")}${paths.length > 3 ? ` and ${number(paths.length - 3)} more` : ""}`;

/** What went into the trash at once; of images without files, how many. */
export const whatOf = ({ paths, ids }) => (paths.length ? names(paths) : count(ids.length, "image"));

/** Files that may not be moved; their images can leave the collection all the same. */
export function RefusedFiles({ refused, close, takeOut }) {
  if (!refused.length) return null;
  const images = [...new Set(refused.map(({ id }) => id))];
  return html`<${Dialog} title=${`${count(refused.length, "file")} stayed where ${refused.length === 1 ? "it is" : "they are"}`} close=${close}>
    <ul>${refused.slice(0, 50).map(({ path, reason }) => html`<li><strong>${fileName(path)}</strong>: ${reason}</li>`)}</ul>
    <div class="buttons"><button onClick=${() => { close(); takeOut(images); }}>Take only the images out of the collection</button><button class="main" onClick=${close}>Leave them</button></div><//>`;
}
