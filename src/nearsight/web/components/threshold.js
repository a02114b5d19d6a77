// The threshold: how often it alarms falsely, and which images would change sides.

import { count, fileName, html, useAnswer, useEffect, useState, Wait } from "../ui.js";

const percent = (rate) => `${(100 * rate).toFixed(rate < 0.0995 ? 1 : 0)} %`;
// Good images score about 0, defects up to thousands: near 0 the axis is even, far out it counts digits.
const bend = (score) => Math.asinh(score / 2);
const unbend = (place) => 2 * Math.sinh(place);

/** Scores of good images above the line, those of scored images below it; the slider moves the threshold. */
function Axis({ document: { good_scores: good, scores, threshold }, trial, setTrial }) {
  const ends = [...good, ...scores.map(([score]) => score), threshold].map(bend);
  const low = Math.min(...ends) - 0.2, high = Math.max(...ends, bend(threshold) + 0.5) + 0.2;
  const x = (score) => 1000 * (Math.min(Math.max(bend(score), low), high) - low) / (high - low);
  const tick = (score, kind, top) => html`<line class=${kind} x1=${x(score)} x2=${x(score)} y1=${top} y2=${top + 26} />`;
  return html`<svg class="axis" viewBox="0 0 1000 66" preserveAspectRatio="none" aria-hidden="true">
      <rect class="alarm" x=${x(trial)} y="0" width=${Math.max(0, 1000 - x(trial))} height="66" />
      ${good.map((score) => tick(score, "held-out", 4))}
      ${scores.map(([score, verdict]) => tick(score, verdict ?? (score > trial ? "above" : "below"), 36))}
      <line class="in-use" x1=${x(threshold)} x2=${x(threshold)} y1="0" y2="66" /></svg>
    <input type="range" aria-label="Threshold" min=${low} max=${high} step=${(high - low) / 500} value=${bend(trial)} aria-valuetext=${`score ${trial.toFixed(2)}`}
      onInput=${(event) => setTrial(unbend(Number(event.target.value)))} />
    <p class="legend-line soft"><span class="held-out">▎</span>good, held out <span class="above">▎</span>scored, above <span class="below">▎</span>scored, below</p>`;
}

export function ThresholdControl({ collection, detector, trial, setTrial, changed, setError, open, version }) {
  const place = `detectors/${detector.name}`;
  const inUse = detector.threshold;
  const asked = [version, inUse, detector.revision];
  const [document] = useAnswer(() => collection.get(`${place}/threshold`), asked);
  const [effect, setEffect] = useState();
  useEffect(() => {
    // A slider that is dragged asks once it rests.
    let isCurrent = true;
    const timer = setTimeout(() => collection.get(`${place}/threshold/effect`, { at: trial }).then((told) => isCurrent && setEffect(told), setError), 60);
    return () => { isCurrent = false; clearTimeout(timer); };
  }, [trial, ...asked]);
  if (!document || !effect) return html`<${Wait} />`;
  const set = (threshold) => collection.put(`${place}/threshold`, { threshold }).then(changed, setError);
  const [low, high] = effect.rate_interval;
  const moved = Math.abs(trial - inUse) > 1e-9;
  const images = [...effect.become_defects, ...effect.become_good], n = effect.n_changed;
  const become = effect.become_good.length ? "pass as good" : n === 1 ? "become a defect" : "become defects";
  return html`<section class="card threshold" aria-label="Threshold"><div class="line"><h2>Threshold ${trial.toFixed(2)}</h2><span class="space" />
      <span class="soft">${count(effect.images_above, "image")} above</span></div>
    <${Axis} ...${{ document, trial, setTrial }} />
    <p role="status"><strong>Expected false alarms: ${percent(effect.expected_rate)}</strong> of good images.
      <span class="soft">${` With ${document.held_out} held out, the rate of this detector is between ${percent(low)} and ${percent(high)} (95 % sure).`}</span></p>
    ${effect.confirmed_defects_missed > 0 && html`<p class="warn">${count(effect.confirmed_defects_missed, "confirmed defect")} would be missed.</p>`}
    ${moved && html`<p class="soft">${n ? `${count(n, "image")} would ${become}:` : "No scored image would change sides."}</p>`}
    ${n > 0 && html`<div class="strip">${images.map((image) => html`<button title=${image.score.toFixed(2)} onClick=${() => open(image.id)}>
        <img src=${collection.url(`${place}/images/${image.id}/preview`)} alt=${fileName(image.path)} height="56" /></button>`)}</div>`}
    <div class="buttons">${moved && html`<button class="main" onClick=${() => set(trial)}>Use this threshold</button><button onClick=${() => setTrial(inUse)}>Leave it</button>`}
      ${inUse !== detector.calibrated_threshold && html`<button onClick=${() => set(null)}>Back to ${percent(detector.false_alarm_rate)} false alarms</button>`}</div>
  </section>`;
}
