"""Draws the small Mermaid flowcharts of the pages as SVG, as GitHub draws them, so that the site needs no network."""

import html
import re

LETTER, HEIGHT, ACROSS, DOWN, MARGIN = 8.2, 32.0, 40.0, 20.0, 8.0  # pixels
EDGE = re.compile(r"^\s*(\w+)(?:\[\"(.*?)\"\])?\s*-->\s*(\w+)(?:\[\"(.*?)\"\])?\s*$")


def parsed(text):
    """The nodes of a flowchart, name -> label, and its edges (source, target)."""
    first, *lines = text.strip().splitlines()
    if first.strip() != "flowchart LR":
        raise ValueError(f"flowchart: expected `flowchart LR`, got {first!r}")
    labels, edges = {}, []
    for line in lines:
        match = EDGE.match(line)
        if match is None:
            raise ValueError(f'flowchart: expected a line like `a["label"] --> b`, got {line!r}')
        source, source_label, target, target_label = match.groups()
        for name, label in ((source, source_label), (target, target_label)):
            labels[name] = label or labels.get(name, name)
        edges.append((source, target))
    return labels, edges


def layers_of(labels, edges):
    """The layer of every node: one more than the largest of those before it."""
    layers = dict.fromkeys(labels, 0)
    for _ in labels:
        for source, target in edges:
            layers[target] = max(layers[target], layers[source] + 1)
    for name in labels:  # a node without an input stands right before its first user
        if all(target != name for _, target in edges):
            layers[name] = min(layers[target] for source, target in edges if source == name) - 1
    return layers


def to_svg(text):
    """A flowchart from left to right as SVG; its colours are those of the page around it."""
    import igraph

    labels, edges = parsed(text)
    layers, names = layers_of(labels, edges), list(labels)
    graph = igraph.Graph([(names.index(a), names.index(b)) for a, b in edges], directed=True)
    order = graph.layout_sugiyama(layers=[layers[name] for name in names], hgap=1, maxiter=100).coords
    top = min(place for place, _ in order)
    widths = [max(LETTER * len(label) + 18 for name, label in labels.items() if layers[name] == layer)
              for layer in range(max(layers.values()) + 1)]  # fmt: skip
    places = {}
    for name, (row, _) in zip(names, order[: len(names)], strict=True):
        left = MARGIN + sum(widths[: layers[name]]) + ACROSS * layers[name]
        places[name] = left + widths[layers[name]] / 2, MARGIN + HEIGHT / 2 + (row - top) * (HEIGHT + DOWN)
    width = sum(widths) + ACROSS * (len(widths) - 1) + 2 * MARGIN
    height = max(y for _, y in places.values()) + HEIGHT / 2 + MARGIN
    half = {name: (LETTER * len(label) + 18) / 2 for name, label in labels.items()}
    lines, boxes = [], []
    for a, b in edges:
        (x, y), (u, v) = places[a], places[b]
        x, u = x + half[a], u - half[b] - 3
        lines.append(f'<path d="M{x:.0f},{y:.0f} C{x + 24:.0f},{y:.0f} {u - 24:.0f},{v:.0f} {u:.0f},{v:.0f}"/>')
    for name, (x, y) in places.items():
        box = f'x="{x - half[name]:.0f}" y="{y - HEIGHT / 2:.0f}" width="{2 * half[name]:.0f}" height="{HEIGHT:.0f}"'
        label = f'<text x="{x:.0f}" y="{y + 5:.0f}">{html.escape(labels[name])}</text>'
        boxes.append(f'<rect {box} rx="5"/>{label}')
    return (f'<div class="flowchart"><svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z"/></marker></defs>{"".join(lines)}{"".join(boxes)}</svg></div>')
