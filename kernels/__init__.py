"""Kernels: arrays in, arrays out. They know NumPy and Numba, nothing of tensors.

Three backends expose the same names with the same arguments; a test compares them:

``minigrad.kernels.reference``
    one slow, obvious NumPy function per kernel: the definition, and the tests' oracle.
``minigrad.kernels.cpu``
    the ``@njit`` kernels.
``minigrad.kernels.cuda``
    the ``numba.cuda`` kernels.

The contract of every kernel
----------------------------
* Arguments come in the order *inputs, outputs, scratch, numbers*. Arrays are C-contiguous and of one
  float type unless the docstring says otherwise (class labels are int64, masks are bool); the numbers
  are plain Python ints and floats. There are no default arguments, no ``None``, no tuples: an absent
  array (a missing bias, say) is an array of size 0.
* Sizes come from ``.shape``. The caller has already brought the arrays to the shape that the docstring
  names: 1-D for elementwise kernels, ``(outer, reduced, inner)`` for reductions, and so on.
* A kernel writes every element of its outputs, reads none of them before it has written it (unless the
  docstring says "in place" or "accumulates"), returns nothing and validates nothing: ops validate.
* A kernel allocates nothing. One that needs scratch memory takes an array ``work`` of the float type
  and has a companion ``<name>_workspace(...)``, a plain function of the same arguments without outputs
  and scratch, that returns the number of elements it wants (the reference wants none).
* The same input gives the same bits on every run and on any number of threads: reductions sum fixed
  blocks in order, never per-thread partials.
* NaN and infinity travel as IEEE 754 says.

Names are ``<op>_forward``/``<op>_grad_<input>`` for ops that need several kernels, and just ``<op>``
for the others.
"""
