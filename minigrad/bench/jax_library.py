"""The JAX column: whole steps under ``jit``, as JAX programs are written."""

import os

import jax
import jax.numpy as jnp
from jax import lax

from minigrad.bench import nets


class JaxLibrary:
    """Prepares rows for JAX."""

    def about(self):
        """Version and settings, as a dict."""
        usable = {"processors in use": len(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else {}
        return {"version": jax.__version__, "backend": jax.default_backend(), **usable}

    def set_threads(self, threads):
        """XLA has no setting: its thread pool, started at the first use, is as large as the set of processors."""
        if hasattr(os, "sched_setaffinity"):
            usable = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, usable[:threads])

    def prepare(self, row):
        """Two functions: one does the row's work once, the other returns the latest results as arrays."""
        *parameters, x, labels = [jnp.asarray(array) for array in row.arrays()]
        net = row.net()
        running = [jnp.full(sizes[0], value, jnp.float32) for kind, *sizes in net.layers
                   if kind.startswith("batch_norm") for value in (0, 1)]
        if row.mode == "infer":
            return _infer(net, parameters, running, x)
        return _train(net, parameters, running, x, labels)


def _infer(net, parameters, running, x):
    predict = jax.jit(lambda parameters, running, x: _apply(net, parameters, running, x, training=False)[0])
    last = [None]

    def call():
        last[0] = jax.block_until_ready(predict(parameters, running, x))

    return call, lambda: [jax.device_get(last[0])]


def _train(net, parameters, running, x, labels):
    def loss(parameters, running, x, labels):
        logits, running = _apply(net, parameters, running, x, training=True)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -picked.mean(), running

    @jax.jit
    def step(parameters, running, buffers, x, labels):
        (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, running, x, labels)
        buffers = [nets.MOMENTUM * b + g for b, g in zip(buffers, gradients, strict=True)]
        parameters = [p - nets.LEARNING_RATE * b for p, b in zip(parameters, buffers, strict=True)]
        return value, parameters, running, buffers

    initial = jax.device_get(parameters)
    state = [None, parameters, running, [jnp.zeros_like(p) for p in parameters]]
    previous = [state[-1]]

    def call():
        previous[0] = state[-1]
        state[:] = jax.block_until_ready(step(*state[1:], x, labels))

    def results():  # the step keeps no gradients: they are what came into the momentum buffers
        value, parameters, running, buffers = jax.device_get(state)
        gradients = [b - nets.MOMENTUM * p for b, p in zip(buffers, jax.device_get(previous[0]), strict=True)]
        return [value, *gradients, *nets.updates(parameters, initial), *running]

    return call, results


def _apply(net, parameters, running, x, training):
    """The net's output and the new running statistics."""
    parameters, running, updated = iter(parameters), iter(running), []
    for kind, *_ in net.layers:
        if kind == "linear":
            x = x @ next(parameters).T + next(parameters)
        elif kind == "conv2d":
            layouts = ("NCHW", "OIHW", "NCHW")
            x = lax.conv_general_dilated(x, next(parameters), (1, 1), "SAME", dimension_numbers=layouts)
            x = x + next(parameters)[:, None, None]
        elif kind.startswith("batch_norm"):
            x, statistics = _batch_norm(x, next(parameters), next(parameters), next(running), next(running), training)
            updated += statistics
        elif kind == "max_pool2d":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        else:
            x = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[kind](x)
    return x, updated


def _batch_norm(x, weight, bias, running_mean, running_var, training):
    axes, column = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    mean, var = (x.mean(axes), x.var(axes)) if training else (running_mean, running_var)
    scale = weight * lax.rsqrt(var + 1e-5)
    out = (x - mean.reshape(column)) * scale.reshape(column) + bias.reshape(column)
    count = x.size // x.shape[1]
    return out, [0.9 * running_mean + 0.1 * mean, 0.9 * running_var + 0.1 * var * count / (count - 1)]
