"""The gradient of a convolution by its weight, as a product of matrices that are never written down: the kernels.

out[row, (channel, kh, kw)] = Σ over pixels of grad[row, pixel] * source[channel, pixel and tap].

The sum runs over an index of three digits, (image, row, column). Where a plane of `grad` is a multiple of four pixels,
four neighbours of them are four neighbours in memory, of one image: a "deep" operand, like a matrix's. So are those of
the source if the only tap is the pixel itself. Otherwise a tap may lie in the padding, and each pixel is a load.
"""

from minigrad.kernels.cuda.conv_tiles import add3, split3
from minigrad.kernels.cuda.gemm_tiles import NAMED, PADDING, deep_loader, multiplier, placer, scalar_loader
from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, device_function, div32, int32, kernel

# An operand comes into shared memory as in `gemm_tiles`. Its element (e, k), e being a row of grad or a column of the
# output, belongs to pixel k of all images together. `here` is where this thread's pixels are: (k, image, i, j). All
# layouts take the same arguments; a deep operand needs few of them.


def _images_of(extent, tile):
    """Of an operand (images, channels, plane) whose channels are e: four pixels at a time."""
    fetch_deep, put = deep_loader(extent, tile)
    last = tile.depth // 4 - 1

    @device_function
    def fetch(x, channels, channel, first, start, size, stop, plane, staged):
        image = div32(int32(start + ((cuda.threadIdx.x & last) << 2)), plane)  # of this thread's pixels
        fetch_deep(x, int32((image * (channels - 1) + channel) * plane), first, start, size, stop, plane, 1, staged)

    return fetch, put


def any_grad(rows, tile):
    """`fetch` and `put` of any gradient, pixel by pixel."""
    packed, lines, shift = tile.packed, tile.threads // tile.words, tile.words.bit_length() - 1
    loads = rows // lines

    @device_function
    def fetch(grad, channels, channel, first, start, size, stop, plane, here, rows_out, columns_out, staged):
        k, image, i, j = here
        e = int32(first + (cuda.threadIdx.x >> shift))
        for nth in range(packed):
            at = int32((image * channels + channel + e) * plane + i * columns_out + j)
            for p in range(loads):
                value = T(0)
                if k < stop and e + p * lines < size:
                    value = grad[int32(at + p * lines * plane)]
                staged[packed * p + nth] = value
            k = int32(k + 1)
            image, i, j = add3(image, i, j, 0, 0, 1, rows_out, columns_out)

    return fetch, scalar_loader(rows, tile)[1]


def deep_grad(rows, tile):
    """`fetch` and `put` of a gradient whose planes are multiples of four pixels."""
    fetch_images, put = _images_of(rows, tile)

    @device_function
    def fetch(grad, channels, channel, first, start, size, stop, plane, here, rows_out, columns_out, staged):
        fetch_images(grad, channels, channel, first, start, size, stop, plane, staged)

    return fetch, put


def any_source(columns, tile):
    """`place`, `fetch` and `put` of the source's pixels under every tap."""
    packed, lines, shift = tile.packed, tile.threads // tile.words, tile.words.bit_length() - 1
    loads = columns // lines

    @device_function
    def place(first, size, height, width, kernel_h, kernel_w, dilation_h, dilation_w, offsets, downs, alongs):
        for p in range(loads):  # this thread's columns, (channel, kh, kw), stay the same
            e = int32(first + (cuda.threadIdx.x >> shift) + p * lines)
            c, kh, kw = split3(e, kernel_h, kernel_w)
            offset = int32(c * height * width)
            if e >= size:
                offset = int32(-1)
            offsets[p], downs[p], alongs[p] = offset, int32(kh * dilation_h), int32(kw * dilation_w)

    @device_function
    def fetch(source, channels, channel, first, start, size, stop, height, width, here, rows_out, columns_out, stride_h,
              stride_w, pad_top, pad_left, offsets, downs, alongs, staged):
        k, image, i, j = here
        for nth in range(packed):
            base = int32((image * channels + channel) * height * width)
            y, x = int32(i * stride_h - pad_top), int32(j * stride_w - pad_left)
            for p in range(loads):
                value = T(0)
                r, s = int32(y + downs[p]), int32(x + alongs[p])
                if k < stop and offsets[p] >= 0 and r >= 0 and r < height and s >= 0 and s < width:
                    value = source[int32(base + offsets[p] + r * width + s)]
                staged[packed * p + nth] = value
            k = int32(k + 1)
            image, i, j = add3(image, i, j, 0, 0, 1, rows_out, columns_out)

    return place, fetch, scalar_loader(columns, tile)[1]


def same_source(columns, tile):
    """The same where the only tap is the pixel itself, and planes are multiples of four pixels."""
    fetch_images, put = _images_of(columns, tile)

    @device_function
    def place(first, size, height, width, kernel_h, kernel_w, dilation_h, dilation_w, offsets, downs, alongs):
        pass

    @device_function
    def fetch(source, channels, channel, first, start, size, stop, height, width, here, rows_out, columns_out, stride_h,
              stride_w, pad_top, pad_left, offsets, downs, alongs, staged):
        fetch_images(source, channels, channel, first, start, size, stop, int32(height * width), staged)

    return place, fetch, put


_GRADS, _SOURCES = {"any": any_grad, "deep": deep_grad}, {"any": any_source, "same": same_source}


def reduce(tile, grads, pixels):
    """The kernel of a tile for a gradient and a source of some layouts."""
    rows, columns, depth, threads = tile.rows, tile.columns, tile.depth, tile.threads
    words, packed = tile.words, tile.packed
    size_a, size_b = words * (rows + PADDING), words * (columns + PADDING)
    both_a, both_b, count = 2 * size_a, 2 * size_b, tile.high * tile.broad
    loads_a, loads_b, lines_b = rows * depth // threads, columns * depth // threads, columns * words // threads
    high, broad = tile.high, tile.broad
    half_a, half_b = tile.apart
    fetch_a, put_a = _GRADS[grads](rows, tile)
    place_b, fetch_b, put_b = _SOURCES[pixels](columns, tile)
    place_in_tile, multiply = placer(tile), multiplier(tile)
    promises = ("LDS.128", tile.instruction) + (("LDG.E.128",) if grads == "deep" else ())

    @kernel(promises=promises)
    def reduce_pixels(grad: Pointer, source: Pointer, out: Pointer, m: Int, n: Int, k: Int, tiles: Int, splits: Int,
                      share: Int, groups: Int, channels: Int, height: Int, width: Int, rows_out: Int, columns_out: Int,
                      kernel_h: Int, kernel_w: Int, stride_h: Int, stride_w: Int, pad_top: Int, pad_left: Int,
                      dilation_h: Int, dilation_w: Int, add_n: Int, add_i: Int, add_j: Int):
        slab_a, slab_b = cuda.shared.array(both_a, T, alignment=16), cuda.shared.array(both_b, T, alignment=16)
        staged_a, staged_b = cuda.local.array(loads_a, T), cuda.local.array(loads_b, T)
        offsets, downs = cuda.local.array(lines_b, int32), cuda.local.array(lines_b, int32)
        alongs, sums = cuda.local.array(lines_b, int32), cuda.local.array(count, T)
        for i in range(high):
            for j in range(broad):
                sums[i * broad + j] = T(0)
        q = div32(cuda.blockIdx.x, tiles)
        first_m, first_n = int32((cuda.blockIdx.x - q * tiles) * rows), int32(q * columns)
        group = div32(cuda.blockIdx.y, splits)
        part = int32(cuda.blockIdx.y - group * splits)
        start = int32(part * share)
        stop = int32(min(start + share, k))
        plane = int32(rows_out * columns_out)
        group_m, group_n = int32(group * m), int32(group * div32(channels, groups))
        place_b(first_n, n, height, width, kernel_h, kernel_w, dilation_h, dilation_w, offsets, downs, alongs)
        k_now = int32(start + packed * (cuda.threadIdx.x & (words - 1)))
        image, i_now, j_now = split3(k_now, rows_out, columns_out)
        at_a, at_b = int32(0), int32(0)
        ty, tx = place_in_tile()
        first = int32(1)
        while start < stop:  # the first turn only fetches
            here = k_now, image, i_now, j_now
            fetch_a(grad, int32(m * groups), group_m, first_m, start, m, stop, plane, here, rows_out, columns_out,
                    staged_a)
            fetch_b(source, channels, group_n, first_n, start, n, stop, height, width, here, rows_out, columns_out,
                    stride_h, stride_w, pad_top, pad_left, offsets, downs, alongs, staged_b)
            k_now = int32(k_now + depth)
            image, i_now, j_now = add3(image, i_now, j_now, add_n, add_i, add_j, rows_out, columns_out)
            if first == 0:
                multiply(slab_a, slab_b, at_a, at_b, ty, tx, sums)
                at_a, at_b = int32(size_a - at_a), int32(size_b - at_b)
            put_a(staged_a, slab_a, at_a, 1)
            put_b(staged_b, slab_b, at_b, 1)
            cuda.syncthreads()
            start, first = int32(start + depth), int32(0)
        multiply(slab_a, slab_b, at_a, at_b, ty, tx, sums)

        for i in range(high):
            r = int32(first_m + ty + (i >> 2) * half_a + (i & 3))
            if r < m:
                at = int32(((part * groups + group) * m + r) * n)
                for j in range(broad):
                    e = int32(first_n + tx + (j >> 2) * half_b + (j & 3))
                    if e < n:
                        out[int32(at + e)] = sums[i * broad + j]

    return reduce_pixels


REDUCTIONS = {}
KINDS = {("any", "any"): "conv_reduce", ("deep", "any"): "conv_reduce_deep",
         ("deep", "same"): "conv_reduce_pointwise"}
for _tile, _name in NAMED:
    for _layouts, _kind in KINDS.items():
        REDUCTIONS[_tile, _layouts] = reduce(_tile, *_layouts)
        REDUCTIONS[_tile, _layouts].__name__ = f"_{_kind}_{_name}"
