// What every view needs of preact, and small pieces of the page.

export { html, render, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.module.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.module.js";

import { addKeys, silenceKeys } from "./keys.js";
import { address } from "./route.js";

const MESSAGE_MS = 6000;

/** Read a text aloud to those who use a screen reader. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

export const number = (n) => n.toLocaleString("en");

export const count = (n, noun, plural = `${noun}s`) => `${number(n)} ${n === 1 ? noun : plural}`;

export const percent = (share) => `${Math.round(100 * share)} %`;

/** What the service says, as a sentence of its own. */
export const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

export const fileName = (path) => path.split("/").at(-1) || path;

/**
 * Run a function of the server, and keep what it answers, or its error: [value, error, again]. The answer to what was
 * asked last counts, whenever it comes; what was read stays when it cannot be read again.
 */
export function useAnswer(ask, dependencies) {
  const [state, setState] = useState({});
  const latest = useRef();
  const again = () => {
    const told = (part) => { if (mine === latest.current) setState((now) => ({ ...now, error: undefined, ...part })); };
    // Who waits for an answer that counts no more waits for the one that does.
    const mine = ask().then((value) => told({ value }), (error) => told({ error })).then(() => (mine === latest.current ? undefined : latest.current));
    return (latest.current = mine);
  };
  useEffect(() => { again(); }, dependencies);
  return [state.value, state.error, again];
}

/** Hear an event as long as the component is there; the latest render answers it. */
export function useEvent(kind, heard, target = window) {
  const latest = useRef();
  latest.current = heard;
  useEffect(() => {
    const stop = new AbortController();
    target.addEventListener(kind, (event) => latest.current(event), { signal: stop.signal });
    return () => stop.abort();
  }, []);
}

/** Draw a component anew when its target says that it has changed. */
export function useChanges(target) {
  const [, draw] = useState(0);
  useEvent("change", () => draw((n) => n + 1), target);
}

/** Run an effect when something changes, but not at first: what is written at once stays. */
export function useChange(effect, dependencies) {
  const isLater = useRef(false);
  useEffect(() => {
    if (isLater.current) effect();
    isLater.current = true;
  }, dependencies);
}

/** The keys of a component, as long as it is there. They are always those of the latest render; none are `undefined`. */
export function useKeys(title, keys) {
  const latest = useRef();
  latest.current = keys;
  useLayoutEffect(() => addKeys(title, () => latest.current || {}), []);
}

export const focused = () => document.activeElement?.closest("[data-id]")?.dataset.id;

/** Keys that go through images or groups one by one. */
export const steps = (noun, step) => ({
  "ArrowRight j": [`next ${noun}`, () => step(1)],
  "ArrowLeft k": [`${noun} before`, () => step(-1)],
});

/** Keys that move the focus among the tiles of a board, each the first thing in an element with a `data-id`. */
export const arrows = (board) => ({ "ArrowRight ArrowLeft": ["next, and the one before", ({ key }) => {
  const tiles = [...board.current.querySelectorAll("[data-id] > :first-child")];
  tiles[Math.max(tiles.findIndex((tile) => tile.parentElement.contains(document.activeElement)) + (key === "ArrowRight" ? 1 : -1), 0)]?.focus();
}] });

/** What is chosen of a list: [ids, toggle, leave]. `leave` takes those away that were dealt with: others may be chosen meanwhile. */
export function useChoice() {
  const [chosen, setChosen] = useState([]);
  const leave = (ids) => setChosen((now) => now.filter((id) => !ids.includes(id)));
  return [chosen, (id) => setChosen((now) => (now.includes(id) ? now.filter((other) => other !== id) : [...now, id])), leave];
}

/** Run tasks one after another: each begins when those before it have ended, whatever came of them. */
export function useOrder() {
  const last = useRef(Promise.resolve());
  return (task) => {
    const mine = last.current.then(task);
    last.current = mine.catch(() => {});
    return mine;
  };
}

export const written = (value, set) => ({ value, onInput: (event) => set(event.target.value) });

/** A field for the name of something that the service keeps. */
export const NameField = (props) => html`<label>Name <input required pattern="[A-Za-z0-9][A-Za-z0-9_\\-]*" maxlength="64" title="letters, digits, - and _" ...${props} /></label>`;

export function Options({ id, values }) {
  return html`<datalist id=${id}>${values.map((value) => html`<option value=${value} />`)}</datalist>`;
}

/** What is said below a part of a list. */
export const andMore = (n) => n > 0 && html`<p class="soft">and ${number(n)} more</p>`;

/** A button by which images are chosen, also the same ones again. */
export function FileButton({ send, title, children, disabled, kind = "" }) {
  const chosen = ({ target }) => {
    const files = [...target.files];
    target.value = "";
    send(files);
  };
  return html`<label class=${`button ${kind}`}>${children}<input class="hidden-text" type="file" multiple accept="image/*" aria-label=${title} ...${{ disabled }} onChange=${chosen} /></label>`;
}

/** A form that sends itself by a function; what goes wrong is said below its fields. */
export function Form({ send, children, ...props }) {
  const [error, setError] = useState();
  const submit = async (event) => {
    event.preventDefault();
    setError();
    try {
      await send(event);
    } catch (failure) { setError(failure); }
  };
  return html`<form ...${props} onSubmit=${submit}>${children}<${Failure} error=${error} /></form>`;
}

/** What has been done, and how to undo it: a line above a view, or with `close` a bar over it. The one that came last answers the key. */
export function LastChange({ text, undo, label = "Undo", close }) {
  const element = useRef();
  useEffect(() => {
    // What can be taken back stays, so that it can be.
    if (!close || undo) return undefined;
    // On a touch screen, what was touched last is hovered for ever.
    const isHeld = matchMedia("(hover: hover)").matches ? ":hover, :focus-within" : ":focus-within";
    const timer = setInterval(() => element.current.matches(isHeld) || close(), MESSAGE_MS);
    return () => clearInterval(timer);
  }, [text, undo]);
  useKeys("Undo", undo && { "Ctrl+z": ["undo the latest change", undo] });
  return html`<p ref=${element} class=${close ? "" : "line edited"} role="status"><span>${text}</span>${undo && html`<button onClick=${undo}>${label}</button>`}
    ${close && html`<button aria-label="Close" onClick=${close}>✕</button>`}</p>`;
}

export function Wait({ error }) {
  return error ? html`<${Failure} error=${error} /><button onClick=${() => location.reload()}>Load the page again</button>` : html`<p class="wait">Loading…</p>`;
}

export function Failure({ error }) {
  return error && html`<div class="failure" role="alert"><strong>${error.title ?? "That did not work:"}</strong> ${error.message}</div>`;
}

export function Empty({ title, children, isPage }) {
  return html`<div class="empty"><${isPage ? "h1" : "h2"}>${title}<//>${children}</div>`;
}

/** What a view shows of a collection that has none. */
export function NoImages({ collection, isPage }) {
  return html`<${Empty} title="No image yet" isPage=${isPage}><p><a href=${address(collection, "add")}>Add images</a> to begin.</p><//>`;
}

/** A dialog over the page. Its first field has the focus; the browser keeps it inside, and Escape closes. */
export function Dialog({ title, close, children, wide }) {
  const element = useRef();
  // Before the next key: what is typed at once belongs to the dialog.
  useLayoutEffect(() => {
    const { current: dialog } = element;
    dialog.showModal();
    (dialog.querySelector(".dialog-body :is(input, textarea, select)") ?? dialog).focus();
    // The browser closes none when what had the focus is gone.
    return silenceKeys(dialog, close);
  }, []);
  return html`<dialog ref=${element} tabindex="-1" class=${wide ? "wide" : ""} onClose=${close}
    onClick=${(event) => event.target === element.current && close()}>
    <header><h2>${title}</h2><button onClick=${close} aria-label="Close">✕</button></header>
    <div class="dialog-body">${children}</div>
  </dialog>`;
}
