"""The columns of minigrad, PyTorch and torch.compile: one and the same code, since minigrad speaks PyTorch."""

import importlib

from minigrad.bench import nets


def _chain(F, x, w, length):
    for _ in range(length):
        x = x * w
    return x


def _fan_out(F, x, w, width):
    total = x * w
    for _ in range(width - 1):
        total = total + x * w
    return total


# Each takes the library's module of functions, then the tensors.
OPS = {
    "add": lambda F, a, b: a + b,
    "mul": lambda F, a, b: a * b,
    "div": lambda F, a, b: a / b,
    "exp": lambda F, x: x.exp(),
    "log": lambda F, x: x.log(),
    "tanh": lambda F, x: x.tanh(),
    "sigmoid": lambda F, x: x.sigmoid(),
    "relu": lambda F, x: x.relu(),
    "gelu": lambda F, x: F.gelu(x),
    "pow": lambda F, x, exponent: x**exponent,
    "sum": lambda F, x, dim: x.sum(dim=dim),
    "softmax": lambda F, x, dim: x.softmax(dim),
    "matmul": lambda F, a, b: a @ b,
    "linear": lambda F, x, weight, bias: F.linear(x, weight, bias),
    "conv2d": lambda F, x, weight, bias, **how: F.conv2d(x, weight, bias, **how),
    "batch_norm": lambda F, x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True),
    "max_pool2d": lambda F, x, size=2, **how: F.max_pool2d(x, size, **how),
    "avg_pool2d": lambda F, x, size=2, **how: F.avg_pool2d(x, size, **how),
    "cross_entropy": lambda F, logits, target: F.cross_entropy(logits, target),
    "chain": _chain,
    "fan_out": _fan_out,
}


class TorchLike:
    """Prepares rows for a library with PyTorch's interface.

    Parameters
    ----------
    name : str
        ``minigrad``, ``torch`` or ``torch.compile``.
    device : str
    """

    def __init__(self, name, device="cpu"):
        self.name, self.device = name, device
        self.compiled = name == "torch.compile"
        self.package = "minigrad" if name == "minigrad" else "torch"
        self.library = importlib.import_module(self.package)
        self.F = self.library.functional if self.package == "minigrad" else self.library.nn.functional

    def about(self):
        """Version and settings, as a dict."""
        if self.package == "torch":
            return {
                "version": self.library.__version__,
                "threads in use": self.library.get_num_threads(),
                "instruction set": self.library.backends.cpu.get_cpu_capability(),
                "oneDNN": "yes" if self.library.backends.mkldnn.is_available() else "no",
            }
        import llvmlite
        import numba

        from minigrad.kernels.cpu import simd, thread_pool

        return {
            "version": self.library.__version__,
            "numba": numba.__version__,
            "llvmlite": llvmlite.__version__,
            "threads in use": numba.get_num_threads(),
            "threading layer": thread_pool.layer(),
            "vector bytes": simd.VECTOR_BYTES,
        }

    def set_threads(self, threads):
        """Numba has read the number from the environment; PyTorch may bound it by the cores it sees."""
        if self.package == "torch":
            self.library.set_num_threads(threads)

    def prepare(self, row):
        """Two functions: one does the row's work once, the other returns the latest results as arrays."""
        if self.compiled:
            # Or it would take a net at another batch size for the same function called with a changing shape, compile
            # it for any shape and, after a few rows, not at all.
            self.library.compiler.reset()
        arrays = row.arrays()
        if row.mode in ("train", "captured", "memory", "cached", "cold"):
            return self._train(row, arrays)
        if row.mode == "infer":
            return self._infer(row, arrays)
        if row.mode == "optimizer":
            return self._optimizer(row, arrays)
        return self._op(row, arrays)

    def _tensor(self, array, requires_grad=False):
        tensor = self.library.from_numpy(array.copy()).to(self.device)
        return tensor.requires_grad_() if requires_grad else tensor

    def _op(self, row, arrays):
        op, F, params = OPS[row.what], self.F, row.params
        inputs = [self._tensor(a, row.mode != "forward" and a.dtype.kind == "f") for a in arrays]
        last = [None]
        if row.mode != "backward":

            def forward():
                last[0] = op(F, *inputs, **params)

            return forward, lambda: [_array(last[0])]

        leaves = [x for x in inputs if x.requires_grad]
        seed = self._tensor(row.output_gradient(tuple(op(F, *inputs, **params).shape)))

        def forward_backward():
            for x in leaves:
                x.grad = None
            last[0] = out = op(F, *inputs, **params)
            out.backward(seed)

        return forward_backward, lambda: [_array(last[0]), *[_array(x.grad) for x in leaves]]

    def _model(self, row, parameters):
        nn = importlib.import_module("minigrad.layers") if self.package == "minigrad" else self.library.nn
        model = nets.modules(row.net(), nn).to(self.device)
        with self.library.no_grad():
            for parameter, array in zip(model.parameters(), parameters, strict=True):
                parameter.copy_(self._tensor(array))
        return model

    def _optim(self):
        return importlib.import_module(f"{self.package}.optim")

    def _train(self, row, arrays):
        *parameters, x, labels = arrays
        model, x, labels = self._model(row, parameters), self._tensor(x), self._tensor(labels)
        optimizer = self._optim().SGD(model.parameters(), lr=nets.LEARNING_RATE, momentum=nets.MOMENTUM)
        cross_entropy = self.F.cross_entropy

        def loss_of(x, labels):
            return cross_entropy(model(x), labels)

        loss_function = self.library.compile(loss_of) if self.compiled else loss_of
        losses = [None]

        def train_step(x, labels):
            optimizer.zero_grad()
            loss = loss_function(x, labels)
            loss.backward()
            optimizer.step()
            return loss

        captured = row.mode == "captured" or row.params.get("captured")
        run = self._captured(train_step) if captured else train_step

        def step():
            losses[0] = run(x, labels)

        def results():
            own = list(model.parameters())
            running = [b for name, b in model.named_buffers() if "running" in name]
            before = [_array(t) for t in (losses[0], *[p.grad for p in own])]
            return [*before, *nets.updates([_array(p) for p in own], parameters), *[_array(b) for b in running]]

        return step, results

    def _captured(self, train_step):
        """The step as minigrad replays it; as it is for a library that has no such thing."""
        return self.library.capture(train_step) if self.package == "minigrad" else train_step

    def _infer(self, row, arrays):
        model, x = self._model(row, arrays[:-2]), self._tensor(arrays[-2])
        model.eval()
        if row.params.get("folded") and self.package == "minigrad":
            model = importlib.import_module("minigrad.layers").fold_batchnorm(model)
        function = self.library.compile(model) if self.compiled else model
        no_record = self.library.no_grad if self.package == "minigrad" else self.library.inference_mode
        last = [None]

        def predict():
            with no_record():
                last[0] = function(x)

        return predict, lambda: [_array(last[0])]

    def _optimizer(self, row, arrays):
        half = len(arrays) // 2
        parameters = [self._tensor(a, requires_grad=True) for a in arrays[:half]]
        for parameter, grad in zip(parameters, arrays[half:], strict=True):
            parameter.grad = self._tensor(grad)
        optim = self._optim()
        optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9) if row.what == "sgd" else optim.Adam(parameters)
        return optimizer.step, lambda: [_array(p) for p in parameters]


def _array(tensor):
    return tensor.detach().to("cpu").numpy().copy()
