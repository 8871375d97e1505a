"""What the CUDA kernels became: no spills, no float64 in float32 kernels, no calls. Compiled, not run: needs no GPU."""

import pytest

from minigrad.kernels import cuda
from minigrad.kernels.cuda import kernel, toolkit

if not toolkit.HAS_COMPILER:
    pytest.skip("numba-cuda and cuda-core are not installed", allow_module_level=True)

from minigrad.kernels.cuda import code

assert cuda
ARCHITECTURES = ((8, 0), (9, 0))
CASES = [(k, example) for k in kernel.KERNELS for example in k.examples]


@pytest.mark.parametrize("kernel, example", CASES, ids=[f"{k.__name__}-{'-'.join(e)}" for k, e in CASES])
def test_code(kernel, example):
    for architecture in ARCHITECTURES:
        found = code.report(kernel, example, architecture)
        assert found.stack == 0 and found.spills == 0, found
        assert found.calls == [], found.calls
        if "float64" not in example and not kernel.doubles:
            assert found.doubles == [], found.doubles[:5]
        if found.instructions is not None:
            # A CALL that nothing returns from is a jump out of a long loop; a RET alone comes with shuffles.
            called = found.count("CALL") and found.count("RET")
            assert not called or found.divisions, found.instructions
            for name in kernel.promises:
                assert found.count(name) > 0, f"{name} promised, found {found.instructions}"
