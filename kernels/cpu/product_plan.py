"""How a matrix product is computed: in which of five ways, what of it is packed, and how much memory that takes.

Python asks to allocate the scratch memory, the kernel to do it: `planning` makes the same functions for either. Python
must not call the compiled ones: they are compiled anew in every process, for 0.4 s.
"""

from minigrad.kernels.cpu.gemm_tiles import (
    DOT_COLUMNS,
    DOT_ROWS,
    FEW_DOT_ROWS,
    HALF_ROWS,
    TILE_ROWS,
    TILE_VECTORS,
)
from minigrad.kernels.cpu.simd import VECTOR_BYTES

DEPTH = 512  # of a slice: two vectors of columns of b, 32 KiB; 256 and 384 are within 5 %, none of them always ahead
# Row tiles of a block, whose slice of a stays in the second cache: 96 KiB with AVX2, for others may use a half of 512.
# Twice as many took 1.04 (1024 cubed) to 1.08 (2048) times as long. With AVX-512 16 were measured: 384 KiB of 1 MiB.
BLOCK = 8 if TILE_ROWS == 6 else 16
ONE_BLOCK = 16  # row tiles up to which an a that is not packed is one block: b is then read once
WIDE = 64  # pairs of vectors of columns of which a slice is packed at a time: 2 MiB, in the third cache
LARGE_A = 10_000  # elements of a transposed a from which on packing it pays; 1024 cubed: 45 as it lies, 62 packed
LARGE_B = 40_000  # elements of b from which on packing pays with many rows
LONG, BROAD = 1024, 512  # depth, columns from which on other a are packed: 2048 cubed on one thread 7 % faster
MANY = 100  # rows of the output
# The same if what a panel reads of b does not fit into the sets of the first cache that its rows share: rows x depth x
# columns 300 x 100 x 128 packed take 0.89 to 0.92 of the time, 600 x 200 x 64 0.85, 100 x 128 x 256 1.04. And if rows
# of b are multiples of 4,096 bytes apart, so that all share one set and each is on a page of its own: 64 x 1024 x 1024
# take 0.5 to 0.7, 32 x 128 x 1024 0.6, 16 x 256 x 1024 0.75 to 0.97, 16 x 1024 x 1024 0.8 to 1.3, mostly 0.9 (Zen 3).
MANY_CLASHING, MANY_IN_A_SET = 128, 16
LINES = 2  # rows of the output up to which rows are multiplied one at a time
HALVES = 2 if VECTOR_BYTES == 64 else 1  # in which a vector is multiplied: Zen 4 takes those of AVX-512 in two
MULTIPLYING, PACKING = TILE_ROWS * HALVES, 2 * HALVES  # cycles per step of the depth: of a tile, of its operands
MULTIPLYING_HALF = -(-MULTIPLYING * 5 // 8)  # of a half tile, which reads as much of b as a whole one
TRANSPOSING = 8 * HALVES
DOTTING = DOT_ROWS * DOT_COLUMNS // 2 * HALVES  # cycles per vector of the depth of a dot tile
# The same if its rows do not fit into the first cache. Measured of tiles of three rows, on Zen 4 and Zen 3: a tile of
# six is taken for two of them.
FARTHER = DOTTING * 4 // 3 if DOT_ROWS > DOT_COLUMNS else 7
STARTING = 40  # cycles to begin and end a tile, and a panel
DOT_STARTING = 40  # the same of a dot tile
# Cycles per row in which the columns of two threads meet in a line of memory. With half as many some of the products
# that suffer are still cut across, with three times as many also 256 cubed is cut down, which takes up to 1.03 times as
# long, with eight times as many 128 cubed.
MEETING = 6 * HALVES
FIRST_CACHE, CACHE_WAY = 32768, 4096  # bytes; addresses a way apart share a set
VECTOR, DOTS, LINE, NARROW, TILES = range(5)  # ways to compute a product


def planning(compiled):
    """The functions that plan a product, each passed through `compiled`.

    The sizes of a product are those of the batches of its operands, M, N and K; the steps those from row to row of a,
    along its depth, from column to column of b and along its depth.
    """

    @compiled
    def vectors(n, lanes):
        return (n + lanes - 1) // lanes

    @compiled
    def tiles(m):
        return (m + TILE_ROWS - 1) // TILE_ROWS

    @compiled
    def pitch(k, lanes):
        """Elements from row to row of a packed slice of a: no power of two, for rows then share sets of the cache."""
        return min(k, DEPTH) + lanes

    @compiled
    def dots_pay(m, n, k, lanes):
        """Whether rows times rows take less as dot products than transposed for tiles.

        One thread, AVX2, time of tiles by that of dot products: 60 x 784 x 100 1.15, 16 x 784 x 100 1.4, 64 x 128 x 10
        1.1; 64 x 100 x 100 0.8, 100 x 100 x 16 0.8, 64 x 2048 x 100 0.9, 16 x 10 x 1000 0.3. A single vector of columns
        takes its tiles as long as two.
        """
        near = k * (DOT_ROWS + DOT_COLUMNS) <= FIRST_CACHE // (VECTOR_BYTES // lanes)
        rest, few = m % DOT_ROWS, DOT_ROWS // FEW_DOT_ROWS  # rows behind the last whole tile; small tiles in one
        down = m // DOT_ROWS * few + (rest + FEW_DOT_ROWS - 1) // FEW_DOT_ROWS
        dots = down * ((n + DOT_COLUMNS - 1) // DOT_COLUMNS)
        one = vectors(k, lanes) * (DOTTING if near else FARTHER) + DOT_STARTING
        half = 0 < m % TILE_ROWS <= HALF_ROWS and k <= DEPTH
        column = tiles(m) * (MULTIPLYING * k + STARTING) + TRANSPOSING * k + STARTING
        if half:
            column -= (MULTIPLYING - MULTIPLYING_HALF) * k
        return TILE_VECTORS * dots * one <= max(vectors(n, lanes), TILE_VECTORS) * column * few

    @compiled
    def way(sizes, steps, lanes):
        """How a product of these sizes is computed."""
        batch_a, batch_b, m, n, k = sizes
        a_row, a_depth, b_column, b_depth = steps
        if n == 1 and m >= DOT_COLUMNS and a_depth == 1:
            return VECTOR
        if a_depth == 1 and b_depth == 1 and n >= DOT_COLUMNS and dots_pay(m, n, k, lanes):
            return DOTS
        if m <= LINES and b_column == 1:
            return LINE if n >= lanes else NARROW
        return TILES

    @compiled
    def packing(sizes, steps, lanes):
        """Whether a and b are packed."""
        batch_a, batch_b, m, n, k = sizes
        a_row, a_depth, b_column, b_depth = steps
        packed_a = (m * k >= LARGE_A and n >= TILE_VECTORS * lanes) if a_row == 1 else k >= LONG and n >= BROAD
        row = b_depth * (VECTOR_BYTES // lanes)
        apart = min(row & -row, CACHE_WAY)  # rows of b are multiples of it apart, and share sets of the cache
        clashing = min(k, DEPTH) * apart > FIRST_CACHE and m >= (MANY_IN_A_SET if apart == CACHE_WAY else MANY_CLASHING)
        packed_b = b_column != 1 or n >= lanes and (clashing or n * k >= LARGE_B and m >= MANY)
        return packed_a, packed_b

    @compiled
    def area(sizes, packed, lanes):
        """Elements of scratch memory that a share packs into: for its slice of a, and altogether."""
        batch_a, batch_b, m, n, k = sizes
        packed_a, packed_b = packed
        width = TILE_VECTORS * lanes
        area_a = vectors(min(tiles(m), BLOCK) * TILE_ROWS * pitch(k, lanes), lanes) * lanes if packed_a else 0
        area_b = max(min(n // width, WIDE) * min(k, DEPTH), k) * width if packed_b else 0
        return area_a, area_a + area_b

    return vectors, pitch, way, packing, area
