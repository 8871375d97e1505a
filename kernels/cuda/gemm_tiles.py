"""Tiles of a matrix product: what a block of threads does, whatever its two operands are.

A block computes `rows` x `columns` elements of the output, a thread 4 or 8 rows by 4 or 8 columns of them, which stay
in registers. Slabs of both operands, `depth` deep, go through shared memory, where they lie by depth: ``a[k][row]``,
``b[k][column]``; while one slab is multiplied, the next one is on its way through registers into the other half of it.
"""

from typing import NamedTuple

from minigrad.kernels.cuda import gemm_tensor
from minigrad.kernels.cuda.language import T, cuda, device_function, int32, load4, round_tf32, store4
from minigrad.kernels.precision import matmul_precision

PROCESSORS = 132  # of an H100; fewer blocks than that leave some of them idle
ENOUGH = 96  # blocks for which a tile is not too large
PADDING = gemm_tensor.PADDING


class Tile(NamedTuple):
    """A tile of the output and the block of threads that computes it; all of them powers of two."""

    rows: int
    columns: int
    depth: int
    high: int  # rows of a thread
    broad: int  # columns of a thread
    least: int  # steps of the depth that are worth a block of their own
    precision: str = "highest"  # see `minigrad.kernels.precision`

    @property
    def threads(self):
        return self.rows // self.high * (self.columns // self.broad)

    @property
    def apart(self):
        """Rows and columns from one four of a thread to its next."""
        if self.precision != "highest":
            return gemm_tensor.ROWS, gemm_tensor.COLUMNS
        return self.rows // (self.high // 4), self.columns // (self.broad // 4)

    @property
    def instruction(self):
        """What multiplies."""
        return "FFMA" if self.precision == "highest" else "HMMA.1688.F32.TF32"


BIG = Tile(128, 128, 8, 8, 8, 512)
MIDDLE = Tile(64, 64, 16, 4, 4, 256)
SMALL = Tile(32, 32, 16, 4, 4, 64)
TILES = {
    "highest": (BIG, MIDDLE, SMALL),
    "high": (Tile(128, 128, 16, 8, 8, 512, "high"), Tile(64, 64, 16, 4, 8, 256, "high"),
             Tile(32, 32, 16, 4, 8, 64, "high")),
    "3xtf32": (Tile(128, 128, 8, 8, 8, 512, "3xtf32"), Tile(64, 64, 16, 4, 8, 256, "3xtf32"),
               Tile(32, 32, 16, 4, 8, 64, "3xtf32")),
}
TILES["medium"] = TILES["high"]
NAMED = [(tile, name + ending) for precision, ending in (("highest", ""), ("high", "_tf32"), ("3xtf32", "_3xtf32"))
         for tile, name in zip(TILES[precision], ("big", "middle", "small"), strict=True)]


def choose(m, n, k, batch, itemsize):
    """The tile for a product, and in how many slices of the depth it is cut so that every processor has work."""
    tiles = TILES[matmul_precision.get() if itemsize == 4 else "highest"]
    for tile in tiles:
        count = -(-m // tile.rows) * -(-n // tile.columns) * batch
        most = max(1, k // tile.least)
        if tile is tiles[-1] or (
            count * most >= ENOUGH and 2 * m > tile.rows and 2 * n > tile.columns
            and not (tile is BIG and itemsize == 8)
        ):
            return tile, 1 if count >= PROCESSORS else min(most, -(-2 * PROCESSORS // count))


def slices(k, splits, depth):
    """Steps of the depth in each slice, whole slabs, and how many slices that makes."""
    share = max(1, -(-k // (splits * depth))) * depth
    return share, max(1, -(-k // share))


def placer(tile):
    """``place()``: the first row and the first column of the tile that are this thread's."""
    if tile.precision != "highest":
        return gemm_tensor.placer(tile)
    across = tile.columns // tile.broad
    shift = across.bit_length() - 1

    @device_function
    def place():
        t = int32(cuda.threadIdx.x)
        return int32((t >> shift) << 2), int32((t & (across - 1)) << 2)

    return place


@device_function
def _as_it_is(x):
    return x


@device_function
def _rounded(x):
    return round_tf32(x)


def on_the_way(tile):
    """What is done to an element on its way into shared memory."""
    return _rounded if tile.precision == "high" else _as_it_is


def multiplier(tile):
    """``multiply(a, b, at_a, at_b, row, column, sums)``: one slab of both operands, from places in shared memory."""
    if tile.precision != "highest":
        return gemm_tensor.multiplier(tile)
    depth, high, broad = tile.depth, tile.high, tile.broad
    pitch_a, pitch_b = tile.rows + PADDING, tile.columns + PADDING
    half_a, half_b = tile.apart
    fours_a, fours_b = high // 4, broad // 4

    @device_function
    def step(a, b, at_a, at_b, left, right, sums):
        for i in range(fours_a):
            v = load4(a, int32(at_a + i * half_a))
            left[4 * i], left[4 * i + 1], left[4 * i + 2], left[4 * i + 3] = v
        for j in range(fours_b):
            w = load4(b, int32(at_b + j * half_b))
            right[4 * j], right[4 * j + 1], right[4 * j + 2], right[4 * j + 3] = w
        for i in range(high):
            for j in range(broad):
                sums[i * broad + j] += left[i] * right[j]

    @device_function
    def multiply(a, b, at_a, at_b, row, column, sums):
        left, right = cuda.local.array(high, T), cuda.local.array(broad, T)
        at_a, at_b = int32(at_a + row), int32(at_b + column)
        for _ in range(depth // 2):  # two steps: the loads of one go with the arithmetic of the other
            step(a, b, at_a, at_b, left, right, sums)
            step(a, b, int32(at_a + pitch_a), int32(at_b + pitch_b), left, right, sums)
            at_a, at_b = int32(at_a + 2 * pitch_a), int32(at_b + 2 * pitch_b)

    return multiply


# How an operand comes into shared memory. `fetch` reads a thread's share of a slab into registers, zeros beyond the
# edges; `put` writes it, `changed`. An operand's element (e, k), e being the row of a or the column of b, is at
# base + e * step_e + k * step_k.


def wide_loader(extent, depth, threads, changed):
    """Of an operand whose neighbours in e are neighbours in memory, four at a time."""
    loads, quads = extent * depth // (4 * threads), extent // 4
    shift, pitch = quads.bit_length() - 1, extent + PADDING

    @device_function
    def fetch(x, base, first, start, size, stop, step_e, step_k, staged):
        for p in range(loads):
            g = int32(cuda.threadIdx.x + p * threads)
            e, k = int32(first + ((g & (quads - 1)) << 2)), int32(start + (g >> shift))
            v0, v1, v2, v3 = T(0), T(0), T(0), T(0)
            if e < size and k < stop:
                v0, v1, v2, v3 = load4(x, int32(base + k * step_k + e))
            staged[4 * p], staged[4 * p + 1], staged[4 * p + 2], staged[4 * p + 3] = v0, v1, v2, v3

    @device_function
    def put(staged, slab, at, step_k):
        for p in range(loads):
            g = int32(cuda.threadIdx.x + p * threads)
            place = int32(at + (g >> shift) * pitch + ((g & (quads - 1)) << 2))
            store4(slab, place, changed(staged[4 * p]), changed(staged[4 * p + 1]), changed(staged[4 * p + 2]),
                   changed(staged[4 * p + 3]))

    return fetch, put


def deep_loader(extent, depth, threads, changed):
    """Of an operand whose neighbours in k are neighbours in memory, four at a time."""
    loads, quads = extent * depth // (4 * threads), depth // 4
    shift, pitch = quads.bit_length() - 1, extent + PADDING

    @device_function
    def fetch(x, base, first, start, size, stop, step_e, step_k, staged):
        for p in range(loads):
            g = int32(cuda.threadIdx.x + p * threads)
            e, k = int32(first + (g >> shift)), int32(start + ((g & (quads - 1)) << 2))
            v0, v1, v2, v3 = T(0), T(0), T(0), T(0)
            if e < size and k < stop:
                v0, v1, v2, v3 = load4(x, int32(base + e * step_e + k))
            staged[4 * p], staged[4 * p + 1], staged[4 * p + 2], staged[4 * p + 3] = v0, v1, v2, v3

    @device_function
    def put(staged, slab, at, step_k):
        for p in range(loads):
            g = int32(cuda.threadIdx.x + p * threads)
            place = int32(at + ((g & (quads - 1)) << 2) * pitch + (g >> shift))
            for q in range(4):
                slab[place + q * pitch] = changed(staged[4 * p + q])

    return fetch, put


def scalar_loader(extent, depth, threads, changed):
    """Of any operand, element by element; neighbouring threads read neighbours in memory."""
    loads, pitch = extent * depth // threads, extent + PADDING
    shift_e, shift_k = extent.bit_length() - 1, depth.bit_length() - 1
    rows, columns = threads // depth, threads // extent  # from one load of a thread to its next, down or along

    @device_function
    def fetch(x, base, first, start, size, stop, step_e, step_k, staged):
        t = int32(cuda.threadIdx.x)
        e, k, down, along = int32(first + (t & (extent - 1))), int32(start + (t >> shift_e)), int32(0), int32(columns)
        if step_k == 1:
            e, k, down, along = int32(first + (t >> shift_k)), int32(start + (t & (depth - 1))), int32(rows), int32(0)
        at, jump = int32(base + e * step_e + k * step_k), int32(down * step_e + along * step_k)
        for p in range(loads):
            value = T(0)
            if e < size and k < stop:
                value = x[at]
            staged[p] = value
            e, k, at = int32(e + down), int32(k + along), int32(at + jump)

    @device_function
    def put(staged, slab, at, step_k):
        t = int32(cuda.threadIdx.x)
        place, jump = int32(at + (t >> shift_e) * pitch + (t & (extent - 1))), int32(columns * pitch)
        if step_k == 1:
            place, jump = int32(at + (t & (depth - 1)) * pitch + (t >> shift_k)), int32(rows)
        for p in range(loads):
            slab[place] = changed(staged[p])
            place = int32(place + jump)

    return fetch, put


LOADERS = {"wide": wide_loader, "deep": deep_loader, "scalar": scalar_loader}
