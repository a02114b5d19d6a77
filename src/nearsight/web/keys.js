// The keyboard. A view names its keys once; the list that `?` opens is made from the same names.

const layers = [];

/**
 * Answer keys until the returned function is called. The layer that came last is asked first.
 *
 * @param {string} title  what the keys belong to, for the list
 * @param {() => Record<string, [string, (event: KeyboardEvent) => void]>} keys  asked at every press, so that no press
 *   meets what was true before: by `event.key`, with modifiers in front ("Ctrl+a"); each with what it does. Several
 *   keys of one action are separated by a blank ("j ArrowRight").
 */
export function addKeys(title, keys) {
  const layer = { title, keys };
  layers.push(layer);
  return () => layers.splice(layers.indexOf(layer), 1);
}

/** Keep all keys so far silent while a dialog is open, until the returned function is called; Escape closes it. */
export function silenceKeys(dialog, close) {
  return addKeys("", () => (dialog.open ? { silent: [], Escape: ["close", close] } : {}));
}

/** All keys that answer now: [[title, [[names, what it does], ...]], ...] */
export function keyList() {
  return layers.filter(({ title, keys }) => title && Object.keys(keys()).length).map(({ title, keys }) => [title, Object.entries(keys()).map(([names, [does]]) => [names.split(" "), does])]);
}

/** The name of a pressed key, as `addKeys` takes it. */
function keyName(event) {
  const key = event.key === " " ? "Space" : event.key;
  // Shift is part of a letter or a sign already: "?" and "A".
  const shift = event.shiftKey && key.length > 1 ? "Shift+" : "";
  return (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "") + shift + key;
}

function inField(element) {
  return element.isContentEditable || element.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range])");
}

document.addEventListener("keydown", (event) => {
  // Keys that a field needs for writing stay its own; Escape leaves it.
  if (inField(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  // The arrows move a slider, and go through a choice.
  if (event.key.startsWith("Arrow") && event.target.matches("[type=range], [type=radio]")) return;
  const name = keyName(event);
  // Enter and Space press the button that has the focus.
  if ((name === "Enter" || name === "Space") && event.target.matches("button, a[href], summary, input")) return;
  for (let at = layers.length - 1; at >= 0; at--) {
    const keys = layers[at].keys();
    const found = Object.entries(keys).find(([names]) => names.split(" ").includes(name));
    if (found) {
      event.preventDefault();
      found[1][1](event);
      return;
    }
    if (keys.silent) return;
  }
});
