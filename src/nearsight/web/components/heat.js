// Heat over an image. The colors mean the same on every image: they begin at half the threshold; a line is at the threshold.

import { html, useAnswer, useEffect, useRef, useState } from "../ui.js";

// As in the reports: multiples of the threshold, and color and strength at each.
const STOPS = [[0, 255, 245, 157, 0], [0.5, 255, 245, 157, 0], [0.75, 253, 203, 64, 0.45], [1, 244, 109, 30, 0.7], [1.5, 200, 30, 80, 0.85], [2, 90, 10, 110, 0.95]];
const SIDE = 480;

function color(ratio, into, at) {
  let next = 1;
  while (next < STOPS.length - 1 && ratio > STOPS[next][0]) next++;
  const [from, to] = [STOPS[next - 1], STOPS[next]];
  const share = Math.min(Math.max((ratio - from[0]) / (to[0] - from[0]), 0), 1);
  for (let part = 0; part < 4; part++) into[at + part] = (from[part + 1] + share * (to[part + 1] - from[part + 1])) * (part === 3 ? 255 : 1);
}

/** The grid at another size, smoothly: where its line runs must not show how coarse it is. */
function enlarged({ width, height, values }, toWidth, toHeight) {
  const result = new Float32Array(toWidth * toHeight);
  for (let y = 0; y < toHeight; y++) {
    const v = Math.min(Math.max(((y + 0.5) * height) / toHeight - 0.5, 0), height - 1);
    const top = Math.floor(v) * width, bottom = Math.min(Math.floor(v) + 1, height - 1) * width, dy = v - Math.floor(v);
    for (let x = 0; x < toWidth; x++) {
      const u = Math.min(Math.max(((x + 0.5) * width) / toWidth - 0.5, 0), width - 1);
      const left = Math.floor(u), right = Math.min(left + 1, width - 1), dx = u - left;
      result[y * toWidth + x] = (values[top + left] * (1 - dx) + values[top + right] * dx) * (1 - dy)
        + (values[bottom + left] * (1 - dx) + values[bottom + right] * dx) * dy;
    }
  }
  return result;
}

function draw(canvas, grid, unit) {
  const factor = SIDE / Math.max(grid.width, grid.height);
  const width = (canvas.width = Math.max(1, Math.round(grid.width * factor)));
  const height = (canvas.height = Math.max(1, Math.round(grid.height * factor)));
  const values = enlarged(grid, width, height);
  const pixels = new ImageData(width, height);
  for (let at = 0; at < values.length; at++) {
    const isAbove = values[at] >= unit;
    const isEdge = (at % width && values[at - 1] >= unit !== isAbove) || (at >= width && values[at - width] >= unit !== isAbove);
    if (isEdge) pixels.data[4 * at + 3] = 255;
    else color(values[at] / unit, pixels.data, 4 * at);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

export function Heat({ collection, detector: { name }, image, trial, opacity }) {
  const place = `detectors/${name}/images/${image.id}`;
  const canvas = useRef();
  const [isGone, setIsGone] = useState(false);
  const [grid] = useAnswer(() => collection.get(`${place}/heatmap`).then((data) => {
    // Width and height, then a number for each cell, in the unit of the score.
    const [width, height] = new Uint16Array(data, 0, 2);
    return { width, height, values: new Float32Array(data, 4) };
  }), []);
  // A threshold of 0 or less has no multiples.
  useEffect(() => { if (grid) draw(canvas.current, grid, trial > 0 ? trial : 1); }, [grid, trial]);
  return html`<div class="heat"><img src=${collection.url(`${place}/${isGone ? "preview" : "original"}`)} alt=${image.path}
      width=${image.width} height=${image.height} onError=${() => setIsGone(true)} style=${{ filter: `grayscale(${grid ? opacity : 0}%)` }} />
    <canvas ref=${canvas} style=${{ opacity: opacity / 100 }} aria-hidden="true" /></div>`;
}
