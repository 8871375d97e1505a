"""Answers to the exercises of chapter 9: where the buffers of a recorded step lie."""


def lives(tape, returned):
    """The first and the last launch that has a buffer as an argument."""
    found = {}
    for position, (_, buffers) in enumerate(tape):
        for buffer in buffers:
            first, _ = found.get(buffer, (position, position))
            found[buffer] = first, position
    end = len(tape) - 1
    return {buffer: (first, end if buffer in returned else last) for buffer, (first, last) in found.items()}


def place(sizes, lives):
    """The largest first; each goes behind the neighbours in time that are in its way, one after the other."""
    offsets = {}
    for buffer in sorted(sizes, key=lambda name: -sizes[name]):
        first, last = lives[buffer]
        in_the_way = [(offsets[other], offsets[other] + sizes[other]) for other in offsets
                      if lives[other][0] <= last and first <= lives[other][1]]
        offset = 0
        for start, end in sorted(in_the_way):
            if start >= offset + sizes[buffer]:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
    return offsets, max([offsets[name] + sizes[name] for name in offsets], default=0)
