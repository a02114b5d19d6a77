// Colors of categories and of numbers. A category keeps its color for as long as the page lives.

export const NOISE = 65535;

// Okabe and Ito's colors, which color-blind people tell apart, then golden-angle hues.
const FIRST = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a612", "#7a5fd0"];

// Ten colors of which any two differ for people who see no red, green or blue as well (a difference of at least 10 by
// CIEDE2000), and from the gray of other values: chosen from the palettes of Okabe and Ito, Tol, and Petroff.
const TEN = ["#0072b2", "#d55e00", "#ddcc77", "#88ccee", "#882255", "#e69f00", "#004488", "#bd1f01", "#3f90da", "#a96b59"];
const HIGHEST = 1023;

/** The color of the code of a value: of ten categories, other values, or (`isScale`) a number. */
export function valueColor(code, isScale) {
  if (code === NOISE) return [110, 110, 110];
  if (isScale) return sequentialColor(code / HIGHEST);
  return fromHex(TEN[code] ?? "#9a9a9a");
}

/** The color of a category as [red, green, blue], 0 to 255. */
export function categoryColor(category) {
  if (category === NOISE) return [140, 140, 140];
  if (category < FIRST.length) return fromHex(FIRST[category]);
  const hue = (category * 137.508) % 360;
  const lightness = 0.48 + 0.14 * ((category >> 3) % 3) / 2;
  return fromHsl(hue, 0.6, lightness);
}

/** The color of a number between 0 and 1: from violet over green to yellow, brighter step by step. */
function sequentialColor(share) {
  const stops = [[101, 72, 168], [56, 118, 180], [33, 150, 145], [94, 201, 98], [253, 231, 37]];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const stop = Math.min(Math.floor(at), stops.length - 2);
  return stops[stop].map((value, part) => Math.round(value + (stops[stop + 1][part] - value) * (at - stop)));
}

/** The 65,536 colors that the graphics card looks categories up in: 256 x 256 texels of four bytes. */
export function paletteTexels(colorOf = categoryColor) {
  const texels = new Uint8Array(65536 * 4);
  for (let category = 0; category < 65536; category++) {
    texels.set(colorOf(category), category * 4);
    texels[category * 4 + 3] = 255;
  }
  return texels;
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

function fromHex(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

function fromHsl(hue, saturation, lightness) {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((offset) => {
    const k = (offset + hue / 30) % 12;
    return Math.round(255 * (lightness - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}
