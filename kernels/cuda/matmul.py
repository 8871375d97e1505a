"""Matrix products: tiles of the output in registers, slabs of both operands through shared memory, see `gemm_tiles`.

Three sizes of tiles, for float32 units and for tensor cores. A product with fewer tiles than the GPU has processors is
cut along the depth: each slice writes its sums to scratch memory, a second kernel adds them in order. Operands that
allow it are read 128 bits at a time. What has at most four rows or columns is a matrix times vectors: `gemv`.
"""

from minigrad.kernels.cuda import gemv, memory
from minigrad.kernels.cuda.gemm_tiles import (
    BIG,
    LOADERS,
    NAMED,
    PADDING,
    TILES,
    choose,
    multiplier,
    placer,
    slices,
)
from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, device_function, div32, int32, kernel, store4
from minigrad.kernels.cuda.slices import add_slices


def storer(tile):
    """``store(out, bias, sums, at, row, column, m, n, biased, vectors)``: a thread's sums and the bias to an (m, n)."""
    high, broad = tile.high, tile.broad
    half_a, half_b = tile.apart
    fours = broad // 4

    @device_function
    def store(out, bias, sums, at, row, column, m, n, biased, vectors):
        for j in range(fours):
            c = int32(column + j * half_b)
            b0, b1, b2, b3 = T(0), T(0), T(0), T(0)
            if biased:
                if c < n:
                    b0 = bias[c]
                if c + 1 < n:
                    b1 = bias[c + 1]
                if c + 2 < n:
                    b2 = bias[c + 2]
                if c + 3 < n:
                    b3 = bias[c + 3]
            for i in range(high):
                r = int32(row + (i >> 2) * half_a + (i & 3))
                if r < m:
                    k, place = i * broad + 4 * j, int32(at + r * n + c)
                    v0, v1, v2, v3 = sums[k] + b0, sums[k + 1] + b1, sums[k + 2] + b2, sums[k + 3] + b3
                    if vectors:
                        if c < n:
                            store4(out, place, v0, v1, v2, v3)
                    else:
                        if c < n:
                            out[place] = v0
                        if c + 1 < n:
                            out[place + 1] = v1
                        if c + 2 < n:
                            out[place + 2] = v2
                        if c + 3 < n:
                            out[place + 3] = v3

    return store


def _product(tile, layout_a, layout_b):
    """The kernel of a tile for operands of two layouts."""
    rows, columns, depth = tile.rows, tile.columns, tile.depth
    threads, high, broad = tile.threads, tile.high, tile.broad
    count = high * broad
    size_a, size_b = tile.words * (rows + PADDING), tile.words * (columns + PADDING)
    both_a, both_b = 2 * size_a, 2 * size_b
    staged_a, staged_b = rows * depth // threads, columns * depth // threads
    fetch_a, put_a = LOADERS[layout_a](rows, tile)
    fetch_b, put_b = LOADERS[layout_b](columns, tile)
    place, multiply, store = placer(tile), multiplier(tile), storer(tile)
    plain = tile.precision == "highest"
    types = ("float32", "float64") if layout_b == "deep" and plain and tile is not BIG else ("float32",)
    promises = (("LDS.128", "STG.E.128") + (("LDG.E.128",) if layout_a != "scalar" else ())
                + ((tile.instruction,) if len(types) == 1 else ()))

    @kernel(promises=promises, examples=tuple([(name,) * 4 for name in types]))
    def product(a: Pointer, b: Pointer, bias: Pointer, out: Pointer, m: Int, n: Int, k: Int,
                stride_a: Int, stride_b: Int, step_m: Int, step_ka: Int, step_n: Int, step_kb: Int,
                tiles: Int, splits: Int, share: Int, batch: Int, biased: Int, vectors: Int):
        slab_a, slab_b = cuda.shared.array(both_a, T, alignment=16), cuda.shared.array(both_b, T, alignment=16)
        next_a, next_b = cuda.local.array(staged_a, T), cuda.local.array(staged_b, T)
        sums = cuda.local.array(count, T)
        for i in range(high):
            for j in range(broad):
                sums[i * broad + j] = T(0)
        # The x of the grid counts tiles down the rows, slices of the depth, the batch; the y tiles along the columns.
        z = div32(cuda.blockIdx.x, tiles)
        first_m, first_n = int32((cuda.blockIdx.x - z * tiles) * rows), int32(cuda.blockIdx.y * columns)
        item = div32(z, splits)
        part = int32(z - item * splits)
        start = int32(part * share)
        stop = int32(min(start + share, k))
        base_a, base_b = int32(item * stride_a), int32(item * stride_b)
        ty, tx = place()

        fetch_a(a, base_a, first_m, start, m, stop, step_m, step_ka, next_a)
        fetch_b(b, base_b, first_n, start, n, stop, step_n, step_kb, next_b)
        put_a(next_a, slab_a, int32(0), step_ka)
        put_b(next_b, slab_b, int32(0), step_kb)
        cuda.syncthreads()
        at_a, at_b = int32(0), int32(0)
        while start < stop:
            start = int32(start + depth)
            if start < stop:
                fetch_a(a, base_a, first_m, start, m, stop, step_m, step_ka, next_a)
                fetch_b(b, base_b, first_n, start, n, stop, step_n, step_kb, next_b)
            multiply(slab_a, slab_b, at_a, at_b, ty, tx, sums)
            at_a, at_b = int32(size_a - at_a), int32(size_b - at_b)
            if start < stop:
                put_a(next_a, slab_a, at_a, step_ka)
                put_b(next_b, slab_b, at_b, step_kb)
            cuda.syncthreads()
        store(out, bias, sums, int32((part * batch + item) * m * n), int32(first_m + ty), int32(first_n + tx), m, n,
              biased, vectors)

    return product


MOST = 65_535  # blocks along y
LAYOUTS = (("deep", "wide"), ("deep", "deep"), ("wide", "wide"), ("scalar", "scalar"))
_PRODUCTS = {}
for _tile, _name in NAMED:
    for _layouts in LAYOUTS:
        _made = _PRODUCTS[_tile, _layouts] = _product(_tile, *_layouts)
        _made.__name__ = f"_matmul_{_name}_{'_'.join(_layouts[:1] if _layouts[0] == 'scalar' else _layouts)}"


def _aligned(*arrays):
    return all([x.address % 16 == 0 for x in arrays])


def launch(tile, splits, a, b, bias, out, batch, m, n, k, stride_a, stride_b, deep_a, deep_b):
    """Multiply with a given tile and number of slices; deep operands have neighbours in k side by side."""
    # Millions of columns take larger tiles.
    tile = next((t for t in (tile, *TILES[tile.precision][1::-1]) if -(-n // t.columns) <= MOST), None)
    if tile is None:
        raise ValueError(f"matmul: expected at most {MOST * BIG.columns} columns on cuda, got {n}")
    layouts = "deep" if deep_a else "wide", "deep" if deep_b else "wide"
    lines = (k if deep_a else m), (k if deep_b else n)
    if (tile, layouts) not in _PRODUCTS or lines[0] % 4 or lines[1] % 4 or not _aligned(a, b):
        layouts = "scalar", "scalar"
    share, splits = slices(k, splits, tile.depth)
    biased = int(splits == 1 and bias is not None and bias.size > 0)
    target = out if splits == 1 else memory.scratch(splits * out.size, out.dtype)
    steps_a, steps_b = (k, 1) if deep_a else (1, m), (k, 1) if deep_b else (1, n)
    tiles = -(-m // tile.rows)
    _PRODUCTS[tile, layouts][(tiles * splits * batch, -(-n // tile.columns)), tile.threads](
        a, b, bias if biased else a, target, m, n, k, stride_a, stride_b, *steps_a, *steps_b, tiles, splits, share,
        batch, biased, int(n % 4 == 0 and _aligned(target)))
    if splits > 1:
        add_slices(target, bias, out, splits)


def _multiply(a, b, bias, out, batch, m, n, k, stride_a, stride_b, deep_a, deep_b):
    """Multiply by what suits the shape."""
    product = a, b, bias, out, batch, m, n, k, stride_a, stride_b, deep_a, deep_b
    if gemv.suits(m, n, k, deep_a, deep_b, _aligned(a, b)):
        gemv.multiply(*product)
    else:
        launch(*choose(m, n, k, batch, a.dtype.itemsize), *product)


def matmul(a, b, out, work, transpose_a, transpose_b):
    """``out = a @ b``; `a` (M, K) or (K, M), `b` (K, N) or (N, K), `out` (M, N), or each with a batch in front."""
    if not out.size:
        return
    m, n = out.shape[-2:]
    k = a.shape[-2 if transpose_a else -1]
    batch = out.size // (m * n)
    stride_a = m * k if a.size > m * k else 0
    stride_b = k * n if b.size > k * n else 0
    if batch > 1 and stride_a and not stride_b and not transpose_a:  # one b for all: rows below rows
        m, batch = m * batch, 1
    _multiply(a, b, None, out, batch, m, n, k, stride_a, stride_b, not transpose_a, bool(transpose_b))


def matmul_workspace(a, b, transpose_a, transpose_b, itemsize):
    """Elements of scratch memory that `matmul` wants, given the shapes of `a` and `b`: it has its own."""
    return 0


def linear_forward(x, weight, bias, out, work):
    """``out = x @ weight.T + bias``; `x` (N, I), `weight` (O, I), `bias` (O,) or (0,), `out` (N, O)."""
    if not out.size:
        return
    (m, n), k = out.shape, x.shape[1]
    _multiply(x, weight, bias, out, 1, m, n, k, 0, 0, True, True)


def linear_forward_workspace(x, weight, itemsize):
    """Elements of scratch memory that `linear_forward` wants, given the shapes of `x` and `weight`: it has its own."""
    return 0
