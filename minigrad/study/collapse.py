"""One node in the place of all that ran in a module."""

from dataclasses import replace

MADE = ("op", "module")  # kinds of nodes that computed something


def collapse(graph, depth):
    """See `Graph.collapse`."""
    groups = _groups(graph, depth)
    members, pairs = _parts(graph, groups)
    while stuck := _circles(members, pairs):
        for group in stuck:
            for key in members[group]:
                groups[key] = key
        members, pairs = _parts(graph, groups)
    nodes, edges, key_of, counts = [], [], {}, {}
    for group in _order(members, pairs):
        key_of[group] = len(nodes)
        nodes.append(_merged(graph, members[group], len(nodes), depth))
    for source, target in pairs:
        counts[target] = counts.get(target, -1) + 1
        edges.append(type(graph.edges[0])(key_of[source], key_of[target], counts[target]))
    outputs = list(dict.fromkeys(key_of[groups[key]] for key in graph.outputs))
    return type(graph)(nodes, edges, outputs, graph.saved)


def shortened(path, depth):
    """The first names of a path."""
    return path if depth is None else ".".join(path.split(".")[:depth])


def _groups(graph, depth):
    """The number of each node's group, which is the key of one of its nodes.

    Ops that ran one after the other in one call of a module are a group; nobody else's op can stand between them. Where
    calls are not known, it is neighbours of one module.
    """
    group, paths = list(range(len(graph.nodes))), [shortened(node.module, depth) for node in graph.nodes]

    def root(key):
        while group[key] != key:
            group[key] = group[group[key]]
            key = group[key]
        return key

    mark = first = None
    for node in sorted((node for node in graph.nodes if node.calls), key=lambda node: node.calls[1]):
        path = paths[node.key]
        call = path, next((number for name, number in node.calls[0] if name == path), None)
        if call != mark:
            mark, first = call, node.key
        if path:
            group[node.key] = first
    users = {}
    for edge in graph.edges:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        if source.kind not in MADE:
            if source.kind == "parameter" or source.module:  # or a buffer; data stand by themselves
                users.setdefault(edge.source, []).append(edge.target)
        elif paths[edge.source] and paths[edge.source] == paths[edge.target] and not (source.calls and target.calls):
            group[root(edge.target)] = root(edge.source)
    for key, targets in users.items():
        if len({paths[target] for target in targets}) == 1 and paths[targets[0]]:
            first = min(targets, key=lambda target: (graph.nodes[target].calls[-1:], target))  # of several calls
            group[key] = root(first)
    return [root(key) for key in range(len(group))]


def _parts(graph, groups):
    """The members of each group, and the pairs of groups with an edge between them.

    From a parameter that one call has taken in no edge leads to the other calls.
    """
    members = {}
    for key, group in enumerate(groups):
        members.setdefault(group, []).append(key)
    pairs = {}
    for edge in graph.edges:
        source, target = groups[edge.source], groups[edge.target]
        alone = len(members[source]) == 1 or graph.nodes[edge.source].kind in MADE
        if source != target and alone:
            pairs[source, target] = None
    return members, list(pairs)


def _circles(members, pairs):
    """The groups of several nodes that would have to stand before and behind another one."""
    forward, backward = _order(members, pairs), _order(members, [pair[::-1] for pair in pairs])
    return [group for group in members.keys() - {*forward, *backward} if len(members[group]) > 1]


def _order(members, pairs):
    """The groups in an order in which those come first that others need; without what waits for itself."""
    after, waiting = {}, dict.fromkeys(members, 0)
    for source, target in pairs:
        after.setdefault(source, []).append(target)
        waiting[target] += 1
    ready, order = sorted((group for group in members if not waiting[group]), reverse=True), []
    while ready:
        order.append(ready.pop())
        for other in sorted(after.get(order[-1], ()), reverse=True):
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return order


def _merged(graph, members, key, depth):
    """One node for several: its value is that of the last op."""
    nodes = [graph.nodes[member] for member in members]
    if len(nodes) == 1:
        return replace(nodes[0], key=key)
    ops = [node for node in nodes if node.kind in MADE]
    last = ops[-1]
    names, count = dict.fromkeys(node.op for node in ops), sum(map(_ops, ops))
    return type(last)(
        key, "module", op=" ".join(names) if len(names) <= 3 else f"{count} ops",
        module=shortened(last.module, depth),
        shape=last.shape, dtype=last.dtype, device=last.device, memory=sum(node.memory for node in nodes),
        saved=sum(node.saved for node in nodes), formula=last.formula if len(ops) == 1 else "",
        parameters=sum(node.parameters for node in nodes), source=last.source if len(ops) == 1 else None,
        settings=last.settings if len(ops) == 1 else {}, members=tuple(nodes), calls=last.calls,
    )  # fmt: skip


def _ops(node):
    """The number of ops in a node."""
    return sum(map(_ops, node.members)) if node.members else int(node.kind == "op")
