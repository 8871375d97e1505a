"""Whether two tensors hold the same numbers, as one Python bool. Like all that reads values, not in a recorded step."""

from minigrad import ops
from minigrad.ops.common import check_tensor


def allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether ``|a - b| <= atol + rtol * |b|`` everywhere, broadcast; an infinity is close to itself only.

    Parameters
    ----------
    a, b : Tensor or number
    rtol, atol : float
    equal_nan : bool
        Whether NaN is close to NaN.

    Returns
    -------
    bool
    """
    return bool(ops.all(ops.isclose(a, b, rtol, atol, equal_nan)))


def equal(a, b):
    """Whether two tensors have one shape and the same elements; NaN equals nothing.

    Returns
    -------
    bool
    """
    return check_tensor("equal", a).shape == check_tensor("equal", b).shape and bool(ops.all(ops.eq(a, b)))
