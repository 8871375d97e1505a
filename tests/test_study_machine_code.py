"""minigrad.study.machine_code: LLVM IR, assembly and the Python lines of the very code that runs."""

import os
from collections import Counter

import numba
import pytest

from minigrad.device import get_device
from minigrad.kernels.cpu.compile import OPTIONS, KernelCompiler, compile_listeners
from minigrad.study import assembly, llvm_ir
from minigrad.study.examples import arguments_of
from minigrad.study.kept import kept
from minigrad.study.machine_code import Line, chosen_for, machine_code

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
WIDE = "zmm", "ymm", "xmm", "4s", "2d"  # registers of AVX-512, AVX, SSE and NEON


def compiled(name):
    kernel, arguments = chosen_for(getattr(get_device("cpu").kernels, name), arguments_of(name))
    return kernel, tuple(map(numba.typeof, arguments))


def vector_code(name):
    return machine_code(*compiled(name))


def line_with(code, text):
    return next(line for line in code.lines if text in line.text)


def test_the_code_is_the_kernels_own():
    """Compiled as the kernel is, without line numbers: the same vector instructions, in all functions together."""
    for name in ("relu", "add", "gelu"):
        kernel, types = compiled(name)
        plain = numba.njit(kernel.py_func, _nrt=False, pipeline_class=KernelCompiler, **OPTIONS)
        plain.compile(types)
        (signature,) = plain.signatures
        symbol = plain.overloads[signature].fndesc.llvm_func_name
        parts = assembly.functions(plain.inspect_asm(signature), symbol, lambda *place: place)
        counts = Counter(instruction for part in parts for _, instruction in part.instructions)
        assert counts == vector_code(name).vector_counts


def test_lines_of_relu():
    code = vector_code("relu")
    store, formula = line_with(code, "target[i] = f(source[i])"), line_with(code, "return zero if x <= zero else x")
    assert store.file.endswith("cpu/elementwise.py") and formula.file.endswith("cpu/activation.py")
    for line in (store, formula):
        assert any(name.split()[-1] in WIDE for name in line.counts)
        step, lanes = line.loops[0]
        assert lanes >= 4 and step % lanes == 0
        assert f"in a loop of {step} elements" in str(line)
    assert sum(sum(line.counts.values()) for line in code.lines) <= sum(code.vector_counts.values())


def test_the_assembly_names_the_lines():
    assert "elementwise.unary.one_block:" in vector_code("gelu").assembly and "_ZN" not in vector_code("gelu").assembly
    text = vector_code("relu").assembly
    assert "elementwise.relu:" in text and "parallel_for_worker:" in text
    assert "# activation.py:" in text and "return zero if x <= zero else x" in text
    for noise in ("_ZN", "cpython", ".cfi_", ".loc", "NRT_"):
        assert noise not in text


def test_the_llvm_ir_names_the_lines():
    text = vector_code("relu").llvm
    assert "define" in text and "; activation.py:" in text and "vector.body" in text
    for noise in ("_ZN", "!dbg", "#dbg_value", "PyArg_UnpackTuple"):
        assert noise not in text


def test_helpers_of_other_files_have_their_lines():
    """Of functions that LLVM inlines, and of intrinsics through the line that calls them."""
    files = {line.file.rsplit("/", 1)[-1] for line in vector_code("softmax").lines}
    assert "softmax.py" in files
    assert line_with(vector_code("softmax"), "tile[i] = exp(tile[i])").loops


def test_it_is_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    kernel, types = compiled("neg")
    heard = []
    compile_listeners.append(lambda event, name, _: heard.append((event, name)))
    try:
        first = machine_code(kernel, types)
        assert heard == [("start", "neg (to be read)"), ("end", "neg (to be read)")]
        (file,) = (tmp_path / "study").iterdir()
        assert machine_code(kernel, types) == first and len(heard) == 2
        file.write_text("half of a {")
        assert machine_code(kernel, types).vector_counts == first.vector_counts
        assert len(heard) == 4
    finally:
        compile_listeners.pop()


def test_what_nobody_looks_at_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    assert kept("first", lambda: [1]) == [1] == kept("first", lambda: [2])
    assert kept("second", lambda: [3], lambda made: False) == [3] and kept("second", lambda: [4]) == [4]
    os.utime(tmp_path / "study" / "first.json", (0, 0))
    kept("third", lambda: [5])
    assert sorted(file.name for file in (tmp_path / "study").iterdir()) == ["second.json", "third.json"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "study").write_text("in the way")
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    assert machine_code(*compiled("neg")).vector_counts


@pytest.mark.parametrize("line, expected", [
    ("\tvmulps\t%zmm1, %zmm2, %zmm3", "vmulps zmm"),
    ("\tvmovups\t(%rax), %ymm1 {%k1} {z}", "vmovups ymm"),
    ("\tvaddps\t%xmm1, %xmm2, %xmm3", "vaddps xmm"),
    ("\tvbroadcastss\t%xmm1, %xmm3", "vbroadcastss xmm"),
    ("\tvcvtps2dq\t%xmm1, %xmm3", "vcvtps2dq xmm"),
    ("\tvaddss\t%xmm1, %xmm2, %xmm3", None),
    ("\tvmovss\t(%rax), %xmm1", None),
    ("\tvcmpless\t%xmm0, %xmm1, %k1", None),
    ("\tvcvtsi2ss\t%rax, %xmm1, %xmm1", None),
    ("\tvmovq\t%rax, %xmm1", None),
    ("\tfmul\tv1.4s, v2.4s, v3.4s", "fmul 4s"),
    ("\tfmul.4s\tv0, v0, v1", "fmul.4s 4s"),
    ("\tfmul\ts1, s2, s3", None),
    ("\tincq\t%r14", None),
    (".LBB0_1:", None),
])  # fmt: skip
def test_vector_instructions(line, expected):
    assert assembly.vector_instruction(line) == expected


def test_arm_assembly():
    """As Numba writes it for macOS: no ``.type``, underscores in front."""
    text = """
	.globl	_ZN8minigrad4relu
_ZN8minigrad4relu:
	.file	1 "/x" "relu.py"
	.loc	1 7 0
	fmul	v1.4s, v2.4s, v3.4s
	bl	_helper
	ret
	.globl	_helper
_helper:
	.loc	1 9 0
	fadd	v1.4s, v2.4s, v3.4s
	.loc	1 8 0
	bl	_tile
	.globl	_tile
_tile:
	fmla	v1.4s, v2.4s, v3.4s
	.globl	_other
_other:
	fadd	v1.2d, v2.2d, v3.2d
"""
    parts = assembly.functions(text, "_ZN8minigrad4relu", lambda *place: place)
    assert [part.instructions for part in parts] == [
        [(("/x/relu.py", 7), "fmul 4s")], [(("/x/relu.py", 9), "fadd 4s")], [(("/x/relu.py", 8), "fmla 4s")]]
    assert assembly.listing(parts).startswith("relu:\n# relu.py:7")


def test_loops_of_the_vectoriser():
    text = """define void @f() {
vector.body:                                      ; preds = %vector.body
  %x = load <8 x float>, ptr %p, align 4, !dbg !5
  %index.next = add nuw i64 %index, 32, !dbg !6
  br i1 %c, label %middle.block, label %vector.body, !dbg !6

vec.epilog.vector.body:                           ; preds = %entry
  %x2 = load <4 x float>, ptr %p, align 4, !dbg !5
  %lsr.iv.next3 = add nsw i64 %lsr.iv, -4
  br label %middle.block

middle.block:                                     ; preds = %vector.body
  ret void
}

!1 = !DIFile(filename: "f.py", directory: "/x")
!4 = distinct !DISubprogram(name: "f", scope: !1, file: !1, line: 1)
!5 = !DILocation(line: 3, column: 1, scope: !4)
!6 = !DILocation(line: 2, column: 1, scope: !4)
"""
    bodies = llvm_ir.functions(text, ["f"])
    loops = llvm_ir.vector_loops(text, bodies, lambda *place: place)
    assert loops == {("/x/f.py", 3): [[32, 8], [4, 4]], ("/x/f.py", 2): [[32, 8]]}
    assert "; f.py:3" in llvm_ir.listing(text, bodies, lambda *place: place)


def test_a_line_is_short():
    line = Line("/a/b.py", 12, "  y = " + "x" * 200, {f"v{i} zmm": 2 for i in range(9)}, [[8, 8]])
    assert str(line).splitlines() == [
        f"{'b.py:12':<22} y = {'x' * 85}…",
        f"{'':>22} -> " + ", ".join(f"2 v{i} zmm" for i in range(7)) + " and 4 more",
        f"{'':>25} in a loop of 8 elements a turn",
    ]


def test_readable_names():
    symbol = "_ZN8minigrad7kernels3cpu11elementwise5unary12_3clocals_3e9one_blockB2v8B146c8tJTC_2fWw"
    assert assembly.readable(symbol) == "elementwise.unary.one_block"
    assert assembly.readable("parallel_for_worker") == "parallel_for_worker"
