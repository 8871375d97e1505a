"""A graph as text: a listing, Graphviz's language, Mermaid's."""

from minigrad.layers.summary import size_text
from minigrad.study.layout import lines_of

FILL = {"op": "#ddf4ff", "parameter": "#fff1e0", "leaf": "#fbefff", "constant": "#f0f2f4", "module": "#dafbe1"}
SHAPE = {"op": "box", "module": "box"}  # of Graphviz; tensors are ellipses


def to_text(graph):
    """The nodes as a table, in an order in which backward goes upwards."""
    inputs = {}
    for edge in graph.edges:
        inputs.setdefault(edge.target, []).append(str(edge.source))
    rows = [("", "node", "module", "shape", "dtype", "memory", "saved", "inputs")]
    for node in graph.nodes:
        rows.append((
            str(node.key), node.label, node.module, str(node.shape), node.dtype, size_text(node.memory),
            size_text(node.saved) if node.saved else "", " ".join(inputs.get(node.key, ())),
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    devices = ", ".join(dict.fromkeys(node.device for node in graph.nodes))
    ops = sum(node.kind == "op" for node in graph.nodes)
    kept, memory = sum(node.saved for node in graph.nodes), sum(node.memory for node in graph.nodes)
    lines += ["-" * len(lines[0]), f"{len(graph.nodes):,} nodes, {ops:,} of them ops, on {devices}: values of "
              f"{size_text(memory)}; what ops keep for backward, added up, {size_text(kept)}"]
    return "\n".join(lines)


def _clusters(graph):
    """The nodes by module, in order; "" are those outside."""
    clusters = {}
    for node in graph.nodes:
        clusters.setdefault(node.module if node.kind != "module" else "", []).append(node)
    return clusters


def to_dot(graph):
    """See `Graph.to_dot`."""
    lines = ["digraph minigrad {", '  node [fontname="monospace", fontsize=11, style="filled,rounded"];']
    for number, (module, nodes) in enumerate(_clusters(graph).items()):
        inside = [
            f'n{node.key} [label="{_quoted(lines_of(node))}", shape={SHAPE.get(node.kind, "ellipse")}, '
            f'fillcolor="{FILL[node.kind]}"];' for node in nodes
        ]
        if module:
            lines += [f"  subgraph cluster_{number} {{", f'    label="{_quoted([module])}"; style=rounded;']
            lines += [*[f"    {line}" for line in inside], "  }"]
        else:
            lines += [f"  {line}" for line in inside]
    lines += [f"  n{edge.source} -> n{edge.target};" for edge in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(lines):
    return "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)


def to_mermaid(graph):
    """See `Graph.to_mermaid`."""
    lines = ["flowchart TD"]
    for number, (module, nodes) in enumerate(_clusters(graph).items()):
        inside = [f'n{node.key}{"([" if node.kind not in SHAPE else "["}"{_escaped(lines_of(node))}"'
                  f'{"])" if node.kind not in SHAPE else "]"}:::{node.kind}' for node in nodes]
        if module:
            lines += [f'  subgraph m{number}["{_escaped([module])}"]', *[f"    {line}" for line in inside], "  end"]
        else:
            lines += [f"  {line}" for line in inside]
    lines += [f"  n{edge.source} --> n{edge.target}" for edge in graph.edges]
    used = dict.fromkeys(node.kind for node in graph.nodes)
    lines += [f"  classDef {kind} fill:{FILL[kind]},stroke:#59636e,color:#1f2328" for kind in used]
    return "\n".join(lines) + "\n"


def _escaped(lines):
    return "<br/>".join(line.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
                        for line in lines)
