// Rules of what may be recommended: filters that refer to the item.

import { ConditionForm, conditionText, KINDS } from "../components/conditions.js";
import { Failure, html, number } from "../ui.js";

const SAME = [["same", "is the same", false], ["other", "differs", false]];
const RULES = {
  string: [...SAME, ...KINDS.string],
  double: [["within", "within %", true], ...KINDS.double, ...SAME],
  bool: [...KINDS.bool, ...SAME],
};
const ABOUT_ITEM = ["same", "other", "within"];

/** The fields that rules can name, and their types. */
export const fieldsOf = (metadata) => Object.fromEntries([
  // What shops have rules about comes first; a title is no rule.
  ...["bool", "double", "string"].flatMap((type) => Object.entries(metadata).filter(([key, its]) => its === type && key !== "title")),
  ["width", "double"], ["height", "double"], ["camera", "string"],
]);

const rounded = (value) => Number(value.toFixed(4));

/** A rule in the language of filters. Nothing for a rule of a field that is gone. */
export function textOf(rule, fields) {
  const { field, is, value } = rule;
  const share = Number(value) / 100;
  return fields[field] && (conditionText(rule, fields[field]) ?? {
    same: `${field} = item.${field}`, other: `${field} != item.${field}`,
    within: `${field} BETWEEN ${rounded(Math.max(0, 1 - share))} * item.${field} AND ${rounded(1 + share)} * item.${field}`,
  }[is]);
}

export function RuleEditor({ rules, fields, item, change, allowed, error }) {
  const label = (rule) => (RULES[fields[rule.field]] ?? RULES.string).find(([is]) => is === rule.is)?.[1] ?? rule.is;
  return html`<section class="rules" aria-label="Rules">
    <ul class="chips"><li><strong>Recommend only if</strong></li>
      ${!rules.length && html`<li class="soft">anything goes</li>`}
      ${rules.map((rule, at) => html`<li class="chip"><span title=${textOf(rule, fields)}>${rule.field.replaceAll("_", " ")}${rule.value == null ? ": " : " "}${rule.is === "within" ? `within ${rule.value} %` : [label(rule), rule.value].filter(Boolean).join(" ")}</span>
        ${ABOUT_ITEM.includes(rule.is) && (item.metadata[rule.field] ?? item[rule.field]) == null && html`<span class="soft">(this item has none)</span>`}
        <button aria-label=${`Remove the rule about ${rule.field}`} onClick=${() => change(rules.filter((_, other) => other !== at))}>✕</button></li>`)}
      <li class="space"></li>${allowed != null && html`<li class="soft">${number(allowed)} ${allowed === 1 ? "image" : "images"} allowed</li>`}</ul>
    <${ConditionForm} fields=${fields} kinds=${RULES} button="Add rule" add=${(rule) => change([...rules, rule])} />
    ${error && html`<${Failure} error=${error} />`}
  </section>`;
}
