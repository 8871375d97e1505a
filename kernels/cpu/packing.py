"""Copies that the micro-kernels read: panels whose every step of the depth is one short run, and padded images."""

from minigrad.kernels.cpu.compile import inline
from minigrad.kernels.cpu.simd import VECTOR_BYTES, copy_block, copy_window, keep_scalar, lanes_of, transpose_block

SQUARE = 8 if VECTOR_BYTES == 64 else 4
_transpose = transpose_block(SQUARE)
_copy = copy_block(SQUARE)
_copy_window = copy_window()


@inline
def pack_panel(x, at, step, depth_step, valid, depth, out, out_at, width):
    """``out[k, i] = x[at + i * step + k * depth_step]`` for a panel (depth, width); zeros for i >= valid.

    One of the two steps is 1.
    """
    if width % SQUARE:  # a single vector of two doubles
        for k in range(depth):
            for i in range(width):
                keep_scalar(out)
                out[out_at + k * width + i] = x[at + k * depth_step + i * step] if i < valid else x.dtype.type(0)
    elif depth_step == 1:
        for i in range(0, width, SQUARE):
            for k in range(0, depth, SQUARE):
                _transpose(x, at + i * step + k, step, valid - i, depth - k, out, out_at + k * width + i, width)
    else:
        for k in range(depth):
            for i in range(0, width, SQUARE):
                _copy(x, at + k * depth_step + i, valid - i, out, out_at + k * width + i)


@inline
def pad_rows(x, x_at, height, width, first, rows, step_h, step_w, phase_h, phase_w, top, left, columns, pitch,
             out, out_at):
    """Copy one phase of rows of an image plane, padded.

    ``out[i * pitch + j] = x[(first + i) * step_h + phase_h - top, j * step_w + phase_w - left]``, zero outside, for
    i < rows and j < columns. Writes up to a vector beyond `columns`, in ascending order.
    """
    lanes = lanes_of(out)
    for i in range(rows):
        source = (first + i) * step_h + phase_h - top
        inside = 0 <= source < height
        if step_w == 1:
            for j in range(0, columns, lanes):
                shift = j + phase_w - left
                _copy_window(x, x_at + source * width + shift, -shift if inside else lanes, width - shift,
                             out, out_at + i * pitch + j)
        else:
            for j in range(columns):
                keep_scalar(out)
                column = j * step_w + phase_w - left
                value = out.dtype.type(0)
                if inside and 0 <= column < width:
                    value = x[x_at + source * width + column]
                out[out_at + i * pitch + j] = value
