// Points drawn by WebGL2. Panning and zooming change one uniform; colors and states are small buffers of their own.

import { categoryColor, paletteTexels } from "./palette.js";

// What a point looks like, in the state buffer.
export const NORMAL = 0;
export const DIMMED = 1;
export const SELECTED = 2;
export const HIDDEN = 3;

const VERTEX = `#version 300 es
uniform vec4 view;      // scale x, scale y, offset x, offset y
uniform float size;     // of a point, in device pixels
uniform sampler2D palette;
in vec2 position;
in uint category;
in uint state;
out vec4 color;
flat out uint ring;
void main() {
  // Selected points lie in front of normal ones, and these before dimmed ones.
  float depth = state == 2u ? -0.5 : state == 1u ? 0.5 : 0.0;
  // A hidden point lies outside of what is drawn.
  gl_Position = state == 3u ? vec4(2.0, 2.0, 2.0, 1.0) : vec4(position * view.xy + view.zw, depth, 1.0);
  gl_PointSize = state == 2u ? size + 3.0 : size;
  vec4 texel = texelFetch(palette, ivec2(int(category & 255u), int(category >> 8)), 0);
  color = vec4(texel.rgb, state == 1u ? 0.12 : 0.85);
  ring = state == 2u ? 1u : 0u;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
uniform vec3 outline;
in vec4 color;
flat in uint ring;
out vec4 result;
void main() {
  float radius = length(gl_PointCoord - 0.5) * 2.0;
  if (radius > 1.0) discard;
  vec3 filled = ring == 1u && radius > 0.62 ? outline : color.rgb;
  float alpha = color.a * (1.0 - smoothstep(0.82, 1.0, radius));
  result = vec4(filled * alpha, alpha);
}`;

export class PointLayer {
  /** @param {HTMLCanvasElement} canvas  @throws {Error} where the browser has no WebGL2 */
  constructor(canvas) {
    this.canvas = canvas;
    this.arrays = { position: new Float32Array(0), category: new Uint16Array(0), state: new Uint8Array(0) };
    this.view = [1, 1, 0, 0];
    this.pointSize = 4;
    this.outline = [0, 0, 0];
    this.colorOf = categoryColor;
    this.gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: false });
    if (!this.gl) throw new Error("this browser has no WebGL2");
    this.prepare();
    // The browser may take the graphics card away, when a laptop sleeps for instance.
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.restore());
  }

  prepare() {
    const gl = this.gl;
    this.program = program(gl, VERTEX, FRAGMENT);
    gl.useProgram(this.program);
    this.buffers = Object.fromEntries(Object.keys(this.arrays).map((name) => [name, gl.createBuffer()]));
    this.places = Object.fromEntries(
      ["view", "size", "outline"].map((name) => [name, gl.getUniformLocation(this.program, name)]),
    );
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.setColors(this.colorOf);
  }

  restore() {
    this.prepare();
    for (const [name, values] of Object.entries(this.arrays)) this.upload(name, values);
    this.draw();
  }

  /** @param {Float32Array} x @param {Float32Array} y */
  setPoints(x, y) {
    const position = new Float32Array(2 * x.length);
    for (let point = 0; point < x.length; point++) {
      position[2 * point] = x[point];
      position[2 * point + 1] = y[point];
    }
    this.upload("position", position);
    this.upload("category", new Uint16Array(x.length));
    this.upload("state", new Uint8Array(x.length));
  }

  /** @param {(category: number) => number[]} colorOf */
  setColors(colorOf) {
    const gl = this.gl;
    this.colorOf = colorOf;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 256, 0, gl.RGBA, gl.UNSIGNED_BYTE, paletteTexels(colorOf));
  }

  /** A number or two for each point: its position, category (Uint16Array), or state (Uint8Array): NORMAL, DIMMED, SELECTED or HIDDEN. */
  upload(name, values) {
    const gl = this.gl;
    this.arrays[name] = values;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(place);
    if (name === "position") gl.vertexAttribPointer(place, 2, gl.FLOAT, false, 0, 0);
    else gl.vertexAttribIPointer(place, 1, name === "category" ? gl.UNSIGNED_SHORT : gl.UNSIGNED_BYTE, 0, 0);
  }

  draw() {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniform4fv(this.places.view, this.view);
    gl.uniform1f(this.places.size, this.pointSize);
    gl.uniform3fv(this.places.outline, this.outline);
    gl.drawArrays(gl.POINTS, 0, this.arrays.position.length / 2);
  }
}

function program(gl, vertex, fragment) {
  const linked = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(linked, shader);
  }
  gl.linkProgram(linked);
  if (!gl.getProgramParameter(linked, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(linked));
  return linked;
}
