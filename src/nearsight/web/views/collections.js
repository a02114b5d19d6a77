// All collections, and a new one.

import { service } from "../api.js";
import { address, go } from "../route.js";
import { count, Empty, Failure, Form, html, NameField, number, useState, written } from "../ui.js";

export function Collections({ collections, reload, missing }) {
  const [name, setName] = useState("");
  const create = async () => {
    await service.post("collections", { name: name.trim() });
    await reload();
    go({ name: name.trim() }, "add");
  };
  return html`
    <h1>Collections</h1>
    ${missing && html`<${Failure} error=${{ title: "Not here.", message: `There is no collection ${missing}.` }} />`}
    ${collections.length === 0 && html`<${Empty} title="No collection yet"><p>A collection holds your images with their vectors. Name one to begin.</p><//>`}
    <ul class="tiles">${collections.map((one) => html`<li><a class="card" href=${address(one, one.images === 0 ? "add" : "images")}>
      <strong>${one.name}</strong>${one.problem ? html`<span class="soft">Not available: ${one.problem}</span>` : html`<span>${count(one.images, "image")}</span>
      <span class="soft">${one.model.split(":").at(-1).slice(0, 40)} · ${number(one.dim)} numbers an image</span>`}</a></li>`)}</ul>
    <${Form} class="card narrow" send=${create}>
      <h2>New collection</h2>
      <${NameField} ...${written(name, setName)} placeholder="holidays" />
      <button class="main">Create</button><//>`;
}
