"""In what precision float32 matrix products are computed; only the CUDA kernels ask.

``"highest"``
    float32.
``"3xtf32"``
    Each operand split into two numbers of tf32: nearly as exact as float32, on tensor cores.
``"high"``
    Operands rounded to tf32, 10 bits of mantissa, on tensor cores; the sums stay float32.
``"medium"``
    The same with bfloat16, 7 bits of mantissa.
"""

from contextvars import ContextVar

matmul_precision = ContextVar("minigrad_matmul_precision", default="highest")
