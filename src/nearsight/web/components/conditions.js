// Conditions on the fields of images, chosen instead of written.

import { Form, html, useState, written } from "../ui.js";

/** By the type of a field: what a condition can say, and whether it needs a value. */
export const KINDS = {
  string: [["is", "is", true], ["not", "is not", true], ["contains", "contains", true], ["none", "is not known", false]],
  double: [["most", "at most", true], ["least", "at least", true], ["none", "is not known", false]],
  bool: [["yes", "yes", false], ["no", "no", false]],
  date: [["least", "since", true], ["most", "before", true], ["none", "is not known", false]],
};

export const quoted = (text) => `'${String(text).replaceAll("'", "''")}'`;

export function conditionText({ field, is, value }, type) {
  const written = type === "double" ? Number(value) : quoted(value);
  return {
    is: `${field} = ${written}`, not: `${field} != ${written}`, least: `${field} >= ${written}`,
    most: `${field} ${type === "date" ? "<" : "<="} ${written}`, contains: `${field} ILIKE ${quoted(`%${value}%`)}`,
    yes: `${field} = TRUE`, no: `${field} = FALSE`, none: `${field} IS NULL`,
  }[is];
}

export function ConditionForm({ fields, kinds = KINDS, button, add }) {
  const names = Object.keys(fields);
  const [field, setField] = useState(names[0]);
  const [chosen, setChosen] = useState();
  const [value, setValue] = useState("");
  const type = fields[field];
  const these = kinds[type] ?? kinds.string;
  const kind = these.find(([is]) => is === chosen) ?? these[0];
  const send = () => {
    add({ field, is: kind[0], value: kind[2] ? value : undefined });
    setValue("");
  };
  return html`<${Form} class="search-line" send=${send}>
    <select aria-label="Field" ...${written(field, (name) => { setField(name); setChosen(); })}>${names.map((name) => html`<option value=${name}>${name.replaceAll("_", " ")}</option>`)}</select>
    <select aria-label="Condition" ...${written(kind[0], setChosen)}>${these.map(([is, words]) => html`<option value=${is}>${words}</option>`)}</select>
    ${kind[2] && html`<input aria-label="Value" required type=${{ double: "number", date: "date" }[type] ?? "text"} step="any" ...${written(value, setValue)} />`}
    <button>${button}</button><//>`;
}
