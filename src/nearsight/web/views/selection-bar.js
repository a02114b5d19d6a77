// What can be done with the selected images, in every view.

import { service } from "../api.js";
import { go } from "../route.js";
import { announce, count, Dialog, Form, html, NAMING, UndoBar, useChanges, useEffect, useField, useKeys, useRef, useState } from "../ui.js";

const ITEMS_AT_ONCE = 16;
const COPIED_AT_ONCE = 500;

export function SelectionBar({ collection, selection, reload }) {
  const { size } = selection;
  const [dialog, setDialog] = useState();
  const [tagged, setTagged] = useState();
  useChanges(selection);
  useEffect(() => setTagged(), [collection.name]);
  const ask = (name) => selection.size && setDialog(name);
  useKeys("Selection", {
    c: ["a new collection of the selected images", () => ask("copy")],
    t: ["tag the selected images", () => ask("tag")],
    Delete: ["take the selected images out of the collection", () => ask("remove")],
  });
  const undo = () => collection.post("items/undo", { change: tagged.change }).then(({ changed, kept }) => {
    setTagged({ text: `${count(changed, "tag")} taken back${kept ? `; ${count(kept, "image")} changed since` : ""}` });
    reload();
  }, ({ message }) => setTagged({ ...tagged, text: message }));
  const shared = { collection, selection, close: () => setDialog() };
  return html`
    ${tagged && html`<${UndoBar} key=${tagged.change} text=${tagged.text} undo=${tagged.change && undo} close=${() => setTagged()} />`}
    ${size > 0 && html`<section class="selection" aria-label="Selection">
      <strong>${count(size, "image")} selected</strong>
      <button onClick=${() => ask("tag")}>Tag…</button>
      <button onClick=${() => save(collection, [...selection.ids])}>Export CSV</button>
      <button onClick=${() => ask("copy")}>New collection…</button>
      <button onClick=${() => ask("remove")}>Take out…</button>
      <button onClick=${() => selection.clear()}>Clear</button></section>`}
    ${dialog === "tag" && html`<${TagDialog} ...${shared} done=${(done) => { setTagged(done); reload(); }} />`}
    ${dialog === "copy" && html`<${CopyDialog} ...${shared} reload=${reload} />`}
    ${dialog === "remove" && html`<${RemoveDialog} ...${shared} done=${reload} />`}`;
}

function TagDialog({ collection, selection, close, done }) {
  const key = useField("tag");
  const value = useField("");
  const send = async () => {
    const { changed, change } = await collection.patch("items", { ids: [...selection.ids], metadata: { [key.value.trim()]: value.value.trim() || null } });
    done({ text: `${count(changed, "image")} tagged`, change });
    close();
  };
  return html`<${Dialog} title=${`Tag ${count(selection.size, "image")}`} close=${close}><${Form} send=${send}>
    <label>Name <input required pattern="[A-Za-z_][A-Za-z0-9_]*" ...${key.props} /></label>
    <label>Value <input placeholder="empty takes the tag away" ...${value.props} /></label>
    <button class="main">Tag</button></${Form}></${Dialog}>`;
}

/** A new collection of the selected images. */
function CopyDialog({ collection, selection, close, reload }) {
  const name = useField("");
  const [done, setDone] = useState();
  const made = useRef();
  const send = async () => {
    const to = { name: name.value.trim() }, ids = [...selection.ids];
    // After a failure, it goes on where it was.
    if (made.current !== to.name) await service.post("collections", { ...to, like: collection.name });
    made.current = to.name;
    try {
      for (let start = 0; start < ids.length; start += COPIED_AT_ONCE) {
        setDone(start);
        await service.post(`collections/${to.name}/items/copy`, { source: collection.name, ids: ids.slice(start, start + COPIED_AT_ONCE) });
      }
    } finally { setDone(); }
    close();
    await reload();
    go(to, "images");
  };
  return html`<${Dialog} title=${`A new collection of ${count(selection.size, "image")}`} close=${close}><${Form} send=${send}>
    <p>They stay in this collection, too. Tags come with them; what is changed later in one collection is not changed in the other.</p>
    <label>Name <input ...${NAMING} ...${name.props} /></label>
    ${done != null && html`<progress max=${selection.size} value=${done} aria-label="Progress"></progress>`}
    <button class="main" disabled=${done != null}>Create</button></${Form}></${Dialog}>`;
}

function RemoveDialog({ collection, selection, close, done }) {
  const send = async () => {
    const { removed } = await collection.post("items/delete", { ids: [...selection.ids] });
    announce(`${count(removed, "image")} taken out`);
    selection.clear();
    close();
    done();
  };
  return html`<${Dialog} title=${`Take out ${count(selection.size, "image")}?`} close=${close}><${Form} send=${send}>
    <p>They leave the collection. Files in folders of the server stay where they are; uploaded files are deleted.</p>
    <div class="buttons"><button class="danger">Take out</button><button type="button" onClick=${close}>Keep</button></div></${Form}></${Dialog}>`;
}

/** A cell of a table. What a spreadsheet would take for a formula is marked as text. */
const cellOf = (text) => `"${String(text).replace(/^'*[=+\-@\t\r\n]/, "'$&").replaceAll('"', '""')}"`;

async function save(collection, ids) {
  const rows = [["id", "path"]];
  for (let start = 0; start < ids.length; start += ITEMS_AT_ONCE) {
    const items = await Promise.all(ids.slice(start, start + ITEMS_AT_ONCE).map(collection.item));
    rows.push(...items.map(({ id, path }) => [id, path]));
  }
  const text = rows.map((row) => row.map(cellOf).join(",")).join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${collection.name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}
