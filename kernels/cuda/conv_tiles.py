"""Convolutions as products of matrices that are never written down: the kernels.

`gather`: out[row, pixel] = Σ over (channel, kh, kw) of weight[row, channel, kh, kw] * source[channel, pixel and tap].
The source pixel of output pixel y and tap kh is ``(y * scale + shift + kh * step) / divisor`` along each axis, none if
that has a remainder. With the stride as the scale it is the convolution, with it as the divisor the gradient by the
input. (The gradient by the weight is `conv_reduce`'s.)

Whether there is a remainder depends on the tap and on the pixel's residue class alone, ``y % divisor``: a class meets
one tap in ``divisor / gcd(divisor, step)``, or none. A block computes pixels of one class and visits the taps that
these meet: a product as dense as any other, of one pixel and one tap in so many. With stride 2 the gradient by the
input multiplies a quarter of what all taps of all pixels would be (3 x 3: 9 taps for 4 pixels instead of 36).

The sum runs over an index of three digits, (channel, kh, kw). A thread splits it once; from then on it adds the digits
of its step and carries, which takes no division.
"""

from minigrad.kernels.cuda.gemm_tiles import (
    NAMED,
    PADDING,
    deep_loader,
    multiplier,
    on_the_way,
    placer,
    scalar_loader,
    wide_loader,
)
from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, device_function, div32, int32, kernel, load4, store4


@device_function
def split3(index, middle, last):
    """The three digits of an index."""
    rest = div32(index, last)
    high = div32(rest, middle)
    return high, int32(rest - high * middle), int32(index - rest * last)


@device_function
def add3(high, mid, low, step_high, step_mid, step_low, middle, last):
    """The sum of two numbers of three digits."""
    low, mid, high = int32(low + step_low), int32(mid + step_mid), int32(high + step_high)
    if low >= last:
        low, mid = int32(low - last), int32(mid + 1)
    if mid >= middle:
        mid, high = int32(mid - middle), int32(high + 1)
    return high, mid, low


@device_function
def pixel_or_zero(source, base, r, s, height, width):
    """The source at row r and column s, zero where there is none."""
    value = T(0)
    if r >= 0 and r < height and s >= 0 and s < width:
        value = source[int32(base + r * width + s)]
    return value


@device_function
def every_tap(position, taps, divisor, whole, part, period):
    """`meeting_taps` where the divisor is 1."""
    return int32(position), int32(0), int32(taps), int32(1)


@device_function
def meeting_taps(position, taps, divisor, whole, part, period):
    """Where the first tap that meets a source pixel reads, which tap it is, how many do, and how far apart they are.

    Tap 0 would read at position / divisor, each next one the step before it, by ``whole + part / divisor``.
    """
    at, rest, tap = int32(position), int32(0), int32(0)
    if divisor > 1:  # otherwise the position may be negative, and every tap reads
        at = div32(position, divisor)
        rest = int32(position - at * divisor)
    while rest != 0 and tap < taps:
        tap, at, rest = int32(tap + 1), int32(at - whole), int32(rest - part)
        if rest < 0:
            at, rest = int32(at - 1), int32(rest + divisor)
    meeting = int32(taps - tap)
    if period > 1:
        meeting = div32(meeting + period - 1, period)
    return at, tap, meeting, int32(period)


@device_function
def place_of_tap(channel, kh, kw, channel_step, line_step, tap_step, taps_h, taps_w):
    """Where a row of the weight has a tap of a channel, and how far from there it has the next one."""
    place = int32(channel * channel_step + kh * line_step + kw * tap_step)
    channel, kh, kw = add3(channel, kh, kw, 0, 0, 1, taps_h, taps_w)
    return place, int32(channel * channel_step + kh * line_step + kw * tap_step - place)


def any_weight(rows, tile):
    """A loader like those of `gemm_tiles`, of weights that lie as the taps of a class have it, element by element.

    `at` is where row 0 has the first k of this thread, `step_k` how far from there it has the next one.
    """
    words, packed, lines = tile.words, tile.packed, tile.threads // tile.words
    loads, shift_k, back = rows // lines * packed, words.bit_length() - 1, packed - 1
    _, put_words = scalar_loader(rows, tile)

    @device_function
    def fetch(weight, at, first, start, m, stop, row_step, step_k, staged):
        t = int32(cuda.threadIdx.x)
        row, k = int32(first + (t >> shift_k)), int32(start + packed * (t & (words - 1)))
        place, jump = int32(at + row * row_step), int32(lines * row_step - back * step_k)
        for p in range(loads):
            value = T(0)
            if row < m and k < stop:
                value = weight[place]
            staged[p] = value
            if p % packed < back:
                k, place = int32(k + 1), int32(place + step_k)
            else:
                row, k, place = int32(row + lines), int32(k - back), int32(place + jump)

    @device_function
    def put(staged, slab, at, step_k):
        put_words(staged, slab, at, 1)  # as of a matrix whose neighbours in k are neighbours in memory

    return fetch, put


def any_pixel(columns, tile):
    """A thread's place among the pixels and the words along k, a loader of source pixels wherever they are, one by one.

    Neighbouring threads have neighbouring pixels, so that a warp's loads join in few lines of memory. Quads would not
    do: in a 3 x 3 kernel two of three taps move them off the multiples of 16 bytes that 128-bit loads are tied to, and
    at an edge or with a stride they are no four neighbours.
    """
    packed, word, along = tile.packed, on_the_way(tile), tile.threads // columns
    loads, pitch, further = tile.words // along, columns + PADDING, packed * along
    shift_e = columns.bit_length() - 1

    @device_function
    def place(t):
        return int32(t & (columns - 1)), int32(t >> shift_e)

    @device_function
    def fetch(source, base, r0, s0, step_h, step_w, k, stop, c, kh, kw, add_c, add_h, add_w, taps_h, taps_w, height,
              width, staged):
        for p in range(loads):
            at_c, at_h, at_w = c, kh, kw
            for q in range(packed):
                value = T(0)
                if int32(k + q) < stop:
                    value = pixel_or_zero(source, int32(base + at_c * height * width), int32(r0 + at_h * step_h),
                                          int32(s0 + at_w * step_w), height, width)
                staged[packed * p + q] = value
                at_c, at_h, at_w = add3(at_c, at_h, at_w, 0, 0, 1, taps_h, taps_w)
            k = int32(k + further)
            c, kh, kw = add3(c, kh, kw, add_c, add_h, add_w, taps_h, taps_w)
        return k, c, kh, kw

    @device_function
    def put(staged, slab, at):
        e, line = place(int32(cuda.threadIdx.x))
        to = int32(at + line * pitch + e)
        for p in range(loads):
            slab[to] = word(staged, packed * p, 1)
            to = int32(to + along * pitch)

    return place, fetch, put, further


def same_pixel(columns, tile):
    """The same for a source whose pixels are those of the output, a plane being a multiple of four: four at a time."""
    packed, word, quads = tile.packed, on_the_way(tile), columns // 4
    pitch, along, shift = columns + PADDING, tile.threads // quads, quads.bit_length() - 1
    loads, further = tile.words // along, packed * along

    @device_function
    def place(t):
        return int32((t & (quads - 1)) << 2), int32(t >> shift)

    @device_function
    def fetch(source, base, r0, s0, step_h, step_w, k, stop, c, kh, kw, add_c, add_h, add_w, taps_h, taps_w, height,
              width, staged):
        for p in range(loads):
            for q in range(packed):
                v0, v1, v2, v3 = T(0), T(0), T(0), T(0)
                if int32(k + q) < stop:
                    v0, v1, v2, v3 = load4(source, int32(base + ((k + q) * height + r0) * width + s0))
                i = 4 * (packed * p + q)
                staged[i], staged[i + 1], staged[i + 2], staged[i + 3] = v0, v1, v2, v3
            k = int32(k + further)
        return k, c, kh, kw

    @device_function
    def put(staged, slab, at):
        e, line = place(int32(cuda.threadIdx.x))
        to = int32(at + line * pitch + e)
        for p in range(loads):
            i = 4 * packed * p
            store4(slab, to, word(staged, i, 4), word(staged, i + 1, 4), word(staged, i + 2, 4),
                   word(staged, i + 3, 4))
            to = int32(to + along * pitch)

    return place, fetch, put, further


WEIGHTS = {"any": any_weight, "deep": deep_loader, "wide": wide_loader}
PIXELS = {"any": any_pixel, "same": same_pixel}


def gather(tile, weights, pixels):
    """The kernel for a tile and for operands that lie as named; where it is not any weight, there is one class."""
    rows, columns, depth, threads = tile.rows, tile.columns, tile.depth, tile.threads
    words, packed = tile.words, tile.packed
    count, pitch_a, pitch_b = tile.high * tile.broad, rows + PADDING, columns + PADDING
    size_a, size_b = words * pitch_a, words * pitch_b
    both_a, both_b = 2 * size_a, 2 * size_b
    loads_a, loads_b = rows * depth // threads, columns * depth // threads
    high, broad = tile.high, tile.broad
    half_a, half_b = tile.apart
    place_in_tile, multiply = placer(tile), multiplier(tile)
    fetch_weight, put_weight = WEIGHTS[weights](rows, tile)
    place_of_pixel, fetch_source, put_source, further = PIXELS[pixels](columns, tile)
    any_weights = weights == "any"
    taps_of = meeting_taps if any_weights else every_tap
    promises = "LDS.128", "STG.E.128", tile.instruction, *(("LDG.E.128",) if not any_weights else ())

    @kernel(promises=promises)
    def convolve(weight: Pointer, source: Pointer, bias: Pointer, out: Pointer, m: Int, images: Int, tiles: Int,
                 across: Int, classes_w: Int, splits: Int, share: Int, row_step: Int, channel_step: Int,
                 group_step: Int, channels: Int, height: Int, width: Int, rows_out: Int, columns_out: Int,
                 channels_out: Int, group_channels: Int, kernel_h: Int, kernel_w: Int, scale_h: Int, scale_w: Int,
                 shift_h: Int, shift_w: Int, step_h: Int, step_w: Int, divisor_h: Int, divisor_w: Int, whole_h: Int,
                 whole_w: Int, part_h: Int, part_w: Int, period_h: Int, period_w: Int, size: Int, biased: Int,
                 vectors: Int):
        slab_a, slab_b = cuda.shared.array(both_a, T, alignment=16), cuda.shared.array(both_b, T, alignment=16)
        staged_a, staged_b = cuda.local.array(loads_a, T), cuda.local.array(loads_b, T)
        sums = cuda.local.array(count, T)
        for i in range(high):
            for j in range(broad):
                sums[i * broad + j] = T(0)
        t = int32(cuda.threadIdx.x)
        # The x of the grid counts tiles down the rows, tiles along the pixels of a class, classes.
        q = div32(cuda.blockIdx.x, tiles)
        residue = div32(q, across)
        first_m, first_n = int32((cuda.blockIdx.x - q * tiles) * rows), int32((q - residue * across) * columns)
        group = div32(cuda.blockIdx.y, splits)
        part = int32(cuda.blockIdx.y - group * splits)

        # The pixels of the class, and its taps: every next_h-th from kh_0 on, every next_w-th from kw_0 on.
        y_0 = div32(residue, classes_w)
        x_0 = int32(residue - y_0 * classes_w)
        rows_here, columns_here = (div32(rows_out - y_0 + divisor_h - 1, divisor_h),
                                   div32(columns_out - x_0 + divisor_w - 1, divisor_w))
        pixels = int32(images * rows_here * columns_here)
        r_0, kh_0, taps_h, next_h = taps_of(y_0 + shift_h, kernel_h, divisor_h, whole_h, part_h, period_h)
        s_0, kw_0, taps_w, next_w = taps_of(x_0 + shift_w, kernel_w, divisor_w, whole_w, part_w, period_w)
        k = int32(group_channels * taps_h * taps_w)
        if k == 0:  # without taps there are zeros to write
            taps_h, taps_w = int32(1), int32(1)
        if first_n >= pixels:  # a class smaller than the largest
            k = int32(0)
        start = int32(part * share)
        stop = int32(min(start + share, k))

        # The source: this thread's pixel, and its digits of k. A pixel beyond the last has no k.
        e, k_b = place_of_pixel(t)
        e, k_b = int32(first_n + e), int32(start + packed * k_b)
        image, y, x = split3(e, rows_here, columns_here)
        r0, s0 = int32(y * scale_h + r_0), int32(x * scale_w + s_0)
        base = int32((image * channels + group * group_channels) * height * width)
        c, kh, kw = split3(k_b, taps_h, taps_w)
        add_c, add_h, add_w = split3(int32(further), taps_h, taps_w)
        stop_b = stop
        if e >= pixels:
            stop_b = int32(0)
        # The weight: where its first tap is, and this thread's digits of k if they matter.
        channel, tap_h, tap_w = split3(int32(start + packed * (t & (words - 1))), taps_h, taps_w)
        jump_c, jump_h, jump_w = split3(int32(depth), taps_h, taps_w)
        line_step, at = int32(next_h * kernel_w), int32(group * group_step + kh_0 * kernel_w + kw_0)
        digits, step_k = int32(0), channel_step
        if any_weights:
            digits, step_k = place_of_tap(channel, tap_h, tap_w, channel_step, line_step, next_w, taps_h, taps_w)

        fetch_weight(weight, int32(at + digits), first_m, start, m, stop, row_step, step_k, staged_a)
        k_b, c, kh, kw = fetch_source(source, base, r0, s0, step_h, step_w, k_b, stop_b, c, kh, kw, add_c, add_h, add_w,
                                      taps_h, taps_w, height, width, staged_b)
        put_weight(staged_a, slab_a, int32(0), channel_step)
        put_source(staged_b, slab_b, int32(0))
        cuda.syncthreads()
        at_a, at_b = int32(0), int32(0)
        ty, tx = place_in_tile()
        while start < stop:
            start = int32(start + depth)
            if start < stop:
                if any_weights:
                    channel, tap_h, tap_w = add3(channel, tap_h, tap_w, jump_c, jump_h, jump_w, taps_h, taps_w)
                    digits, step_k = place_of_tap(channel, tap_h, tap_w, channel_step, line_step, next_w, taps_h,
                                                  taps_w)
                fetch_weight(weight, int32(at + digits), first_m, start, m, stop, row_step, step_k, staged_a)
                k_b, c, kh, kw = fetch_source(source, base, r0, s0, step_h, step_w, k_b, stop_b, c, kh, kw, add_c,
                                              add_h, add_w, taps_h, taps_w, height, width, staged_b)
            multiply(slab_a, slab_b, at_a, at_b, ty, tx, sums)
            at_a, at_b = int32(size_a - at_a), int32(size_b - at_b)
            if start < stop:
                put_weight(staged_a, slab_a, at_a, channel_step)
                put_source(staged_b, slab_b, at_b)
            cuda.syncthreads()

        if biased:
            for i in range(high):
                r = int32(first_m + ty + (i >> 2) * half_a + (i & 3))
                if r < m:
                    value = bias[int32(group * m + r)]
                    for j in range(broad):
                        sums[i * broad + j] += value
        plane = int32(rows_out * columns_out)
        channel = int32(group * m + first_m + ty)
        for j in range(0, broad, 4):
            e = int32(first_n + tx + (j >> 2) * half_b)
            image, y, x = split3(e, rows_here, columns_here)
            if vectors:  # of the one class: four pixels of an image that lie side by side
                if e < pixels:
                    at = int32(part * size + (image * channels_out + channel) * plane + y * columns_out + x)
                    for i in range(high):
                        r = int32((i >> 2) * half_a + (i & 3))
                        if first_m + ty + r < m:
                            n = i * broad + j
                            store4(out, int32(at + r * plane), sums[n], sums[n + 1], sums[n + 2], sums[n + 3])
            else:
                for f in range(4):
                    if e + f < pixels:
                        at = int32(part * size + (image * channels_out + channel) * plane
                                   + (y * divisor_h + y_0) * columns_out + x * divisor_w + x_0)
                        for i in range(high):
                            r = int32((i >> 2) * half_a + (i & 3))
                            if first_m + ty + r < m:
                                out[int32(at + r * plane)] = sums[i * broad + j + f]
                    image, y, x = add3(image, y, x, 0, 0, 1, rows_here, columns_here)

    return convolve


# How weights and pixels lie, and what the kernel is called. With a 1 x 1 kernel, stride 1 and no padding both
# directions are plain products, with deep weights or wide ones. Otherwise the convolution's weights are deep, and
# (channel, row, tap), which is what the gradient by the input has, is neither.
GATHERS = {}
LAYOUTS = {("any", "any"): "gather", ("deep", "any"): "gather_deep", ("deep", "same"): "pointwise_deep",
           ("wide", "same"): "pointwise_wide"}
for _tile, _name in NAMED:
    for _layouts, _kind in LAYOUTS.items():
        GATHERS[_tile, _layouts] = gather(_tile, *_layouts)
        GATHERS[_tile, _layouts].__name__ = f"_conv_{_kind}_{_name}"
