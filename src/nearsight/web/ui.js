// What every view needs of preact, and small pieces of the page.

export { html, render, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.module.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.module.js";

import { addKeys, silenceKeys } from "./keys.js";

/** Read a text aloud to those who use a screen reader. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

export const number = (n) => n.toLocaleString("en");

export const count = (n, noun, plural = `${noun}s`) => `${number(n)} ${n === 1 ? noun : plural}`;

/** The name of a file without its folders. */
export const fileName = (path) => path.split("/").at(-1) || path;

/** Run a function of the server, and keep what it answers, or its error: [value, error, again]. */
export function useAnswer(ask, dependencies) {
  const [state, setState] = useState({});
  const round = useRef(0);
  const again = () => {
    const mine = ++round.current;
    ask().then(
      (value) => mine === round.current && setState({ value }),
      (error) => mine === round.current && setState({ error }),
    );
  };
  useEffect(again, dependencies);
  return [state.value, state.error, again];
}

/** The keys of a component, as long as it is there. They are always those of the latest render; none are `undefined`. */
export function useKeys(title, keys) {
  const latest = useRef();
  latest.current = keys;
  useLayoutEffect(() => addKeys(title, () => latest.current || {}), []);
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

/** The properties of an input into which a person writes a value. */
export const written = (value, set) => ({ value, onInput: (event) => set(event.target.value) });

/** What a person writes into a field: its value, `set`, and the properties of the input. */
export function useField(first) {
  const [value, set] = useState(first);
  return { value, set, props: written(value, set) };
}

/** A form that sends itself by a function; what goes wrong is said below its fields. */
export function Form({ send, children, ...props }) {
  const [error, setError] = useState();
  const submit = async (event) => {
    event.preventDefault();
    setError(undefined);
    try {
      await send(event);
    } catch (failure) { setError(failure); }
  };
  return html`<form ...${props} onSubmit=${submit}>${children}${error && html`<${Failure} error=${error} />`}</form>`;
}

/** What has been done, and how to undo it. The one that came last answers the key. */
export function UndoBar({ text, undo, label = "Undo", close }) {
  useKeys("Undo", undo && { "Ctrl+z": ["undo the latest change", undo] });
  return html`<p class="done" role="status"><span>${text}</span>${undo && html`<button onClick=${undo}>${label}</button>`}
    ${close && html`<button aria-label="Close" onClick=${close}>✕</button>`}</p>`;
}

export function Wait({ error, children = "Loading…" }) {
  return error ? html`<${Failure} error=${error} />` : html`<p class="wait">${children}</p>`;
}

export function Failure({ error }) {
  return html`<div class="failure" role="alert"><strong>${error.title ?? "That did not work."}</strong> ${error.message}</div>`;
}

export function Empty({ title, children, isPage }) {
  return html`<div class="empty"><${isPage ? "h1" : "h2"}>${title}</${isPage ? "h1" : "h2"}>${children}</div>`;
}

/** A dialog over the page. Its first field has the focus; the browser keeps it inside, and Escape closes. */
export function Dialog({ title, close, children, wide }) {
  const element = useRef();
  // Before the next key: what is typed at once belongs to the dialog.
  useLayoutEffect(() => {
    const { current: dialog } = element;
    dialog.showModal();
    (dialog.querySelector(".dialog-body :is(input, textarea, select)") ?? dialog).focus();
    return silenceKeys();
  }, []);
  return html`<dialog ref=${element} tabindex="-1" class=${wide ? "wide" : ""} onClose=${close}
    onClick=${(event) => event.target === element.current && close()}>
    <header><h2>${title}</h2><button onClick=${close} aria-label="Close">✕</button></header>
    <div class="dialog-body">${children}</div>
  </dialog>`;
}
