// Rules of what may be recommended: filters that refer to the item.

import { Failure, html, useState } from "../ui.js";

// By type: what a rule can say, and whether it needs a value.
const SAME = [["same", "is the same", false], ["other", "differs", false]];
const KINDS = {
  string: [...SAME, ["is", "is", true], ["not", "is not", true]],
  double: [["within", "within %", true], ["most", "at most", true], ["least", "at least", true], ...SAME],
  bool: [["yes", "yes", false], ["no", "no", false], ...SAME],
};

/** The fields that rules can name, and their types. */
export const fieldsOf = (metadata) => Object.fromEntries([
  // What shops have rules about comes first; a title is no rule.
  ...["bool", "double", "string"].flatMap((type) => Object.entries(metadata).filter(([key, its]) => its === type && key !== "title")),
  ["width", "double"], ["height", "double"], ["camera", "string"],
]);

const rounded = (number) => Number(number.toFixed(4));

/** A rule in the language of filters. Nothing for a rule of a field that is gone. */
export function textOf({ field, is, value }, fields) {
  const type = fields[field];
  if (!type) return undefined;
  const share = Number(value) / 100;
  const quoted = type === "double" ? Number(value) : `'${String(value).replaceAll("'", "''")}'`;
  return {
    same: `${field} = item.${field}`, other: `${field} != item.${field}`,
    within: `${field} BETWEEN ${rounded(Math.max(0, 1 - share))} * item.${field} AND ${rounded(1 + share)} * item.${field}`,
    is: `${field} = ${quoted}`, not: `${field} != ${quoted}`, most: `${field} <= ${quoted}`, least: `${field} >= ${quoted}`,
    yes: `${field} = TRUE`, no: `${field} = FALSE`,
  }[is];
}

export function RuleEditor({ rules, fields, item, change, allowed, error }) {
  const names = Object.keys(fields);
  const [field, setField] = useState(names[0]);
  const [chosen, setChosen] = useState();
  const [value, setValue] = useState("");
  const kinds = KINDS[fields[field]] ?? KINDS.string;
  const kind = kinds.find(([is]) => is === chosen) ?? kinds[0];
  const add = (event) => {
    event.preventDefault();
    change([...rules, { field, is: kind[0], value: kind[2] ? value : undefined }]);
    setValue("");
  };
  const label = (rule) => (KINDS[fields[rule.field]] ?? KINDS.string).find(([is]) => is === rule.is)?.[1] ?? rule.is;
  return html`<section class="rules" aria-label="Rules">
    <ul class="chips"><li><strong>Recommend only if</strong></li>
      ${!rules.length && html`<li class="soft">anything goes</li>`}
      ${rules.map((rule, at) => html`<li class="chip"><span title=${textOf(rule, fields)}>${rule.field.replaceAll("_", " ")}${rule.value == null ? ": " : " "}${rule.is === "within" ? `within ${rule.value} %` : [label(rule), rule.value].filter(Boolean).join(" ")}</span>
        ${["same", "other", "within"].includes(rule.is) && (item.metadata[rule.field] ?? item[rule.field]) == null && html`<span class="soft">(this item has none)</span>`}
        <button type="button" aria-label=${`Remove the rule about ${rule.field}`} onClick=${() => change(rules.filter((_, other) => other !== at))}>✕</button></li>`)}
      <li class="space"></li>${allowed != null && html`<li class="soft">${allowed.toLocaleString("en")} ${allowed === 1 ? "image" : "images"} allowed</li>`}</ul>
    <form class="search-line" onSubmit=${add}>
      <select aria-label="Field" value=${field} onChange=${(event) => { setField(event.target.value); setChosen(); }}>${names.map((name) => html`<option value=${name}>${name.replaceAll("_", " ")}</option>`)}</select>
      <select aria-label="Condition" value=${kind[0]} onChange=${(event) => setChosen(event.target.value)}>${kinds.map(([is, words]) => html`<option value=${is}>${words}</option>`)}</select>
      ${kind[2] && html`<input aria-label="Value" required value=${value} type=${fields[field] === "double" ? "number" : "text"} step="any" onInput=${(event) => setValue(event.target.value)} />`}
      <button class="quiet">Add rule</button></form>
    ${error && html`<${Failure} error=${error} />`}
  </section>`;
}
