// Rules of what may be recommended: filters that refer to the item.

import { ConditionForm, conditionText, KINDS } from "../components/conditions.js";
import { count, Failure, html } from "../ui.js";

const SAME = [["same", "is the same", false], ["other", "differs", false]];
const RULES = {
  string: [...SAME, ...KINDS.string],
  double: [["within", "within %", true], ...KINDS.double, ...SAME],
  bool: [...KINDS.bool, ...SAME],
};

export const fieldsOf = (metadata) => Object.fromEntries([
  // What shops have rules about comes first; a title is no rule.
  ...["bool", "double", "string"].flatMap((type) => Object.entries(metadata).filter(([key, its]) => its === type && key !== "title")),
  ["width", "double"], ["height", "double"], ["camera", "string"],
]);

const rounded = (value) => Number(value.toFixed(4));

/** A rule in the language of filters, as it is saved with the collection. */
function textOf(rule, type) {
  const { field, is, value } = rule;
  const share = Number(value) / 100;
  return conditionText(rule, type) ?? {
    same: `${field} = item.${field}`, other: `${field} != item.${field}`,
    within: `${field} BETWEEN ${rounded(Math.max(0, 1 - share))} * item.${field} AND ${rounded(1 + share)} * item.${field}`,
  }[is];
}

const WORDS = [
  [/^(\w+) = item\.\1$/, "$1: is the same"], [/^(\w+) != item\.\1$/, "$1: differs"],
  [/^(\w+) BETWEEN [\d.]+ \* item\.\1 AND ([\d.]+) \* item\.\1$/, (_, field, most) => `${field} within ${rounded(100 * most - 100)} %`],
  [/ = TRUE$/, ": yes"], [/ = FALSE$/, ": no"], [/ <= (-?[\d.]+)$/, " at most $1"], [/ >= (-?[\d.]+)$/, " at least $1"],
];
/** A saved rule as people read it; the filter itself where it says more than the form can. */
export const inWords = (text) => WORDS.reduce((said, [pattern, words]) => said.replace(pattern, words), text).replaceAll("_", " ");

export function RuleEditor({ rules, fields, item, change, allowed, unsaved, error }) {
  const isLacking = (text) => [...text.matchAll(/item\.(\w+)/g)].some(([, field]) => (item.metadata[field] ?? item[field]) == null);
  return html`<section class="card rules" aria-label="Rules">
    <ul class="chips"><li><strong>Recommend only if</strong></li>
      ${!rules.length && html`<li class="soft">no rule yet: all images may be recommended</li>`}
      ${rules.map((text, at) => html`<li class="chip"><span title=${text}>${inWords(text)}</span>
        ${isLacking(text) && html`<span class="soft">(this item has none)</span>`}
        <button aria-label=${`Remove the rule ${inWords(text)}`} onClick=${() => change((now) => now.filter((other) => other !== text))}>✕</button></li>`)}
      <li class="space"></li>${allowed != null && html`<li class="soft">${count(allowed, "image")} allowed</li>`}</ul>
    <${ConditionForm} fields=${fields} kinds=${RULES} button="Add rule" add=${(rule) => change((now) => [...new Set([...now, textOf(rule, fields[rule.field])])])} />
    <${Failure} error=${unsaved?.error.status === 412 ? { title: "Somebody else has changed the rules.", message: "Theirs are shown, and hold. Your change is not among them." } : unsaved?.error ?? error} />
    ${unsaved && html`<button onClick=${unsaved.again}>Make my change again</button>`}
  </section>`;
}
