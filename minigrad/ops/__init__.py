"""The differentiable ops: for each a `Function` (forward beside backward) and the function that checks and calls it.

One file per family; `common` holds what they share.
"""

from minigrad.ops.activation import gelu, leaky_relu, relu, sigmoid, silu, softplus, tanh
from minigrad.ops.circle import cos, sin
from minigrad.ops.composed import (
    chunk,
    elu,
    flip,
    group_norm,
    isclose,
    isfinite,
    isinf,
    isnan,
    masked_fill,
    one_hot,
    square,
    tile,
    unbind,
    unflatten,
    vector_norm,
)
from minigrad.ops.conv import conv2d
from minigrad.ops.elementwise import (
    abs,
    add,
    cast,
    clip,
    clone,
    div,
    eq,
    exp,
    ge,
    gt,
    le,
    log,
    logical_and,
    logical_not,
    logical_or,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    sign,
    sqrt,
    sub,
    where,
)
from minigrad.ops.fused import batch_norm_act
from minigrad.ops.indexing import embedding, getitem, pad
from minigrad.ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from minigrad.ops.matmul import linear, matmul
from minigrad.ops.move import to_device
from minigrad.ops.norm import batch_norm, dropout, layer_norm
from minigrad.ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from minigrad.ops.reduction import (
    all,
    any,
    argmax,
    argmin,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    softmax,
    std,
    sum,
    sum_to,
    var,
)
from minigrad.ops.shape import (
    broadcast_to,
    cat,
    expand,
    flatten,
    permute,
    reshape,
    split,
    squeeze,
    stack,
    transpose,
    unsqueeze,
)

__all__ = [
    "abs", "adaptive_avg_pool2d", "add", "all", "any", "argmax", "argmin", "avg_pool2d", "batch_norm",
    "batch_norm_act", "binary_cross_entropy_with_logits", "broadcast_to", "cast", "cat", "chunk", "clip", "clone",
    "conv2d", "cos", "cross_entropy", "div", "dropout", "elu", "embedding", "eq", "exp", "expand", "flatten", "flip",
    "ge", "gelu", "getitem", "group_norm", "gt", "huber_loss", "isclose", "isfinite", "isinf", "isnan", "l1_loss",
    "layer_norm", "le", "leaky_relu", "linear", "log", "log_softmax", "logical_and", "logical_not", "logical_or",
    "logsumexp", "lt", "masked_fill", "matmul", "max", "max_pool2d", "maximum", "mean", "min", "minimum", "mse_loss",
    "mul", "ne", "neg", "nll_loss", "one_hot", "pad", "permute", "pow", "relu", "reshape", "sigmoid", "sign", "silu",
    "sin", "smooth_l1_loss", "softmax", "softplus", "split", "sqrt", "square", "squeeze", "stack", "std", "sub", "sum",
    "sum_to", "tanh", "tile", "to_device", "transpose", "unbind", "unflatten", "unsqueeze", "var", "vector_norm",
    "where",
]
