"use strict";
/* Numbers as text, as coloured cells and as histograms. */

const DATA = JSON.parse(document.getElementById("data").textContent);

/** A number in few characters; NaN and infinities come as strings. */
function shown(x, digits = 4) {
  if (typeof x === "string") return x;
  const size = Math.abs(x);
  const text = size !== 0 && (size >= 1e5 || size < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(digits)));
  return text.replace("-", "−").replace("e−", "e-").replace("e+", "e");
}

function shapeText(shape) {
  return shape.length === 0 ? "scalar" : shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < 3) { count /= 1024; unit += 1; }
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

/** The index of an element in its tensor: "[2, 1]". */
function place(index, shape) {
  const found = [];
  for (const size of [...shape].reverse()) { found.unshift(index % size); index = Math.floor(index / size); }
  return `[${found.join(", ")}]`;
}

/** The largest magnitude among finite numbers. */
function reach(values) {
  let most = 0;
  for (const x of values) if (typeof x !== "string" && Math.abs(x) > most) most = Math.abs(x);
  return most;
}

let ramps = {};

/** Read the colours of the scheme in use: minus, zero, plus for values, gradients and influence. */
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const triple = (name) => style.getPropertyValue(`--${name}`).trim().split(/\s+/).map(Number);
  for (const what of ["value", "gradient", "moved"]) {
    ramps[what] = { minus: triple(`${what}-minus`), plus: triple(`${what}-plus`), zero: triple("zero"), fault: triple("fault") };
  }
}

/** The colour of a number, in three bytes. The root makes small numbers visible. */
function colour(x, most, what) {
  const ramp = ramps[what];
  if (typeof x === "string" || Number.isNaN(x)) return ramp.fault;
  const t = most ? Math.sqrt(Math.abs(x) / most) : 0;
  const end = x < 0 ? ramp.minus : ramp.plus;
  return ramp.zero.map((low, i) => Math.round(low + (end[i] - low) * t));
}

/** Black or white, whichever is easier to read on a colour. */
function inkOn([r, g, b]) {
  const light = [r, g, b].map((c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] > 0.179 ? "#000" : "#fff";
}

/** Rows and columns in which a tensor is shown: the first axis down, the others across; a vector in lines. */
function gridOf(shape, size, widest = 16) {
  if (shape.length > 1) return { rows: shape[0], columns: size / shape[0] };
  const columns = Math.min(size, widest);
  return { rows: Math.ceil(size / columns), columns };
}

const painter = document.createElement("canvas");

/** A picture with one pixel per element, as a data URL. */
function picture(values, { rows, columns }, what) {
  painter.width = columns;
  painter.height = rows;
  const context = painter.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(columns, rows), most = reach(values);
  values.forEach((x, i) => image.data.set([...colour(x, most, what), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return painter.toDataURL();
}

/** The outline of a histogram's bars in a rectangle. */
function bars(counts, x, y, width, height) {
  const most = Math.max(...counts), step = width / counts.length;
  return counts.map((count, i) => {
    const h = most ? Math.max(count ? 1 : 0, (count / most) * height) : 0;
    return `M${(x + i * step).toFixed(1)} ${(y + height).toFixed(1)}v${(-h).toFixed(1)}h${(step * 0.9).toFixed(2)}v${h.toFixed(1)}z`;
  }).join("");
}

/** Numbers that were packed as float32. */
function unpacked(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
}

/** A text of the code tabs as HTML; long ones were compressed. */
async function textOf(index) {
  const kept = DATA.code.texts[index];
  if (kept.html === undefined && !("DecompressionStream" in window)) {
    return "This browser cannot unpack the text (no DecompressionStream); one from 2023 or later can.";
  }
  if (kept.html === undefined) {
    const raw = Uint8Array.from(atob(kept.zlib), (c) => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    kept.html = await new Response(stream).text();
  }
  return kept.html;
}

/** An element with attributes, listeners ("onclick") and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
