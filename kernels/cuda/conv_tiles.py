"""Convolutions as products of matrices that are never written down: the kernels.

`gather`: out[row, pixel] = Σ over (channel, kh, kw) of weight[row, channel, kh, kw] * source[channel, pixel and tap].
The source pixel of output pixel y and tap kh is ``(y * scale + shift + kh * step) / divisor`` along each axis, none if
that has a remainder. With the stride as the scale it is the convolution, with it as the divisor the gradient by the
input. `reduce`: weight[row, (channel, kh, kw)] = Σ over pixels of grad[row, pixel] * source[channel, pixel and tap].

The sum runs over an index of several digits, (channel, kh, kw) or (image, row, column). A thread splits it once; from
then on it adds the digits of its step and carries, which takes no division.
"""

from minigrad.kernels.cuda.gemm_tiles import NAMED, PADDING, multiplier, on_the_way, placer
from minigrad.kernels.cuda.language import Int, Pointer, T, cuda, device_function, div32, int32, kernel


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
def whole_pixel(source, base, r, s, height, width, divisor_h, divisor_w):
    """The source at row r and column s, zero where there is none; the divisors are 1."""
    value = T(0)
    if r >= 0 and r < height and s >= 0 and s < width:
        value = source[int32(base + r * width + s)]
    return value


@device_function
def divided_pixel(source, base, r, s, height, width, divisor_h, divisor_w):
    """The source at row r / divisor_h and column s / divisor_w, zero where there is none."""
    value = T(0)
    if r >= 0 and s >= 0:
        row, column = div32(r, divisor_h), div32(s, divisor_w)
        if row * divisor_h == r and column * divisor_w == s and row < height and column < width:
            value = source[int32(base + row * width + column)]
    return value


def gather(tile, pixel_or_zero):
    """The kernel for a tile."""
    rows, columns, depth, threads = tile.rows, tile.columns, tile.depth, tile.threads
    count, pitch_a, pitch_b = tile.high * tile.broad, rows + PADDING, columns + PADDING
    size_a, size_b = depth * pitch_a, depth * pitch_b
    both_a, both_b = 2 * size_a, 2 * size_b
    loads_a, loads_b = rows * depth // threads, columns * depth // threads
    shift_k, shift_e = depth.bit_length() - 1, columns.bit_length() - 1
    lines, along = threads // depth, threads // columns
    high, broad = tile.high, tile.broad
    half_a, half_b = tile.apart
    place_in_tile, multiply, changed = placer(tile), multiplier(tile), on_the_way(tile)

    @device_function
    def fetch_weight(weight, at, jump, row, m, k, stop, staged):
        for p in range(loads_a):
            value = T(0)
            if row < m and k < stop:
                value = weight[at]
            staged[p] = value
            row, at = int32(row + lines), int32(at + jump)

    @device_function
    def fetch_source(source, base, r0, s0, step_h, step_w, k, stop, c, kh, kw, add_c, add_h, add_w, kernel_h, kernel_w,
                     height, width, divisor_h, divisor_w, staged):
        for p in range(loads_b):
            value = T(0)
            if k < stop:
                value = pixel_or_zero(source, int32(base + c * height * width), int32(r0 + kh * step_h),
                                      int32(s0 + kw * step_w), height, width, divisor_h, divisor_w)
            staged[p] = value
            k = int32(k + along)
            c, kh, kw = add3(c, kh, kw, add_c, add_h, add_w, kernel_h, kernel_w)
        return k, c, kh, kw

    @device_function
    def put(slab_a, at_a, slab_b, at_b, staged_a, staged_b):
        t = int32(cuda.threadIdx.x)
        place = int32(at_a + (t & (depth - 1)) * pitch_a + (t >> shift_k))
        for p in range(loads_a):
            slab_a[place] = changed(staged_a[p])
            place = int32(place + lines)
        place = int32(at_b + (t >> shift_e) * pitch_b + (t & (columns - 1)))
        for p in range(loads_b):
            slab_b[place] = changed(staged_b[p])
            place = int32(place + along * pitch_b)

    @kernel(promises=("LDS.128", tile.instruction))
    def convolve(weight: Pointer, source: Pointer, bias: Pointer, out: Pointer, m: Int, pixels: Int, k: Int,
                 tiles: Int, splits: Int, share: Int, row_step: Int, channel_step: Int, group_step: Int,
                 channels: Int, height: Int, width: Int, rows_out: Int, columns_out: Int, channels_out: Int,
                 group_channels: Int, kernel_h: Int, kernel_w: Int, scale_h: Int, scale_w: Int, shift_h: Int,
                 shift_w: Int, step_h: Int, step_w: Int, divisor_h: Int, divisor_w: Int, add_c: Int, add_h: Int,
                 add_w: Int, jump_c: Int, jump_tap: Int, size: Int, biased: Int):
        slab_a, slab_b = cuda.shared.array(both_a, T, alignment=16), cuda.shared.array(both_b, T, alignment=16)
        staged_a, staged_b = cuda.local.array(loads_a, T), cuda.local.array(loads_b, T)
        sums = cuda.local.array(count, T)
        for i in range(high):
            for j in range(broad):
                sums[i * broad + j] = T(0)
        t = int32(cuda.threadIdx.x)
        q = div32(cuda.blockIdx.x, tiles)
        first_m, first_n = int32((cuda.blockIdx.x - q * tiles) * rows), int32(q * columns)
        group = div32(cuda.blockIdx.y, splits)
        part = int32(cuda.blockIdx.y - group * splits)
        start = int32(part * share)
        stop = int32(min(start + share, k))

        # The source: this thread's pixel, and its digits of k. A pixel beyond the last has no k.
        e = int32(first_n + (t & (columns - 1)))
        image, y, x = split3(e, rows_out, columns_out)
        r0, s0 = int32(y * scale_h + shift_h), int32(x * scale_w + shift_w)
        base = int32((image * channels + group * group_channels) * height * width)
        k_b = int32(start + (t >> shift_e))
        c, kh, kw = split3(k_b, kernel_h, kernel_w)
        stop_b = stop
        if e >= pixels:
            stop_b = int32(0)
        # The weight: this thread's rows, and its digits (channel, tap) of k.
        taps = int32(kernel_h * kernel_w)
        row, k_a = int32(first_m + (t >> shift_k)), int32(start + (t & (depth - 1)))
        channel = div32(k_a, taps)
        tap = int32(k_a - channel * taps)
        at, jump = int32(group * group_step + row * row_step), int32(lines * row_step)

        fetch_weight(weight, int32(at + channel * channel_step + tap), jump, row, m, k_a, stop, staged_a)
        k_b, c, kh, kw = fetch_source(source, base, r0, s0, step_h, step_w, k_b, stop_b, c, kh, kw, add_c, add_h, add_w,
                                      kernel_h, kernel_w, height, width, divisor_h, divisor_w, staged_b)
        put(slab_a, int32(0), slab_b, int32(0), staged_a, staged_b)
        cuda.syncthreads()
        at_a, at_b = int32(0), int32(0)
        ty, tx = place_in_tile()
        while start < stop:
            start = int32(start + depth)
            if start < stop:
                k_a, channel, tap = int32(k_a + depth), int32(channel + jump_c), int32(tap + jump_tap)
                if tap >= taps:
                    channel, tap = int32(channel + 1), int32(tap - taps)
                fetch_weight(weight, int32(at + channel * channel_step + tap), jump, row, m, k_a, stop, staged_a)
                k_b, c, kh, kw = fetch_source(source, base, r0, s0, step_h, step_w, k_b, stop_b, c, kh, kw, add_c,
                                              add_h, add_w, kernel_h, kernel_w, height, width, divisor_h, divisor_w,
                                              staged_b)
            multiply(slab_a, slab_b, at_a, at_b, ty, tx, sums)
            at_a, at_b = int32(size_a - at_a), int32(size_b - at_b)
            if start < stop:
                put(slab_a, at_a, slab_b, at_b, staged_a, staged_b)
            cuda.syncthreads()

        plane = int32(rows_out * columns_out)
        for j in range(broad):
            e = int32(first_n + tx + (j >> 2) * half_b + (j & 3))
            if e < pixels:
                image = div32(e, plane)
                at = int32(part * size + (image * channels_out + group * m) * plane + e - image * plane)
                for i in range(high):
                    r = int32(first_m + ty + (i >> 2) * half_a + (i & 3))
                    if r < m:
                        value = sums[i * broad + j]
                        if biased:
                            value += bias[int32(group * m + r)]
                        out[int32(at + r * plane)] = value

    return convolve


def reduce(tile):
    """The kernel of the gradient by the weight for a tile."""
    rows, columns, depth, threads = tile.rows, tile.columns, tile.depth, tile.threads
    count, pitch_a, pitch_b = tile.high * tile.broad, rows + PADDING, columns + PADDING
    size_a, size_b = depth * pitch_a, depth * pitch_b
    both_a, both_b = 2 * size_a, 2 * size_b
    loads_a, loads_b = rows * depth // threads, columns * depth // threads
    shift_k, lines = depth.bit_length() - 1, threads // depth
    high, broad = tile.high, tile.broad
    half_a, half_b = tile.apart
    place_in_tile, multiply, changed = placer(tile), multiplier(tile), on_the_way(tile)

    @device_function
    def fetch(grad, source, at, plane, row, m, base, y, x, height, width, here, offsets, downs, alongs, staged_a,
              staged_b):
        for p in range(loads_a):
            value = T(0)
            if here and row + p * lines < m:
                value = grad[int32(at + p * lines * plane)]
            staged_a[p] = value
        for p in range(loads_b):
            value = T(0)
            r, s = int32(y + downs[p]), int32(x + alongs[p])
            if here and offsets[p] >= 0 and r >= 0 and r < height and s >= 0 and s < width:
                value = source[int32(base + offsets[p] + r * width + s)]
            staged_b[p] = value

    @device_function
    def put(slab_a, at_a, slab_b, at_b, staged_a, staged_b):
        t = int32(cuda.threadIdx.x)
        place = int32(at_a + (t & (depth - 1)) * pitch_a + (t >> shift_k))
        for p in range(loads_a):
            slab_a[place] = changed(staged_a[p])
            place = int32(place + lines)
        place = int32(at_b + (t & (depth - 1)) * pitch_b + (t >> shift_k))
        for p in range(loads_b):
            slab_b[place] = changed(staged_b[p])
            place = int32(place + lines)

    @kernel(promises=("LDS.128", tile.instruction))
    def reduce_pixels(grad: Pointer, source: Pointer, out: Pointer, m: Int, n: Int, k: Int, tiles: Int, splits: Int,
                      share: Int, groups: Int, channels: Int, height: Int, width: Int, rows_out: Int, columns_out: Int,
                      kernel_h: Int, kernel_w: Int, stride_h: Int, stride_w: Int, pad_top: Int, pad_left: Int,
                      dilation_h: Int, dilation_w: Int, add_n: Int, add_i: Int, add_j: Int):
        slab_a, slab_b = cuda.shared.array(both_a, T, alignment=16), cuda.shared.array(both_b, T, alignment=16)
        staged_a, staged_b = cuda.local.array(loads_a, T), cuda.local.array(loads_b, T)
        offsets, downs = cuda.local.array(loads_b, int32), cuda.local.array(loads_b, int32)
        alongs, sums = cuda.local.array(loads_b, int32), cuda.local.array(count, T)
        for i in range(high):
            for j in range(broad):
                sums[i * broad + j] = T(0)
        t = int32(cuda.threadIdx.x)
        q = div32(cuda.blockIdx.x, tiles)
        first_m, first_n = int32((cuda.blockIdx.x - q * tiles) * rows), int32(q * columns)
        group = div32(cuda.blockIdx.y, splits)
        part = int32(cuda.blockIdx.y - group * splits)
        start = int32(part * share)
        stop = int32(min(start + share, k))
        plane = int32(rows_out * columns_out)

        # This thread's columns, (channel, kh, kw), stay the same; its pixel, the digits of k, moves on.
        for p in range(loads_b):
            e = int32(first_n + (t >> shift_k) + p * lines)
            c, kh, kw = split3(e, kernel_h, kernel_w)
            offset = int32(c * height * width)
            if e >= n:
                offset = int32(-1)
            offsets[p], downs[p], alongs[p] = offset, int32(kh * dilation_h), int32(kw * dilation_w)
        row, k_now = int32(first_m + (t >> shift_k)), int32(start + (t & (depth - 1)))
        image, i_now, j_now = split3(k_now, rows_out, columns_out)
        group_rows = int32(m * groups)
        source_group = int32(group * div32(channels, groups))
        at_a, at_b = int32(0), int32(0)
        ty, tx = place_in_tile()
        first = int32(1)
        while start < stop:  # the first turn only fetches
            fetch(grad, source, int32((image * group_rows + group * m + row) * plane + i_now * columns_out + j_now),
                  plane, row, m, int32((image * channels + source_group) * height * width),
                  int32(i_now * stride_h - pad_top), int32(j_now * stride_w - pad_left), height, width,
                  k_now < stop, offsets, downs, alongs, staged_a, staged_b)
            k_now = int32(k_now + depth)
            image, i_now, j_now = add3(image, i_now, j_now, add_n, add_i, add_j, rows_out, columns_out)
            if first == 0:
                multiply(slab_a, slab_b, at_a, at_b, ty, tx, sums)
                at_a, at_b = int32(size_a - at_a), int32(size_b - at_b)
            put(slab_a, at_a, slab_b, at_b, staged_a, staged_b)
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


GATHERS, REDUCTIONS = {}, {}
for _tile, _name in NAMED:
    REDUCTIONS[_tile] = reduce(_tile)
    REDUCTIONS[_tile].__name__ = f"_conv_reduce_{_name}"
    for _divided, _pixel in ((False, whole_pixel), (True, divided_pixel)):
        GATHERS[_tile, _divided] = gather(_tile, _pixel)
        GATHERS[_tile, _divided].__name__ = f"_conv_{'spread' if _divided else 'gather'}_{_name}"
