"""The pictures and texts of a recorded graph: nothing overlaps, every node and edge is there, labels are escaped."""

import re
import sys
import xml.etree.ElementTree as ET

import pytest
from study_nets import CASES, recorded, recurrent

import minigrad as mg
import minigrad.functional as F
from minigrad import layers as nn
from minigrad import study
from minigrad.function import Function
from minigrad.study.svg import curve


def boxes_overlap(layout):
    rows = {}
    for key, (x, y) in layout.places.items():
        rows.setdefault(y, []).append((x - layout.boxes[key][0] / 2, x + layout.boxes[key][0] / 2))
    return any(a[1] >= b[0] for row in rows.values() for a, b in zip(sorted(row), sorted(row)[1:], strict=False))


@pytest.mark.parametrize("name", CASES)
def test_layout_goes_down_and_nothing_overlaps(name):
    model, loss, _ = recorded(name, fuse=False)
    graph = study.graph(loss, model)
    layout = graph.layout()
    assert not boxes_overlap(layout)
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        assert layout.places[edge.source][1] < layout.places[edge.target][1]
        heights = [y for _, y in route]
        assert heights == sorted(heights)
    for key, (x, y) in layout.places.items():
        w, h = layout.box(graph[key])
        assert w / 2 <= x <= layout.width - w / 2 and h / 2 <= y <= layout.height - h / 2


def test_a_long_edge_passes_beside_the_boxes():
    model, loss, _ = recorded("cnn", fuse=False)
    graph = study.graph(loss, model)
    layout, skip = graph.layout(), None
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        if graph[edge.target].op == "add" and graph[edge.source].module == "0":
            skip = route
    assert len(skip) > 2
    for x, y in skip[1:-1]:
        for key, (cx, cy) in layout.places.items():
            assert abs(cy - y) > 1 or abs(cx - x) > layout.boxes[key][0] / 2


def along(path):
    """Points of an SVG path of cubic curves."""
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", path)]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    for start in range(0, len(points) - 1, 3):
        a, b, c, d = points[start:start + 4]
        for t in (n / 16 for n in range(17)):
            u = 1 - t
            yield tuple(u**3 * p + 3 * u * u * t * q + 3 * u * t * t * r + t**3 * s
                        for p, q, r, s in zip(a, b, c, d, strict=True))


@pytest.mark.parametrize("make", [
    lambda: recurrent(4), lambda: recurrent(9).collapse(), lambda: study.graph(recorded("cnn", fuse=False)[1]),
], ids=["recurrent", "collapsed", "cnn"])  # fmt: skip
def test_no_edge_crosses_a_box(make):
    graph = make()
    layout = graph.layout()
    assert not boxes_overlap(layout)
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        for x, y in along(curve(route)):
            for key, (cx, cy) in layout.places.items():
                w, h = layout.boxes[key]
                assert key in (edge.source, edge.target) or abs(x - cx) > w / 2 or abs(y - cy) >= h / 2 - 0.2


def test_ops_in_a_row_stand_below_each_other():
    model = nn.Sequential(*[nn.Linear(3, 3), nn.Tanh()] * 3, nn.Linear(3, 2))
    graph = study.graph(F.cross_entropy(model(mg.ones(2, 3)), mg.tensor([0, 1])), model)
    places = graph.layout().places
    across = [places[n.key][0] for n in graph if n.kind == "op"]
    assert max(across) - min(across) < 1.0
    leaves = {n.name: places[n.key] for n in graph if n.kind == "parameter"}
    assert leaves["6.weight"][0] < across[-1] < leaves["6.bias"][0]


def test_what_comes_from_leaves_only_stands_by_its_user():
    x = mg.ones(3, requires_grad=True)
    y = x
    for _ in range(5):
        y = y.exp()
    graph = study.graph(y + mg.ones(3, requires_grad=True).tanh())
    places = graph.layout().places
    heights = {n.op: places[n.key][1] for n in graph}  # of the five exp the last one's
    assert heights["tanh"] == heights["exp"] < heights["add"]


def test_svg_is_well_formed_and_names_everything():
    model, loss, _ = recorded("cnn")
    graph = study.graph(loss, model)
    root = ET.fromstring(graph.to_svg())
    space = {"s": "http://www.w3.org/2000/svg"}
    assert len(root.findall(".//s:rect", space)) == len(graph)
    assert len(root.findall("s:path", space)) == len(graph.edges)
    titles = [t.text for t in root.findall(".//s:title", space)]
    assert any("1.conv.weight" in t for t in titles) and any("keeps" in t for t in titles)
    assert "prefers-color-scheme: dark" in graph.to_svg()


def test_dot_and_mermaid_list_every_node_and_edge():
    model, loss, _ = recorded("cnn")
    graph = study.graph(loss, model)
    dot, mermaid = graph.to_dot(), graph.to_mermaid()
    assert len(re.findall(r"^\s+n\d+ \[label=", dot, re.M)) == len(graph) == len(re.findall(r":::\w+$", mermaid, re.M))
    assert {(int(a), int(b)) for a, b in re.findall(r"n(\d+) -> n(\d+);", dot)} == {
        (e.source, e.target) for e in graph.edges} == {
        (int(a), int(b)) for a, b in re.findall(r"n(\d+) --> n(\d+)", mermaid)}
    assert dot.count("{") == dot.count("}") and mermaid.count("subgraph") == len(re.findall(r"^ +end$", mermaid, re.M))


def test_clusters_are_the_modules():
    model, loss, _ = recorded("cnn")
    graph = study.graph(loss, model)
    for text, opening, closing, node in (
        (graph.to_dot(), r'subgraph .* label="(.*?)"', "}", r"n(\d+) \[label"),
        (graph.to_mermaid(), r'subgraph m\d+\["(.*?)"\]', "end", r"n(\d+)[\[(].*:::"),
    ):
        around, found = [], {}
        for line in map(str.strip, text.splitlines()):
            if match := re.match(opening, line):
                around.append(match[1])
            elif line == closing and around:
                around.pop()
            elif match := re.match(node, line):
                found[int(match[1])] = list(around)
        assert found == {n.key: [n.module.rsplit(".", k)[0] for k in range(n.module.count("."), -1, -1)]
                         if n.module else [] for n in graph}


def test_labels_are_escaped():
    class Strange(Function):
        """y = "x" < 2"""

        def forward(self, x):
            return x + 0

        def backward(self, grad):
            return (grad,)

    Strange.name = 'a"b<c>&\\#'  # what no label may have in one of the formats
    graph = study.graph(Strange.apply(mg.ones(1, requires_grad=True)))
    ET.fromstring(graph.to_svg())
    assert r"a\"b<c>&\\#" in graph.to_dot() and r"a#quot;b#lt;c#gt;#amp;\#35;" in graph.to_mermaid()


def test_save_and_listing(tmp_path):
    model, loss, _ = recorded("mlp")
    graph = study.graph(loss, model)
    for suffix, text in ((".svg", graph.to_svg()), (".dot", graph.to_dot()), (".mmd", graph.to_mermaid())):
        graph.save(tmp_path / f"g{suffix}")
        assert (tmp_path / f"g{suffix}").read_text("utf-8") == text
    lines = str(graph).splitlines()
    assert "parameters" not in lines[0] and "parameters" in str(graph.collapse()).split("\n")[0]
    assert re.search(r"3 +\(5, 3\) .* 27 ", str(graph.collapse()))
    assert len(lines) == len(graph) + 3 and "0.weight" in str(graph) and lines[-1].startswith("11 nodes, 3 of them ops")
    assert graph._repr_html_().count("<rect") == len(graph)


def test_without_igraph_there_is_a_sentence_and_the_listing(monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    graph = study.graph(mg.ones(1, requires_grad=True).exp())
    with pytest.raises(ImportError, match="pictures need igraph"):
        graph.to_svg()
    assert graph._repr_html_().startswith("<pre>")
