"""One node in the place of all that ran in a module."""

from dataclasses import replace


def collapse(graph, depth):
    """See `Graph.collapse`."""
    groups = _groups(graph, depth)
    while True:
        order = _order(graph, groups)
        if order is not None:
            break
    nodes, edges, key_of = [], [], {}
    for members in order:
        node = _merged(graph, members, len(nodes), depth)
        key_of.update(dict.fromkeys(members, node.key))
        nodes.append(node)
    seen, counts = set(), {}
    for edge in graph.edges:
        pair = key_of[edge.source], key_of[edge.target]
        if pair[0] != pair[1] and pair not in seen:
            seen.add(pair)
            counts[pair[1]] = counts.get(pair[1], -1) + 1
            edges.append(type(edge)(*pair, counts[pair[1]]))
    return type(graph)(nodes, edges, list(dict.fromkeys(key_of[key] for key in graph.outputs)))


def shortened(path, depth):
    """The first names of a path."""
    return path if depth is None else ".".join(path.split(".")[:depth])


def _groups(graph, depth):
    """The number of each node's group: neighbours of one module are together, parameters with what uses them."""
    group = list(range(len(graph.nodes)))

    def root(key):
        while group[key] != key:
            group[key] = group[group[key]]
            key = group[key]
        return key

    paths = [shortened(node.module, depth) for node in graph.nodes]
    for edge in graph.edges:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        named = bool(source.name)  # a parameter of one layer of a fused run: the run's path is another
        if paths[edge.target] and (named or paths[edge.source] == paths[edge.target] and source.kind == "op"):
            if named or target.kind == "op":
                group[root(edge.source)] = root(edge.target)
    return [root(key) for key in range(len(group))]


def _order(graph, groups):
    """The members of the groups, groups that others need first; None if that cannot be, and groups are taken apart.

    A module that is called twice, with other ops between, would have to stand before and behind these.
    """
    members, before, after = {}, {}, {}
    for key, group in enumerate(groups):
        members.setdefault(group, []).append(key)
    for edge in graph.edges:
        source, target = groups[edge.source], groups[edge.target]
        if source != target:
            before.setdefault(target, set()).add(source)
            after.setdefault(source, set()).add(target)
    waiting = {group: len(before.get(group, ())) for group in members}
    ready, order = [group for group in sorted(members, reverse=True) if not waiting[group]], []
    while ready:
        group = ready.pop()
        order.append(members[group])
        for other in sorted(after.get(group, ()), reverse=True):
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    if len(order) == len(members):
        return order
    for key, group in enumerate(groups):
        if waiting[group]:
            groups[key] = key
    return None


def _merged(graph, members, key, depth):
    """One node for several: its value is that of the last op."""
    nodes = [graph.nodes[member] for member in members]
    if len(nodes) == 1:
        return replace(nodes[0], key=key)
    ops = [node for node in nodes if node.kind in ("op", "module")]
    last = ops[-1]
    names = dict.fromkeys(node.op for node in ops)
    return type(last)(
        key, "module", op=" ".join(names) if len(names) <= 3 else f"{len(ops)} ops",
        module=shortened(last.module, depth),
        shape=last.shape, dtype=last.dtype, device=last.device, memory=sum(node.memory for node in nodes),
        saved=sum(node.saved for node in nodes), formula=last.formula if len(ops) == 1 else "",
        parameters=sum(node.parameters for node in nodes), source=last.source if len(ops) == 1 else None,
        members=tuple(nodes),
    )  # fmt: skip
