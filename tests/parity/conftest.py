"""PyTorch and Numba bring a thread pool each: one thread for PyTorch keeps the two from fighting for the cores."""

try:
    import torch
except ImportError:
    pass  # the test files skip themselves
else:
    torch.set_num_threads(1)
