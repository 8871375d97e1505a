"""The analytic gradient beside the numerical one, element by element."""

import math

import numpy as np

from minigrad import autograd, modes
from minigrad.creation import from_numpy
from minigrad.creation import tensor as make_tensor
from minigrad.dtypes import as_dtype, is_float
from minigrad.tensor import Tensor

STEP = {"float32": 1e-2, "float64": 1e-5}  # near the cube root of the type's precision, where the two errors meet
SHOWN = 20


class Comparison:
    """What `numerical` returns; its str is a table.

    Attributes
    ----------
    x, analytic, numerical : numpy.ndarray
        The point and the two gradients, of the shape of x.
    error : numpy.ndarray
        Their distance.
    kinks : numpy.ndarray of bool
        Where the differences to the left and to the right disagree: the function has a corner there, ReLU at 0 say, and
        the numerical gradient is the mean of two slopes.
    step : float
        The half width of the differences.
    weights : numpy.ndarray
        The factors of the function's elements in the sum that was differentiated.
    """

    def __init__(self, x, analytic, numerical, kinks, step, weights):
        self.x, self.analytic, self.numerical, self.kinks = x, analytic, numerical, kinks
        self.step, self.weights = step, weights
        self.error = np.abs(analytic - numerical)

    @property
    def relative_error(self):
        """The distance by the larger of the two gradients' sizes, 0 where both are 0."""
        scale = np.maximum(np.abs(self.analytic), np.abs(self.numerical))
        return np.divide(self.error, scale, out=np.zeros_like(self.error), where=scale != 0)

    @property
    def worst(self):
        """The index of the largest error; NaN is larger than anything."""
        return np.unravel_index(int(np.argmax(np.nan_to_num(self.error, nan=np.inf))), self.error.shape)

    def __repr__(self):
        return str(self)

    def __str__(self):
        order = np.arange(self.error.size)
        if self.error.size > SHOWN:
            worst_first = np.argsort(-np.nan_to_num(self.error.ravel(), nan=np.inf), kind="stable")
            order = np.sort(worst_first[:SHOWN])
        relative, rows = self.relative_error, [("element", "x", "analytic", "numerical", "error", "relative", "")]
        for number in order:
            at = np.unravel_index(number, self.error.shape)
            mark = "<- worst" if at == self.worst and self.error[at] != 0 else ""
            mark += "  kink" if self.kinks[at] else ""
            rows.append((
                "[" + ", ".join(map(str, map(int, at))) + "]", f"{self.x[at]:.6g}", f"{self.analytic[at]:.9g}",
                f"{self.numerical[at]:.9g}", f"{self.error[at]:.1e}", f"{relative[at]:.1e}", mark,
            ))  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{cell:>{w}}" for cell, w in zip(row[:-1], widths, strict=False)) + "  " + row[-1]
                 for row in rows]
        lines = [line.rstrip() for line in lines]
        if self.error.size > SHOWN:
            lines.append(f"the worst {SHOWN} of {self.error.size:,} elements")
        lines.append(f"largest error {self.error.max():.1e}, relative {relative.max():.1e}; "
                     f"differences over ±{self.step:g}")
        if self.weights.size > 1:
            lines.append(f"of the sum of the function's {self.weights.size:,} elements, each with a factor of its own "
                         "(gradient= sets the factors)")
        if self.kinks.any():
            lines.append("kink: the slopes to the left and right differ; the numerical figure is their mean,")
            lines.append("      and the analytic one may be any between them")
        if not np.isfinite(self.error).all():
            lines.append("nan, inf: the function is not finite there, or a step beside")
        return "\n".join(lines)


def numerical(fn, x, *others, gradient=None, eps=None, dtype="float64"):
    """Compare the gradient of a function with central differences, element by element.

    ``(f(x + eps e_i) - f(x - eps e_i)) / (2 eps)`` for each element i, beside what backward finds.

    Parameters
    ----------
    fn : callable
        Takes Tensors, returns one.
    x : Tensor or array
        Where to compare. It is copied, and its ``.grad`` is not touched.
    *others : optional
        Further arguments of the function; tensors of floats are handed on in the type in which all is computed.
    gradient : Tensor or array, optional
        For a function whose value is not a scalar: factors of its elements, of its shape; what is differentiated is the
        sum of the products. By default random numbers, the same every time: with ones, elements whose sum does not
        change (those of a softmax) would have no gradient to check.
    eps : float, optional
        1e-5 in float64, 1e-2 in float32.
    dtype : str or dtype
        The type in which everything is computed, whatever that of x. In float32 about three digits agree.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError
        If `fn` does not take or return a Tensor of that type: a model in float32 must be moved to float64 first
        (``model.to("float64")``), or `dtype` set.
    ValueError
        If x is empty, the value does not depend on x, or the function is not repeatable (dropout).

    See Also
    --------
    minigrad.testing.gradcheck : the same as a test, with random directions.

    Examples
    --------
    >>> mg.study.numerical(lambda x: x.tanh().sum(), mg.randn(3))
    """
    if not callable(fn):
        raise TypeError(f"numerical: expected a function, got {type(fn).__name__}")
    dtype = as_dtype(dtype)
    if not is_float(dtype):
        raise TypeError(f"numerical: expected dtype float32 or float64, got {dtype}")
    step = STEP[str(dtype)] if eps is None else float(eps)
    if not step > 0:
        raise ValueError(f"numerical: expected eps > 0, got {eps}")
    device = x.device if isinstance(x, Tensor) else None
    point = np.array(x.numpy() if isinstance(x, Tensor) else x, dtype)
    if not point.size:
        raise ValueError(f"numerical: expected at least one element to compare, got x of shape {point.shape}")
    others = [other.detach().to(dtype) if isinstance(other, Tensor) and is_float(other.dtype) else other
              for other in others]

    def value_at(array, requires_grad=False):
        t = from_numpy(array.copy(), device)
        t.requires_grad = requires_grad
        try:
            y = fn(t, *others)
        except TypeError as error:
            if not any(kind in str(error) for kind in ("float32", "float64", "dtype")):  # it fails for another reason
                raise
            raise TypeError(f"numerical: the function does not take a {dtype} tensor ({error}); move what it uses to "
                            f"{dtype}, or pass dtype='float32'") from error
        if not isinstance(y, Tensor) or not is_float(y.dtype):
            raise TypeError(f"numerical: expected the function to return a Tensor of floats, got "
                            f"{y.dtype if isinstance(y, Tensor) else type(y).__name__}")
        return t, y

    t, y = value_at(point, requires_grad=True)
    if gradient is None:
        random = np.random.default_rng(0)
        seed = random.standard_normal(y.shape).astype(y.dtype) if y.numel() > 1 else np.ones(y.shape, y.dtype)
    else:
        seed = np.asarray(gradient.numpy() if isinstance(gradient, Tensor) else gradient, y.dtype)
        if seed.shape != y.shape:
            raise ValueError(f"numerical: expected a gradient of shape {y.shape}, got {seed.shape}")
    if not y.requires_grad:
        raise ValueError("numerical: what the function returns does not depend on x")
    (analytic,) = autograd.grad(y, t, make_tensor(seed, dtype=y.dtype, device=device), allow_unused=True)
    if analytic is None:
        raise ValueError("numerical: what the function returns does not depend on x")

    def f(array):
        with modes.no_grad():
            return float((value_at(array)[1].numpy().astype(np.float64) * seed).sum())

    middle = f(point)
    if not math.isnan(middle) and f(point) != middle:
        raise ValueError("numerical: two calls at the same x gave different values (dropout? a random number?)")

    def slopes(at, width):
        """The difference quotients to the left, to the right, and over both."""
        array = point.copy()
        array[at] = point[at] + width
        right, above = f(array), float(array[at])
        array[at] = point[at] - width
        left, below = f(array), float(array[at])
        here = float(point[at])
        return (middle - left) / (here - below), (right - middle) / (above - here), (right - left) / (above - below)

    found, kinks = np.empty(point.shape), np.zeros(point.shape, bool)
    for at in np.ndindex(point.shape):
        before, behind, found[at] = slopes(at, step)
        gap = abs(behind - before)
        if gap > 0.02 * max(0.01, abs(before), abs(behind)):  # of a smooth function it shrinks with the step
            before, behind, _ = slopes(at, step / 4)
            kinks[at] = abs(behind - before) > 0.6 * gap
    return Comparison(point, analytic.numpy().astype(np.float64), found, kinks, step, seed)
