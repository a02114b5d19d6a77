// What can be done with the selected images, in every view.

import { service } from "../api.js";
import { useTrash } from "../components/trash.js";
import { go } from "../route.js";
import { count, Dialog, Failure, Form, html, NameField, useChange, useChanges, useKeys, useRef, useState, written } from "../ui.js";

const COPIED_AT_ONCE = 500;

export function SelectionBar({ collection, selection, reload, tell }) {
  const { size } = selection;
  const [dialog, setDialog] = useState();
  const [error, setError] = useState();
  const trash = useTrash(collection, tell);
  useChanges(selection);
  useChange(() => setError(), [collection.name]);
  const ask = (name) => selection.size && setDialog(name);
  const attempt = (answer) => { setError(); return answer.catch(setError); };
  const discard = () => selection.size && attempt(trash.discard({ ids: [...selection.ids] }).then((entry) => entry && selection.change(entry.ids, "subtract")));
  const takeOut = (ids) => attempt(trash.takeOut(ids).then(() => selection.change(ids, "subtract")));
  useKeys("Selection", {
    c: ["a new collection of the selected images", () => ask("copy")],
    t: ["tag the selected images", () => ask("tag")],
    "Shift+Delete": ["put the files of the selected images into the trash", discard],
    Delete: ["take the selected images out of the collection", () => ask("remove")],
  });
  const shared = { collection, selection, close: () => setDialog() };
  return html`${size > 0 && html`<section class="selection" aria-label="Selection">
      <strong>${count(size, "image")} selected</strong>
      <button onClick=${() => ask("tag")}>Tag…</button>
      <button onClick=${() => attempt(save(collection, [...selection.ids]))}>Export CSV</button>
      <button onClick=${() => ask("copy")}>New collection…</button>
      <button onClick=${() => ask("remove")}>Take out…</button>
      <button onClick=${discard}>Trash</button>
      <button onClick=${() => selection.clear()}>Clear</button><${Failure} error=${error} /></section>`}${trash.stayed}
    ${dialog === "tag" && html`<${TagDialog} ...${shared} tell=${tell} />`}
    ${dialog === "copy" && html`<${CopyDialog} ...${shared} reload=${reload} />`}
    ${dialog === "remove" && html`<${RemoveDialog} ...${shared} takeOut=${takeOut} />`}`;
}

function TagDialog({ collection, selection, close, tell }) {
  const [key, setKey] = useState("tag");
  const [value, setValue] = useState("");
  const send = async () => {
    const { changed, change } = await collection.patch("items", { ids: [...selection.ids], metadata: { [key.trim()]: value.trim() || null } });
    tell(`${count(changed, "image")} tagged`, change && (() => collection.post("items/undo", { change })
      .then(({ changed, kept }) => `${count(changed, "tag")} taken back${kept ? `; ${count(kept, "image")} changed since` : ""}`)));
    close();
  };
  return html`<${Dialog} title=${`Tag ${count(selection.size, "image")}`} close=${close}><${Form} send=${send}>
    <label>Name <input required pattern="[A-Za-z_][A-Za-z0-9_]*" ...${written(key, setKey)} /></label>
    <label>Value <input placeholder="empty takes the tag away" ...${written(value, setValue)} /></label>
    <button class="main">Tag</button><//><//>`;
}

function CopyDialog({ collection, selection, close, reload }) {
  const [name, setName] = useState("");
  const [done, setDone] = useState();
  const made = useRef();
  const send = async () => {
    const to = { name: name.trim() }, ids = [...selection.ids];
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
    <${NameField} ...${written(name, setName)} />
    ${done != null && html`<progress max=${selection.size} value=${done} aria-label="Progress" />`}
    <button class="main" disabled=${done != null}>Create</button><//><//>`;
}

function RemoveDialog({ selection, close, takeOut }) {
  const send = () => { close(); takeOut([...selection.ids]); };
  return html`<${Dialog} title=${`Take out ${count(selection.size, "image")}?`} close=${close}><${Form} send=${send}>
    <p>They leave the collection. Files in folders of the server stay where they are; uploaded files are deleted.</p>
    <div class="buttons"><button class="danger">Take out</button><button type="button" onClick=${close}>Keep</button></div><//><//>`;
}

/** Save a table of images, with all that people wrote about them. */
async function save(collection, ids) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await collection.post("items/export", { ids })], { type: "text/csv" }));
  link.download = `${collection.name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}
