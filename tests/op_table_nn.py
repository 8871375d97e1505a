"""The second half of the op table: padding, convolution, pooling, normalisation, losses."""

import numpy as np
import oracles as o
from op_table import add, away, distinct, labels, positive, probabilities, transposed, truths

import minigrad as mg
from minigrad import ops

# -- padding and embedding ---------------------------------------------------------------------------------------

for shape, amounts, kwargs in [
    ((5,), (1, 2), {}),
    ((3, 4), (1, 0, 2, 1), {"value": 1.5}),
    ((3, 4), (-1, 2), {}),
    ((3, 4), (-1, -1, -1, 0), {}),
    ((2, 3), (0, 0), {}),
    ((0, 3), (1, 1), {}),
    ((), (), {}),
    ((2, 3, 4, 5), (1, 1, 2, 2), {}),
    ((2, 5), (2, 3), {"mode": "reflect"}),
    ((2, 4, 5), (1, 2, 3, 0), {"mode": "reflect"}),
    ((2, 5), (2, 7), {"mode": "replicate"}),
    ((2, 3, 5), (2, 3, 1, 1), {"mode": "circular"}),
]:
    add("pad", o.pad, shape, args=(amounts,), **kwargs)
for shape in [(), (3,), (2, 3), (0,)]:
    add("embedding", lambda i, w: w[i], labels(7, *shape), (7, 5))
add("embedding", lambda i, w: w[i], np.array([2, 2, 2, 0]), (3, 1))

# -- convolution -------------------------------------------------------------------------------------------------

CONVOLUTIONS = [  # input, weight, options
    ((2, 3, 7, 7), (4, 3, 3, 3), {}),
    ((2, 3, 7, 7), (4, 3, 3, 3), {"padding": 1}),
    ((1, 2, 9, 7), (3, 2, 3, 2), {"stride": 2}),
    ((1, 2, 9, 8), (3, 2, 3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    ((1, 2, 9, 9), (3, 2, 3, 3), {"dilation": 2}),
    ((1, 2, 9, 9), (3, 2, 2, 3), {"dilation": (3, 2), "padding": (2, 1), "stride": (1, 2)}),
    ((1, 2, 6, 6), (3, 2, 3, 3), {"padding": "same"}),
    ((1, 2, 6, 7), (3, 2, 2, 4), {"padding": "same"}),
    ((1, 2, 6, 7), (3, 2, 2, 3), {"padding": "same", "dilation": (1, 3)}),
    ((1, 2, 6, 6), (3, 2, 3, 3), {"padding": "valid"}),
    ((2, 4, 6, 6), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    ((2, 4, 6, 6), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((2, 4, 6, 5), (8, 1, 2, 2), {"groups": 4, "stride": 2}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 3, 5, 5), (7, 3, 1, 1), {}),
    ((2, 3, 5, 5), (7, 3, 1, 1), {"stride": 2, "padding": 1}),
    ((2, 2, 3, 4), (2, 2, 3, 4), {}),
    ((2, 2, 3, 4), (2, 2, 5, 5), {"padding": 2}),
    ((3, 7, 7), (4, 3, 3, 3), {}),
    ((0, 2, 5, 5), (3, 2, 3, 3), {}),
    ((1, 17, 5, 6), (33, 17, 3, 3), {"padding": 1}),
    ((1, 16, 9, 17), (16, 16, 3, 3), {"padding": 1}),
    ((1, 5, 8, 8), (7, 5, 3, 3), {"stride": 2, "padding": 1}),
    ((1, 1, 12, 33), (4, 1, 5, 5), {}),
    ((2, 2, 1, 9), (3, 2, 1, 3), {"padding": (0, 1)}),
    ((1, 2, 5, 5), (0, 2, 3, 3), {}),
]
for k, (x, weight, options) in enumerate(CONVOLUTIONS):
    bias = [weight[:1]] if k % 2 == 0 else []
    add(
        "conv2d",
        lambda x, w, b=None, options=options: o.conv2d(x, w, b, **options),
        x,
        weight,
        *bias,
        oracle_kwargs={},
        **options,
    )
add("conv2d", o.conv2d, transposed(1, 2, 6, 5), transposed(3, 2, 3, 3), (3,), padding=1)

# -- pooling -----------------------------------------------------------------------------------------------------

for x, options in [
    ((2, 3, 6, 6), {"kernel_size": 2}),
    ((1, 2, 7, 9), {"kernel_size": 2}),
    ((1, 2, 7, 7), {"kernel_size": 3, "stride": 1}),
    ((1, 2, 7, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((1, 2, 8, 7), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    ((1, 2, 8, 9), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((1, 2, 7, 7), {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True}),
    ((3, 5, 5), {"kernel_size": 2}),
    ((0, 2, 4, 4), {"kernel_size": 2}),
    ((1, 2, 2, 2), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((1, 1, 33, 17), {"kernel_size": 2}),
    ((1, 1, 4, 4), {"kernel_size": 4}),
]:
    add("max_pool2d", o.max_pool2d, distinct(*x), **options)
    add("avg_pool2d", o.avg_pool2d, x, **options)
add("max_pool2d", o.max_pool2d, distinct(1, 2, 9, 9), kernel_size=3, stride=2, dilation=2, padding=1)
add("max_pool2d", o.max_pool2d, distinct(1, 2, 9, 8), kernel_size=2, stride=1, dilation=(3, 2))
add("avg_pool2d", o.avg_pool2d, (1, 2, 7, 7), kernel_size=3, stride=2, padding=1, count_include_pad=False)
add(
    "avg_pool2d",
    o.avg_pool2d,
    (1, 2, 8, 7),
    kernel_size=3,
    stride=2,
    padding=1,
    ceil_mode=True,
    count_include_pad=False,
)
add("avg_pool2d", o.avg_pool2d, (1, 2, 8, 7), kernel_size=3, stride=2, padding=1, ceil_mode=True)
for x, size in [
    ((2, 3, 7, 5), 1),
    ((2, 3, 7, 5), (3, 2)),
    ((1, 2, 5, 5), 5),
    ((1, 2, 5, 5), 7),
    ((2, 9, 4), (None, 3)),
    ((0, 2, 4, 4), 2),
    ((1, 2, 17, 33), (4, 4)),
]:
    add("adaptive_avg_pool2d", o.adaptive_avg_pool2d, x, args=(size,))

# -- normalisation and dropout -----------------------------------------------------------------------------------

for shape in [(7, 5), (2, 3, 4), (2, 3, 4, 5), (17, 33), (2, 1), (1, 3, 7), (3, 2, 2, 2, 2), (4, 17, 3, 3)]:
    c = (shape[1],)
    for parameters in [(), (c,), (c, c)]:
        for training in (True, False):
            add(
                "batch_norm",
                lambda x, *p, training=training, c=c: o.batch_norm(
                    x, np.full(c, 0.3), np.full(c, 1.7), *p, training=training
                ),
                shape,
                *parameters,
                tolerance=1e-4,
                call=lambda x, *p, training=training, c=c: ops.batch_norm(
                    x, mg.full(c, 0.3, x.dtype, x.device), mg.full(c, 1.7, x.dtype, x.device), *p, training=training
                ),
            )
add(
    "batch_norm",
    lambda x, w, b: o.batch_norm(x, None, None, w, b, training=True, eps=0.1),
    (4, 3),
    (3,),
    (3,),
    call=lambda x, w, b: ops.batch_norm(x, None, None, w, b, training=True, eps=0.1),
    tolerance=1e-4,
)
add(
    "batch_norm",
    lambda x, b: o.batch_norm(x, None, None, None, b, training=True),
    (4, 3),
    (3,),
    call=lambda x, b: ops.batch_norm(x, None, None, None, b, training=True),
    tolerance=1e-4,
)
for shape, options in [
    ((7, 5), {}),
    ((7, 5), {"activation": "sigmoid"}),
    ((2, 3, 4), {"activation": "leaky_relu", "negative_slope": 0.3}),
    ((2, 3, 4, 5), {"activation": "tanh"}),
    ((3, 2, 6, 14), {"activation": "silu", "max_pool": True}),
    ((2, 3, 5, 7), {"activation": "none", "max_pool": True}),
    ((4, 17, 4, 4), {"max_pool": True}),
]:
    for training in (True, False):
        add(
            "batch_norm_act",
            lambda x, *p, training=training, c=shape[1:2], options=options: o.batch_norm_act(
                x, np.full(c, 0.3), np.full(c, 1.7), *p, training=training, **options
            ),
            distinct(*shape),
            shape[1:2],
            shape[1:2],
            tolerance=1e-4,
            call=lambda x, *p, training=training, c=shape[1:2], options=options: ops.batch_norm_act(
                x, mg.full(c, 0.3, x.dtype, x.device), mg.full(c, 1.7, x.dtype, x.device), *p, training=training,
                **options
            ),
        )
for shape, size in [((7, 5), 3), ((5, 2, 3), 2), ((3, 2, 2, 4), 1), ((33, 17), 8)]:
    add(
        "batch_norm",
        lambda x, w, b, size=size: o.ghost_batch_norm(x, size, w, b),
        shape,
        shape[1:2],
        shape[1:2],
        call=lambda x, w, b, size=size: ops.batch_norm(x, None, None, w, b, True, ghost_batch_size=size),
        tolerance=1e-4,
    )
add(
    "batch_norm_act",
    lambda x, w, b: o.max_pool2d(np.tanh(o.ghost_batch_norm(x, 2, w, b)), 2),
    distinct(3, 2, 4, 5),
    (2,),
    (2,),
    call=lambda x, w, b: ops.batch_norm_act(
        x, None, None, w, b, True, activation="tanh", max_pool=True, ghost_batch_size=2
    ),
    tolerance=1e-4,
)
for shape, normalized in [
    ((7, 5), 5),
    ((7, 5), (5,)),
    ((2, 3, 4), (3, 4)),
    ((2, 3, 17), 17),
    ((5,), 5),
    ((0, 4), 4),
    ((3, 33), 33),
]:
    p = normalized if isinstance(normalized, tuple) else (normalized,)
    for parameters in [(), (p,), (p, p)]:
        add(
            "layer_norm",
            lambda x, *wb, n=normalized: o.layer_norm(x, n, *wb),
            shape,
            *parameters,
            tolerance=1e-4,
            call=lambda x, *wb, n=normalized: ops.layer_norm(x, n, *wb),
        )
add(
    "layer_norm",
    lambda x, b: o.layer_norm(x, 5, None, b, eps=0.01),
    (3, 5),
    (5,),
    call=lambda x, b: ops.layer_norm(x, 5, None, b, 0.01),
)


def mask(shape, p, dtype):
    """What dropout with seed 5 does to ones: 0 or 1 / (1 - p). Its mask does not depend on the dtype."""
    return ops.dropout(mg.ones(shape, dtype=dtype), p, generator=mg.Generator(5)).numpy()


for shape, p in [((7,), 0.5), ((17, 33), 0.3), ((), 0.5), ((0, 3), 0.5), ((5,), 1.0), ((5,), 0.0)]:
    add(
        "dropout",
        lambda x, p=p: x * mask(x.shape, p, "float64"),
        shape,
        call=lambda x, p=p: ops.dropout(x, p, generator=mg.Generator(5)),
    )
add("dropout", lambda x: x, (5,), args=(0.5, False), oracle_args=())

# -- losses ------------------------------------------------------------------------------------------------------

for reduction in ("mean", "sum", "none"):
    for x, t in [((7, 5), (7,)), ((2, 3, 4), (2, 4)), ((2, 3, 2, 3), (2, 2, 3)), ((5,), ()), ((17, 33), (17,))]:
        classes = x[1] if len(x) > 1 else x[0]
        for options in ({}, {"label_smoothing": 0.1}, {"ignore_index": 1}, {"ignore_index": 0, "label_smoothing": 0.3}):
            add(
                "cross_entropy",
                o.cross_entropy,
                x,
                labels(classes, *t) if t else np.array(2),
                reduction=reduction,
                **options,
            )
            add(
                "cross_entropy",
                lambda x, t, n=classes, options=options, reduction=reduction: o.cross_entropy(
                    x, t, np.linspace(0.5, 2, n), reduction=reduction, **options
                ),
                x,
                labels(classes, *t) if t else np.array(2),
                oracle_kwargs={},
                call=lambda x, t, n=classes, options=options, reduction=reduction: ops.cross_entropy(
                    x, t, mg.linspace(0.5, 2, n, x.dtype, x.device), reduction=reduction, **options
                ),
            )
        if t:
            options = {"ignore_index": 2} if classes == 5 else {}
            add("nll_loss", o.nll_loss, x, labels(classes, *t), reduction=reduction, **options)
            add(
                "nll_loss",
                lambda x, t, n=classes, r=reduction: o.nll_loss(x, t, np.linspace(0.5, 2, n), reduction=r),
                x,
                labels(classes, *t),
                call=lambda x, t, n=classes, r=reduction: ops.nll_loss(
                    x, t, mg.linspace(0.5, 2, n, x.dtype, x.device), reduction=r
                ),
            )
    for x in [(7, 5), (2, 3, 4)]:
        add("cross_entropy", o.cross_entropy, x, probabilities(*x), reduction=reduction)
        add("cross_entropy", o.cross_entropy, x, probabilities(*x), reduction=reduction, label_smoothing=0.2)
        add(
            "cross_entropy",
            lambda x, t, r=reduction: o.cross_entropy(x, t, np.linspace(0.5, 2, x.shape[1]), reduction=r),
            x,
            probabilities(*x),
            call=lambda x, t, r=reduction: ops.cross_entropy(
                x, t, mg.linspace(0.5, 2, x.shape[1], x.dtype, x.device), reduction=r
            ),
        )
    for shape in [(7, 5), (), (17, 33)]:
        pair = away(*shape, kinks=(0.0, 0.4, 1.0, 2.0)), np.zeros(shape)
        add("mse_loss", lambda x, t, r: o.reduce((x - t) ** 2, r), shape, shape, args=(reduction,))
        add("l1_loss", lambda x, t, r: o.reduce(np.abs(x - t), r), *pair, args=(reduction,))
        add("smooth_l1_loss", o.smooth_l1, away(*shape, kinks=(-1.0, 0.0, 1.0)), np.zeros(shape), args=(reduction,))
        add("smooth_l1_loss", o.smooth_l1, away(*shape, kinks=(-0.4, 0.0, 0.4)), np.zeros(shape), args=(reduction, 0.4))
        add("huber_loss", o.huber, away(*shape, kinks=(-1.0, 0.0, 1.0)), np.zeros(shape), args=(reduction,))
        add("huber_loss", o.huber, away(*shape, kinks=(-0.4, 0.0, 0.4)), np.zeros(shape), args=(reduction, 0.4))
        add(
            "binary_cross_entropy_with_logits",
            o.bce_with_logits,
            shape,
            lambda rng, s=shape: rng.random(s),
            reduction=reduction,
        )
    add(
        "binary_cross_entropy_with_logits",
        lambda x, t, w, p, reduction: o.bce_with_logits(x, t, w, reduction, p),
        (7, 5),
        lambda rng: rng.random((7, 5)),
        positive(5),
        positive(7, 1),
        reduction=reduction,
        call=lambda x, t, w, p, reduction: ops.binary_cross_entropy_with_logits(x, t, w, reduction, p),
    )
add("smooth_l1_loss", o.smooth_l1, away(7), np.zeros(7), args=("mean", 0.0))
for op in ("mse_loss", "l1_loss", "cross_entropy"):
    empty = [(0, 3), labels(3, 0)] if op == "cross_entropy" else [(0, 3), (0, 3)]
    add(op, lambda x, t: np.zeros(()), *empty, reduction="sum", oracle_kwargs={})
add("where", np.where, truths(17, 33), (17, 33), (17, 33))
