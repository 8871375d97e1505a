"""The benchmark on a GPU: minigrad's CUDA kernels beside PyTorch's on the same card."""
