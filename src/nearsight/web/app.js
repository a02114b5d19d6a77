// The frame of the page: sign in, choose a collection, choose a view.

import { Collection, service } from "./api.js";
import { keyList } from "./keys.js";
import { address, current, go } from "./route.js";
import { Selection } from "./selection.js";
import { announce, count, Dialog, Failure, Form, html, LastChange, render, useAnswer, useEffect, useEvent, useKeys, useState, Wait, written } from "./ui.js";
import { AddImages } from "./views/add-images.js";
import { Audit } from "./views/audit.js";
import { Clusters } from "./views/clusters.js";
import { Collections } from "./views/collections.js";
import { Duplicates } from "./views/duplicates.js";
import { Images } from "./views/images.js";
import { Inspection } from "./views/inspection.js";
import { Labels } from "./views/labels.js";
import { MapOfImages } from "./map/map.js";
import { Shop } from "./views/shop.js";
import { People } from "./views/people.js";
import { SelectionBar } from "./views/selection-bar.js";

// One entry a view: its name in the address, its title, its sign, and its component.
const VIEWS = [
  ["images", "Images", "▦", Images],
  ["map", "Map", "∴", MapOfImages],
  ["clusters", "Clusters", "❖", Clusters],
  ["people", "People", "☺", People],
  ["duplicates", "Duplicates", "≈", Duplicates],
  ["shop", "Shop", "⌂", Shop],
  ["labels", "Labels", "◧", Labels],
  ["inspection", "Inspection", "◉", Inspection],
  ["audit", "Audit", "✓", Audit],
  ["add", "Add images", "⊕", AddImages],
];

const selection = new Selection();

function App() {
  const [route, setRoute] = useState(current());
  const [showsKeys, setShowsKeys] = useState(false);
  const [session] = useAnswer(() => service.get("session"), []);
  const [collections, error, load] = useAnswer(() => service.get("collections").then(({ collections }) => collections.map((facts) => new Collection(facts))), []);
  useEvent("hashchange", () => setRoute(current()));
  // Whoever comes back sees what has changed meanwhile, such as in another tab.
  useEvent("focus", load);
  useKeys("Everywhere", {
    "?": ["show this list", () => setShowsKeys(true)],
    "/": ["search", () => document.querySelector("[data-search]")?.focus()],
    ...Object.fromEntries(VIEWS.map(([view, title], at) => [`Alt+${(at + 1) % 10}`, [title.toLowerCase(), () => {
      const { collection } = current();
      if (collection) go({ name: collection }, view);
    }]])),
  });
  const [done, setDone] = useState();
  /** Say what has been done; `undo` asks the service to take it back, and answers what is said then. */
  const tell = (text, undo) => {
    const takeBack = () => undo().then(tell, ({ message }) => setDone((now) => ({ ...now, text: message })));
    setDone({ text, undo: undo && takeBack });
    return load();
  };
  // What is selected, and what can be undone, belongs to one collection. One that is not known may have been made since.
  useEffect(() => {
    selection.clear();
    setDone();
    if (collections && !collections.some(({ name }) => name === route.collection)) load();
  }, [route.collection]);

  // On a narrow screen the views are a line that scrolls.
  useEffect(() => document.querySelector(".views [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" }), [route.view, Boolean(collections)]);

  if (error?.status === 401) return html`<${SignIn} done=${load} />`;
  if (!collections) return html`<${Wait} error=${error} />`;
  const collection = collections.find(({ name }) => name === route.collection);
  const View = VIEWS.find(([view]) => view === route.view)?.[3] ?? Images;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the images</a>
    <header class="bar">
      <a class="brand" href="#/"><img src=${new URL("icon.svg", import.meta.url).href} alt="" width="26" height="26" />nearsight</a>
      ${collection && html`<${CollectionChoice} collections=${collections} current=${collection} view=${route.view} />`}
      <span class="space" />
      <${ThemeButton} />
      <button onClick=${() => setShowsKeys(true)} aria-label="Keys" title="Keys (?)">?</button>
      ${session?.needs_key && html`<button onClick=${() => service.delete("session").then(() => location.reload())}>Sign out</button>`}
    </header>
    ${collection && html`<nav class="views" aria-label="Views">${VIEWS.map(([view, title, sign]) => html`
      <a href=${address(collection, view)} aria-current=${view === route.view ? "page" : null}>
        <span aria-hidden="true">${sign}</span>${title}</a>`)}</nav>`}
    <main id="main" tabindex="-1" class=${collection ? "" : "alone"}><${Failure} error=${error} />
      ${collection
        ? html`<${View} key=${collection.name + route.view} ...${{ collection, selection, tell }} query=${route.query} reload=${load} />`
        : html`<${Collections} collections=${collections} reload=${load} missing=${route.collection} />`}
    </main>
    ${collection && html`<div class="bars">${done && html`<${LastChange} key=${done.text} ...${done} close=${() => setDone()} />`}
      <${SelectionBar} ...${{ collection, selection, tell }} reload=${load} /></div>`}
    ${showsKeys && html`<${KeyList} close=${() => setShowsKeys(false)} />`}`;
}

function CollectionChoice({ collections, current: chosen, view }) {
  return html`<label class="choice"><span class="hidden-text">Collection</span>
    <select value=${chosen.name} onChange=${(event) => (event.target.value ? go({ name: event.target.value }, view) : (location.hash = "#/"))}>
      ${collections.map(({ name }) => html`<option value=${name}>${name}</option>`)}
      <option value="">All collections…</option>
    </select></label><span class="soft">${count(chosen.images, "image")}</span>`;
}

function ThemeButton() {
  const [theme, setTheme] = useState(localStorage.getItem("theme") ?? "");
  useEffect(() => { document.documentElement.dataset.theme = localStorage.theme = theme; }, [theme]);
  const next = { "": "dark", dark: "light", light: "" }[theme];
  const title = theme || "as the system";
  return html`<button onClick=${() => { setTheme(next); announce(`Colors: ${next || "as the system"}`); }}
    aria-label=${`Colors: ${title}`} title=${`Colors: ${title}`}>◐</button>`;
}

function SignIn({ done }) {
  const [key, setKey] = useState("");
  const send = () => service.post("session", { key: key.trim() }).then(done);
  return html`<main class="alone"><${Form} class="card narrow" send=${send}>
    <h1>nearsight</h1>
    <p>This service needs a key. <code>nearsight keys add NAME</code> makes one, on the machine that it runs on.</p>
    <label>Key <input type="password" autocomplete="current-password" required ...${written(key, setKey)} /></label>
    <button class="main">Sign in</button><//></main>`;
}

function KeyList({ close }) {
  return html`<${Dialog} title="Keys" close=${close}>${keyList().map(([title, keys]) => html`
    <h3>${title}</h3><dl class="keys">${keys.map(([names, does]) => html`
      <div><dt>${names.map((name) => html`<kbd>${name.replace("Arrow", "")}</kbd> `)}</dt><dd>${does}</dd></div>`)}</dl>`)}
  <//>`;
}

render(html`<${App} />`, document.getElementById("app"));
