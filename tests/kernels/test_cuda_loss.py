"""The CUDA kernels of the losses against the reference, in the emulator."""

import numpy as np
import pytest
from agreement import FLOATS, empty, numbers
from cuda_agreement import beside, check, run

from minigrad.kernels import cuda, reference
from minigrad.kernels.cuda import array

# Rows of classes, which may be read by four, and columns; one block, some.
SHAPES = ((1, 2, 1), (40, 10, 1), (3, 5, 7), (2, 20, 40), (6, 33, 1), (5, 4, 1), (40, 12, 1), (6, 132, 1))
IGNORED = -100


def labels(shape, seed=0):
    target = np.random.default_rng(seed).integers(0, shape[1], (shape[0], shape[2]))
    if target.size > 1:
        target.reshape(-1)[1::5] = IGNORED
    return target


def forward_arguments(logits, target, class_weight, label_smoothing=0.0, ignored=IGNORED, reduction=0):
    dtype = logits.dtype
    loss = empty(target.shape if reduction == 0 else (1,), dtype)
    outputs = loss, empty(target.shape, dtype), empty(1, dtype), empty(2, np.int64)
    return (logits, target, class_weight, *outputs, label_smoothing, ignored, reduction)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("label_smoothing", (0.0, 0.1))
def test_cross_entropy(dtype, label_smoothing):
    for shape in SHAPES:
        n, classes, size = shape
        logits, target = numbers(shape, dtype), labels(shape)
        weight = 1 + 0.1 * numbers(classes, dtype, 2)
        total = np.log(np.exp(logits).sum(axis=1))
        for class_weight in (weight, weight[:0]):
            for reduction in range(3):
                arguments = forward_arguments(logits, target, class_weight, label_smoothing, IGNORED, reduction)
                got = check("cross_entropy_forward", arguments, {3, 4, 5, 6}, 8, 8)
                grad = numbers((n, size) if reduction == 0 else (1,), dtype, 3).reshape(-1)
                arguments = (logits, total, target, class_weight, grad, got[5], empty(shape, dtype), label_smoothing,
                             IGNORED)
                check("cross_entropy_backward", arguments, {6}, 16, 16)


@pytest.mark.parametrize("shape", ((1, 9000, 1), (1, 9001, 1), (1100, 3, 1), (600, 16, 1), (2, 1028, 1), (2, 1031, 1)))
def test_cross_entropy_of_many(shape):
    """So many classes that several blocks share a row; rows of several blocks; threads that load more than once."""
    logits, target, none = numbers(shape, np.float32), labels(shape), np.empty(0, np.float32)
    check("cross_entropy_forward", forward_arguments(logits, target, none, 0.1, IGNORED, 2), {3, 4, 5, 6}, 8, 8)


@pytest.mark.parametrize("misplaced", range(3))
def test_arrays_that_do_not_begin_at_a_multiple_of_16_bytes(misplaced):
    shape = 3, 12, 1
    logits, weight, grad = numbers(shape, np.float32), 1 + 0.1 * numbers(12, np.float32, 2), numbers(3, np.float32, 3)
    target, total = labels(shape), np.log(np.exp(logits).sum(axis=1))
    host = [logits, weight, empty(shape, np.float32)]
    x, w, out = [beside(a) if i == misplaced else array.from_host(a) for i, a in enumerate(host)]
    given = [array.from_host(a) for a in (total, target, grad, np.ones(1, np.float32))]
    wanted = np.empty(shape, np.float32)
    cuda.cross_entropy_backward(x, given[0], given[1], w, given[2], given[3], out, 0.1, IGNORED)
    reference.cross_entropy_backward(logits, total, target, weight, grad, np.ones(1, np.float32), wanted, 0.1, IGNORED)
    np.testing.assert_allclose(out.numpy(), wanted, rtol=2e-6, atol=2e-6)
    cuda.nll_loss_backward(array.from_host(total), given[1], w, out, IGNORED)
    reference.nll_loss_backward(total, target, weight, wanted, IGNORED)
    np.testing.assert_array_equal(out.numpy(), wanted)
    losses, divisor, bounds = array.empty((3, 1), np.float32), given[3], array.empty(2, np.int64)
    cuda.cross_entropy_forward(x, given[1], w, losses, given[0], divisor, bounds, 0.1, IGNORED, 0)
    right = [np.empty(n, kind) for n, kind in (((3, 1), "f4"), ((3, 1), "f4"), (1, "f4"), (2, "i8"))]
    reference.cross_entropy_forward(logits, target, weight, *right, 0.1, IGNORED, 0)
    np.testing.assert_allclose(losses.numpy(), right[0], rtol=2e-6, atol=2e-6)


def test_no_rows():
    logits, none = np.empty((0, 4, 1)), np.empty(0)
    arguments = forward_arguments(logits, np.empty((0, 1), np.int64), none, 0.0, IGNORED, 1)
    check("cross_entropy_forward", arguments, {3, 4, 5, 6})


def test_cross_entropy_survives_large_logits_and_ignores_nan_where_told():
    for size in (1, 3):
        logits = numbers((4, 6, size), np.float32, scale=1e4)
        target = labels(logits.shape)
        target[2] = IGNORED
        logits[2, 1] = np.nan
        none = np.empty(0, np.float32)
        got = check("cross_entropy_forward", forward_arguments(logits, target, none), {3, 4, 5, 6})
        assert np.isfinite(got[3]).all()
        arguments = (logits, got[4], target, none, got[3].reshape(-1), got[5], empty(logits.shape, np.float32), 0.0,
                     IGNORED)
        assert (check("cross_entropy_backward", arguments, {6})[6][2] == 0).all()


def test_ignore_index_may_be_a_class():
    logits, target = numbers((9, 4, 1), np.float64), np.arange(9)[:, None] % 4
    got = check("cross_entropy_forward", forward_arguments(logits, target, np.empty(0), 0.0, 2), {3, 4, 5, 6})
    assert (got[3][target == 2] == 0).all() and (got[3][target != 2] > 0).all()


@pytest.mark.parametrize("size", (1, 3))
@pytest.mark.parametrize("wrong", (-1, 6, 2**40))
def test_labels_that_are_no_classes_are_skipped(size, wrong):
    """They are reported in bounds; nothing is read or written there."""
    logits = numbers((4, 6, size), np.float64)
    target = labels(logits.shape)
    target[1, 0] = wrong
    weight = 1 + 0.1 * numbers(6, np.float64, 2)
    got = check("cross_entropy_forward", forward_arguments(logits, target, weight, 0.1, IGNORED, 2), {3, 4, 5, 6}, 8, 8)
    assert wrong in got[6]
    arguments = (logits, got[4], target, weight, np.ones(1), got[5], empty(logits.shape, np.float64), 0.1, IGNORED)
    assert (check("cross_entropy_backward", arguments, {6}, 16, 16)[6][1, :, 0] == 0).all()
    out = empty(target.shape, np.float64)
    check("nll_loss_forward", (logits, target, weight, out, IGNORED), {3}, 1)
    check("nll_loss_backward", (out, target, weight, empty(logits.shape, np.float64), IGNORED), {3}, 1)
    check("class_weight_of", (target, weight, out, IGNORED), {2}, 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nll_loss(dtype):
    for shape in SHAPES:
        n, classes, size = shape
        target, weight = labels(shape), 1 + 0.1 * numbers(classes, dtype, 2)
        for class_weight in (weight, weight[:0]):
            out, grad = empty((n, size), dtype), numbers((n, size), dtype, 1)
            check("nll_loss_forward", (numbers(shape, dtype), target, class_weight, out, IGNORED), {3}, 1)
            check("nll_loss_backward", (grad, target, class_weight, empty(shape, dtype), IGNORED), {3}, 1)
            check("class_weight_of", (target, class_weight, out, IGNORED), {2}, 0)


def test_target_range():
    target = np.random.default_rng(0).integers(-5, 2**40, (3000, 1))
    check("target_range", (target, empty(2, np.int64), IGNORED), {1})
    for values, wanted in (([3, 7, IGNORED, 5], (3, 7)), ([IGNORED] * 3, (0, -1)), ([], (0, -1)), ([-1, 2], (-1, 2))):
        target = np.array(values, np.int64)[:, None]
        assert tuple(run("target_range", (target, empty(2, np.int64), IGNORED))[1]) == wanted
        check("target_range", (target, empty(2, np.int64), IGNORED), {1})


def test_widen_range():
    for bounds, kept, wanted in (((2, 5), (0, -1), (0, 5)), ((-3, 1), (0, 4), (-3, 4)), ((0, -1), (0, 4), (0, 4))):
        arguments = np.array(bounds), np.array(kept)
        assert tuple(run("widen_range", arguments)[1]) == wanted
        check("widen_range", arguments, set(), in_place={1})
