"""Where the boxes of a layered graph go across the page: their order in each layer, then the distance from the left.

Vertices are numbered: first the graph's nodes, then those that stand for an edge where it passes a layer.
"""

GAP = 22.0  # pixels between neighbours
SWEEPS = 80  # over all layers; LARGE graphs have half of it (0.6 s for 10,000 boxes)
LARGE = 2000  # vertices


def across_of(graph, layers, pairs, halves):
    """The x of every vertex's centre, from 0 at the left edge of the leftmost.

    Parameters
    ----------
    graph : Graph
    layers : list of int
        The layer of each vertex.
    pairs : list of (int, int)
        Steps of edges, each from a layer to the next.
    halves : list of float
        Half the width of each vertex.
    """
    aside = _aside(graph)
    rows = _ordered(layers, pairs, aside)
    _put_aside(rows, graph, layers, pairs, aside)
    xs = _columns(rows, _neighbours(graph, pairs, len(layers)), halves)
    left = min(x - half for x, half in zip(xs, halves, strict=True))
    return [x - left for x in xs]


def _aside(graph):
    """Leaves that one op uses once: they stand beside its other inputs, and need no part in the search for an order."""
    uses = {}
    for edge in graph.edges:
        uses.setdefault(edge.source, []).append(edge)
    made = {edge.target for edge in graph.edges}
    return {key: edges[0] for key, edges in uses.items() if len(edges) == 1 and key not in made}


def _ordered(layers, pairs, aside):
    """Layers as lists of vertices, with few crossings of edges: igraph's search."""
    try:
        import igraph
    except ImportError:
        raise ImportError("graph: pictures need igraph: pip install 'minigrad-numba[study]'") from None
    rows = [[] for _ in range(max(layers) + 1)]
    core = [v for v in range(len(layers)) if v not in aside]
    number = {v: n for n, v in enumerate(core)}
    steps = [(number[a], number[b]) for a, b in pairs if a in number]
    depth = [layers[v] for v in core]
    least = min(depth)
    found = igraph.Graph(len(core), steps, directed=True).layout_sugiyama(
        layers=[layer - least for layer in depth], maxiter=100)
    for v in sorted(core, key=lambda v: found[number[v]][0]):
        rows[layers[v]].append(v)
    return rows


def _put_aside(rows, graph, layers, pairs, aside):
    """Add the leaves that were left out: half of them left, half of them right of the op's first other input."""
    leaves, above = {}, {}
    for edge in sorted(aside.values(), key=lambda edge: edge.position):
        leaves.setdefault(edge.target, []).append(edge.source)
    for a, b in pairs:
        if a not in aside:
            above.setdefault(b, a)
    for layer in range(len(rows) - 1):
        before, after, last = {}, {}, None  # what stands next to whom; `last` is where ops without other inputs go on
        for op in rows[layer + 1]:
            beside, last = leaves.get(op, []), above.get(op, last)
            middle = len(beside) // 2 if op in above else 0
            before.setdefault(last, []).extend(beside[:middle])
            after.setdefault(last, []).extend(beside[middle:])
        rows[layer] = after.get(None, []) + [
            v for other in rows[layer] for v in (*before.get(other, ()), other, *after.get(other, ()))]


def _neighbours(graph, pairs, count):
    """For each vertex its neighbours with a weight: how straight the line to them should be.

    What passes boxes should be straightest, ops in a row more than leaves beside.
    """
    nodes, made = len(graph.nodes), {edge.target for edge in graph.edges}
    near = [[] for _ in range(count)]
    for a, b in pairs:
        weight = 8.0 if a >= nodes and b >= nodes else 4.0 if a >= nodes or a in made else 1.0
        near[a].append((b, weight))
        near[b].append((a, weight))
    return near


def _columns(rows, near, halves):
    """The x of every vertex: near those above and below, and clear of those beside.

    The sum of weight times the root of the distance is made small, one layer after another: the best places of a layer
    are a weighted mean for each vertex, and one in common for those that would come too close (`_spread`). It is the
    root, so that few steps bend and the rest is straight (the same way costs less in one bend than in two): in the mean
    each step counts by its last distance to the power of -1.5. At first all count nearly alike, for else a row of boxes
    that is straight already never moves.
    """
    offsets, xs = [_offsets(row, halves) for row in rows], [0.0] * len(near)
    for row, distances in zip(rows, offsets, strict=True):
        for v, distance in zip(row, distances, strict=False):
            xs[v] = distance - distances[-1] / 2
    for sweep in range(SWEEPS if len(near) < LARGE else SWEEPS // 2):
        soft = 1.0 + 200.0 * 0.8**sweep
        for number in range(len(rows))[:: -1 if sweep % 2 else 1]:
            wanted, forces = [], []
            for v in rows[number]:
                x, force, pull = xs[v], 1e-9, 1e-9 * xs[v]
                for other, weight in near[v]:
                    weight /= (abs(xs[other] - x) + soft) ** 1.5
                    force, pull = force + weight, pull + weight * xs[other]
                wanted.append(pull / force)
                forces.append(force)
            for v, x in zip(rows[number], _spread(wanted, forces, offsets[number]), strict=True):
                xs[v] = x
    return xs


def _offsets(row, halves):
    """The distances of a row's vertices from its first one, if they stand as close as they may."""
    offsets = [0.0]
    for v, following in zip(row, row[1:], strict=False):
        offsets.append(offsets[-1] + halves[v] + halves[following] + GAP)
    return offsets


def _spread(wanted, forces, offsets):
    """The places next to those wanted (least squares) at which everyone keeps the distance from his neighbour.

    Pool adjacent violators: without the offsets the places must only not decrease, and those out of order share one.
    """
    blocks = []  # of place, force, length
    for x, force, offset in zip(wanted, forces, offsets, strict=False):
        x, length = x - offset, 1
        while blocks and blocks[-1][0] >= x:
            other, its_force, its_length = blocks.pop()
            x, length = (other * its_force + x * force) / (its_force + force), length + its_length
            force += its_force
        blocks.append((x, force, length))
    places = [x for x, _, length in blocks for _ in range(length)]
    return [x + offset for x, offset in zip(places, offsets, strict=False)]
