"""What a page shows, as data: nodes with their places and values, edges, steps with the sentences that tell them."""

from minigrad.study.layout import GAP_DOWN, HEIGHT, MARGIN, lines_of
from minigrad.study.page_recording import GRID, rounded, summary
from minigrad.study.svg import curve

PICTURES = 150  # nodes up to which the values are drawn into the boxes
FEW = 64  # of a larger graph, elements up to which the numbers are kept
ROOM = 52.0  # pixels for a picture in a box
WIDER = 1.6  # boxes with pictures


def page_data(recording, model, *, title, texts, influence, notes=()):
    """Everything that the page's script needs.

    Parameters
    ----------
    recording : Recording
    model : Module
    title : str
    texts : dict
        What `minigrad.study.page_code.code_of` returned.
    influence : dict
        What `minigrad.study.page_influence.packed` returned.
    notes : sequence of str
        Sentences for the reader, shown under the title.

    Returns
    -------
    dict
        For JSON.
    """
    seen = recording.graph
    pictures = len(seen) <= PICTURES
    telling = _Telling(recording)
    turns = {(step.phase, step.key): number for number, step in enumerate(recording.steps, 1)}
    completed = {key: number for number, step in enumerate(recording.steps, 1) for key in step.completed}
    limit = GRID if pictures else FEW
    nodes = []
    for node in seen:
        gradients = recording.gradients.get(node.key)
        nodes.append({
            "key": node.key, "kind": node.kind, "label": node.label, "op": node.op, "module": node.module,
            "title": telling.name(node.key), "shape": list(node.shape), "dtype": node.dtype, "device": node.device,
            "requires_grad": node.requires_grad, "memory": node.memory, "saved": node.saved,
            "parameters": node.parameters, "formula": node.formula, "settings": _settings(node),
            "values": [summary(array, limit) for array in recording.values[node.key]],
            "gradients": None if gradients is None else [g if g is None else summary(g, limit) for g in gradients],
            "forward": turns.get(("forward", node.key), 0),
            "backward": turns.get(("backward", node.key), completed.get(node.key, 0)),
        })  # fmt: skip
    edges = [{"source": e.source, "target": e.target, "position": e.position} for e in seen.edges]
    for number, step in enumerate(recording.steps, 1):
        for index, found in step.handed.items():
            edges[index] |= {"step": number, "shape": found["shape"], "norm": _norm(found)}
    collapsed = _collapsed(seen)
    return {
        "title": title, "loss": rounded(recording.loss, 4), "model": type(model).__name__, "notes": list(notes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "pictures": pictures,
        "output": seen.outputs[0], "nodes": nodes, "edges": edges,
        "steps": [telling.step(number, step) for number, step in enumerate(recording.steps, 1)],
        "views": {"ops": _view(seen, pictures, recording), "modules": _view(collapsed, pictures, recording)},
        "code": texts, "influence": influence,
    }  # fmt: skip


def _settings(node):
    """What an op was told, as text; how batch normalization's kernels number what follows it is left out."""
    settings = dict(node.settings)
    if "activation" in settings:
        del settings["act"]
        settings["pool"] = "2×2" if settings["pool"] else "none"
        if settings["activation"] != "leaky_relu":
            del settings["slope"]
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _collapsed(seen):
    """One box per module; of a large graph, per module so far up that there are few enough."""
    depth = max(node.module.count(".") for node in seen) + 1
    shown = seen.collapse()
    while len(shown) > PICTURES and depth > 1:
        depth -= 1
        shown = seen.collapse(depth)
    return shown


def _view(shown, pictures, recording):
    """Boxes and lines of one way to draw the graph. Members are keys of the whole graph's nodes, the last op last."""
    layout = shown.layout()
    wide, room = (WIDER, ROOM) if pictures else (1.0, 0.0)
    pitch, height = HEIGHT + GAP_DOWN, HEIGHT + room

    def down(y):
        return MARGIN + height / 2 + (y - MARGIN - HEIGHT / 2) / pitch * (pitch + room)

    key_of = {id(node.source): node.key for node in recording.graph}
    boxes = []
    for node in shown.nodes:
        (x, y), (w, _) = layout.places[node.key], layout.boxes[node.key]
        members = [key_of[id(member.source)] for member in node.members or [node]]
        main = [key for key in members if recording.graph[key].kind == "op"][-1:] or members[-1:]
        words = lines_of(node)
        if pictures and node.key in shown.outputs:
            words[0] = f"loss: {words[0]}"
        boxes.append({
            "kind": node.kind, "lines": words, "x": round(x * wide, 1), "y": round(down(y), 1),
            "w": round(w * wide, 1), "h": height, "members": members, "main": main[0],
            "parameters": node.parameters,
        })  # fmt: skip
    owner = {key: index for index, box in enumerate(boxes) for key in box["members"]}
    lines = []
    for edge, route in zip(shown.edges, layout.routes, strict=True):
        (x0, _), *between, (x1, _) = route
        top = down(layout.places[edge.source][1]) + height / 2
        bottom = down(layout.places[edge.target][1]) - height / 2
        points = [(x0 * wide, top), *[(x * wide, down(y)) for x, y in between], (x1 * wide, bottom)]
        lines.append({"source": edge.source, "target": edge.target, "path": curve(points), "members": []})
    line_of = {}
    for index, line in enumerate(lines):
        line_of.setdefault((line["source"], line["target"]), []).append(index)
    for index, edge in enumerate(recording.graph.edges):
        known = line_of.get((owner[edge.source], owner[edge.target]))
        if known:  # in the graph of ops two edges may join the same nodes: one after the other
            line = known[0] if len(known) == 1 else known.pop(0)
            lines[line]["members"].append(index)
    return {"width": round(layout.width * wide, 1), "height": round(down(layout.height - MARGIN - HEIGHT / 2)
            + height / 2 + MARGIN, 1), "boxes": boxes, "lines": lines, "of": [owner[n.key] for n in recording.graph]}


class _Telling:
    """Sentences about steps."""

    def __init__(self, recording):
        self.recording, self.count = recording, len(recording.steps)

    def name(self, key):
        node = self.recording.graph[key]
        if node.kind != "op":
            return node.label if node.name else f"{node.kind} {_shape(node.shape)}"
        return f"{node.op} ({node.module})" if node.module else node.op

    def step(self, number, step):
        head = f"Step {number} of {self.count}, {step.phase} of {self.name(step.key)}: "
        if step.phase == "forward":
            inputs = [edge for edge in self.recording.graph.edges if edge.target == step.key]
            shapes = [_shape(self.recording.graph[edge.source].shape) for edge in inputs]
            takes = _listed([f"{s} from {self.name(e.source)}" for s, e in zip(shapes, inputs, strict=True)])
            text = head + (f"takes {takes}; " if takes else "") + self._result(step.key)
        else:
            text = head + self._gradient(step)
        return {"phase": step.phase, "key": step.key, "text": text, "edges": sorted(step.handed),
                "completed": step.completed}

    def _result(self, key):
        array = self.recording.values[key][0]
        return f"the result is {_described(summary(array, 0), array).rstrip(',')}."

    def _gradient(self, step):
        arrived = [g for g in self.recording.gradients[step.key] if g is not None]
        found = summary(arrived[0], 0)
        edges = self.recording.graph.edges
        given = {index for other in self.recording.steps for index in other.handed if edges[index].source == step.key}
        text = f"gradient {_described(found, arrived[0])} arrives"
        if len(given) > 1:
            text += f" (the sum of {len(given)})"
        handed = []
        for index, gradient in sorted(step.handed.items()):
            source = edges[index].source
            wanted = self.recording.graph[source].shape
            summed = f", summed to {_shape(wanted)}" if tuple(gradient["shape"]) != tuple(wanted) else ""
            handed.append(f"{_shape(gradient['shape'])} to {self.name(source)}{summed}")
        text += f"; hands {_listed(handed)}." if handed else "."
        if step.completed:
            done = _listed([self.name(key) for key in sorted(step.completed)])
            text += f" {done} {'is' if len(step.completed) == 1 else 'are'} complete."
        return text


def _described(found, array):
    """A scalar's number, else shape and norm."""
    if array.size == 1:
        return f"{float(array.ravel()[0]):.4g}"
    norm = _norm(found)
    return f"{_shape(found['shape'])}, norm {norm if isinstance(norm, str) else f'{norm:.3g}'}{_faults(found)},"


def _norm(found):
    """The norm of all elements: that in a summary is of the finite ones."""
    return "nan" if found["nan"] else "inf" if found["inf"] else found.get("norm", 0.0)


def _faults(found):
    parts = [f"{found[what]} {what}" for what in ("nan", "inf") if found[what]]
    return f" ({' and '.join(parts)}!)" if parts else ""


def _shape(shape):
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})" if len(shape) else "scalar"


def _listed(words):
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else ""
