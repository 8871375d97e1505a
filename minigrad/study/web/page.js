/* Where in the step the page is, what is selected, and what the keys do. */

const slider = document.getElementById("slider");
const told = document.getElementById("told");
const playButton = document.getElementById("play");
const LAST = DATA.steps.length;
const FORWARD = DATA.steps.filter((step) => step.phase === "forward").length;
const narrow = window.matchMedia("(max-width: 820px)");
const now = { step: 0, view: "ops", selected: null, members: null, pinned: null, player: null };

for (const node of DATA.nodes) Object.assign(node, { inputs: [], users: [], begins: 0, arrives: 0 });
for (const edge of DATA.edges) {
  const source = DATA.nodes[edge.source];
  DATA.nodes[edge.target].inputs.push(edge.source);
  source.users.push(edge.target);
  if (edge.step) {
    source.begins = source.begins ? Math.min(source.begins, edge.step) : edge.step;
    source.arrives = Math.max(source.arrives, edge.step);
  }
}
DATA.nodes[DATA.output].begins = DATA.nodes[DATA.output].arrives = DATA.nodes[DATA.output].backward;

readColours();
const views = {};
const actions = {
  select(key, index, weight) {
    const box = views[now.view].data.boxes[index];
    if (weight !== null) actions.pin(key, weight);
    choose(key, box.members);
  },
  open(key) { choose(key, null); views[now.view].reveal(views[now.view].data.of[key]); },
  close: letGo,
  go,
  point(key, index) { if (!now.pinned) showInfluence(key, index); },
  pin(key, index) {
    const same = now.pinned && now.pinned.key === key && now.pinned.index === index;
    now.pinned = same ? null : { key, index };
    showInfluence(key, same ? null : index);
  },
};

function viewOf(name) {
  if (!views[name]) {
    views[name] = new View(name, DATA.views[name], actions);
    views[name].show(name === now.view);
  }
  return views[name];
}

function view() { return viewOf(now.view); }

function choose(key, members) {
  now.selected = key;
  now.members = members;
  view().mark(key);
  showPanel();
  if (narrow.matches) panel.scrollIntoView({ block: "start", behavior: quiet.matches ? "auto" : "smooth" }); // it is below
}

function showPanel() {
  const inside = panel.contains(document.activeElement), key = now.selected ?? (now.step ? DATA.steps[now.step - 1].key : null);
  if (key === null) showHelp();
  else showNode(key, now.members, now.step, now.selected !== null, actions);
  if (inside && !panel.contains(document.activeElement)) panel.focus({ preventScroll: true }); // what had the focus is gone
}

/** Go to a step; 0 is before the first. */
function go(step, scrubbing = false) {
  now.step = Math.max(0, Math.min(LAST, step));
  slider.value = now.step;
  const current = now.step ? DATA.steps[now.step - 1] : null;
  const [head, ...rest] = (current ? current.text : `Before the first of ${LAST} steps: only data and parameters are there.`).split(": ");
  told.replaceChildren(make("b", {}, `${head}:`), ` ${rest.join(": ")}`);
  told.className = current ? current.phase : "";
  slider.className = current ? current.phase : "";
  slider.setAttribute("aria-valuetext", current ? `${now.step} of ${LAST}, ${current.phase} of ${DATA.nodes[current.key].title}` : `0 of ${LAST}`);
  view().at(now.step);
  if (current) view().reveal(view().data.of[current.key], scrubbing);
  for (const [id, off] of [["first", now.step === 0], ["back", now.step === 0], ["next", now.step === LAST], ["last", now.step === LAST]]) {
    document.getElementById(id).disabled = off;
  }
  showPanel();
}

function play(on) {
  clearInterval(now.player);
  now.player = null;
  if (on) {
    if (now.step === LAST) go(0);
    now.player = setInterval(() => (now.step === LAST ? play(false) : go(now.step + 1)), Math.max(80, Math.min(1100, 40000 / LAST)));
  }
  playButton.querySelector("path").setAttribute("d", on ? "M4 3h3v10H4zM9 3h3v10H9z" : "M4 3v10l9-5z");
  playButton.querySelector("span").textContent = on ? "Pause" : "Play";
  playButton.setAttribute("aria-label", on ? "Pause" : "Play");
}

function show(name) {
  now.view = name;
  const shownView = view();
  for (const [other, made] of Object.entries(views)) made.show(other === name);
  for (const button of document.querySelectorAll("#views button")) button.setAttribute("aria-pressed", button.dataset.view === name);
  stage.onmove = () => shownView.cull();
  shownView.at(now.step);
  shownView.mark(now.selected);
  if (now.pinned) showInfluence(now.pinned.key, now.pinned.index);
  shownView.fit(true);
  if (now.step) shownView.reveal(shownView.data.of[DATA.steps[now.step - 1].key], true);
}

function letGo() {
  now.pinned = null;
  showInfluence(null, null);
  now.selected = now.members = null;
  view().mark(null);
  showPanel();
}

const unpackedNumbers = new Map();

/** Show what a weight moves, down to the loss; null ends it. */
function showInfluence(key, index) {
  const line = document.getElementById("influence"), by = DATA.influence.by[key];
  const off = index === null || !by;
  for (const cell of panel.querySelectorAll(".pinned")) cell.classList.remove("pinned");
  if (off) { line.textContent = ""; view().tint(null); return; }
  if (now.pinned && now.selected === key) panel.querySelector(`.cell.weight[data-index="${index}"]`)?.classList.add("pinned");
  const norms = new Map(Object.entries(by).map(([other, entry]) => [Number(other), entry.norms[index]]));
  const numbersOf = (other) => {
    const entry = by[other];
    if (!entry || !entry.numbers) return null;
    const name = `${key} ${other}`;
    if (!unpackedNumbers.has(name)) unpackedNumbers.set(name, unpacked(entry.numbers));
    const all = unpackedNumbers.get(name), size = all.length / entry.norms.length;
    return all.subarray(index * size, (index + 1) * size);
  };
  view().tint({ key, index, norms, numbers: numbersOf });
  const node = DATA.nodes[key], loss = numbersOf(DATA.output), gradient = node.gradients && node.gradients[0];
  const analytic = gradient && gradient.values ? `; backward says ${shown(gradient.values[index])}` : "";
  line.textContent = `${node.label}${place(index, node.shape)} = ${shown(node.values[0].values[index])} moves ${norms.size} values: ` +
    `d loss / d w = ${loss ? shown(loss[0]) : "0"} by central differences${analytic}.`;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === slider && event.key !== "Escape") return;
  const typing = event.target.closest("select, pre, [role=tablist]");
  const onBox = event.target.closest && event.target.closest(".box");
  const keys = {
    ArrowLeft: () => go(now.step - 1), ArrowRight: () => go(now.step + 1), Home: () => go(0), End: () => go(LAST),
    Escape: letGo, p: () => play(!now.player), m: () => views && DATA.toggles && show(now.view === "ops" ? "modules" : "ops"), f: () => view().fit(),
  };
  if (onBox) {
    keys.ArrowUp = () => view().move(-1);
    keys.ArrowDown = () => view().move(1);
    keys.Enter = keys[" "] = () => {
      const index = view().boxes.indexOf(onBox), box = view().data.boxes[index];
      choose(box.main, box.members);
      panel.focus({ preventScroll: true });
    };
  }
  if (event.target === document.body) {
    keys.ArrowUp = keys.ArrowDown = keys.Enter = () => view().boxes[view().entry].focus();
  }
  if (!keys[event.key] || typing && event.key !== "Escape") return;
  event.preventDefault();
  if (event.key === "Escape" && panel.contains(document.activeElement)) view().boxes[view().entry].focus({ preventScroll: true });
  keys[event.key]();
});
slider.addEventListener("input", () => go(Number(slider.value), true));
for (const [id, action] of Object.entries({
  first: () => go(0), back: () => go(now.step - 1), next: () => go(now.step + 1), last: () => go(LAST), play: () => play(!now.player),
  in: () => moved(false).call(zoom.scaleBy, 1.35), out: () => moved(false).call(zoom.scaleBy, 1 / 1.35), fit: () => view().fit(),
})) document.getElementById(id).addEventListener("click", action);
for (const button of document.querySelectorAll("#views button")) button.addEventListener("click", () => show(button.dataset.view));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours();
  for (const made of Object.values(views)) made.group.remove();
  for (const name of Object.keys(views)) delete views[name];
  show(now.view);
  showPanel();
});

DATA.toggles = DATA.views.modules.boxes.length < DATA.views.ops.boxes.length;
document.getElementById("influence").classList.toggle("empty", Object.keys(DATA.influence.by).length === 0);
document.getElementById("views").hidden = !DATA.toggles;
document.getElementById("forward-part").style.width = `${(100 * FORWARD) / LAST}%`;
svg.call(zoom).on("dblclick.zoom", null);
show(DATA.nodes.length > 150 && DATA.toggles ? "modules" : "ops");
go(0);
if (DATA.toggles) setTimeout(() => Object.keys(DATA.views).forEach(viewOf), 300); // the other one, before it is asked for
