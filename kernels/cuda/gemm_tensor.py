"""Tiles of a matrix product on tensor cores: what stands in for `gemm_tiles.multiplier` there.

A warp computes `8 * high` x `4 * broad` elements of the output as products of 16 x 8 by 8 x 8 words, see
`intrinsics.mma_tf32_sync`; a word is an element of tf32, or two of bfloat16 that are neighbours in the depth. Which row
of the tile is which row of a product is free: here the rows 4q to 4q + 3 that a lane reads with one 128-bit load are
the rows of its two halves of two products, the columns likewise those of four products. So a lane's sums are fours of
neighbours, and it stores them 128 bits at a time. The lanes of a group g = lane // 4 read fours in the order 0, 4, 1,
5, 2, 6, 3, 7: the 8 lanes of a 128-bit access then meet all 32 banks of shared memory, and four lanes store 64 bytes in
a row.
"""

from functools import partial

from minigrad.kernels.cuda.language import (
    T,
    cuda,
    device_function,
    int32,
    load4,
    math,
    mma_bf16_sync,
    mma_tf32_sync,
    round_tf32,
)

PADDING = 4  # words between rows in shared memory, so that a transposed slab is written without bank conflicts
STEP = 8  # words of the depth in one product
ROWS, COLUMNS = 32, 16  # from one four of a lane to its next


@device_function
def _four_of(lane):
    """Which four of rows or columns the group of a lane reads."""
    group = lane >> 2
    return int32((group >> 1) + ((group & 1) << 2))


def placer(tile):
    """``place()``: the first row and the first column of the tile that are this thread's."""
    rows, columns = 8 * tile.high, 4 * tile.broad  # of a warp
    across = tile.columns // columns
    shift = across.bit_length() - 1

    @device_function
    def place():
        lane, warp = int32(cuda.threadIdx.x & 31), int32(cuda.threadIdx.x >> 5)
        row, column = int32((warp >> shift) * rows), int32((warp & (across - 1)) * columns)
        return int32(row + (_four_of(lane) << 2)), int32(column + ((lane & 3) << 2))

    return place


def multiplier(tile):
    """``multiply(a, b, at_a, at_b, row, column, sums)``: one slab of both operands, from places in shared memory."""
    words, high, broad = tile.words, tile.high, tile.broad
    pitch_a, pitch_b = tile.rows + PADDING, tile.columns + PADDING
    fours_a, fours_b, half = high // 4, broad // 8, broad // 2
    count_a, count_b = 2 * high, broad
    below_a, below_b = 4 * pitch_a, 4 * pitch_b
    products = _PRODUCTS[tile.precision](high, broad)

    @device_function
    def multiply(a, b, at_a, at_b, row, column, sums):
        left, right = cuda.local.array(count_a, T), cuda.local.array(count_b, T)
        lane = int32(cuda.threadIdx.x & 31)
        t, four = int32(lane & 3), _four_of(lane)
        at_a = int32(at_a + t * pitch_a + row)
        at_b = int32(at_b + t * pitch_b + column + ((four - t) << 2))
        for _ in range(words // STEP):
            for i in range(fours_a):
                v = load4(a, int32(at_a + i * ROWS))
                w = load4(a, int32(at_a + below_a + i * ROWS))
                left[4 * i], left[4 * i + 1], left[4 * i + 2], left[4 * i + 3] = v
                left[high + 4 * i], left[high + 4 * i + 1], left[high + 4 * i + 2], left[high + 4 * i + 3] = w
            for j in range(fours_b):
                v = load4(b, int32(at_b + j * 2 * COLUMNS))
                w = load4(b, int32(at_b + below_b + j * 2 * COLUMNS))
                right[4 * j], right[4 * j + 1], right[4 * j + 2], right[4 * j + 3] = v
                right[half + 4 * j], right[half + 4 * j + 1], right[half + 4 * j + 2], right[half + 4 * j + 3] = w
            products(left, right, sums)
            at_a, at_b = int32(at_a + STEP * pitch_a), int32(at_b + STEP * pitch_b)

    return multiply


def _rounded(high, broad, mma_sync):
    """``products(left, right, sums)`` of operands that are rounded already to what `mma_sync` multiplies."""
    pairs, half = high // 2, broad // 2

    @device_function
    def products(left, right, sums):
        for p in range(pairs):
            for q in range(half):
                i = 2 * p
                k = i * broad + 2 * (q & ~3) + (q & 3)
                d = mma_sync(left[i], left[i + 1], left[high + i], left[high + i + 1], right[q], right[half + q],
                             sums[k], sums[k + 4], sums[k + broad], sums[k + broad + 4])
                sums[k], sums[k + 4], sums[k + broad], sums[k + broad + 4] = d

    return products


@device_function
def _add(total, large, small):
    """The sum of all three; where an operand was infinite, the small part is NaN and the large one says it all."""
    total += large
    if math.fabs(small) < T(math.inf):
        total += small
    return total


def _three_tf32(high, broad):
    """``products`` of float32 operands: x = large + small, both of tf32, and all products but small times small.

    A tensor core may cut off its sums instead of rounding them, which adds up over a long depth. So it sums 8 products
    only, and the float32 unit goes on from there.
    """
    pairs, half = high // 2, broad // 2
    count_a, count_b = 2 * high, broad

    @device_function
    def products(left, right, sums):
        small_a, small_b = cuda.local.array(count_a, T), cuda.local.array(count_b, T)
        zero = T(0)
        for i in range(count_a):
            x = left[i]
            left[i] = round_tf32(x)
            small_a[i] = round_tf32(x - left[i])
        for j in range(count_b):
            x = right[j]
            right[j] = round_tf32(x)
            small_b[j] = round_tf32(x - right[j])
        for p in range(pairs):
            for q in range(half):
                i = 2 * p
                k = i * broad + 2 * (q & ~3) + (q & 3)
                a0, a1, a2, a3 = left[i], left[i + 1], left[high + i], left[high + i + 1]
                b0, b1 = right[q], right[half + q]
                d0, d1, d2, d3 = mma_tf32_sync(small_a[i], small_a[i + 1], small_a[high + i], small_a[high + i + 1],
                                               b0, b1, zero, zero, zero, zero)
                d0, d1, d2, d3 = mma_tf32_sync(a0, a1, a2, a3, small_b[q], small_b[half + q], d0, d1, d2, d3)
                c0, c1, c2, c3 = mma_tf32_sync(a0, a1, a2, a3, b0, b1, zero, zero, zero, zero)
                sums[k], sums[k + 4] = _add(sums[k], c0, d0), _add(sums[k + 4], c1, d1)
                sums[k + broad], sums[k + broad + 4] = _add(sums[k + broad], c2, d2), _add(sums[k + broad + 4], c3, d3)

    return products


_PRODUCTS = {"high": partial(_rounded, mma_sync=mma_tf32_sync), "medium": partial(_rounded, mma_sync=mma_bf16_sync),
             "3xtf32": _three_tf32}
