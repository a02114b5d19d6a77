// A shop: an item, what looks like it, what is bought with it, and the rules of what may be recommended.

import { form } from "../api.js";
import { quoted } from "../components/conditions.js";
import { JobProgress, useJob } from "../components/job.js";
import { Photograph } from "../components/photograph.js";
import { FactList } from "../components/viewer.js";
import { address, go } from "../route.js";
import { titleOf } from "../sources.js";
import { announce, count, Dialog, Empty, Failure, fileName, Form, html, NameField, NoImages, number, useAnswer, useChange, useEffect, useKeys, useOrder, useRef, useState, Wait, written } from "../ui.js";
import { fieldsOf, inWords, RuleEditor } from "./shop-rules.js";

const MAX_TILES = 60;
const MAX_ROW = 12;

export function Shop({ collection, query, selection, tell }) {
  const [info, infoError] = useAnswer(() => collection.facts(), [collection.name]);
  const [stored, , reload] = useAnswer(() => collection.get("baskets"), [collection.name]);
  const [saved, savedError] = useAnswer(() => collection.read("recommendations/rules"), [collection.name]);
  const [unsaved, setUnsaved] = useState();
  const [dialog, setDialog] = useState();
  const [chosen, setChosen] = useState();
  const baskets = stored?.baskets ?? [];
  const orders = baskets.find((each) => each.name === chosen)?.name ?? baskets[0]?.name;
  const inOrder = useOrder();
  // The rules as the service has them, and edits that it has not answered: these are seen at once.
  const latest = useRef();
  const [edits, setEdits] = useState([]);
  /** Where others were faster, theirs hold; an edit that was not saved can be made again, so that none is lost. */
  const change = (edit) => {
    setEdits((now) => [...now, edit]);
    inOrder(async () => {
      const { rules, tag } = latest.current ?? saved;
      latest.current = await collection.replace("recommendations/rules", { rules: edit(rules) }, tag);
    }).catch(async (error) => {
      if (error.status === 412) latest.current = await collection.read("recommendations/rules");
      setUnsaved((before) => ({ error, again: () => { setUnsaved(); before?.again(); change(edit); } }));
    }).catch((error) => setUnsaved({ error, again: () => change(edit) })).finally(() => setEdits((now) => now.filter((other) => other !== edit)));
  };
  // Dialogs may be closed meanwhile.
  const learning = useJob(collection, ["baskets"], ({ state }) => { reload(); if (state === "done") tell("Learned from the orders"); });
  const table = useJob(collection, ["recommendations"], ({ state }) => state === "done" && tell("The table is ready: Export CSV"));
  useKeys("Shop", {
    o: ["orders", () => setDialog("orders")],
    e: ["table for every item", () => setDialog("export")],
  });
  const failure = infoError ?? savedError;
  if (failure || !info || !saved) return html`<${Wait} error=${failure} />`;
  const fields = fieldsOf(info.metadata);
  const { rules } = edits.reduce((now, edit) => ({ rules: edit(now.rules) }), latest.current ?? saved);
  return html`<div class="shop">
    <div class="line wrap"><${SearchBox} collection=${collection} text=${query.text} /><span class="space" />
      <button onClick=${() => setDialog("orders")}>Orders…</button>
      <button onClick=${() => setDialog("export")}>Export CSV…</button></div>
    ${!dialog && html`<${JobProgress} job=${learning} /><${JobProgress} job=${table} />`}
    ${query.item
      ? html`<${Product} key=${query.item} ...${{ collection, rules, fields, change, unsaved, baskets, orders, selection }} id=${query.item} choose=${setChosen} showOrders=${() => setDialog("orders")} />`
      : html`<${Tiles} key=${`${query.text} ${query.page}`} ...${{ collection, info, ...query }} />`}
    ${dialog === "orders" && html`<${OrdersDialog} ...${{ collection, baskets, reload }} job=${learning} close=${() => setDialog()} />`}
    ${dialog === "export" && html`<${ExportDialog} ...${{ collection, baskets, orders, rules }} job=${table} close=${() => setDialog()} />`}
  </div>`;
}

function SearchBox({ collection, text = "" }) {
  const [words, setWords] = useState(text);
  useChange(() => setWords(text), [text]);
  return html`<${Form} role="search" class="search-line one" send=${() => go(collection, "shop", { text: words.trim() })}>
    <input data-search type="search" aria-label="Search the shop" placeholder="Name, number or words" ...${written(words, setWords)} />
    <button class="main">Search</button><//>`;
}

/** A page of the shop's items, or of those of a search: by names first, else by words. */
function Tiles({ collection, text, page = 0, info }) {
  const part = { limit: MAX_TILES, offset: page * MAX_TILES };
  const [found, error] = useAnswer(async () => {
    if (!text) return collection.get("items", part);
    const like = `ILIKE ${quoted(`%${text}%`)}`;
    const texts = Object.entries(info.metadata).filter(([, type]) => type === "string").map(([key]) => `metadata.${key}`);
    const where = ["path", ...texts].map((field) => `${field} ${like}`).join(" OR ");
    const named = await collection.get("items", { where, ...part });
    // Not every model compares words with images.
    return named.total ? named : collection.search({ text }, { k: MAX_TILES, offset: part.offset }).then(({ hits, next }) => ({ items: hits, next }), () => named);
  }, [collection, text]);
  if (error || !found) return html`<${Wait} error=${error} />`;
  const { items, next, total } = found;
  const turn = (by, words) => html`<a class="button" href=${address(collection, "shop", { text, page: Number(page) + by })}>${words}</a>`;
  if (!text && !items.length) return html`<${NoImages} collection=${collection} isPage />`;
  if (!items.length) return html`<${Empty} title="No item matches"><p>Try a part of the name.</p><//>`;
  return html`<h1>${text ? `Found for “${text}”` : "Choose an item"}</h1>
    <ul class="shelf all">${items.map((item) => html`<${Card} ...${{ collection, item }} />`)}</ul>
    ${(page > 0 || next) && html`<nav class="line" aria-label="Pages">${page > 0 && turn(-1, "← Previous")}
      <span class="soft">${number(part.offset + 1)} to ${number(part.offset + items.length)}${total && ` of ${number(total)}`}</span>${next && turn(1, "Next →")}</nav>`}`;
}

function Product({ collection, id, rules, fields, change, unsaved, baskets, orders, choose, showOrders, selection }) {
  const [item, error] = useAnswer(() => collection.item(id), [id]);
  const asked = { rule: rules, k: MAX_ROW };
  const [alike, alikeError] = useAnswer(() => collection.get(`items/${id}/recommendations`, asked), [id, rules.join("\n")]);
  const [bought, boughtError] = useAnswer(
    () => (orders ? collection.get(`items/${id}/recommendations`, { ...asked, baskets: orders }) : Promise.resolve()), [id, rules.join("\n"), orders, baskets]);
  useEffect(() => { if (alike) announce(`${count(alike.allowed, "image")} may be recommended`); }, [alike?.allowed]);
  if (error || !item) return html`<${Wait} error=${error} />`;
  const together = bought?.items.filter(boughtWith);
  return html`<article class="product">
      <figure><${Photograph} ...${{ collection, id }} alt=${titleOf(item)} /></figure>
      <div><h1>${titleOf(item)}</h1>
        <${FactList} rows=${factsOf(item)} />
        <div class="buttons"><button onClick=${() => history.back()}>← Back</button>
          <button onClick=${() => go(collection, "images", { like: id })}>More like this</button>
          <button onClick=${() => selection.toggle(id)}>Select</button></div></div>
    </article>
    <${RuleEditor} ...${{ rules, fields, item, change, unsaved }} allowed=${alike?.allowed} error=${alikeError} />
    <section aria-labelledby="alike"><h2 id="alike">Looks alike</h2>
      <${Shelf} collection=${collection} found=${alike?.items} reason=${(each) => whyAlike(each, item)} none="No other item passes the rules." /></section>
    <section aria-labelledby="bought"><div class="line"><h2 id="bought">Bought together</h2>
        ${baskets.length > 1 && html`<label class="soft">by <select ...${written(orders, choose)}>${baskets.map((each) => html`<option>${each.name}</option>`)}</select></label>`}</div>
      <${Failure} error=${boughtError} />
      ${orders
        ? !boughtError && html`<${Shelf} collection=${collection} found=${together} reason=${whyBought} none="Nothing that passes the rules was bought with it." />`
        : html`<p class="soft">Orders say what is bought together. <button onClick=${showOrders}>Add orders…</button></p>`}</section>`;
}

function Shelf({ collection, found, reason, none }) {
  if (!found) return html`<p class="soft">Loading…</p>`;
  if (!found.length) return html`<p class="soft">${none}</p>`;
  return html`<ul class="shelf">${found.map((each) => html`<${Card} collection=${collection} item=${each} why=${reason(each)} />`)}</ul>`;
}

function Card({ collection, item, why }) {
  return html`<li><a href=${address(collection, "shop", { item: item.id })} title=${item.why ?? item.path}>
    <img src=${collection.thumbnail(item.id)} alt="" loading="lazy" /><strong>${titleOf(item)}</strong>
    ${why?.map((line) => html`<span class="soft">${line}</span>`)}</a></li>`;
}

const factsOf = (item) => [
  ...Object.entries(item.metadata).filter(([key]) => key !== "title")
    .map(([key, value]) => [key.replaceAll("_", " "), value === true ? "yes" : value === false ? "no" : String(value)]),
  ["file", fileName(item.path)], ["size", `${item.width} × ${item.height}`],
];

function whyAlike({ score, metadata }, item) {
  const same = Object.keys(metadata).filter((key) => typeof metadata[key] === "string" && metadata[key] === item.metadata[key]);
  return [`similarity ${score.toFixed(2)}`, same.length > 0 && `same ${same.slice(0, 3).map((key) => key.replaceAll("_", " ")).join(", ")}`].filter(Boolean);
}

/** The evidence of baskets; what is only popular, or only looks alike, has none. */
const boughtWith = ({ evidence }) => evidence.find(({ kind }) => kind === "together" || kind === "lookalike");

function whyBought(item) {
  const { kind, text, times, of, lift } = boughtWith(item);
  const chance = lift == null ? null : `${lift.toFixed(1)} × as often as by chance`;
  return [kind === "together" ? `in ${number(times)} of its ${count(of, "order")}` : text, chance].filter(Boolean);
}

function OrdersDialog({ collection, baskets, reload, job, close }) {
  const [name, setName] = useState("orders");
  const [server, setServer] = useState("");
  const [leaving, setLeaving] = useState();
  const send = ({ target }) =>
    job.run(collection.put(`baskets/${name}`, server.trim() ? { file: server.trim() } : form({ file: target.elements.file.files[0] })));
  const drop = (each) => (leaving === each ? job.run(collection.delete(`baskets/${each}`).then(reload)) : setLeaving(each));
  return html`<${Dialog} title="Orders" close=${close}>
    ${baskets.map((each) => html`<div class="card"><div class="line"><strong>${each.name}</strong><span class="space" />
        <button onClick=${() => drop(each.name)}>${leaving === each.name ? "Really delete" : "Delete"}</button></div>
      <span>${count(each.baskets, "order")} of ${count(each.images, "item")}${each.learned ? "" : "; too few to learn weights from"}</span>
      ${each.similar_lift != null && html`<span class="soft">Items that look alike are bought together ${each.similar_lift.toFixed(1)} × as often as others.</span>`}
      ${each.n_unknown > 0 && html`<span class="soft">${count(each.n_unknown, "name")} without an image: ${Object.keys(each.unknown).slice(0, 5).join(", ")}</span>`}</div>`)}
    <${Form} class="card" send=${send}>
      <p class="soft">A CSV table with the columns <code>basket</code> and <code>item</code>. An item is a file name, with or without its ending.</p>
      <${NameField} ...${written(name, setName)} />
      <label>Table <input name="file" type="file" accept=".csv,text/csv" required=${!server} /></label>
      <label>or a file of the server <input ...${written(server, setServer)} placeholder="ROOT/orders.csv" /></label>
      <button class="main" disabled=${job.isRunning}>${baskets.some((each) => each.name === name) ? "Replace" : "Learn"}</button><//>
    <${JobProgress} job=${job} />
  <//>`;
}

function ExportDialog({ collection, baskets, orders, rules, job, close }) {
  const [by, setBy] = useState(orders ?? "");
  const [k, setK] = useState(10);
  const send = () => job.run(collection.post("recommendations", { k: Number(k), rule: rules, baskets: by || null }));
  return html`<${Dialog} title="A table for every item" close=${close}><${Form} send=${send}>
      <label>Recommend <select ...${written(by, setBy)}>
        <option value="">what looks alike</option>${baskets.map((each) => html`<option value=${each.name}>what is bought together: ${each.name}</option>`)}</select></label>
      <label>Items each <input type="number" min="1" max="1000" required ...${written(k, setK)} /></label>
      <p class="soft">${rules.length ? `${count(rules.length, "rule")} ${rules.length === 1 ? "holds" : "hold"}: ${rules.map(inWords).join("; ")}` : "No rule holds."}</p>
      <button class="main" disabled=${job.isRunning}>Make the table</button><//>
    <${JobProgress} job=${job} />
    ${job.state === "done" && html`<p class="line table"><a class="button main" href=${collection.url("recommendations")} download>Download CSV</a> ${count(job.result.rows, "row")}</p>`}
  <//>`;
}
