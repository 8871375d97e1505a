"""A graph as an SVG picture, with its own colours for light and dark pages."""

from html import escape

from minigrad.study.layout import HEIGHT, lines_of

STEEP = 0.7  # pixels across by pixels down: an edge that passes between two boxes keeps clear of their corners
STYLE = """
.mg { --ink: #1f2328; --soft: #59636e; --edge: #8c959f; --op: #ddf4ff; --op-line: #0969da; --parameter: #fff1e0;
  --parameter-line: #bc4c00; --leaf: #fbefff; --leaf-line: #8250df; --constant: #f0f2f4; --constant-line: #818b98;
  --module: #dafbe1; --module-line: #1a7f37; font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
@media (prefers-color-scheme: dark) { .mg { --ink: #f0f6fc; --soft: #9aa4af; --edge: #656c76; --op: #0c2d6b;
  --op-line: #58a6ff; --parameter: #4a2307; --parameter-line: #f0883e; --leaf: #351c5e; --leaf-line: #bc8cff;
  --constant: #262c36; --constant-line: #818b98; --module: #0f3d1f; --module-line: #3fb950 } }
.mg text { fill: var(--ink); text-anchor: middle }
.mg .shape { fill: var(--soft); font-size: 11px }
.mg rect { stroke-width: 1.2; rx: 6px }
.mg .edge { fill: none; stroke: var(--edge); stroke-width: 1.3 }
.mg .arrow { fill: var(--edge) }
.mg .output rect { stroke-width: 2.6 }
""" + "\n".join(
    f".mg .{kind} rect {{ fill: var(--{kind}); stroke: var(--{kind}-line) }}"
    for kind in ("op", "parameter", "leaf", "constant", "module")
)


def to_svg(graph):
    """See `Graph.to_svg`."""
    layout = graph.layout()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mg" role="img" aria-label="{escape(repr(graph)[1:-1])}"'
        f' width="{layout.width:.0f}" height="{layout.height:.0f}" '
        f'viewBox="0 0 {layout.width:.1f} {layout.height:.1f}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="mg-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="arrow" d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    parts += [f'<path class="edge" marker-end="url(#mg-arrow)" d="{curve(route)}"/>' for route in layout.routes]
    parts += [_box(node, layout, node.key in graph.outputs) for node in graph.nodes]
    return "\n".join([*parts, "</svg>"])


def curve(points):
    """The path of an edge: vertical where it leaves and arrives, nearly straight where it passes between boxes."""
    stops = [(*points[0], 0.0)]  # with the slope, of x by y
    for (x0, y0), (x, y), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        before, after = (x - x0) / (y - y0), (x2 - x) / (y2 - y)
        slope = 2 * before * after / (before + after) if before * after > 0 else 0.0
        slope, half = max(-STEEP, min(slope, STEEP)), HEIGHT / 2
        stops += [(x - slope * half, y - half, slope), (x + slope * half, y + half, slope)]
    stops.append((*points[-1], 0.0))
    path = [f"M{stops[0][0]:.1f} {stops[0][1]:.1f}"]
    for (x, y, slope), (x2, y2, slope2) in zip(stops, stops[1:], strict=False):
        half = (y2 - y) / 2
        path.append(f"C{x + slope * half:.1f} {y + half:.1f} {x2 - slope2 * half:.1f} {y + half:.1f} {x2:.1f} {y2:.1f}")
    return " ".join(path)


def _box(node, layout, output):
    (x, y), (w, h) = layout.places[node.key], layout.boxes[node.key]
    first, second = map(escape, lines_of(node))
    return (
        f'<g class="{node.kind}{" output" if output else ""}" data-key="{node.key}">'
        f"<title>{escape(described(node))}</title>"
        f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
        f'<text x="{x:.1f}" y="{y - 3:.1f}">{first}</text>'
        f'<text class="shape" x="{x:.1f}" y="{y + 12:.1f}">{second}</text></g>'
    )


def described(node):
    """A node in a few lines, for those who point at it."""
    lines = [f"{node.kind} {node.label}" + (f" in {node.module}" if node.module and not node.name else ""),
             f"shape {node.shape}, {node.dtype}, on {node.device}", f"{node.memory:,} bytes"]
    if node.saved:
        lines.append(f"keeps {node.saved:,} bytes for backward")
    if node.parameters:
        lines.append(f"{node.parameters:,} parameters")
    if node.settings:
        lines.append(", ".join(f"{name} {value}" for name, value in node.settings.items()))
    return "\n".join([*lines, node.formula] if node.formula else lines)
