/* The panel: one node's facts, value, gradient and code. */

const panel = document.getElementById("panel");
const kept = { tab: "Function", kernel: {} }; // what the reader chose stays when another node is opened

function fill(...parts) { panel.replaceChildren(...parts.filter((part) => part)); }

/** What to know before the first step. */
function showHelp() {
  const item = (look, text) => make("li", { class: look }, make("i"), text);
  const keys = [["← →", "one step"], ["Home End", "start, end"], ["p", "play, pause"], ["↑ ↓", "from box to box"], ["Enter", "open a box"],
    ["m", "ops or modules"], ["f", "fit"], ["Esc", "let go"]];
  const weights = Object.keys(DATA.influence.by).length > 0;
  fill(
    make("h2", {}, "One training step"),
    make("p", {}, "Move the slider: each op computes its result from its inputs, down to the loss. Then the same way back: " +
      "each op gets the gradient of its result and hands its inputs theirs. Open a box for its numbers and its code."),
    make("ul", { class: "legend" },
      item("waiting", "not computed yet"), item("valued", "an op whose value is there"),
      item("leaf", "a parameter, or a tensor that requires grad"), item("constant", "needs no gradient: data, labels"),
      item("graded", "its gradient has arrived"), weights ? item("moved", "moved by the weight under the pointer") : null),
    weights ? make("p", {}, "Point at a weight in the picture of a parameter, or open the parameter and go to a weight with the arrow keys: " +
      "every value that it moves shows by how much.")
      : DATA.influence.why_not ? make("p", { class: "later" }, DATA.influence.why_not) : null,
    make("dl", { class: "list" }, ...keys.flatMap(([key, text]) => [
      make("dt", {}, ...key.split(" ").flatMap((name) => [make("kbd", {}, name), " "])), make("dd", { style: "font-family:inherit" }, text)])),
  );
}

/** Show a node as it is after `step` steps. */
function showNode(key, members, step, pinned, actions) {
  const node = DATA.nodes[key];
  const scroll = panel.dataset.key === String(key) ? panel.scrollTop : 0;
  const kind = { op: "op", parameter: "parameter", leaf: "leaf", constant: "needs no gradient" }[node.kind];
  const facts = [["shape", shapeText(node.shape)], ["dtype", node.dtype], ["device", node.device], ["module", node.module],
    ["settings", node.settings], ["memory", bytes(node.memory)], ["keeps for backward", node.saved ? bytes(node.saved) : ""],
    ["parameters", node.kind === "parameter" ? node.parameters.toLocaleString("en") : ""]].filter(([, value]) => value !== "");
  fill(
    make("div", { class: "top" },
      make("div", {}, make("p", { class: "chip" }, pinned ? kind : `${kind}, at this step`), make("h2", {}, node.title)),
      pinned ? make("button", { type: "button", "aria-label": "Close: follow the steps again", title: "Follow the steps again (Esc)", onclick: actions.close }, "✕") : null),
    node.formula ? make("p", { class: "formula" }, node.formula) : null,
    make("dl", { class: "list" }, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
      ...links(members && members.length > 1 ? "in this box" : null, members || [], actions),
      ...links("inputs", node.inputs, actions), ...links("goes to", node.users, actions)),
    ...arrays("Value", node, node.values, node.forward, step, "value", actions),
    ...(node.gradients ? arrays("Gradient", node, node.gradients, node.arrives || node.backward, step, "gradient", actions) : []),
    ...handed(node, step),
    ...code(node),
  );
  panel.dataset.key = key;
  panel.scrollTop = scroll;
}

function links(title, keys, actions) {
  const unique = [...new Set(keys)];
  if (!title || unique.length === 0) return [];
  return [make("dt", {}, title), make("dd", {}, make("ul", { class: "links" }, ...unique.slice(0, 40).map((key) =>
    make("li", {}, make("button", { type: "button", onclick: () => actions.open(key) }, DATA.nodes[key].title)))))];
}

/** The value or the gradient: what is there, or when it comes. */
function arrays(title, node, found, arrives, step, what, actions) {
  const head = make("h3", {}, title);
  if (arrives > step) {
    const shares = what === "gradient" ? DATA.edges.filter((edge) => edge.source === node.key && edge.step) : [];
    const there = shares.filter((edge) => edge.step <= step).length; // a gradient is the sum over the uses of a value
    const text = shares.length > 1 ? `${there} of ${shares.length} shares have arrived, complete` : "arrives";
    return [head, make("p", { class: "later" }, `${text} at step ${arrives}`,
      make("button", { type: "button", onclick: () => actions.go(arrives) }, "Go there"))];
  }
  return [head, ...found.flatMap((array, number) => array ? [
    found.length > 1 ? make("p", { class: "later" }, `output ${number}`) : null,
    inCells(array) ? numbers(array, node, what, actions) : countsOf(array) ? histogram(array, what) : null,
    inCells(array) ? null : statistics(array)].filter((part) => part) : [])];
}

/** Whether there are numbers, and cells for them that can be seen; else a histogram says more. */
function inCells(array) {
  return Boolean(array.values) && (array.min === undefined || gridOf(array.shape, array.size).columns <= 130);
}

function statistics(array) {
  const parts = ["norm", "mean", "std", "min", "max"].filter((name) => array[name] !== undefined && array.size > 1)
    .map((name) => `${name} ${shown(array[name])}`);
  if (array.zeros && array.size > 1) parts.push(`${Math.round((100 * array.zeros) / array.size)} % zero`);
  const faults = ["nan", "inf"].filter((name) => array[name]).map((name) => `${array[name]} ${name}`).join(", ");
  return make("p", { class: "stats" }, parts.join("  ·  "), faults ? make("span", { class: "fault" }, ` ${faults}`) : null);
}

/** Coloured cells; with arrow keys from one to the next. A weight's cell shows what it moves. */
function numbers(array, node, what, actions) {
  const grid = gridOf(array.shape, array.size), most = reach(array.values);
  const numbered = grid.columns <= 7 && array.size <= 64;
  const weight = what === "value" && Boolean(DATA.influence.by[node.key]);
  const readout = statistics(array), text = [...readout.childNodes]; // both in one line: it does not jump
  readout.setAttribute("aria-live", "polite");
  const tell = (index) => {
    readout.replaceChildren(...(index === null ? text : [
      `${node.kind === "op" ? "" : node.label}${place(index, array.shape)} = ${shown(array.values[index], 6)}`]));
    if (weight) actions.point(node.key, index);
  };
  const cells = array.values.map((x, index) => {
    const fill = colour(x, most, what), [row, column] = grid.cell(index);
    return make("div", {
      class: `cell${numbered ? " numbered" : ""}${weight ? " weight" : ""}`, role: "img", tabindex: index ? -1 : 0, "data-index": index,
      "aria-label": `${place(index, array.shape)} is ${shown(x)}`, style: `background:rgb(${fill});color:${inkOn(fill)};grid-area:${row + 1}/${column + 1}`,
    }, numbered ? shown(x, 3) : "");
  });
  const gap = grid.columns > 40 ? 0 : 1; // pixels between cells
  const width = numbered ? "auto" : `minmax(0, ${Math.max(2, Math.min(22, Math.floor(390 / grid.columns) - gap))}px)`;
  const at = (event) => { const cell = event.target.closest(".cell"); return cell ? Number(cell.dataset.index) : null; };
  const element = make("div", {
    class: "grid", role: "group", "aria-label": `${what} of ${node.title}, ${grid.rows} by ${grid.columns}, arrow keys move`,
    style: `gap:${gap}px;grid-auto-rows:minmax(${2 * gap}px,auto);grid-template-columns:repeat(${grid.columns}, ${width})`,
    onpointerover: (event) => event.pointerType === "mouse" && tell(at(event)), onpointerleave: () => tell(null),
    onfocusin: (event) => tell(at(event)), onfocusout: () => tell(null),
    onclick: (event) => weight && at(event) !== null && actions.pin(node.key, at(event)),
    onkeydown: (event) => {
      const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const next = by && beside(grid, at(event), by, cells);
      if (by) { event.preventDefault(); event.stopPropagation(); }
      if (next) { event.target.tabIndex = -1; next.tabIndex = 0; next.focus(); }
      if (weight && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); actions.pin(node.key, at(event)); }
    },
  }, ...cells);
  return make("div", {}, element, readout);
}

/** The cell next to one in some direction, over the space between tiles. */
function beside(grid, index, [down, across], cells) {
  let [row, column] = grid.cell(index), found = null;
  do {
    [row, column] = [row + down, column + across];
    found = grid.at(row, column);
  } while (found === null && row >= 0 && row < grid.rows && column >= 0 && column < grid.columns);
  return found === null ? null : cells[found];
}

function histogram(array, what) {
  const space = "http://www.w3.org/2000/svg";
  const element = (tag, attributes, text) => {
    const made = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    return made;
  };
  const drawn = element("svg", { class: "histogram", viewBox: "0 0 420 96", role: "img",
    "aria-label": `histogram from ${shown(array.min)} to ${shown(array.max)}` });
  drawn.append(element("path", { class: `bars ${what}`, d: bars(countsOf(array), 0, 2, 420, 74) }));
  drawn.append(element("line", { x1: 0, x2: 420, y1: 76.5, y2: 76.5 }));
  drawn.append(element("text", { x: 0, y: 91 }, shown(array.min)));
  drawn.append(element("text", { x: 420, y: 91, "text-anchor": "end" }, shown(array.max)));
  const zero = (-array.min / (array.max - array.min)) * 420;
  if (zero > 60 && zero < 360) drawn.append(element("text", { x: zero, y: 91, "text-anchor": "middle" }, "0"));
  return drawn;
}

/** What an op has handed to its inputs. */
function handed(node, step) {
  const edges = DATA.edges.filter((edge) => edge.target === node.key && edge.step && edge.step <= step);
  if (edges.length === 0) return [];
  return [make("h3", {}, "Handed to its inputs"), make("dl", { class: "list" }, ...edges.flatMap((edge) => [
    make("dt", {}, DATA.nodes[edge.source].title), make("dd", {}, `${shapeText(edge.shape)}, norm ${shown(edge.norm)}`)]))];
}

/** The tabs of an op: its Function, and its kernels on every level. */
function code(node) {
  const found = node.kind === "op" ? DATA.code.ops[node.op] : null;
  if (!found) return [];
  const titles = ["Function", ...(found.kernels.length ? DATA.code.tabs : [])];
  const output = make("pre", { id: "code", role: "tabpanel", tabindex: 0 });
  const select = make("select", { id: "kernel", onchange: () => { kept.kernel[node.op] = select.selectedIndex; open(kept.tab); } },
    ...found.kernels.map((kernel) => make("option", {}, kernel.name)));
  select.selectedIndex = kept.kernel[node.op] || 0;
  const notes = make("p", { class: "stats" });
  const choice = make("div", { class: "kernel" }, make("label", { for: "kernel" }, "Kernel"), select);
  const tabs = titles.map((title) => make("button", { type: "button", role: "tab", "aria-controls": "code", onclick: () => open(title) }, title));
  const list = make("div", { class: "tabs", role: "tablist", "aria-label": "Code", onkeydown: (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.stopPropagation();
    const next = tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length];
    open(next.textContent);
    next.focus();
  } }, ...tabs);
  async function open(title) {
    kept.tab = title;
    tabs.forEach((tab) => {
      tab.setAttribute("aria-selected", tab.textContent === title);
      tab.tabIndex = tab.textContent === title ? 0 : -1;
    });
    const kernel = found.kernels[select.selectedIndex];
    choice.hidden = title === "Function" || !kernel;
    choice.style.display = choice.hidden ? "none" : "";
    notes.textContent = title === "Function" || !kernel ? "" : kernel.notes.join("  ·  ");
    const text = title === "Function" ? found.function : kernel[title];
    output.className = typeof text === "string" ? "sentence" : "";
    if (typeof text === "string") output.textContent = text;
    else {
      const html = await textOf(text);
      if (kept.tab === title) output.innerHTML = html;
    }
    output.scrollTop = 0;
  }
  open(titles.includes(kept.tab) ? kept.tab : "Function");
  return [make("h3", {}, "Code"), choice, list, notes, output];
}
