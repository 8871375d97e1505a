"""Where a graph's nodes and edges go on paper: layers from the inputs at the top to the loss at the bottom."""

from dataclasses import dataclass

LETTER = 7.3  # pixels: the width of a letter of the pictures' 12 px type, a little generous
HEIGHT = 38.0  # of a box with two lines
GAP_ACROSS, GAP_DOWN, MARGIN = 22.0, 34.0, 16.0
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
    """The `Layout` of a graph, by igraph's version of Sugiyama's method.

    Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures, 1981.
    """
    try:
        import igraph
    except ImportError:
        raise ImportError("graph: pictures need igraph: pip install 'minigrad-numba[study]'") from None
    boxes, layers = {node.key: (_width(node), HEIGHT) for node in graph.nodes}, _layers(graph)
    pairs, ways = _steps(graph, layers)
    places = igraph.Graph(len(layers), pairs, directed=True).layout_sugiyama(layers=layers, maxiter=100).coords
    across = _across(places, layers, boxes)
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
    """The layer of each node: ops one below the last of their inputs, leaves one above their first user."""
    layers, users, inputs = [0] * len(graph.nodes), {}, {}
    for edge in graph.edges:
        users.setdefault(edge.source, []).append(edge.target)
        inputs.setdefault(edge.target, []).append(edge.source)
    for node in graph.nodes:  # inputs come first
        layers[node.key] = 1 + max([layers[key] for key in inputs.get(node.key, ())], default=-1)
    for node in graph.nodes:
        if node.key not in inputs and node.key in users:
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


def _across(places, layers, boxes):
    """The x of every vertex: igraph's, as far apart as the two boxes need that come closest to each other."""
    half = [boxes[v][0] / 2 if v in boxes else 2.0 for v in range(len(places))]
    rows, unit = {}, 1.0
    for v, (x, _) in enumerate(places):
        rows.setdefault(layers[v], []).append((x, v))
    for row in rows.values():
        ordered = sorted(row)
        for (x, v), (next_x, next_v) in zip(ordered, ordered[1:], strict=False):
            unit = max(unit, (half[v] + half[next_v] + GAP_ACROSS) / (next_x - x))
    left = min(x * unit - half[v] for v, (x, _) in enumerate(places))
    return [x * unit - left + MARGIN for x, _ in places]


def _route(points, edge, way):
    (x0, y0), (x1, y1) = points[edge.source], points[edge.target]
    return [(x0, y0 + HEIGHT / 2), *[points[v] for v in way], (x1, y1 - HEIGHT / 2)]
