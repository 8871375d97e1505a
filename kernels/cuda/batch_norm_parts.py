"""What the kernels of batch normalisation share: the way through a channel, its map, activations, sums of a block.

A thread goes through elements of one channel of x (N, C, H, W). They are numbered through all images, element e being
element e % plane of image e // plane; from one to the next the thread adds the block's extent along y, so that image
and place follow by additions. With images of one pixel, the (N, C) of an MLP, neighbouring threads take neighbouring
channels (x of the block), otherwise neighbouring pixels (y).
"""

from functools import lru_cache

from minigrad.kernels.cuda.language import (
    THREADS,
    T,
    cuda,
    device_function,
    div32,
    divide,
    int32,
    math,
    reciprocal_root,
)
from minigrad.kernels.cuda.reduce_blocks import BUSY, plan, thread_of_block, tiles

RELU, LEAKY_RELU, SIGMOID, TANH, SILU = 0, 1, 2, 3, 4  # without an activation: LEAKY_RELU of slope 1
MOST = 65_535  # blocks along y


@lru_cache(4096)
def way(batch, channels, plane, share=0):
    """Grid, block and numbers of a launch for channels of `batch` images, each of `plane` items.

    An item is what a thread takes in one step. With `share`, a thread gets at most about as many, whatever it takes in
    blocks; otherwise a channel has several blocks only if there are few channels.
    """
    count = batch * plane
    p = plan(1, count, channels) if plane == 1 else plan(channels, count, 1)
    across, down, deep = p.block
    chunk, parts = p.chunk, p.parts
    if share:
        blocks = tiles(channels, across * deep)
        chunk = down * max(1, min(share, tiles(count * blocks, BUSY * down)), tiles(count, MOST * down))
        parts = tiles(count, chunk)
    images, places = divmod(down, plane)
    return (tiles(channels, across * deep), parts), p.block, (channels, plane, count, chunk, places, images * channels)


@device_function
def begin(channels, plane, count, chunk):
    """The thread's channel, whether there is one, number and end of its items, the first one's place and image."""
    column = int32(cuda.blockIdx.x * cuda.blockDim.z + cuda.threadIdx.z)
    channel = int32(column * cuda.blockDim.x + cuda.threadIdx.x)
    e = int32(cuda.blockIdx.y * chunk + cuda.threadIdx.y)
    stop = int32(min((cuda.blockIdx.y + 1) * chunk, count)) if channel < channels else int32(0)
    image = div32(e, plane)
    c = int32(min(channel, channels - 1))
    return c, channel < channels, e, stop, int32(e - image * plane), int32(image * channels + c)


@device_function
def forth(place, image, plane, channels, places, images):
    """Place and image of the thread's next item."""
    place, image = int32(place + places), int32(image + images)
    if place >= plane:
        place, image = int32(place - plane), int32(image + channels)
    return place, image


@device_function
def channel_map(c, mean, variance, weight, bias, weighted, biased, eps):
    """Of channel c: mean, 1 / deviation, and (x - mean) * scale + shift is its affine map."""
    rstd = reciprocal_root(variance[c] + eps)
    scale = rstd * weight[c] if weighted else rstd
    shift = bias[c] if biased else T(0)
    return mean[c], rstd, scale, shift


# -- activations ---------------------------------------------------------------------------------------------------

KINDS = ("rectified", "logistic", "tanh")
KIND_OF = (0, 0, 1, 2, 1)  # of activation
"""Each kind has kernels of its own: if they branch for it, the compiler makes calls of the ends of loops for sm_80."""


@device_function
def _rectified(z, act, slope):
    low = z * slope if act == LEAKY_RELU else T(0)
    return low if z <= T(0) else z


@device_function
def _rectified_grad(z, grad, act, slope):
    """Where z is NaN, ReLU lets the gradient through and leaky ReLU scales it."""
    low = grad * slope if act == LEAKY_RELU else T(0)
    return low if (z <= T(0)) | ((act == LEAKY_RELU) & (z != z)) else grad


@device_function
def _logistic(z, act, slope):
    s = divide(T(1), T(1) + math.exp(-z))
    return z * s if act == SILU else s


@device_function
def _logistic_grad(z, grad, act, slope):
    s = divide(T(1), T(1) + math.exp(-z))
    return grad * s * (T(1) + z * (T(1) - s) if act == SILU else T(1) - s)


@device_function
def _tanh(z, act, slope):
    return math.tanh(z)


@device_function
def _tanh_grad(z, grad, act, slope):
    y = math.tanh(z)
    return grad * (T(1) - y * y)


ACTIVATIONS = ((_rectified, _rectified_grad), (_logistic, _logistic_grad), (_tanh, _tanh_grad))
"""Of each kind: f(z, act, slope), and grad f'(z) as a function (z, grad, act, slope)."""


# -- sums of a block -----------------------------------------------------------------------------------------------


@device_function
def merged(n, s, q, other_n, other_s, other_q):
    """Number, sum and squared deviations of two sets together (Chan, Golub and LeVeque 1983); empty ones do no harm."""
    together = n + other_n
    distance = divide(other_s, max(other_n, T(1))) - divide(s, max(n, T(1)))
    return together, s + other_s, q + other_q + distance * distance * divide(n * other_n, max(together, T(1)))


@device_function
def folded_moments(n, s, q):
    """Number, sum and squared deviations of a channel from those of its threads, right in the threads of y = 0."""
    across, group = int32(cuda.blockDim.x), int32(cuda.blockDim.x * cuda.blockDim.y)
    numbers, sums, squares = cuda.shared.array(THREADS, T), cuda.shared.array(THREADS, T), cuda.shared.array(THREADS, T)
    t, distance = thread_of_block(), int32(group >> 1)
    numbers[t], sums[t], squares[t] = n, s, q
    while distance >= across:
        cuda.syncthreads()
        if t & (group - 1) < distance:
            other = int32(t + distance)
            n, s, q = merged(n, s, q, numbers[other], sums[other], squares[other])
            numbers[t], sums[t], squares[t] = n, s, q
        distance = int32(distance >> 1)
    return n, s, q
