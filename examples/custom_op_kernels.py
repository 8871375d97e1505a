"""The kernels of `custom_op`: swish with a learned slope, y = x sigmoid(beta x), and its gradients.

Each is written three times with the same arguments: the definition in NumPy, loops for the CPU, threads for the GPU.
"""

import functools

import numpy as np

import minigrad as mg
from minigrad.kernels.cpu.language import sigmoid


# The definition. With s = sigmoid(beta x): dy/dx = s + beta x s (1 - s), dy/dbeta = x^2 s (1 - s).
def swish_forward(x, beta, out):
    out[...] = x / (1 + np.exp(-beta * x))


def swish_grad(x, beta, grad, grad_x, terms):  # terms: what each element adds to the gradient by beta
    s = 1 / (1 + np.exp(-beta * x))
    grad_x[...], terms[...] = grad * (s + beta * x * s * (1 - s)), grad * x * x * s * (1 - s)


# On the CPU: the same as loops, which are compiled at the first call.
def swish_forward_cpu(x, beta, out):
    slope = beta[0]
    for i in range(x.size):
        out[i] = x[i] * sigmoid(slope * x[i])


def swish_grad_cpu(x, beta, grad, grad_x, terms):
    slope, one = beta[0], x.dtype.type(1)  # a 1 of the array's type: the int would make float32 arithmetic float64
    for i in range(x.size):
        s = sigmoid(slope * x[i])
        bend = x[i] * s * (one - s)
        grad_x[i], terms[i] = grad[i] * (s + slope * bend), grad[i] * x[i] * bend


# On the GPU: a thread per element. Written inside a function, as the words cannot be imported without CUDA.
@functools.cache
def cuda_kernels():
    from minigrad.kernels.cuda.language import Int, Pointer, T, divide, kernel, math, thread_index

    @kernel
    def forward(x: Pointer, beta: Pointer, out: Pointer, n: Int):
        i = thread_index()
        if i < n:
            out[i] = divide(x[i], T(1) + math.exp(-beta[0] * x[i]))

    @kernel
    def gradient(x: Pointer, beta: Pointer, grad: Pointer, grad_x: Pointer, terms: Pointer, n: Int):
        i = thread_index()
        if i < n:
            s = divide(T(1), T(1) + math.exp(-beta[0] * x[i]))
            bend = x[i] * s * (T(1) - s)
            grad_x[i], terms[i] = grad[i] * (s + beta[0] * bend), grad[i] * x[i] * bend

    return {"forward": forward, "gradient": gradient}


def launch(name, *arrays):
    n, threads = arrays[0].size, 256
    cuda_kernels()[name][max(1, -(-n // threads)), threads](*arrays, n)


def swish_forward_cuda(x, beta, out):
    launch("forward", x, beta, out)


def swish_grad_cuda(x, beta, grad, grad_x, terms):
    launch("gradient", x, beta, grad, grad_x, terms)


mg.register_kernel("swish_forward", cpu=swish_forward_cpu, cuda=swish_forward_cuda, reference=swish_forward)
mg.register_kernel("swish_grad", cpu=swish_grad_cpu, cuda=swish_grad_cuda, reference=swish_grad)
