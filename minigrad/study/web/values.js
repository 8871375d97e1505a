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

/**
 * Where the elements of a tensor are shown: `cell(i)` is a row and a column, `at(row, column)` the element there or null.
 * A vector is broken into lines, a matrix is itself; of more axes the last two are tiles, a column of space between.
 */
function gridOf(shape, size, widest = 16) {
  if (shape.length > 2) return tiles(shape, size);
  const columns = shape.length === 2 ? shape[1] : Math.min(size, widest);
  const rows = Math.ceil(size / columns);
  return {
    rows, columns, cell: (i) => [Math.floor(i / columns), i % columns],
    at: (row, column) => {
      const i = row * columns + column;
      return row >= 0 && column >= 0 && column < columns && i < size ? i : null;
    },
  };
}

function tiles(shape, size) {
  const [height, width] = shape.slice(-2), count = size / (height * width);
  const across = shape.length === 4 ? shape[1] : Math.max(1, Math.min(count, Math.round(Math.sqrt((count * height) / width))));
  const down = Math.ceil(count / across), area = height * width;
  return {
    rows: down * (height + 1) - 1, columns: across * (width + 1) - 1,
    cell: (i) => {
      const tile = Math.floor(i / area), inside = i % area;
      return [Math.floor(tile / across) * (height + 1) + Math.floor(inside / width), (tile % across) * (width + 1) + (inside % width)];
    },
    at: (row, column) => {
      const [y, x] = [row % (height + 1), column % (width + 1)];
      const tile = Math.floor(row / (height + 1)) * across + Math.floor(column / (width + 1));
      const inside = row >= 0 && column >= 0 && column < across * (width + 1) && y < height && x < width && tile < count;
      return inside ? tile * area + y * width + x : null;
    },
  };
}

const painter = document.createElement("canvas");

/** A picture with one pixel per element, as a data URL. */
function picture(values, { rows, columns, cell }, what) {
  painter.width = columns;
  painter.height = rows;
  const context = painter.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(columns, rows), most = reach(values);
  values.forEach((x, i) => {
    const [row, column] = cell(i);
    image.data.set([...colour(x, most, what), 255], 4 * (row * columns + column));
  });
  context.putImageData(image, 0, 0);
  return painter.toDataURL();
}

/** The counts of a histogram: as they came, or of the finite numbers of a tensor whose cells would be too small. */
function countsOf(found) {
  if (found.counts || !found.values || found.min === undefined) return found.counts;
  const counts = new Array(32).fill(0), range = found.max - found.min;
  for (const x of found.values) {
    if (typeof x !== "string") counts[range ? Math.min(31, Math.floor(((x - found.min) / range) * 32)) : 16] += 1;
  }
  return counts;
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
