"""One op from its formula down to the machine code, in one place."""

import difflib
import functools
import html
import inspect
import re
import textwrap

from minigrad import ops
from minigrad.device import get_device
from minigrad.extension import registered
from minigrad.function import Function, Pick
from minigrad.kernels import reference
from minigrad.recording.passes import RepeatedPass
from minigrad.study.kernel_names import KERNELS, functions_of, gradients_of, kernels_of
from minigrad.study.texts import definition, made_of, whole
from minigrad.tensor import Tensor

PARTS = ("function", "gradients", "reference", "njit", "llvm", "assembly", "lines", "cuda", "ptx", "sass")
SHORT = 24  # lines of a text that `str` shows


class KernelSource:
    """One kernel on its three backends. What has to be compiled is made at the first access, and kept on disk.

    Attributes
    ----------
    name : str
    reference : str
        The definition, in NumPy.
    """

    def __init__(self, name):
        self.name, self._registered = name, registered(name)
        function = self._registered.reference if self._registered else getattr(reference, name, None)
        self.reference = whole("reference", name, function)

    def __repr__(self):
        return f"<kernel {self.name}>"

    @functools.cached_property
    def njit(self):
        """The source of the CPU kernel, and of the project's functions that it is made of."""
        return whole("cpu", self.name, self._chosen[0] if self._chosen else None)

    @functools.cached_property
    def _chosen(self):
        """The compiled kernel that a call on small float32 arrays reaches, and the types of its arguments.

        Of a kernel from outside the project the types that it was first called with; None if it has not been called.
        """
        import numba

        from minigrad.study.examples import arguments_of
        from minigrad.study.machine_code import chosen_for

        kernel = getattr(get_device("cpu").kernels, self.name, None)
        arguments = arguments_of(self.name) if kernel is not None and self.name in KERNELS else None
        kernel, arguments = chosen_for(kernel, arguments)
        if not hasattr(kernel, "py_func"):  # Numba's JIT is off, or there is none for the CPU
            return None
        if arguments is not None:
            return kernel, tuple(map(numba.typeof, arguments))
        return kernel, next(iter(kernel.signatures), None)

    @functools.cached_property
    def machine(self):
        """The `minigrad.study.machine_code.MachineCode` for small float32 arrays; None where `why_no_machine` says."""
        from minigrad.study.machine_code import machine_code

        return None if self.why_no_machine else machine_code(*self._chosen)

    @property
    def why_no_machine(self):
        """What is missing for LLVM IR and assembly, as a sentence; "" if they are there."""
        import numba

        if self._chosen is None:
            return f"{self.name} is not compiled here: there is no kernel for the CPU, or NUMBA_DISABLE_JIT is set"
        if numba.config.DEBUGINFO_DEFAULT:  # LLVM aborts where two ways to note lines meet
            return "machine code is looked at without NUMBA_DEBUGINFO, which makes other code"
        return "" if self._chosen[1] else f"{self.name} has not been called yet, so its arguments' types are not known"

    @property
    def llvm(self):
        """Optimised LLVM IR."""
        return self.machine and self.machine.llvm

    @property
    def assembly(self):
        """Assembly of this processor."""
        return self.machine and self.machine.assembly

    @property
    def vector_counts(self):
        """Vector instructions by name and width, and how many of each."""
        return self.machine.vector_counts if self.machine else {}

    @property
    def lines(self):
        """The lines of Python and the vector instructions that they became, see `machine_code.Line`."""
        return self.machine.lines if self.machine else []

    @functools.cached_property
    def _cuda(self):
        from minigrad.study.cuda_code import CudaCode, cuda_code

        if self.name in KERNELS:
            return cuda_code(self.name)
        host = self._registered.cuda if self._registered else None
        return CudaCode(made_of(host) if host else "", [], "PTX and SASS are made of the project's own kernels only")

    @property
    def cuda(self):
        """The function that launches on a GPU, and the kernels that a call on small arrays launches."""
        texts = [self._cuda.host or definition("cuda", self.name)]
        return "\n\n".join(filter(None, texts + [kernel.source for kernel in self._cuda.kernels]))

    @property
    def cuda_kernels(self):
        """The same kernels as `minigrad.study.cuda_code.CudaKernel`, with registers and shared memory."""
        return self._cuda.kernels

    @property
    def ptx(self):
        """Their PTX, None if the compiler is missing."""
        return self._texts("ptx")

    @property
    def sass(self):
        """Their machine code for sm_90, None if compiler or disassembler are missing."""
        return self._texts("sass")

    @property
    def registers(self):
        """Registers per thread of the largest of them, None if the compiler is missing."""
        return max([k.registers for k in self._cuda.kernels if k.registers is not None], default=None)

    def _texts(self, part):
        texts = [f"// {k.name}\n{getattr(k, part)}" for k in self._cuda.kernels if getattr(k, part)]
        return "\n\n".join(texts) or None

    @property
    def why_not(self):
        """What is missing for PTX or SASS, as a sentence; "" if they are there."""
        if self._cuda.why_not:
            return self._cuda.why_not
        if self._cuda.kernels and self.sass is None:
            return "SASS needs nvdisasm: pip install 'minigrad-numba[disassembler]'"
        return "" if self._cuda.kernels else "no example of this kernel launches anything on a GPU"


class Source:
    """What `source` returns; print it for an overview, `show` has the full texts.

    Attributes
    ----------
    name : str
    formula : str
        The first line of the Function's docstring; of a composition also what it is made of.
    function : str
        The source of the Function: forward and backward. Of a composition of the public function and its Functions.
    gradients : str
        The source of the Functions that its gradient consists of, "" if it is made of other ops.
    kernels : list of KernelSource
        Those of the forward first.
    """

    def __init__(self, name, formula, function, gradients, kernels):
        self.name, self.formula, self.function, self.gradients = name, formula, function, gradients
        self.kernels = [KernelSource(kernel) for kernel in kernels]

    def __repr__(self):
        return f"<source of {self.name}: {', '.join(kernel.name for kernel in self.kernels) or 'no kernel'}>"

    def show(self, part, kernel=None):
        """One of the texts in full.

        Parameters
        ----------
        part : {"function", "gradients", "reference", "njit", "llvm", "assembly", "lines", "cuda", "ptx", "sass"}
        kernel : str, optional
            Of which kernel; the first by default.
        """
        if part not in PARTS:
            raise ValueError(f"show: expected {', '.join(PARTS)}, got {part!r}")
        if part in ("function", "gradients"):
            return getattr(self, part)
        known = {k.name: k for k in self.kernels}
        if not known:
            raise ValueError(f"show: no kernel of {self.name} could be found in its source")
        if kernel is not None and kernel not in known:
            raise ValueError(f"show: expected a kernel of {self.name} ({', '.join(known)}), got {kernel!r}")
        found = known[kernel] if kernel else self.kernels[0]
        text = getattr(found, part)
        if part == "lines":
            return "\n".join(map(str, text))
        if text is None:
            return found.why_no_machine if part in ("llvm", "assembly") else found.why_not
        return text

    def _repr_html_(self):
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self):
        parts = [f"{self.name}: {self.formula}", _framed("Function", self.function)]
        if self.gradients:
            parts.append(_framed("its gradient", self.gradients))
        for kernel in self.kernels:
            parts += [_framed(f"{kernel.name}: {part}", getattr(kernel, part))
                      for part in ("reference", "njit") if getattr(kernel, part)]
            code = kernel.machine
            if code:
                counts = ", ".join(f"{count} {name}" for name, count in list(code.vector_counts.items())[:10])
                text = f"vector instructions: {counts or 'none'}\n" + "\n".join(map(str, code.lines[:6]))
                parts.append(_framed(f"{kernel.name}: machine code for {code.signature}", text))
            else:
                parts.append(_framed(f"{kernel.name}: machine code", kernel.why_no_machine))
            rows = [f"{k.name}: {k.registers} registers ({k.registers_sm_80} for sm_80), {k.shared} bytes of shared "
                    f"memory, {k.spills} of spilled registers" for k in kernel.cuda_kernels if k.registers is not None]
            parts.append(_framed(f"{kernel.name}: numba.cuda", kernel.cuda, *(rows or [kernel.why_not])))
        parts.append(f'The texts in full: .show("{PARTS[0]}"), ' + ", ".join(f'"{part}"' for part in PARTS[1:]))
        return "\n\n".join(parts)


def _framed(title, text, *remarks):
    """A text under a title, shortened; remarks are not."""
    lines = text.rstrip().splitlines()
    if len(lines) > SHORT + 3:
        lines = [*lines[:SHORT], f"... {len(lines) - SHORT} lines more"]
    return "\n".join([f"== {title} " + "=" * max(2, 96 - len(title)), *lines, *remarks])


def _text(thing):
    """The source of a class or function."""
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):  # defined where there is no file, in a plain interactive session
        return f"# {thing.__name__}: its text cannot be read\n"


def _functions():
    """All Functions that have been defined, by name: the project's first."""
    found, waiting = {}, [Function]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            waiting.append(cls)
            if cls not in (Pick, RepeatedPass):  # they stand for parts of ops, and for several
                found.setdefault(cls.name, []).append(cls)
    return {name: sorted(group, key=lambda c: (not c.__module__.startswith("minigrad"), len(c.__mro__)))
            for name, group in sorted(found.items())}


def source(op):
    """Everything that an op is made of: its Function, the kernels in NumPy, njit and CUDA, their machine code.

    Parameters
    ----------
    op : str, Function class, Tensor or function
        An op's name (``"linear"``), its class, a tensor that it has made, or a public function (``minigrad.relu``).

    Returns
    -------
    Source
        Texts, of a composition of ops those of its parts. LLVM IR and assembly are made at the first access, by
        compiling the kernel for small float32 arrays (0.5 to 10 s, then they are on disk); PTX and SASS too, in
        another process.

    Raises
    ------
    ValueError
        If no op has that name, or no recorded op made the tensor.

    Examples
    --------
    >>> relu = minigrad.study.source("relu")
    >>> print(relu)
    >>> print(relu.show("assembly"))
    """
    if isinstance(op, Tensor):
        if op.fn is None:
            raise ValueError("source: no recorded op made this tensor: no input of its required grad, or it is a leaf")
        if op.fn.folded is not None:
            op.fn.unfold()
        fn = op.fn.parents[0] if type(op.fn) is Pick else op.fn
        return _of_class(type(fn))
    if isinstance(op, type) and issubclass(op, Function):
        return _of_class(op)
    if callable(op) and hasattr(op, "__name__"):
        op = op.__name__
    if not isinstance(op, str):
        raise TypeError(f"source: expected an op's name, its Function, a Tensor or a function, got {type(op).__name__}")
    known = _functions()
    if op in known:
        return _of_class(known[op][0])
    if op in ops.__all__:
        return _of_composition(op, inspect.unwrap(getattr(ops, op)))
    like = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", op).lower()  # of a layer's class: BatchNorm2d
    similar = difflib.get_close_matches(like, [*known, *ops.__all__], n=1)
    raise ValueError(f"source: no op is called {op!r}" + (f"; did you mean {similar[0]!r}?" if similar else ""))


def _of_class(cls):
    bases = [base for base in cls.__mro__ if base not in (cls, Function, object)]
    gradients = "\n\n".join(map(_text, gradients_of(cls)))
    function = "\n\n".join([_text(cls), *map(_text, bases)])
    return Source(cls.name, _first_line(cls), function, gradients, kernels_of(cls))


def _of_composition(name, function):
    """A public function that has no Function of its own but applies others."""
    parts = functions_of(function)
    made_of = ", ".join(dict.fromkeys(cls.name for cls in parts))
    kernels = dict.fromkeys(kernel for cls in parts for kernel in kernels_of(cls))
    formula = f"{_first_line(function)} A composition of {made_of}."
    return Source(name, formula, "\n\n".join(map(_text, [function, *parts])), "", kernels)


def _first_line(thing):
    return (thing.__doc__ or "").strip().split("\n")[0]
