// What can be done with the selected images, in every view.

import { api } from "../api.js";
import { announce, count, Dialog, Failure, html, useEffect, useKeys, useState } from "../ui.js";

export function SelectionBar({ collection, selection, reload }) {
  const [size, setSize] = useState(selection.size);
  const [dialog, setDialog] = useState();
  useEffect(() => {
    const changed = () => setSize(selection.size);
    selection.addEventListener("change", changed);
    return () => selection.removeEventListener("change", changed);
  }, []);
  useKeys("Selection", {
    t: ["tag the selected images", () => selection.size && setDialog("tag")],
    Delete: ["take the selected images out of the collection", () => selection.size && setDialog("remove")],
  });
  const close = () => setDialog(undefined);
  if (!size) return null;
  return html`<section class="selection" aria-label="Selection">
    <strong>${count(size, "image")} selected</strong>
    <button class="quiet" onClick=${() => setDialog("tag")}>Tag…</button>
    <button class="quiet" onClick=${() => save(collection.name, [...selection.ids])}>Export CSV</button>
    <button class="quiet" onClick=${() => setDialog("remove")}>Take out…</button>
    <button class="quiet" onClick=${() => selection.clear()}>Clear</button>
    ${dialog === "tag" && html`<${TagDialog} collection=${collection} selection=${selection} close=${close} done=${reload} />`}
    ${dialog === "remove" && html`<${RemoveDialog} collection=${collection} selection=${selection} close=${close} done=${reload} />`}
  </section>`;
}

function TagDialog({ collection, selection, close, done }) {
  const [key, setKey] = useState("tag");
  const [value, setValue] = useState("");
  const [error, setError] = useState();
  const send = async (event) => {
    event.preventDefault();
    try {
      const { changed } = await api.tag(collection.name, [...selection.ids], { [key.trim()]: value.trim() || null });
      announce(`${count(changed, "image")} tagged`);
      close();
      done();
    } catch (failure) { setError(failure); }
  };
  return html`<${Dialog} title=${`Tag ${count(selection.size, "image")}`} close=${close}><form onSubmit=${send}>
    <label>Name <input required pattern="[A-Za-z_][A-Za-z0-9_]*" value=${key} onInput=${(event) => setKey(event.target.value)} /></label>
    <label>Value <input value=${value} onInput=${(event) => setValue(event.target.value)} placeholder="empty takes the tag away" /></label>
    ${error && html`<${Failure} error=${error} />`}
    <button>Tag</button></form></${Dialog}>`;
}

function RemoveDialog({ collection, selection, close, done }) {
  const [error, setError] = useState();
  const send = async () => {
    try {
      const { removed } = await api.remove(collection.name, [...selection.ids]);
      announce(`${count(removed, "image")} taken out`);
      selection.clear();
      close();
      done();
    } catch (failure) { setError(failure); }
  };
  return html`<${Dialog} title=${`Take out ${count(selection.size, "image")}?`} close=${close}>
    <p>They leave the collection. Files in folders of the server stay where they are; uploaded files are deleted.</p>
    ${error && html`<${Failure} error=${error} />`}
    <div class="buttons"><button class="danger" onClick=${send}>Take out</button><button class="quiet" onClick=${close}>Keep</button></div></${Dialog}>`;
}

async function save(collection, ids) {
  const rows = [["id", "path"]];
  for (const id of ids) {
    const item = await api.item(collection, id);
    rows.push([item.id, item.path]);
  }
  const text = rows.map((row) => row.map((cell) => `"${String(cell).replaceAll('"', '""')}"`).join(",")).join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${collection}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}
