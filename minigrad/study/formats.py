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
    columns = {
        "": [node.key for node in graph.nodes],
        "node": [node.label for node in graph.nodes],
        "module": [node.module for node in graph.nodes],
        "shape": [node.shape for node in graph.nodes],
        "dtype": [node.dtype for node in graph.nodes],
        "memory": [size_text(node.memory) for node in graph.nodes],
        "saved": [size_text(node.saved) if node.saved else "" for node in graph.nodes],
        "inputs": [" ".join(inputs.get(node.key, ())) for node in graph.nodes],
    }
    if any(node.kind == "module" and node.parameters for node in graph.nodes):
        columns["parameters"] = [f"{node.parameters:,}" if node.parameters else "" for node in graph.nodes]
        columns["inputs"] = columns.pop("inputs")  # they stay the last
    rows = [tuple(columns), *[tuple(map(str, row)) for row in zip(*columns.values(), strict=True)]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    devices = ", ".join(dict.fromkeys(node.device for node in graph.nodes))
    ops = sum(node.kind == "op" for node in graph.nodes)
    lines += ["-" * len(lines[0]), f"{len(graph.nodes):,} nodes, {ops:,} of them ops, on {devices}; "
              f"{size_text(graph.saved)} kept for backward (what several ops keep counts once)"]
    return "\n".join(lines)


class _Cluster:
    """What belongs to a module: nodes, and the clusters of its children by path."""

    def __init__(self, path):
        self.path, self.nodes, self.children = path, [], {}

    def lines(self, node, opening, closing, indent="  "):
        """One line for each node; `opening` is written with a cluster's path around those of a module."""
        lines = [indent + node(n) for n in self.nodes]
        for child in self.children.values():
            inside = child.lines(node, opening, closing, indent + "  ")
            lines += [indent + opening(child.path), *inside, indent + closing]
        return lines


def _clusters(graph):
    """The tree of clusters; its root, "", is what is outside of modules."""
    root = _Cluster("")
    for node in graph.nodes:
        cluster, path = root, ""
        for name in node.module.split(".") if node.module and node.kind != "module" else ():
            path = f"{path}.{name}" if path else name
            cluster = cluster.children.setdefault(path, _Cluster(path))
        cluster.nodes.append(node)
    return root


def to_dot(graph):
    """See `Graph.to_dot`."""
    def node(n):
        shape = SHAPE.get(n.kind, "ellipse")
        return f'n{n.key} [label="{_quoted(lines_of(n))}", shape={shape}, fillcolor="{FILL[n.kind]}"];'

    def cluster(path):
        return f'subgraph "cluster_{_quoted([path])}" {{ label="{_quoted([path])}"; style=rounded;'

    return "\n".join([
        "digraph minigrad {", '  graph [fontname="monospace", fontsize=11, labeljust=l];',
        '  node [fontname="monospace", fontsize=11, style="filled,rounded"];',
        *_clusters(graph).lines(node, cluster, "}"),
        *[f"  n{edge.source} -> n{edge.target};" for edge in graph.edges], "}\n",
    ])  # fmt: skip


def _quoted(lines):
    return "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)


def to_mermaid(graph):
    """See `Graph.to_mermaid`."""
    def node(n):
        left, right = "[]" if n.kind in SHAPE else ("([", "])")
        return f'n{n.key}{left}"{_escaped(lines_of(n))}"{right}:::{n.kind}'

    def cluster(path):
        numbers.append(path)
        return f'subgraph m{len(numbers)}["{_escaped([path])}"]'

    numbers = []  # a cluster's name must be a word: they are counted
    return "\n".join([
        "flowchart TD", *_clusters(graph).lines(node, cluster, "end"),
        *[f"  n{edge.source} --> n{edge.target}" for edge in graph.edges],
        *[f"  classDef {kind} fill:{FILL[kind]},stroke:#59636e,color:#1f2328"
          for kind in dict.fromkeys(node.kind for node in graph.nodes)], "",
    ])  # fmt: skip


def _escaped(lines):
    marks = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;"}
    return "<br/>".join("".join(marks.get(letter, letter) for letter in line) for line in lines)
