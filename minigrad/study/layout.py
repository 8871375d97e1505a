"""Where a graph's nodes and edges go on paper: layers from the inputs at the top to the loss at the bottom."""

from dataclasses import dataclass

from minigrad.study.columns import across_of

LETTER = 7.3  # pixels: the width of a letter of the pictures' 12 px type, a little generous
HEIGHT = 38.0  # of a box with two lines
GAP_DOWN, MARGIN = 34.0, 16.0
LONGEST = 34  # letters in a box
LONGEST_EDGE = 40  # layers


@dataclass
class Layout:
    """Places in pixels, from the top left corner.

    Attributes
    ----------
    width, height : float
        Of the whole picture.
    places : dict
        A node's key to the centre (x, y) of its box.
    boxes : dict
        A node's key to the size (w, h) of its box.
    routes : list of list of (float, float)
        For each edge the points that it passes, from the lower edge of one box to the upper edge of another.
    """

    width: float
    height: float
    places: dict
    boxes: dict
    routes: list

    def box(self, node):
        """The size (w, h) of a node's box."""
        return self.boxes[node.key]


def lay_out(graph):
    """The `Layout` of a graph, by Sugiyama's method: layers, then an order in each of them, then columns.

    Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures, 1981.
    """
    boxes, layers = {node.key: (_width(node), HEIGHT) for node in graph.nodes}, _layers(graph)
    pairs, ways = _steps(graph, layers)
    halves = [w / 2 for w, _ in boxes.values()] + [2.0] * (len(layers) - len(boxes))
    across = [x + MARGIN for x in across_of(graph, layers, pairs, halves)]
    points = [(x, MARGIN + HEIGHT / 2 + layer * (HEIGHT + GAP_DOWN)) for x, layer in zip(across, layers, strict=True)]
    right = max([points[key][0] + w / 2 for key, (w, _) in boxes.items()] + across)
    bottom = max(y for _, y in points) + HEIGHT / 2
    return Layout(right + MARGIN, bottom + MARGIN, dict(enumerate(points[: len(boxes)])), boxes, [
        _route(points, edge, way) for edge, way in zip(graph.edges, ways, strict=True)
    ])  # fmt: skip


def lines_of(node):
    """What stands in a node's box: two lines."""
    first = node.label
    if node.kind in ("op", "module") and node.module:
        first = f"{node.module}: {first}"
    shape = "×".join(map(str, node.shape)) if node.shape else "scalar"
    second = shape if node.kind != "module" or not node.parameters else f"{shape}, {node.parameters:,} parameters"
    return [_cut(first), _cut(second)]


def _cut(text):
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _width(node):
    return LETTER * max(6, *map(len, lines_of(node))) + 18


def _layers(graph):
    """The layer of each node: below the last of its inputs, but where nothing is lost by it close above its first user.

    That holds for leaves, and for what is computed from nothing but leaves and used once.
    """
    layers, users, inputs, loose = [0] * len(graph.nodes), {}, {}, set()
    for edge in graph.edges:
        users.setdefault(edge.source, []).append(edge.target)
        inputs.setdefault(edge.target, []).append(edge.source)
    for node in graph.nodes:  # inputs come first
        sources = inputs.get(node.key, ())
        layers[node.key] = 1 + max([layers[key] for key in sources], default=-1)
        if all(key not in inputs or key in loose and len(users[key]) == 1 for key in sources):
            loose.add(node.key)
    for node in reversed(graph.nodes):
        if node.key in loose and node.key in users:
            layers[node.key] = min(layers[key] for key in users[node.key]) - 1
    return layers


def _steps(graph, layers):
    """Edges from layer to layer, and for each of the graph's edges the vertices that it passes.

    A vertex is put into every layer that an edge crosses (and added to `layers`), so that no box stands in its way;
    what crosses very many layers is drawn straight.
    """
    pairs, ways = [], []
    for edge in graph.edges:
        span = layers[edge.target] - layers[edge.source]
        way = []
        if span <= LONGEST_EDGE:
            for layer in range(layers[edge.source] + 1, layers[edge.target]):
                way.append(len(layers))
                layers.append(layer)
            stops = [edge.source, *way, edge.target]
            pairs += zip(stops, stops[1:], strict=False)
        ways.append(way)
    return pairs, ways


def _route(points, edge, way):
    (x0, y0), (x1, y1) = points[edge.source], points[edge.target]
    return [(x0, y0 + HEIGHT / 2), *[points[v] for v in way], (x1, y1 - HEIGHT / 2)]
