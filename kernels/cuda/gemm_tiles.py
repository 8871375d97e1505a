"""Tiles of a matrix product: what a block of threads does, whatever its two operands are.

A block computes `rows` x `columns` elements of the output, a thread 4 or 8 rows by 4 or 8 columns of them, which stay
in registers. Slabs of both operands, `depth` deep, go through shared memory, where they lie by depth: ``a[k][row]``,
``b[k][column]``; while one slab is multiplied, the next one is on its way through registers into the other half of it.
In bfloat16 two neighbours in the depth share a word: ``a[k // 2][row]``.
"""

from typing import NamedTuple

from minigrad.kernels.cuda import gemm_tensor
from minigrad.kernels.cuda.language import T, cuda, device_function, int32, load4, pack_bf16, round_tf32, store4
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
    def packed(self):
        """Neighbours in the depth that share a word of shared memory."""
        return 2 if self.precision == "medium" else 1

    @property
    def words(self):
        """The depth in words of shared memory."""
        return self.depth // self.packed

    @property
    def apart(self):
        """Rows and columns from one four of a thread to its next."""
        if self.precision != "highest":
            return gemm_tensor.ROWS, gemm_tensor.COLUMNS
        return self.rows // (self.high // 4), self.columns // (self.broad // 4)

    @property
    def instruction(self):
        """What multiplies."""
        return {"highest": "FFMA", "medium": "HMMA.16816.F32.BF16"}.get(self.precision, "HMMA.1688.F32.TF32")


BIG = Tile(128, 128, 8, 8, 8, 512)
MIDDLE = Tile(64, 64, 16, 4, 4, 256)
SMALL = Tile(32, 32, 16, 4, 4, 64)
TILES = {
    "highest": (BIG, MIDDLE, SMALL),
    "high": (Tile(128, 128, 16, 8, 8, 512, "high"), Tile(64, 64, 16, 4, 8, 256, "high"),
             Tile(32, 32, 16, 4, 8, 64, "high")),
    "3xtf32": (Tile(128, 128, 8, 8, 8, 512, "3xtf32"), Tile(64, 64, 16, 4, 8, 256, "3xtf32"),
               Tile(32, 32, 16, 4, 8, 64, "3xtf32")),
    "medium": (Tile(128, 128, 32, 8, 8, 512, "medium"), Tile(64, 64, 32, 4, 8, 256, "medium"),
               Tile(32, 32, 16, 4, 8, 64, "medium")),
}
ENDINGS = {"highest": "", "high": "_tf32", "3xtf32": "_3xtf32", "medium": "_bf16"}
NAMED = [(tile, name + ending) for precision, ending in ENDINGS.items()
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
def _as_it_is(staged, i, apart):
    return staged[i]


@device_function
def _tf32(staged, i, apart):
    return round_tf32(staged[i])


@device_function
def _bf16(staged, i, apart):
    return pack_bf16(staged[i], staged[i + apart])


def on_the_way(tile):
    """``word(staged, i, apart)``: what a loader puts into shared memory of the staged element i.

    Where two share a word, the other one, its neighbour in k, is the element i + apart.
    """
    return {"high": _tf32, "medium": _bf16}.get(tile.precision, _as_it_is)


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
# edges; `put` writes it, word by word. An operand's element (e, k), e being the row of a or the column of b, is at
# base + e * step_e + k * step_k. A thread fetches all elements of its words: an element's neighbour in k is staged next
# to it, and four places on in a wide operand, which is staged in fours of neighbours in e.


def wide_loader(extent, tile):
    """Of an operand whose neighbours in e are neighbours in memory, four at a time."""
    threads, packed, word = tile.threads, tile.packed, on_the_way(tile)
    loads, quads = extent * tile.depth // (4 * threads), extent // 4
    shift, pitch = quads.bit_length() - 1, extent + PADDING

    @device_function
    def fetch(x, base, first, start, size, stop, step_e, step_k, staged):
        for p in range(loads):
            g = int32(cuda.threadIdx.x + p // packed * threads)
            e, k = int32(first + ((g & (quads - 1)) << 2)), int32(start + packed * (g >> shift) + p % packed)
            v0, v1, v2, v3 = T(0), T(0), T(0), T(0)
            if e < size and k < stop:
                v0, v1, v2, v3 = load4(x, int32(base + k * step_k + e))
            staged[4 * p], staged[4 * p + 1], staged[4 * p + 2], staged[4 * p + 3] = v0, v1, v2, v3

    @device_function
    def put(staged, slab, at, step_k):
        for p in range(loads // packed):
            g = int32(cuda.threadIdx.x + p * threads)
            i = 4 * packed * p
            place = int32(at + (g >> shift) * pitch + ((g & (quads - 1)) << 2))
            store4(slab, place, word(staged, i, 4), word(staged, i + 1, 4), word(staged, i + 2, 4),
                   word(staged, i + 3, 4))

    return fetch, put


def deep_loader(extent, tile):
    """Of an operand whose neighbours in k are neighbours in memory, four at a time."""
    threads, packed, word = tile.threads, tile.packed, on_the_way(tile)
    loads, quads, words = extent * tile.depth // (4 * threads), tile.depth // 4, 4 // packed
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
            place = int32(at + (g & (quads - 1)) * words * pitch + (g >> shift))
            for q in range(words):
                slab[place + q * pitch] = word(staged, 4 * p + packed * q, 1)

    return fetch, put


def scalar_loader(extent, tile):
    """Of any operand, element by element; neighbouring threads read neighbours in memory."""
    threads, packed, words, word = tile.threads, tile.packed, tile.words, on_the_way(tile)
    loads, pitch = extent * tile.depth // threads, extent + PADDING
    shift_e, shift_k = extent.bit_length() - 1, words.bit_length() - 1
    rows, columns = threads // words, threads // extent  # from one word of a thread to its next, down or along
    back = packed - 1  # from the last element of a word to its first

    @device_function
    def fetch(x, base, first, start, size, stop, step_e, step_k, staged):
        t = int32(cuda.threadIdx.x)
        e, k, down, along = (int32(first + (t & (extent - 1))), int32(start + packed * (t >> shift_e)), int32(0),
                             int32(packed * columns - back))
        if step_k == 1:
            e, k, down, along = (int32(first + (t >> shift_k)), int32(start + packed * (t & (words - 1))), int32(rows),
                                 int32(-back))
        at, jump = int32(base + e * step_e + k * step_k), int32(down * step_e + along * step_k)
        for p in range(loads):
            value = T(0)
            if e < size and k < stop:
                value = x[at]
            staged[p] = value
            if p % packed < back:
                k, at = int32(k + 1), int32(at + step_k)
            else:
                e, k, at = int32(e + down), int32(k + along), int32(at + jump)

    @device_function
    def put(staged, slab, at, step_k):
        t = int32(cuda.threadIdx.x)
        place, jump = int32(at + (t >> shift_e) * pitch + (t & (extent - 1))), int32(columns * pitch)
        if step_k == 1:
            place, jump = int32(at + (t & (words - 1)) * pitch + (t >> shift_k)), int32(rows)
        for p in range(0, loads, packed):
            slab[place] = word(staged, p, 1)
            place = int32(place + jump)

    return fetch, put


LOADERS = {"wide": wide_loader, "deep": deep_loader, "scalar": scalar_loader}
