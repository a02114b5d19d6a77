// People: name groups of faces once, confirm and correct, merge, split off, hide, forget; see a person's images.

import { Analysis, useAnalysis } from "../components/analysis.js";
import { GridView } from "../components/grid-view.js";
import { address, current, go } from "../route.js";
import { announce, arrows, count, Dialog, Empty, Failure, fileName, focused, Form, html, LastChange, Options, useAnswer, useChange, useChoice, useEffect, useKeys, useMemo, useOrder, useRef, useState, Wait, written } from "../ui.js";
import { IdSource } from "../sources.js";

const PAGE = 500;
const titleOf = ({ name }) => name ?? "Unnamed";
const idsOf = (some) => some.map(({ id }) => id);
export function People({ collection, query, selection }) {
  const [shows, setShows] = useState({ hidden: false, least: 2, limit: PAGE });
  const [state, setState] = useState({ version: 0 });
  const [forgets, setForgets] = useState();
  const analysis = useAnalysis(collection, "faces", () => collection.get("faces", shows), ["faces_upgrade"]);
  const { result } = analysis;
  useChange(() => { analysis.reload(); }, [shows]);
  const latest = useRef();
  latest.current = result;
  const inOrder = useOrder();
  /** Change something, after what is changed already; `done` says what was done. */
  const act = (what, body, done) => inOrder(() => send(what, body, done));
  const send = async (what, body, done) => {
    try {
      const answer = await collection.post(`faces/${what}`, typeof body === "function" ? body(latest.current) : body);
      announce(done);
      await analysis.reload();
      setState(({ version }) => ({ done, version: version + 1 }));
      return answer;
    } catch (error) { setState((now) => ({ ...now, error })); }
  };
  const change = result?.change;
  const undo = () => act("undo", ({ change }) => ({ change: change?.id }), "Undone");
  useKeys("People", { u: ["undo the latest change", undo] });
  const shared = { collection, act, forget: setForgets, version: state.version };
  return html`<${Analysis} analysis=${analysis} title="Nobody has looked for faces yet" button="Find faces"
      explanation="Faces are found and grouped by person, on this machine. They are personal data: look for them only in images where you may.">
    ${result && html`<${Options} id="names" values=${result.names} />
      <${Failure} error=${state.error} />
      ${(state.done || change) && html`<${LastChange} text=${state.done ?? `Last: ${change.action}.`} undo=${change && undo} label=${`Undo ${change?.action}`} />`}
      ${query.person ? html`<${Person} key=${query.person} ...${shared} id=${query.person} tab=${query.tab ?? "images"} selection=${selection} />`
        : html`<${Everybody} ...${shared} ...${{ result, shows }} show=${(part) => setShows({ ...shows, ...part })} again=${analysis.start} />`}
      ${forgets && html`<${ForgetDialog} ...${forgets} close=${() => setForgets()} act=${act} />`}`}
  <//>`;
}

function Everybody({ collection, act, forget, result, shows, show, again }) {
  const { people } = result;
  const [chosen, toggle, leave] = useChoice();
  const list = useRef();
  const those = () => people.filter(({ id }) => (chosen.length ? chosen.includes(id) : id === focused()));
  const actOnThose = (what, done, more) => { const ids = idsOf(those()); return act(what, { ids, ...more }, done).then(() => leave(ids)); };
  // In the order of the list: the name of the largest wins.
  const merge = () => chosen.length > 1 && actOnThose("merge", "Merged");
  const hide = () => those()[0] && actOnThose("hide", shows.hidden ? "Shown" : "Hidden", { hidden: !shows.hidden });
  const forgetThose = () => those()[0] && forget({ people: those() });
  const name = async ({ id }, text) => {
    const fields = [...list.current.querySelectorAll("input.name")];
    // At once: the next name may be typed while this one is saved.
    fields[fields.indexOf(document.activeElement) + 1]?.focus();
    await act("name", { id, name: text }, `Named ${text}`);
  };
  useKeys("All people", {
    ...arrows(list),
    n: ["name", () => (document.activeElement.closest("[data-id]") ?? list.current).querySelector("input.name")?.focus()],
    x: ["choose", () => focused() && toggle(focused())],
    m: ["merge the chosen", merge],
    h: ["hide, or show again", hide],
    f: ["forget…", forgetThose],
  });
  const isAll = shows.least === 1;
  return html`<div class="line wrap"><h1>${count(result.total, "person", "people")}${shows.hidden ? " hidden" : ""}</h1><span class="space" />
      ${(result.hidden > 0 || shows.hidden) && html`<button aria-pressed=${shows.hidden} onClick=${() => show({ hidden: !shows.hidden })}>${result.hidden} hidden</button>`}
      <button onClick=${() => again()}>Look into new images</button></div>
    <div class="buttons"><button disabled=${chosen.length < 2} onClick=${merge}>Merge</button>
      <button disabled=${!chosen.length} onClick=${hide}>${shows.hidden ? "Show again" : "Hide"}</button>
      <button disabled=${!chosen.length} onClick=${forgetThose}>Forget…</button>
      <span class="soft">${chosen.length ? `${chosen.length} chosen` : "Choose people to merge, hide or forget them"}</span></div>
    ${!people.length && html`<${Empty} title=${shows.hidden ? "Nobody is hidden" : "Nobody is in two images"} />`}
    <ul class="people" ref=${list}>${people.map((person) => html`<li class="person" key=${person.id} data-id=${person.id}>
      <a href=${address(collection, "people", { person: person.id, tab: person.suggested ? "faces" : "images" })} aria-label=${`${titleOf(person)}, ${count(person.images, "image")}`}>
        <${Crop} collection=${collection} id=${person.shown[0]} side="256" />
        ${person.suggested > 0 && html`<span class="badge">${person.suggested} to confirm</span>`}</a>
      <input type="checkbox" checked=${chosen.includes(person.id)} onChange=${() => toggle(person.id)} aria-label=${`Choose ${titleOf(person)}`} />
      ${person.name ? html`<strong title=${person.name}>${person.name}</strong>` : html`<${NameForm} save=${(text) => name(person, text)} />`}
      <span class="soft">${count(person.images, "image")}</span></li>`)}</ul>
    <div class="buttons">${result.next && html`<button onClick=${() => show({ limit: shows.limit + PAGE })}>Show more</button>`}
      ${(result.alone > 0 || isAll) && html`<button onClick=${() => show({ least: isAll ? 2 : 1 })}>${isAll ? "Only people in two images or more" : `Show ${count(result.alone, "face")} in no group`}</button>`}
      <button onClick=${() => forget({})}>Forget all faces…</button></div>`;
}

function Crop({ collection, id, side = "160" }) {
  const [isGone, setIsGone] = useState(false);
  return id && !isGone ? html`<img class="crop" src=${collection.url(`faces/${id}/crop?side=${side}`)} alt="" loading="lazy" onError=${() => setIsGone(true)} />`
    : html`<span class="crop" title="The image is gone">?</span>`;
}

function NameForm({ name = "", save, button }) {
  const [text, setText] = useState(name);
  return html`<${Form} send=${() => save(text.trim())}><input class="name" aria-label="Name" list="names" required=${!button?.startsWith("Split")} pattern=".*\\S.*" maxlength="200" autocomplete="off"
    placeholder="Who is this?" ...${written(text, setText)} />
    ${button && html`<button class="main" disabled=${name && text.trim() === name}>${button}</button>`}<//>`;
}

function Person({ collection, id, tab, act, forget, selection, version }) {
  const [answer, error] = useAnswer(() => collection.get(`faces/people/${id}`, { limit: 10_000 }).then((value) => ({ ...value, version })), [id, version]);
  const [chosen, toggle, leave] = useChoice();
  const [splits, setSplits] = useState(false);
  // What has been decided is not shown while it is sent, so that the next key belongs to the next face.
  const [decided, setDecided] = useState([]);
  const waiting = useRef(0);
  const board = useRef();
  const { person } = answer ?? {};
  const faces = (answer?.faces ?? []).filter(({ id }) => !decided.includes(id));
  const matches = faces.filter(({ enrolled }) => person.name && !enrolled);
  const own = faces.filter((face) => !matches.includes(face));
  const back = () => go(collection, "people");
  const change = async (what, ids, done, more) => {
    const tiles = [...board.current.querySelectorAll("li")];
    const next = tiles.slice(tiles.findIndex(({ dataset }) => ids.includes(dataset.id))).find(({ dataset }) => !ids.includes(dataset.id));
    next?.querySelector("button").focus();
    setDecided((now) => [...now, ...ids]);
    leave(ids);
    waiting.current++;
    await act(what, { faces: ids, ...more }, `${count(ids.length, "face")} ${done}`);
    waiting.current--;
  };
  const confirm = (ids) => change("confirm", ids, "confirmed");
  const reject = (ids) => change("reject", ids, "rejected");
  useEffect(() => { if (answer?.version === version && !waiting.current) setDecided([]); }, [answer]);
  const faceAtHand = () => focused() ?? matches[0]?.id;
  const isMatch = (face) => matches.some((match) => match.id === face);
  useKeys("Faces", tab === "faces" && {
    ...arrows(board),
    y: ["yes, this is the person", () => isMatch(faceAtHand()) && confirm([faceAtHand()])],
    n: ["no, this is somebody else", () => faceAtHand() && reject([faceAtHand()])],
    x: ["choose", () => focused() && !isMatch(focused()) && toggle(focused())],
    s: ["split the chosen off", () => setSplits(chosen.length > 0)],
  });
  if (error?.status === 404) return html`<${Empty} title="This person is not here any more"><button class="main" onClick=${back}>All people</button><//>`;
  if (!person) return html`<${Wait} error=${error} />`;
  const rename = async (name) => {
    const renamed = await act("name", { id, name }, `Named ${name}`);
    if (renamed && current().query.person === id) go(collection, "people", { person: renamed.id, tab });
  };
  const tile = (face) => html`<button class="face" aria-pressed=${chosen.includes(face.id)} onClick=${() => isMatch(face.id) || toggle(face.id)} title=${face.problems}
    aria-label=${`Face in ${fileName(face.path)}`}><${Crop} collection=${collection} id=${face.id} /></button>`;
  return html`<div class="fill"><h1 class="hidden-text">${titleOf(person)}</h1>
    <div class="line wrap person-head"><button onClick=${back}>← All people</button><${Crop} collection=${collection} id=${person.shown[0]} />
      <${NameForm} name=${person.name ?? ""} save=${rename} button=${person.name ? "Rename" : "Name"} />
      <button onClick=${() => act("hide", { ids: [id], hidden: !person.hidden }, person.hidden ? "Shown" : "Hidden")}>${person.hidden ? "Show again" : "Hide"}</button>
      <button disabled=${answer.version !== version} onClick=${() => forget({ people: [person], then: back })}>Forget…</button></div>
    <div class="buttons" role="tablist" aria-label="What to show">${[["images", count(person.images, "image")], ["faces", count(person.faces, "face") + (person.suggested ? `, ${person.suggested} to confirm` : "")]].map(([each, title]) => html`
      <button role="tab" aria-selected=${tab === each} onClick=${() => go(collection, "people", { person: id, tab: each })}>${title}</button>`)}</div>
    ${tab === "images" ? html`<${PersonImages} ...${{ collection, id, version, selection }} />` : html`<div class="board" ref=${board}>
      ${matches.length > 0 && html`<div class="line"><h2>Is this ${person.name}?</h2>${matches.length > 1 && html`<button class="main" onClick=${() => confirm(idsOf(matches))}>Confirm all ${matches.length}</button>`}</div>
        <ul class="faces">${matches.map((face) => html`<li key=${face.id} data-id=${face.id}>${tile(face)}<span class="answer">
          <button class="main" aria-label="Yes" title="Yes (y)" onClick=${() => confirm([face.id])}>✓</button><button aria-label="No" title="No (n)" onClick=${() => reject([face.id])}>✕</button></span></li>`)}</ul>`}
      <div class="buttons"><button disabled=${!chosen.length} onClick=${() => reject(chosen)}>Not this person</button>
        <button disabled=${!chosen.length} onClick=${() => setSplits(true)}>Split off…</button>
        <button disabled=${!chosen.length} onClick=${() => forget({ faces: chosen })}>Forget…</button>
        <span class="soft">${chosen.length ? `${chosen.length} chosen` : "Choose faces that are of somebody else"}</span></div>
      <ul class="faces">${own.map((face) => html`<li key=${face.id} data-id=${face.id}>${tile(face)}</li>`)}</ul></div>`}
    ${splits && html`<${Dialog} title=${`Split off ${count(chosen.length, "face")}`} close=${() => setSplits(false)}>
      <p>Together they are another person, also when faces are grouped again. The name may stay empty.</p>
      <${NameForm} button="Split off" save=${(name) => { setSplits(false); change("split", chosen, "split off", name ? { name } : {}); }} /><//>`}
  </div>`;
}

function PersonImages({ collection, id, version, selection }) {
  const [answer, error] = useAnswer(() => collection.get(`faces/people/${id}/images`), [id, version]);
  const source = useMemo(() => answer && new IdSource(collection, answer.ids, (at) => fileName(answer.paths[at])), [answer]);
  return html`<${Failure} error=${error} />${source?.count === 0 && html`<${Empty} title="The collection has none of these images" />`}
    <${GridView} ...${{ source, selection }} />`;
}

function ForgetDialog({ people, faces, then, close, act }) {
  const n = people ? people.reduce((sum, person) => sum + person.faces, 0) : faces?.length;
  const what = people ? people.map(titleOf).join(", ") : faces ? count(n, "face") : "all faces and names";
  const send = async () => {
    close();
    if (await act("forget", people ? { ids: idsOf(people) } : faces ? { faces } : { everything: true }, `Forgotten: ${what}`)) then?.();
  };
  return html`<${Dialog} title=${`Forget ${what}?`} close=${close}>
    <p>${n ? count(n, "face") : "All faces"}, the numbers computed from them${people || !n ? " and the names" : ""} will be deleted from all files of the server.</p>
    <p>The photographs stay. ${n ? "Looking for faces again does not bring them back. " : ""}This cannot be undone, nor can any change before it.</p>
    <div class="buttons"><button class="danger" onClick=${send}>Forget</button><button onClick=${close}>Keep</button></div><//>`;
}
