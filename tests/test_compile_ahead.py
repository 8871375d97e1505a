"""Several processes and one cache: claims on kernels, and the processes that compile ahead of a program."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad.kernels.cpu import activation, ahead, claims, usual
from minigrad.kernels.cpu.compile import kernel
from minigrad.kernels.cpu.launch import dispatcher_of

CLAIMS = "import sys\nfrom pathlib import Path\nfrom minigrad.kernels.cpu import claims\nfile = Path(sys.argv[1])\n"
unix = pytest.mark.skipif(claims.fcntl is None, reason="claims need the locks of a Unix system")


def python(program, *arguments, **settings):
    """A process whose standard output and input are pipes."""
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env={**os.environ, **settings})


@pytest.fixture
def file(tmp_path):
    yield tmp_path / "folder" / "kernel.pickle"
    claims.release()


@pytest.fixture
def other(file):
    """Another process with a claim on the file, which it keeps until it is killed or its input ends."""
    with python(CLAIMS + "print(claims.claim(file), flush=True)\nsys.stdin.read()\nclaims.release()", file) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


@unix
def test_a_claim_keeps_other_processes_away_until_it_is_released(file, other):
    assert not claims.claim(file)
    assert claims.claim(file.with_name("another.pickle"))
    other.communicate("")
    assert claims.claim(file) and claims.claim(file)
    claims.release()
    assert list(file.parent.iterdir()) == []


@unix
def test_a_claim_ends_with_its_process(file, other):
    other.kill()
    other.wait()
    assert claims.claim(file)


@unix
def test_who_waits_is_let_in_when_the_claim_is_released(file, other):
    waiting = CLAIMS + "print(claims.claim(file, 60), claims._held is not None, flush=True)"
    with python(waiting, file) as process:
        time.sleep(0.3)
        assert process.poll() is None
        other.communicate("")
        assert process.stdout.readline() == "True True\n"


@unix
def test_patience_ends(file, other):
    assert claims.claim(file, 0.1)
    assert claims._held is None


def test_where_no_claim_can_be_left_everybody_compiles(file, monkeypatch):
    blocked = file.parent
    blocked.write_text("a file where the folder should be")
    assert claims.claim(file)
    monkeypatch.setattr(claims, "fcntl", None)
    assert claims.claim(file.with_name("x")) and claims._held is None


WAITS_FOR_RELU = """
import sys
import numpy as np
from minigrad.kernels import cpu
from minigrad.kernels.cpu import compile
from numba.core.compiler import Compiler

def refuse(self, function):
    raise SystemExit("compiled by itself")

compile.compile_listeners.append(lambda event, name, signature: print(event, name, flush=True))
Compiler.compile_extra = refuse
x, out = np.array([-1, 2], np.float32), np.empty(2, np.float32)
cpu.relu(x, out)
print(out, flush=True)
"""


@unix
def test_a_kernel_that_another_process_compiles_is_waited_for(tmp_path):
    # The other process has the claim when the program comes to the kernel, and compiles it meanwhile.
    compiles = (CLAIMS.replace("file = Path(sys.argv[1])", "") + "from minigrad.kernels.cpu import usual, activation\n"
                "relu = usual.dispatcher_of(activation.relu)\nkinds = usual.signature('x1 x1')\n"
                "file = relu._cache.file_of(kinds, relu.targetctx.codegen())\n"
                "print(claims.claim(file), flush=True)\nsys.stdin.readline()\nrelu.compile(kinds)\n")
    with python(compiles, MINIGRAD_CACHE_DIR=str(tmp_path)) as first:
        assert first.stdout.readline() == "True\n"
        with python(WAITS_FOR_RELU, MINIGRAD_CACHE_DIR=str(tmp_path)) as second:
            assert second.stdout.readline() == "start relu\n"
            first.communicate("\n", timeout=60)
            assert second.communicate(timeout=60)[0] == "end relu\n[0. 2.]\n"
    assert list(tmp_path.glob("relu-*.pickle")) and not list(tmp_path.glob("*.lock"))


def test_a_kernel_that_cannot_be_compiled_is_no_longer_claimed(tmp_path, monkeypatch):
    @kernel
    def unknown_attribute(x):
        x.no_such_thing()

    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    with pytest.raises(Exception, match="no_such_thing"):
        unknown_attribute(np.zeros(3, np.float32))
    assert claims._held is None and list(tmp_path.iterdir()) == []


STEP = """
import minigrad as mg
from minigrad import layers as nn
from minigrad.kernels.cpu import usual

end = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
convolutional = nn.BatchNorm2d(9), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 8), *end
nets = {"product": nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), *end),
        "correlate": nn.Sequential(nn.Conv2d(1, 9, 3, padding=1), *convolutional),
        "correlate_lines_forward": nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 9, 3, padding=1),
                                                 *convolutional)}
for first, net in nets.items():
    x = mg.randn(4, 64) if first == "product" else mg.randn(4, 1, 8, 8)
    for optimizer in (mg.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), mg.optim.Adam(net.parameters())):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(net(x), mg.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    for kernel, text in usual.AFTER[first]:
        compiled = usual.dispatcher_of(kernel).overloads
        print(first, kernel, "used" if usual.signature(text) in compiled else f"not used, but {list(compiled)}")
"""


def test_what_is_compiled_ahead_is_what_a_training_step_uses():
    with python(STEP) as process:
        lines = process.communicate(timeout=300)[0].splitlines()
    assert len(lines) == sum(map(len, usual.AFTER.values()))
    assert [line for line in lines if not line.endswith(" used")] == []


def names(folder):
    return {path.name.split("-")[0] for path in folder.glob("leaky*.pickle")}


def test_one_pass_compiles_what_is_missing_and_leaves_what_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    made = [("leaky_relu", "x1 x1 d"), ("leaky_relu_grad", "x1 x1 x1 d")]
    leaky = dispatcher_of(activation.leaky_relu)
    claimed = leaky._cache.file_of(usual.signature("x1 x1 d"), leaky.targetctx.codegen())
    with python(CLAIMS + "print(claims.claim(file), flush=True)\nsys.stdin.read()", claimed) as other:
        assert other.stdout.readline() == "True\n"
        program = ("from minigrad.kernels.cpu import activation, usual\n"
                   f"usual.AFTER['test'] = [(getattr(activation, k), t) for k, t in {made}]\n"
                   "usual.compile_after('test')")
        with python(program) as process:
            assert process.wait(60) == 0
        other.kill()
    assert names(tmp_path) == {"leaky_relu_grad"}
    with python(program.replace("'test')", "'test', lambda: True)")) as process:
        assert process.wait(60) == 0
    assert names(tmp_path) == {"leaky_relu_grad"}
    with python(program) as process:
        assert process.wait(60) == 0
    assert names(tmp_path) == {"leaky_relu", "leaky_relu_grad"}


BEGINS = """
import sys, time
from minigrad.kernels.cpu import ahead
ahead.begin("fill")
assert not ahead._helpers
ahead.begin("product")
ahead.begin("product")
print(*[helper.pid for helper in ahead._helpers], flush=True)
if sys.argv[1] == "wait":
    print(*[helper.wait(200) for helper in ahead._helpers], flush=True)
"""


def test_helpers_go_through_the_table_and_end():
    with python(BEGINS, "wait", MINIGRAD_COMPILERS="2") as process:  # with the cache of the tests: nothing is missing
        pids, codes = process.communicate(timeout=300)[0].splitlines()
    assert len(pids.split()) == 2 and codes == "0 0"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for a process in /proc")
def test_helpers_end_with_the_program(tmp_path):
    with python(BEGINS, "go on", MINIGRAD_COMPILERS="1", MINIGRAD_CACHE_DIR=str(tmp_path)) as process:
        pid = process.communicate(timeout=60)[0].strip()
    assert pid.isdecimal() and not Path("/proc", pid).exists()


def test_no_more_helpers_than_there_may_be(monkeypatch):
    """As long as others are at work; then what would have followed is still to be begun."""

    class Helper:
        working = True

        def poll(self):
            return None if self.working else 0

    begun = []
    monkeypatch.setenv("MINIGRAD_COMPILERS", "2")
    monkeypatch.setattr(ahead, "_begun", set())
    monkeypatch.setattr(ahead, "_helpers", [Helper(), Helper()])
    monkeypatch.setattr(ahead.subprocess, "Popen", lambda command, **options: begun.append(command[-1]) or Helper())
    ahead.begin("product")
    assert begun == [] and ahead._begun == set()
    ahead._helpers[0].working = False
    ahead.begin("correlate")
    ahead.begin("product")  # one of those that follow
    assert begun == ["correlate"]


BEGINS_WHERE = """
import sys
import numpy as np
from minigrad.kernels.cpu import activation, ahead, claims, compile

claims.fcntl = None if "no locks" in sys.argv else claims.fcntl
ahead.BEGINNINGS = ("relu",)
ahead.subprocess.Popen = lambda *args, **options: print("begun", flush=True) or sys.exit()
activation.relu(np.ones(2, np.float32), np.empty(2, np.float32))
"""


@unix
@pytest.mark.parametrize("where, expected", [("folder", "begun\n"), ("no folder", ""), ("no locks", "")])
def test_helpers_need_a_cache_where_they_can_leave_what_they_compile(tmp_path, where, expected):
    folder = tmp_path / "cache"
    if where == "no folder":
        folder.write_text("a file where the folder should be")
    with python(BEGINS_WHERE, where, MINIGRAD_COMPILERS="1", MINIGRAD_CACHE_DIR=str(folder)) as process:
        assert process.communicate(timeout=60)[0] == expected


@pytest.mark.parametrize("executable", [None, "", "/opt/program/program", "frozen"])
def test_no_program_is_started_that_is_no_python(executable, monkeypatch):
    monkeypatch.setenv("MINIGRAD_COMPILERS", "1")
    monkeypatch.setattr(ahead, "_begun", set())
    monkeypatch.setattr(ahead.subprocess, "Popen", lambda *args, **options: pytest.fail(f"started {args}"))
    if executable == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", executable)
    ahead.begin("product")


def test_how_many_helpers(monkeypatch):
    monkeypatch.setenv("MINIGRAD_COMPILERS", "7")
    assert ahead.count() == 7
    monkeypatch.delenv("MINIGRAD_COMPILERS")
    for processors, expected in ((1, 0), (2, 1), (16, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda who, n=processors: set(range(n)), raising=False)
        assert ahead.count() == expected
    monkeypatch.setattr(ahead.multiprocessing, "parent_process", lambda: "the main program")
    assert ahead.count() == 0
