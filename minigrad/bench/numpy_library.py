"""The NumPy column, and at float64 the reference that every library is checked against."""

import numpy as np

from minigrad.bench import nets
from minigrad.bench.numpy_nets import NumpyNet
from minigrad.bench.numpy_ops import OPS, SGD, Adam


class NumpyLibrary:
    """Prepares rows for NumPy.

    Parameters
    ----------
    dtype : numpy.dtype
        The float type everything is computed in.
    """

    def __init__(self, dtype=np.float32):
        self.dtype = dtype

    def about(self):
        """Version and settings, as a dict."""
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        about = {"version": np.__version__, "BLAS": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()}
        try:
            import threadpoolctl
        except ImportError:
            return {**about, "built as": blas.get("openblas configuration", "unknown")}
        for found in threadpoolctl.threadpool_info():
            if found["internal_api"] == "openblas":  # its kernels are chosen when it is loaded
                about |= {"chosen core": found.get("architecture", "unknown"), "threads in use": found["num_threads"]}
        return about

    def set_threads(self, threads):
        """OpenBLAS has read the number from the environment."""

    def prepare(self, row):
        """Two functions: one does the row's work once, the other returns the latest results as arrays."""
        arrays = [a.astype(self.dtype) if a.dtype == np.float32 else a for a in row.arrays()]
        if row.mode in ("train", "captured", "memory", "cached", "cold"):
            return self._train(row, arrays)
        if row.mode == "infer":
            net = NumpyNet(row.net(), arrays[:-2])
            return _keep_last(lambda: [net.predict(arrays[-2])])
        if row.mode == "optimizer":
            return self._optimizer(row, arrays)
        return self._op(row, arrays)

    def _op(self, row, arrays):
        op, params = OPS[row.what], row.params
        if row.mode != "backward":
            return _keep_last(lambda: [op(*arrays, **params)[0]])
        seed = row.output_gradient(np.shape(op(*arrays, **params)[0])).astype(self.dtype)

        def call():
            out, backward = op(*arrays, **params)
            return [out, *[grad for grad in backward(seed) if grad is not None]]

        return _keep_last(call)

    @staticmethod
    def _train(row, arrays):
        *parameters, x, labels = arrays
        net = NumpyNet(row.net(), parameters)
        optimizer = SGD(parameters, nets.LEARNING_RATE, nets.MOMENTUM)
        losses = [None]

        def call():
            losses[0] = net.loss(x, labels)
            optimizer.step(net.gradients)

        initial = [p.copy() for p in parameters]
        return call, lambda: [np.asarray(losses[0]), *net.gradients, *nets.updates(parameters, initial), *net.running]

    @staticmethod
    def _optimizer(row, arrays):
        half = len(arrays) // 2
        parameters, gradients = arrays[:half], arrays[half:]
        optimizer = SGD(parameters, 0.1, 0.9) if row.what == "sgd" else Adam(parameters)
        return lambda: optimizer.step(gradients), lambda: parameters


def _keep_last(function):
    last = [None]

    def call():
        last[0] = function()

    return call, lambda: [np.asarray(array) for array in last[0]]
