// Browse and search: words, dropped, pasted or chosen images, several with plus and minus, and filters.

import { ConditionForm, conditionText } from "../components/conditions.js";
import { GridView } from "../components/grid-view.js";
import { JobProgress, useJob } from "../components/job.js";
import { note } from "../route.js";
import { Listing, Matches } from "../sources.js";
import { announce, count, Empty, Failure, FileButton, html, NoImages, percent, useAnswer, useChange, useChanges, useEffect, useEvent, useState, written } from "../ui.js";

const NOTHING = { text: "", parts: [], notText: [], where: "", cluster: "", by: "" };
// What every image has, or may have, besides its metadata.
const FACTS = { taken: "date", camera: "string", lens: "string", width: "double", height: "double", path: "string", added: "date" };
const SIZES = { small: 116, medium: 168, large: 256 };

// The phases of an upgrade in which either model can search.
const MOVING = ["sampling", "shadow", "verifying", "ready"];

/** A query as the address holds it. Images that were dropped are of this visit only. */
const fromAddress = ({ not, like, unlike, ...rest }) => ({
  ...NOTHING,
  ...rest,
  notText: not?.split("|") ?? [],
  parts: [[like, false], [unlike, true]].flatMap(([ids, isNot]) => ids?.split(",").map((id) => ({ id, isNot })) ?? []),
});
const idsOf = (parts, not) => parts.filter(({ id, isNot }) => id && Boolean(isNot) === not).map(({ id }) => id).join(",");
const toAddress = ({ notText, parts, ...rest }) => ({ ...rest, not: notText.join("|"), like: idsOf(parts, false), unlike: idsOf(parts, true) });

export function Images({ collection, query: inAddress, selection, reload }) {
  const [query, setQuery] = useState(fromAddress(inAddress));
  const [source, setSource] = useState();
  const [error, setError] = useState();
  const [isWaiting, setIsWaiting] = useState(true);
  const [size, setSize] = useState(localStorage.size ?? "medium");
  const isSearch = Boolean(query.text || query.parts.length || query.notText.length);
  const isPart = query.where || query.cluster || isSearch;

  const [upgrade] = useAnswer(() => collection.get("upgrade"), [collection.name]);
  // Images of a folder that is being added appear when its job has ended.
  const adding = useJob(collection, ["index"], reload);
  const model = MOVING.includes(upgrade?.phase) && upgrade.model;
  // "More like this" of other views arrives as an address.
  useChange(() => setQuery(({ parts }) => {
    const next = fromAddress(inAddress);
    return { ...next, parts: [...next.parts, ...parts.filter(({ file }) => file)] };
  }), [inAddress]);
  useEffect(() => {
    const stop = new AbortController();
    setIsWaiting(true);
    const next = isSearch ? new Matches(collection, query, stop.signal) : new Listing(collection, query);
    next.open().then(
      // An answer that comes after the next question is old: a listing, too, which nothing stops.
      () => { if (stop.signal.aborted) return; setSource(next); setError(); setIsWaiting(false); announce(isSearch ? count(next.count, "match", "matches") : count(next.count, "image")); },
      // What is still shown would be taken for the answer.
      (failure) => { if (stop.signal.aborted) return; setSource(); setError(failure); setIsWaiting(false); },
    );
    note(collection, "images", toAddress(query));
    return () => stop.abort();
  }, [collection.name, collection.images, query]);

  const change = (part) => setQuery((now) => ({ ...now, ...part }));
  const addFiles = (files) => {
    const images = [...files].filter(({ type }) => type.startsWith("image/"));
    if (images.length) change({ parts: [...query.parts, ...images.map((file) => ({ file }))] });
  };
  useEvent("paste", (event) => addFiles(event.clipboardData.files));
  useEvent("dragover", (event) => event.preventDefault());
  useEvent("drop", (event) => { event.preventDefault(); addFiles(event.dataTransfer.files); });

  const moreLike = (cell) => change({ ...NOTHING, where: query.where, cluster: query.cluster, by: query.by, parts: [{ id: cell.id }] });
  return html`<div class="fill"><h1 class="hidden-text">Images of ${collection.name}</h1>
    <${SearchBar} ...${{ collection, query, change, addFiles, selection }} />
    <${Failure} error=${error} />
    <${JobProgress} job=${adding} />
    ${model && html`<${Moving} ...${{ model, query, change }} bridge=${source?.bridge} />`}
    <div class="line"><span class="soft">${isWaiting ? "Searching…" : source && (isSearch ? "Most similar first" : count(source.count, "image"))}</span><span class="space" />
      <label class="soft">Size <select ...${written(size, (chosen) => setSize((localStorage.size = chosen)))}>
        ${Object.keys(SIZES).map((name) => html`<option value=${name}>${name}</option>`)}</select></label></div>
    ${source?.count === 0 && (isPart ? html`<${Empty} title="No image matches"><p>Take a part of the query away.</p><//>`
      : html`<${NoImages} collection=${collection} />`)}
    <${GridView} ...${{ source, selection }} more=${moreLike} size=${SIZES[size] ?? SIZES.medium} />
  </div>`;
}

function SearchBar({ collection, query, change, addFiles, selection }) {
  const [text, setText] = useState(query.text);
  const [not, setNot] = useState("");
  const [where, setWhere] = useState(query.where);
  const [showsFilter, setShowsFilter] = useState(Boolean(query.where));
  useChanges(selection);
  useChange(() => setText(query.text), [query.text]);
  useChange(() => setWhere(query.where), [query.where]);
  const send = (event) => {
    event.preventDefault();
    change({ text: text.trim(), where: where.trim(), notText: not.trim() ? [...query.notText, not.trim()] : query.notText });
    setNot("");
  };
  const [facts] = useAnswer(() => (showsFilter ? collection.facts() : Promise.resolve()), [showsFilter, collection.name]);
  const fields = { ...FACTS, ...facts?.metadata };
  const addCondition = (condition) => {
    // What was written and not sent yet holds, too.
    const text = conditionText(condition, fields[condition.field]), before = where.trim();
    change({ where: before ? `(${before}) AND ${text}` : text });
  };
  const drop = (at) => change({ parts: query.parts.filter((_, other) => other !== at) });
  const turn = (part) => change({ parts: query.parts.map((each) => (each === part ? { ...part, isNot: !part.isNot } : each)) });
  const others = { text: query.text, where: query.where, cluster: `in ${isNaN(query.cluster) ? query.cluster : `cluster ${query.cluster}`}`, by: `by ${query.by}` };
  const isEmpty = Object.values(query).every((part) => !part.length);
  return html`<div class="search"><form class="search" role="search" onSubmit=${send}>
    <div class="search-line">
      <input data-search type="search" aria-label="Search by words" placeholder="Search by words, or drop an image" ...${written(text, setText)} />
      <input class="not" type="search" aria-label="But not" placeholder="but not …" ...${written(not, setNot)} />
      <button class="main">Search</button>
      <${FileButton} title="Search by an image" send=${addFiles}>Image…<//>
      ${selection.size > 0 && html`<button type="button" onClick=${() => change({ parts: [...query.parts, ...[...selection.ids].slice(0, 20).map((id) => ({ id }))] })}>Like the selected</button>`}
      <button type="button" aria-expanded=${showsFilter} onClick=${() => setShowsFilter(!showsFilter)}>Filter</button>
    </div>
    ${showsFilter && html`<label class="filter">Only images with <input ...${written(where, setWhere)} spellcheck="false"
      placeholder="width >= 640 AND taken >= '2024-01-01'" aria-describedby="filter-help" /></label>
      <p id="filter-help" class="soft">Fields: ${Object.keys(fields).join(", ")}. Enter applies.</p>`}
    </form>${showsFilter && html`<${ConditionForm} fields=${fields} button="Add to the filter" add=${addCondition} />`}
    ${!isEmpty && html`<ul class="chips" aria-label="The query">
      ${query.parts.map((part, at) => html`<${Chip} kind=${part.isNot ? "minus" : ""} take=${() => drop(at)}><${PartImage} ...${{ collection, part }} />
        <button type="button" title="like this, or not like this" onClick=${() => turn(part)}>${part.isNot ? "not like this" : "like this"}</button><//>`)}
      ${query.notText.map((word, at) => html`<${Chip} kind="minus" take=${() => change({ notText: query.notText.filter((_, other) => other !== at) })}>not ${word}<//>`)}
      ${Object.entries(others).map(([part, words]) => query[part] && html`<${Chip} take=${() => change({ [part]: "" })}>${words}<//>`)}
      <li><button type="button" onClick=${() => change(NOTHING)}>Clear</button></li></ul>`}
  </div>`;
}

/** While a collection moves to another model, either searches. The new one compares images only, of which some have no vector of it yet. */
function Moving({ model, query, change, bridge }) {
  return html`<div class="line wrap edited"><span>This collection is moving to the model ${model}.
      ${query.by && bridge && html` <span class="soft">${percent(bridge.share)} of the images have its vectors; of the ten that it would find, a search finds ${percent(bridge.recall)} (${percent(bridge.low)} to ${percent(bridge.high)}).</span>`}</span>
    <label class="soft">Search by <select ...${written(query.by, (by) => change({ by }))}>
      <option value="">the model in use</option><option value=${model}>${model}</option></select></label></div>`;
}

function Chip({ take, kind = "", children }) {
  return html`<li class=${`chip ${kind}`}>${children}<button type="button" aria-label="Remove" onClick=${take}>✕</button></li>`;
}

function PartImage({ collection, part }) {
  const [url, setUrl] = useState();
  useEffect(() => {
    if (part.id) return setUrl(collection.thumbnail(part.id));
    const made = URL.createObjectURL(part.file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [part]);
  return html`<img src=${url} alt=${part.file?.name ?? "an image of the collection"} height="34" />`;
}
