"""Batch normalisation of x (N, C, H, W), an activation and 2 x 2 max pooling behind it.

The statistics take one pass over x, forward one, backward two over x and the gradient, the second right behind the
first if a block has a channel to itself. Where there are few channels, several blocks share one: they leave their parts
in scratch memory, and a second launch begins with adding them up. What the activation and the pooling did is computed
again in the backward pass, from x alone.
"""

from minigrad.kernels.cuda import batch_norm_pool as pooled
from minigrad.kernels.cuda.batch_norm_parts import KIND_OF, way
from minigrad.kernels.cuda.batch_norm_plain import backward, finish_statistics, forward, running, statistics
from minigrad.kernels.cuda.language import WARP, blocks
from minigrad.kernels.cuda.memory import scratch
from minigrad.kernels.cuda.reduce_blocks import plan, wide

SHARE = 4  # items of a thread where nothing is added up


def _items(plane, *arrays):
    """Whether threads can take four neighbours at once, and how many items an image of `plane` elements is then."""
    four = not any([not wide(array, plane) for array in arrays])
    return four, plane // 4 if four else plane


def batch_norm_statistics(x, mean, variance):
    """mean, variance (C,): of every channel of x (N, C, H, W), the variance biased."""
    batch, channels, height, width = x.shape
    if not channels:
        return
    four, plane = _items(height * width, x)
    grid, block, numbers = way(batch if plane else 0, channels, max(plane, 1))
    parts = grid[1]
    if parts == 1:
        statistics[four][grid, block](x, mean, variance, mean, 0, *numbers)
        return
    moments = scratch(2 * parts * channels, x.dtype)
    statistics[four][grid, block](x, mean, variance, moments, 1, *numbers)
    chunk = numbers[3] * (4 if four else 1)
    p = plan(channels, parts, 1, split=False)
    finish_statistics[p.grid, p.block](
        x, moments, mean, variance, channels, parts, chunk, batch * height * width, height * width
    )


def batch_norm_forward(x, mean, variance, weight, bias, out, eps, act, slope, pool):
    """out = f((x - mean) / √(variance + eps) * weight + bias) (Ioffe and Szegedy 2015, algorithm 1), f an activation.

    With `pool`, `out` (N, C, H // 2, W // 2) gets the maxima of its windows of 2 x 2 (see `max_pool2d_forward`).
    """
    batch, channels, height, width = x.shape
    if not out.size:
        return
    numbers = weight.size, bias.size, eps, act, slope
    if pool:
        grid, block, walk = way(batch, channels, (height // 2) * (width // 2), share=SHARE)
        pooled.forward[KIND_OF[act]][grid, block](x, mean, variance, weight, bias, out, *numbers, *walk, height, width)
    else:
        four, plane = _items(height * width, x, out)
        grid, block, walk = way(batch, channels, plane, share=SHARE)
        forward[KIND_OF[act]][four][grid, block](x, mean, variance, weight, bias, out, *numbers, *walk)


def batch_norm_backward(x, mean, variance, weight, bias, grad, grad_x, grad_weight, grad_bias, eps, act, slope, pool):
    """The three gradients of batch_norm_forward where mean and variance are those of x itself (training)."""
    batch, channels, height, width = x.shape
    if not channels:
        return
    if pool:
        kernels, plane, shape = pooled.backward[KIND_OF[act]], -(-height // 2) * -(-width // 2), (height, width)
    else:
        four, plane = _items(height * width, x, grad, grad_x)
        kernels, shape = backward[KIND_OF[act]][four], ()
    grid, block, walk = way(batch if plane else 0, channels, max(plane, 1))
    arrays = x, mean, variance, weight, bias, grad
    numbers = batch * height * width, weight.size, bias.size, eps, act, slope
    whole, parts = kernels
    if grid[1] == 1:
        whole[grid, block](*arrays, grad_x, grad_weight, grad_bias, grad, 0, *numbers, *walk, *shape)
        return
    sums, many = scratch(2 * grid[1] * channels, x.dtype), grid[1]
    parts[grid, block](*arrays, sums, *numbers[1:], *walk, *shape)
    grid, block, walk = way(batch, channels, plane, share=4 * SHARE)
    whole[grid, block](*arrays, grad_x, grad_weight, grad_bias, sums, many, *numbers, *walk, *shape)


def batch_norm_running(mean, variance, running_mean, running_var, momentum, batches, count, cumulative):
    """In place: both running values move by momentum[0] towards the batch's mean and its unbiased variance.

    The batch had `count` values per channel; the variance given is the biased one. The int64 `batches` (1,), unless its
    size is 0, counts up by one; if `cumulative`, momentum[0] then becomes 1 / batches[0].
    """
    unbiased = count / (count - 1) if count != 1 else float("inf")
    running[1, max(WARP, min(1024, blocks(mean.size, WARP) * WARP))](
        mean, variance, running_mean, running_var, momentum, batches, mean.size, batches.size, cumulative, unbiased
    )
