// What is wrong with the images, by kind, the most severe first.

import { Analysis, useAnalysis } from "../components/analysis.js";
import { andMore, arrows, count, Empty, fileName, html, number, sentence, useChanges, useKeys, useRef } from "../ui.js";

const MAX_SHOWN = 60;

export function Audit({ collection, selection }) {
  const analysis = useAnalysis(collection, "audit", () => collection.get("audit"));
  const { result } = analysis;
  const board = useRef();
  useChanges(selection);
  useKeys("Audit", arrows(board));
  return html`<${Analysis} analysis=${analysis} title="Not audited yet" button="Audit the images"
      explanation="Looks for blurred, dark, bright, flat and tiny images, odd shapes, outliers, duplicates and leaks between splits.">
    ${result && html`<div class="line wrap"><h1>${count(result.issues.length, "issue")} in ${count(result.images, "image")}</h1><span class="space" />
        <button onClick=${() => analysis.start()}>Audit again</button></div>
      ${result.issues.length === 0 && html`<${Empty} title="Nothing stands out" />`}
      ${result.issues.length > 0 && html`<p class="soft">Mark images, by a click or with Space; then tag them, take them out of the collection, or put their files into the trash.</p>`}
      <div ref=${board}>${Object.entries(result.counts).map(([kind, n]) => html`<${Kind} ...${{ collection, kind, n, selection }}
        issues=${result.issues.filter((issue) => issue.kind === kind)} />`)}</div>
      ${result.notes.length > 0 && html`<h2>Notes</h2><ul>${result.notes.map((note) => html`<li class="soft">${sentence(note)}</li>`)}</ul>`}`}
  <//>`;
}

function Kind({ collection, kind, n, issues, selection }) {
  const ids = [...new Set(issues.flatMap((issue) => issue.ids))];
  return html`<section><div class="line"><h2>${kind.replaceAll("_", " ")} (${number(n)})</h2>
      ${ids.length > 0 && html`<button onClick=${() => selection.change(ids)}>Select these</button>`}</div>
    <ul class="issues">${issues.slice(0, MAX_SHOWN).map((issue) => html`<li>
      <span class="pile">${issue.ids.slice(0, 3).map((id, at) => html`<span data-id=${id}><button aria-pressed=${selection.has(id)} aria-label=${`Mark ${fileName(issue.paths[at])}`} onClick=${() => selection.toggle(id)}>
        <img src=${collection.thumbnail(id)} alt="" loading="lazy" /></button></span>`)}</span>
      <span title=${issue.paths[0]}>${fileName(issue.paths[0] ?? "")}</span><span class="soft">${issue.detail}</span></li>`)}</ul>
    ${andMore(issues.length - MAX_SHOWN)}</section>`;
}
