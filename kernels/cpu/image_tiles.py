"""Tiles of the images of one channel: where they lie, and their elements side by side in the first-level cache."""

from minigrad.kernels.cpu.compile import inline

TILE = 1024  # elements of a tile: 4 KiB of float32, and the lines of a kernel stay in 32 KiB together


@inline
def tile_size(height, width):
    """Planes, rows and columns of a tile: planes more than 1 only if they are whole; rows in pairs, unless all."""
    if height * width <= TILE:
        return TILE // max(1, height * width), height, width
    columns = width if 2 * width <= TILE else TILE // 2
    return 1, min(height, TILE // columns & ~1), columns


@inline
def tiles_across(extent, size):
    return (extent + size - 1) // max(1, size)


@inline
def tile_at(number, shape, size, c):
    """Tile `number` of a channel: (first image, first row, first column, images, rows, columns)."""
    batch, _, height, width = shape
    planes, rows, columns = size
    across, down = tiles_across(width, columns), tiles_across(height, rows)
    n, r, q = number // (across * down) * planes, number // across % down * rows, number % across * columns
    return n, r, q, min(planes, batch - n), min(rows, height - r), min(columns, width - q)


@inline
def runs_of(tile, shape, c):
    """Where the tile lies in memory: first element, number of runs, length of each, distance between them."""
    n, r, q, planes, rows, columns = tile
    _, channels, height, width = shape
    start = ((n * channels + c) * height + r) * width + q
    if columns < width:
        return start, rows, columns, width
    return start, planes, rows * columns, channels * height * width


@inline
def pooled_tile(tile, shape):
    """The tile's counterpart behind the pooling, and the shape of the pooled images."""
    n, r, q, planes, rows, columns = tile
    batch, channels, height, width = shape
    return (n, r // 2, q // 2, planes, rows // 2, columns // 2), (batch, channels, height // 2, width // 2)


@inline
def gathered(x, runs, line):
    """The elements of some runs side by side: as they lie, or copied to `line`."""
    start, count, length, step = runs
    if count == 1:
        return x[start : start + length]
    for k in range(count):
        source, target = x[start + k * step : start + k * step + length], line[k * length : (k + 1) * length]
        for i in range(length):
            target[i] = source[i]
    return line[: count * length]


@inline
def target_of(x, runs, line):
    """Where to compute the elements of some runs; `put_back` sends them there."""
    start, count, length, step = runs
    return x[start : start + length] if count == 1 else line[: count * length]


@inline
def put_back(x, runs, line):
    start, count, length, step = runs
    if count > 1:
        for k in range(count):
            source, target = line[k * length : (k + 1) * length], x[start + k * step : start + k * step + length]
            for i in range(length):
                target[i] = source[i]
