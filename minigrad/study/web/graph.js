/* The graph on its stage: boxes, wires, zoom, and how both look at a step. */

const svg = d3.select("#graph");
const canvas = d3.select("#canvas");
const quiet = window.matchMedia("(prefers-reduced-motion: reduce)");
const zoom = d3.zoom().scaleExtent([0.005, 4]).extent(() => [[0, 0], [stage.width, stage.height]]).on("zoom", () => {
  canvas.attr("transform", d3.event.transform);
  stage.onmove();
});
// Asking the browser for a size makes it lay out everything that has just changed, so the stage's is remembered.
const stage = { width: 0, height: 0, onmove() {} };
function measure() { ({ width: stage.width, height: stage.height } = svg.node().getBoundingClientRect()); }
measure();
new ResizeObserver(measure).observe(svg.node());
const SMALLEST = 0.72; // of the scale at which a box can be read
const LEAST_CELL = 0.75; // pixels of a cell; below it a histogram says more
const STILL_READABLE = 0.55; // if all of the graph is in sight then

/** One way to draw the graph. Boxes and wires are made once; a step changes classes only. */
class View {
  constructor(name, data, listeners) {
    this.data = data;
    this.listeners = listeners;
    this.group = canvas.append("g").attr("class", `view ${DATA.pictures ? "" : "large"}`).attr("data-view", name);
    this.wires = this.group.append("g").selectAll("path").data(data.lines).enter().append("path").attr("d", (line) => line.path).nodes();
    this.boxes = this.group.append("g").selectAll("g").data(data.boxes).enter().append("g").each(drawBox).nodes();
    this.boxes.forEach((element, index) => this.listen(element, index));
    this.order = d3.range(data.boxes.length).sort((a, b) => data.boxes[a].y - data.boxes[b].y || data.boxes[a].x - data.boxes[b].x);
    this.looks = [];
    this.step = 0;
    this.hidden = data.boxes.map(() => false);
    this.reaches = data.lines.map((line) => [data.boxes[line.source].y, data.boxes[line.target].y]);
    this.setEntry(this.order[0]);
  }

  /** Of a large graph draw only what is in sight, and from far away no words. */
  cull() {
    if (DATA.pictures) return;
    const t = d3.zoomTransform(svg.node()), edge = 150;
    const [left, top] = t.invert([-edge, -edge]), [right, bottom] = t.invert([stage.width + edge, stage.height + edge]);
    if (this.far !== t.k < 0.35) this.group.classed("far", (this.far = t.k < 0.35));
    this.data.boxes.forEach((box, index) => {
      const hide = box.y + box.h < top || box.y - box.h > bottom || box.x + box.w < left || box.x - box.w > right;
      if (hide !== this.hidden[index]) {
        this.hidden[index] = hide;
        if (!hide) this.updateBox(index);
        this.boxes[index].style.display = hide && index !== this.entry ? "none" : "";
      }
    });
    this.data.lines.forEach((line, index) => {
      const hide = this.reaches[index][1] < top || this.reaches[index][0] > bottom;
      if (hide === line.hidden) return;
      line.hidden = hide;
      if (!hide) this.updateWire(index);
      this.wires[index].style.display = hide ? "none" : "";
    });
  }

  listen(element, index) {
    const box = this.data.boxes[index];
    element.addEventListener("click", (event) => this.listeners.select(box.main, index, weightAt(event, box)));
    element.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.listeners.point(box.main, weightAt(event, box)));
    element.addEventListener("pointerleave", () => this.listeners.point(box.main, null));
    element.addEventListener("focus", () => { this.setEntry(index); if (element.matches(":focus-visible")) this.reveal(index); });
  }

  /** The box that the tab key comes to. */
  setEntry(index) {
    this.boxes[this.entry]?.setAttribute("tabindex", -1);
    this.entry = index;
    this.boxes[index].setAttribute("tabindex", 0);
    this.boxes[index].style.display = "";
  }

  /** Focus the box before or after this one, from top to bottom. */
  move(by) {
    const at = this.order.indexOf(this.entry) + by;
    if (at < 0 || at >= this.order.length) return;
    this.setEntry(this.order[at]);
    this.boxes[this.entry].focus({ preventScroll: true });
  }

  show(visible) { this.group.attr("display", visible ? null : "none"); }

  /** Look as after a number of steps. What is out of sight follows when it comes into sight. */
  at(step) {
    this.step = step;
    this.boxes.forEach((_, index) => this.hidden[index] || this.updateBox(index));
    this.wires.forEach((_, index) => this.data.lines[index].hidden || this.updateWire(index));
  }

  updateBox(index) {
    const box = this.data.boxes[index], node = DATA.nodes[box.main], step = this.step;
    const there = node.forward <= step;
    const graded = there && node.arrives && node.arrives <= step;
    const partly = there && !graded && node.begins && node.begins <= step;
    const current = step && this.data.of[DATA.steps[step - 1].key] === index;
    const look = `box ${box.kind}${node.requires_grad ? "" : " frozen"} ${there ? "valued" : "waiting"}` +
      `${graded ? " graded" : partly ? " partly" : ""}${current ? " current" : ""}`;
    if (this.looks[index] === look) return;
    this.looks[index] = look;
    const kept = ["selected", "moved", "mover"].filter((name) => this.boxes[index].classList.contains(name));
    this.boxes[index].setAttribute("class", [look, ...kept].join(" "));
    if (DATA.pictures) fillPictures(this.boxes[index], box, there, graded);
  }

  updateWire(index) {
    const step = this.step, now = step ? DATA.steps[step - 1] : null, wire = this.wires[index];
    const edges = this.data.lines[index].members.map((member) => DATA.edges[member]);
    const returned = edges.some((edge) => edge.step && edge.step <= step);
    const carried = edges.some((edge) => DATA.nodes[edge.target].forward <= step && DATA.nodes[edge.source].forward <= step);
    const active = now && edges.some((edge) => (now.phase === "forward" ? edge.target === now.key : edge.step === step));
    const look = `wire${returned ? " returned" : carried ? " carried" : ""}${active ? " now" : ""}`;
    if (wire.dataset.look === look) return;
    wire.dataset.look = look;
    wire.setAttribute("class", wire.classList.contains("moved") ? `${look} moved` : look);
  }

  mark(key) {
    this.group.selectAll(".selected").classed("selected", false);
    if (key !== null) d3.select(this.boxes[this.data.of[key]]).classed("selected", true);
  }

  /** Tint what a weight moves: norms by key, and the numbers where there are some. */
  tint(influence) {
    this.group.classed("moving", Boolean(influence));
    this.group.selectAll(".moved, .mover").classed("moved", false).classed("mover", false);
    const touched = this.tinted || [];
    this.tinted = [];
    for (const index of touched) restoreBox(this.boxes[index], this.data.boxes[index], this.looks[index]);
    if (!influence) return;
    const most = Math.max(...influence.norms.values());
    const amount = (norm) => (most ? 0.2 + 0.8 * Math.sqrt(norm / most) : 0.2);
    this.boxes[this.data.of[influence.key]].classList.add("mover");
    this.data.boxes.forEach((box, index) => {
      if (!influence.norms.has(box.main)) return;
      const element = this.boxes[index], norm = influence.norms.get(box.main);
      element.classList.add("moved");
      element.style.setProperty("--amount", amount(norm));
      tintBox(element, box, norm, influence.numbers(box.main));
      this.tinted.push(index);
    });
    this.data.lines.forEach((line, index) => {
      const from = this.data.boxes[line.source].main, to = this.data.boxes[line.target].main;
      if (!influence.norms.has(to) || !(influence.norms.has(from) || this.data.of[influence.key] === line.source)) return;
      this.wires[index].classList.add("moved");
      this.wires[index].style.setProperty("--weight", 1 + 3 * amount(influence.norms.get(to)));
    });
  }

  /** Pan so that a box is in sight, if it is not. */
  reveal(index, scrubbing = false) {
    const { width, height } = stage;
    const t = d3.zoomTransform(svg.node()), box = this.data.boxes[index];
    const [x, y] = t.apply([box.x, box.y]), w = (box.w / 2) * t.k, h = (box.h / 2) * t.k;
    const margin = this.data.height * t.k > height ? 60 : 4; // what follows should be in sight too
    if (x - w > 4 && x + w < width - 4 && y - h > margin && y + h < height - margin) return;
    const far = Math.abs(y - height / 2) > 1.5 * height || Math.abs(x - width / 2) > 1.5 * width;
    moved(scrubbing || far).call(zoom.translateTo, box.x, box.y);
  }

  /** Show all of it, or as much as can be read. */
  fit(readable = false) {
    const { width, height } = stage;
    const whole = Math.min((width - 24) / this.data.width, (height - 24) / this.data.height, 1.25);
    const k = readable && whole < STILL_READABLE ? SMALLEST : whole;
    const first = this.data.boxes[this.data.of[DATA.steps[0].key]];
    const x = this.data.width * k <= width ? (width - this.data.width * k) / 2 : Math.min(12, Math.max(width - 12 - this.data.width * k, width / 2 - first.x * k));
    const y = this.data.height * k <= height ? (height - this.data.height * k) / 2 : 12;
    moved(readable).call(zoom.transform, d3.zoomIdentity.translate(x, y).scale(k));
  }
}

/** The stage, or a transition of it. */
function moved(atOnce) {
  return atOnce || quiet.matches ? svg.interrupt() : svg.transition().duration(280);
}

function drawBox(box) {
  const g = d3.select(this).attr("transform", `translate(${box.x},${box.y})`).attr("role", "button").attr("tabindex", -1)
    .attr("aria-label", box.lines.join(", "));
  const round = box.kind === "op" || box.kind === "module" ? 7 : 18;
  g.append("rect").attr("class", "halo").attr("x", -box.w / 2 - 5).attr("y", -box.h / 2 - 5).attr("width", box.w + 10)
    .attr("height", box.h + 10).attr("rx", round + 4);
  g.append("rect").attr("class", "body").attr("x", -box.w / 2).attr("y", -box.h / 2).attr("width", box.w)
    .attr("height", box.h).attr("rx", round);
  g.append("text").attr("y", -box.h / 2 + 16).text(box.lines[0]);
  g.append("text").attr("class", "shape").attr("y", -box.h / 2 + 31).text(box.lines[1]);
  if (DATA.pictures) g.append("g").attr("class", "pictures");
}

/** The room for a box's picture number 0 (value) or 1 (gradient). */
function room(box, number) {
  const width = Math.min((box.w - 22) / 2, 58), height = box.h - 46;
  return { x: number ? 3 : -3 - width, y: -box.h / 2 + 38, width, height };
}

/** The whole room, for one picture. */
function middle(box) {
  const left = room(box, 0);
  return { ...left, width: 2 * left.width + 6 };
}

/** Where in its room a tensor's cells are drawn: square cells of at most 14 pixels. */
function cellsIn(area, grid) {
  const cell = Math.min(area.width / grid.columns, area.height / grid.rows, 14);
  const width = cell * grid.columns, height = cell * grid.rows;
  return { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height, cell };
}

function pictureGrid(shape, size) { return gridOf(shape, size, Math.ceil(Math.sqrt(size * 1.4))); }

/** Draw one picture: the numbers, a histogram, or for a scalar its digits. */
function paint(group, area, found, what) {
  if (!found) return;
  if (found.size === 1 && found.values) {
    group.append("text").attr("class", "scalar").attr("x", area.x + area.width / 2).attr("y", area.y + area.height / 2 + 4)
      .style("fill", `var(--${{ value: "forward", gradient: "backward", moved: "moved" }[what]})`).text(shown(found.values[0], 3));
    return;
  }
  const grid = pictureGrid(found.shape, found.size), at = cellsIn(area, grid);
  if (found.values && (at.cell >= LEAST_CELL || found.min === undefined)) {
    group.append("rect").attr("class", "frame").attr("x", at.x).attr("y", at.y).attr("width", at.width).attr("height", at.height);
    group.append("image").attr("x", at.x).attr("y", at.y).attr("width", at.width).attr("height", at.height)
      .attr("preserveAspectRatio", "none").attr("href", picture(found.values, grid, what));
  } else if (countsOf(found)) {
    group.append("path").attr("class", `bars ${what}`).attr("d", bars(countsOf(found), area.x, area.y, area.width, area.height));
  }
}

function fillPictures(element, box, there, graded) {
  const state = `${there}${graded}`;
  if (element.dataset.pictures === state) return;
  element.dataset.pictures = state;
  const node = DATA.nodes[box.main], group = d3.select(element).select(".pictures");
  group.selectAll("*").remove();
  if (!there) return;
  const value = node.requires_grad ? room(box, 0) : middle(box);
  paint(group, value, node.values[0], "value");
  if (graded && node.gradients) paint(group, room(box, 1), node.gradients.find((g) => g), "gradient");
}

function tintBox(element, box, norm, numbers) {
  const group = d3.select(element).select(".pictures"), node = DATA.nodes[box.main];
  group.selectAll("*").remove();
  const scalar = numbers && numbers.length === 1;
  d3.select(element).select(".shape").text(scalar ? "d/dw =" : `|d/dw| = ${shown(norm, 3)}`);
  if (numbers) paint(group, middle(box), { values: Array.from(numbers), size: numbers.length, shape: node.shape }, "moved");
}

function restoreBox(element, box, look) {
  d3.select(element).select(".shape").text(box.lines[1]);
  element.dataset.pictures = "";
  element.style.removeProperty("--amount");
  fillPictures(element, box, !look.includes("waiting"), look.includes("graded"));
}

/** The index of the weight under the pointer, in the picture of a parameter's value; null elsewhere. */
function weightAt(event, box) {
  const node = DATA.nodes[box.main], found = node.values[0];
  if (!DATA.pictures || box.kind !== "parameter" || !DATA.influence.by[node.key] || !found.values) return null;
  if (found.size === 1) return 0;
  const [x, y] = d3.clientPoint(event.currentTarget, event);
  const grid = pictureGrid(found.shape, found.size), at = cellsIn(room(box, 0), grid);
  if (at.cell < LEAST_CELL) return null; // a histogram is drawn
  const column = Math.floor((x - at.x) / at.cell), row = Math.floor((y - at.y) / at.cell);
  return grid.at(row, column);
}
