"""What the CUDA kernels became: no spills, no float64 in float32 kernels, no calls. Compiled, not run: needs no GPU."""

import pytest

from minigrad.kernels import cuda
from minigrad.kernels.cuda import kernel, toolkit

if not toolkit.HAS_COMPILER:
    pytest.skip("numba-cuda and cuda-core are not installed", allow_module_level=True)

from minigrad.kernels.cuda import code, held

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
            assert not called or found.slow_paths, found.instructions
            for name in kernel.promises:
                assert found.count(name) > 0, f"{name} promised, found {found.instructions}"


BLOCKS = {"_held_by_four": (held.HOLDING[True], held.HOLDING[True]), "_long_by_four": (held.LARGE, held.LARGE // 2)}
LARGE = [k for k in kernel.KERNELS if k.__name__.endswith(tuple(BLOCKS))]


@pytest.mark.parametrize("name", ("float32", "float64"))
@pytest.mark.parametrize("kernel", LARGE, ids=[k.__name__ for k in LARGE])
def test_large_blocks_find_room(kernel, name):
    """A multiprocessor has 65536 registers, dealt out to a warp in units of 256."""
    threads = BLOCKS[kernel.__name__[-13:]][name == "float64"]
    for architecture in ARCHITECTURES:
        registers = code.report(kernel, (name,) * len(kernel.examples[0]), architecture).registers
        assert threads * -(-registers // 8) * 8 <= 65536
