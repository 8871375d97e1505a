"""Numerical checks of gradients by random directions.

For a function f of all its inputs x, a random direction u of the inputs and a random weight v of the outputs,
``v . (f(x + eps u) - f(x - eps u)) / (2 eps)`` must equal ``u . J'v``, where ``J'v`` is what backward computes. Two
evaluations so test every element of the Jacobian at once, and in float64 to six digits.
"""

import numpy as np

from minigrad.autograd import grad
from minigrad.dtypes import float64, is_float
from minigrad.modes import enable_grad, no_grad
from minigrad.tensor import Tensor


class GradcheckError(RuntimeError):
    """A gradient differs from the numerical one, or has the wrong shape or dtype."""


def gradcheck(fn, inputs, *, eps=1e-6, rtol=1e-6, atol=1e-9, directions=2, seed=0, elementwise=False,
              raise_exception=True):
    """Compare the gradients of a function with central differences.

    Parameters
    ----------
    fn : callable
        Takes `inputs` and returns a Tensor or a tuple of them. It must return the same for the same inputs, and be
        smooth around them: keep them at least ``10 * eps`` off the kinks.
    inputs : Tensor or sequence
        Those that require grad are checked; they must be float64. Others are passed on as they are.
    eps : float
        Length of the step to either side.
    rtol : float
        Allowed error, relative to the larger of the two values.
    atol : float
        Allowed error on top, per unit of ``sum(abs(v * f(x)))`` or of 1 if that is less: what rounding does to f.
    directions : int
        How many random directions to try.
    seed : int
        For the directions and weights.
    elementwise : bool
        Step along every element of every input alone, instead: slow, but names the element that is wrong.
    raise_exception : bool
        Return False instead of raising if set to False.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        In one sentence that names the input and both values.
    TypeError, ValueError
        If no input requires grad or one that does is not float64.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = _checked_inputs("gradcheck", inputs)
    try:
        check = _Check(fn, inputs, checked, eps, rtol, atol)
        rng = np.random.default_rng(seed)
        if elementwise:
            check.elements(rng)
        else:
            for _ in range(directions):
                check.direction(rng)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(fn, inputs, *, eps=1e-6, rtol=1e-6, atol=1e-9, directions=2, seed=0, elementwise=False,
                  raise_exception=True):
    """Compare second derivatives with central differences: `gradcheck` of the gradients of a function.

    The gradients are taken as a function of the inputs and of the outputs' random weights, so that the derivative
    with respect to either is checked.

    Parameters
    ----------
    fn, inputs, eps, rtol, atol, directions, seed, elementwise, raise_exception :
        As in `gradcheck`.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        In one sentence that names the input and both values; the weights of the outputs count as further inputs.
    TypeError, ValueError
        If no input requires grad or one that does is not float64.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = _checked_inputs("gradgradcheck", inputs)
    rng = np.random.default_rng([seed, 1])
    weights = [_leaf(rng.standard_normal(y.shape), True) if y.requires_grad else None for y in _outputs(fn, inputs)]

    def gradients(*arguments):
        x, v = arguments[: len(inputs)], arguments[len(inputs) :]
        with enable_grad():
            pairs = [(y, w) for y, w in zip(_outputs(fn, x), v, strict=True) if w is not None]
            if not pairs:
                raise GradcheckError("gradgradcheck: no output requires grad")
            wanted = [x[i] for i in checked]
            found = grad([y for y, _ in pairs], wanted, [w for _, w in pairs], create_graph=True, allow_unused=True)
        return tuple([_leaf(np.zeros(x.shape)) if g is None else g for g, x in zip(found, wanted, strict=True)])

    return gradcheck(gradients, [*inputs, *weights], eps=eps, rtol=rtol, atol=atol, directions=directions, seed=seed,
                     elementwise=elementwise, raise_exception=raise_exception)


def _checked_inputs(op, inputs):
    """Positions of the inputs that require grad, after checking that they can be checked."""
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError(f"{op}: expected at least one input that requires grad, got {len(inputs)} that do not")
    for i in checked:
        if inputs[i].dtype != float64:
            raise TypeError(f"{op}: expected input {i} to be float64, got {inputs[i].dtype}")
    return checked


def _leaf(array, requires_grad=False):
    return Tensor(np.array(array, np.float64, order="C")).requires_grad_(requires_grad)


def _outputs(fn, inputs):
    outputs = fn(*inputs)
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    for y in outputs:
        if not isinstance(y, Tensor):
            raise TypeError(f"gradcheck: expected the function to return a Tensor or several, got {type(y).__name__}")
    return outputs


class _Check:
    """One function at one point."""

    def __init__(self, fn, inputs, checked, eps, rtol, atol):
        self.fn, self.inputs, self.checked = fn, inputs, checked
        self.eps, self.rtol, self.atol = eps, rtol, atol
        self.points = [inputs[i].numpy().copy() for i in checked]
        self.values = [y.numpy().copy() for y in self.evaluate(self.points, enable_grad())]
        again = self.evaluate(self.points, no_grad())
        for y, z in zip(self.values, again, strict=True):
            if y.shape != z.shape or not np.array_equal(y, z.numpy(), equal_nan=y.dtype.kind == "f"):
                raise GradcheckError("gradcheck: expected a function that returns the same for the same inputs")

    def evaluate(self, arrays, mode):
        """The outputs at a point; leaves the inputs alone. The leaves are kept for the vector-Jacobian product."""
        arguments, self.leaves = list(self.inputs), [_leaf(a, True) for a in arrays]
        for i, leaf in zip(self.checked, self.leaves, strict=True):
            arguments[i] = leaf
        with mode:
            return _outputs(self.fn, arguments)

    def weights(self, rng):
        return [rng.standard_normal(y.shape) if is_float(y.dtype) else None for y in self.values]

    def analytic(self, weights):
        """The vector-Jacobian product that backward computes: one array per checked input."""
        outputs = self.evaluate(self.points, enable_grad())
        pairs = [(y, _leaf(v)) for y, v in zip(outputs, weights, strict=True) if v is not None and y.requires_grad]
        if not pairs:
            raise GradcheckError("gradcheck: no output requires grad")
        for y, _ in pairs:
            if y.dtype != float64:
                raise GradcheckError(f"gradcheck: expected float64 outputs of float64 inputs, got {y.dtype}")
        found = grad([y for y, _ in pairs], self.leaves, [v for _, v in pairs], allow_unused=True)
        for i, g, x in zip(self.checked, found, self.leaves, strict=True):
            if g is not None and (g.shape != x.shape or g.dtype != x.dtype):
                raise GradcheckError(
                    f"gradcheck: expected the gradient of input {i} to have shape {x.shape} and dtype {x.dtype}, "
                    f"got {g.shape} and {g.dtype}"
                )
        return [np.zeros(x.shape) if g is None else g.numpy() for g, x in zip(found, self.leaves, strict=True)]

    def numeric(self, steps, weights):
        """The weighted change of the outputs along a direction, by central differences."""
        ahead = self.evaluate([x + self.eps * u for x, u in zip(self.points, steps, strict=True)], no_grad())
        back = self.evaluate([x - self.eps * u for x, u in zip(self.points, steps, strict=True)], no_grad())
        total = 0.0
        for a, b, v in zip(ahead, back, weights, strict=True):
            if v is not None:
                total += float(np.sum(v * (a.numpy() - b.numpy())))
        return total / (2 * self.eps)

    def agree(self, numeric, analytic, weights):
        size = sum([float(np.sum(np.abs(v * y))) for v, y in zip(weights, self.values, strict=True) if v is not None])
        allowed = self.rtol * max(abs(numeric), abs(analytic)) + self.atol * max(1.0, size)
        return abs(numeric - analytic) <= allowed  # False for NaN as well

    def direction(self, rng):
        """All inputs at once along one random direction; if that fails, find the input that is to blame."""
        weights = self.weights(rng)
        steps = [rng.standard_normal(x.shape) for x in self.points]
        found = self.analytic(weights)

        def compare(steps):
            analytic = float(sum([np.sum(u * g) for u, g in zip(steps, found, strict=True)]))
            numeric = self.numeric(steps, weights)
            return self.agree(numeric, analytic, weights), numeric, analytic

        good, numeric, analytic = compare(steps)
        if good:
            return
        for k, i in enumerate(self.checked):
            alone = [u if j == k else np.zeros(u.shape) for j, u in enumerate(steps)]
            good, one_numeric, one_analytic = compare(alone)
            if not good:
                raise GradcheckError(
                    f"gradcheck: along a random direction of input {i} (shape {steps[k].shape}) the gradient gives "
                    f"{one_analytic!r}, central differences give {one_numeric!r}"
                )
        raise GradcheckError(
            f"gradcheck: along a random direction of all inputs the gradient gives {analytic!r}, central differences "
            f"give {numeric!r}"
        )

    def elements(self, rng):
        """Every element of every input alone."""
        weights = self.weights(rng)
        found = self.analytic(weights)
        for k, i in enumerate(self.checked):
            for index in np.ndindex(self.points[k].shape):
                steps = [np.zeros(x.shape) for x in self.points]
                steps[k][index] = 1.0
                numeric, analytic = self.numeric(steps, weights), float(found[k][index])
                if not self.agree(numeric, analytic, weights):
                    raise GradcheckError(
                        f"gradcheck: for element {index} of input {i} the gradient is {analytic!r}, central "
                        f"differences give {numeric!r}"
                    )
