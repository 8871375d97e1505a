"""Answers to the exercises of chapter 3."""

import minigrad as mg


def leaves_below(tensor):
    """Each node once, from a list of those that are still to be looked at."""
    first = tensor.fn or tensor
    seen, stack = {first}, [first]
    while stack:
        node = stack.pop()
        for parent in () if isinstance(node, mg.Tensor) else node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return {node for node in seen if isinstance(node, mg.Tensor)}


def paths(tensor, leaf):
    """The gradient that arrives if every node hands on what it got: 1 from the tensor, added up where ways meet."""
    first = tensor.fn or tensor
    uses, stack = {first: 0}, [first]
    while stack:
        for parent in _parents(stack.pop()):
            if parent not in uses:
                uses[parent] = 0
                stack.append(parent)
            uses[parent] += 1
    ways, ready = dict.fromkeys(uses, 0), [first]
    ways[first] = 1
    while ready:
        node = ready.pop()
        for parent in _parents(node):
            ways[parent] += ways[node]
            uses[parent] -= 1
            if uses[parent] == 0:
                ready.append(parent)
    return ways.get(leaf, 0)


def _parents(node):
    return [] if isinstance(node, mg.Tensor) else [parent for parent in node.parents if parent is not None]
