"""The command minigrad: its answers, its errors, its exit statuses."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigrad import cli
from minigrad.cli import warmup_cuda
from minigrad.cli.interrupts import held
from minigrad.kernels.cuda import toolkit
from minigrad.version import __version__

pytest.importorskip("rich", reason="the command line needs rich")

ROOT = Path(__file__).parent.parent


def run(capsys, *arguments):
    """Exit status, standard output, standard error."""
    status = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def one_sentence(text):
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


@pytest.mark.parametrize(("arguments", "sentence"), [
    ([], r"expected a command \(train, info, warmup.*\)"),
    (["trian"], "invalid choice: 'trian'"),
    (["--epochs", "3"], "unknown option|invalid choice"),
    (["train", "--epoch", "3"], "minigrad train: unknown option --epoch; did you mean --epochs?"),
    (["train", "--nonsense"], "minigrad train: unknown option --nonsense"),
    (["train", "digits"], "unexpected argument 'digits'"),
    (["train", "--epochs", "0"], "--epochs: expected a whole number of at least 1, got '0'"),
    (["train", "--epochs", "x"], "--epochs: expected a whole number of at least 1, got 'x'"),
    (["train", "--epochs"], "--epochs: expected one argument"),
    (["train", "--batch-size", "-3"], "--batch-size: expected a whole number of at least 1, got '-3'"),
    (["train", "--lr", "nan"], "--lr: expected a positive number, got 'nan'"),
    (["train", "--lr", "-1"], "--lr: expected a positive number, got '-1'"),
    (["train", "--seed", "1.5"], "--seed: expected a whole number"),
    (["train", "--data", "imagenet"], "--data: invalid choice: 'imagenet'"),
    (["train", "--model", "vit"], "--model: invalid choice: 'vit'"),
    (["train", "--device", "tpu"], "--device: device: expected 'cpu'.*, got 'tpu'"),
    (["warmup", "--dtype", "int8"], "--dtype: invalid choice: 'int8'"),
    (["warmup", "--device", "cuda", "--architecture", "7.5"], "expected a compute capability of at least 8.0, got"),
    (["warmup", "--device", "cuda", "--architecture", "hopper"], "expected a compute capability.*, got 'hopper'"),
    (["warmup", "--device", "cuda", "--dtype", "float64"], "minigrad warmup: --dtype goes with --device cpu"),
    (["warmup", "--architecture", "9.0"], "minigrad warmup: --architecture goes with --device cuda"),
])
def test_a_wrong_command_line_is_one_sentence_and_status_2(capsys, arguments, sentence):
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and one_sentence(err)
    assert re.search(sentence, err), err


def test_version_and_help(capsys):
    for arguments, expected in ((["--version"], f"minigrad {__version__}"), (["train", "--help"], "--batch-size")):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0 and expected in capsys.readouterr().out


def test_info_prints_what_a_bug_report_needs(capsys, monkeypatch, tmp_path):
    run(capsys, "info")  # compiles what it asks for the threading layer
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path / "cache"))
    status, out, err = run(capsys, "info")
    assert status == 0 and err == ""
    rows = dict(re.split(r"\s{2,}|(?<=^.{16}) ", line, maxsplit=1) for line in out.splitlines())
    assert rows["minigrad"].startswith(__version__)
    assert str(tmp_path / "cache") in rows["cache folder"] and "empty" in rows["cache folder"]
    assert f"MINIGRAD_CACHE_DIR={tmp_path / 'cache'}" in rows["settings"]
    assert re.match(r"minigrad$|numba (omp|tbb|workqueue)$", rows["threading layer"])
    assert re.match(r"(64|32|16) bytes: ", rows["lane width"])
    assert "numpy 2" in rows["packages"] or "numpy 1" in rows["packages"]
    assert {"python", "platform", "processor", "vector features", "cores", "threads", "gpu"} <= set(rows)


class Command:
    """A command of its own making, to see what main does with what it raises."""

    def __init__(self, error):
        self.error = error
        self.__doc__ = "Fail."

    def add_options(self, parser):
        pass

    def run(self, options):
        raise self.error


@pytest.mark.parametrize(("error", "status", "sentence"), [
    (ValueError("conv2d: expected this,\ngot that"), 1, "minigrad: conv2d: expected this, got that\n"),
    (FileNotFoundError(2, "No such file or directory", "x"), 1, "minigrad: [Errno 2] No such file or directory: 'x'\n"),
    (MemoryError(), 1, "minigrad: MemoryError\n"),
    (KeyError("k"), 1, "minigrad: unexpected KeyError: 'k' (--traceback shows where)\n"),
    (KeyboardInterrupt(), 130, "minigrad: interrupted\n"),
    (ModuleNotFoundError("No module named 'rich'", name="rich.table"), 1,
     "minigrad: this command needs rich: pip install 'minigrad-numba[cli]'\n"),
])
def test_what_a_command_raises_becomes_a_sentence(capsys, monkeypatch, error, status, sentence):
    monkeypatch.setitem(sys.modules, "minigrad.cli.fails", Command(error))
    monkeypatch.setattr(cli, "COMMANDS", ("fails",))
    assert run(capsys, "fails") == (status, "", sentence)
    if status == 1:
        with pytest.raises(type(error)):
            cli.main(["fails", "--traceback"])


def test_without_rich_the_command_says_what_to_install(tmp_path):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')")
    result = subprocess.run([sys.executable, "-m", "minigrad.cli", "train"], capture_output=True, text=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}, cwd=tmp_path)
    assert result.returncode == 1 and one_sentence(result.stderr)
    assert "pip install 'minigrad-numba[cli]'" in result.stderr


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen([sys.executable, "-m", "minigrad.cli", "info"], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read() and process.wait(60) == 1


class Recorder:
    """The reference kernels, and which of them were asked for."""

    def __init__(self):
        self.used = set()

    def __getattr__(self, name):
        from minigrad.kernels import reference

        self.used.add(name)
        return getattr(reference, name)


def test_the_warmup_table_reaches_every_kernel(monkeypatch):
    import minigrad as mg
    from minigrad.cli.warmup_table import rows
    from minigrad.kernels import reference

    recorder = Recorder()
    monkeypatch.setattr(mg.cpu, "kernels", recorder, raising=False)
    table = rows(("float32", "float64"))
    names = [name for name, _ in table]
    assert len(names) == len(set(names)) and {"relu float32", "relu float64", "a step of the cnn float32"} <= set(names)
    for _, work in table:
        work()
    assert set(reference.__all__) - recorder.used == set()


def test_warmup_fills_the_cache_once(tmp_path):
    # In this process the kernels are compiled already; a process of its own finds an empty cache.
    program = ("import minigrad as mg\n"
               "from minigrad.cli import main, warmup_table\n"
               "warmup_table._work = lambda: {'fill': lambda dtype: mg.ones(3, dtype=dtype)}\n"
               "raise SystemExit(main(['warmup']))")
    printed = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, cwd=ROOT,
                              env={**os.environ, "MINIGRAD_CACHE_DIR": str(tmp_path)}) for _ in range(2)]
    assert [p.returncode for p in printed] == [0, 0], printed[0].stderr
    assert re.search(r"compiled \d+ kernels into", printed[0].stdout) and list(tmp_path.rglob("fill-*.pickle"))
    assert "nothing to compile" in printed[1].stdout


needs_compiler = pytest.mark.skipif(not toolkit.HAS_COMPILER, reason="numba-cuda and cuda-core are not installed")


@pytest.fixture
def few_jobs(monkeypatch, tmp_path):
    """`minigrad warmup` with a cache of its own, and of all CUDA kernels two, to save time."""
    few = [job for job in warmup_cuda.jobs() if job[1] in ("fill", "relu")]
    compilers, jobs = warmup_cuda.compilers, warmup_cuda.jobs

    class Pool:
        """The real one, but for the table."""

        def __init__(self, pool):
            self.submit = lambda f, *given: pool.submit(f, *given) if f is not jobs else SimpleNamespace(
                result=lambda: few)

    @contextlib.contextmanager
    def with_few_jobs():
        with compilers() as pool:
            yield Pool(pool)

    monkeypatch.setattr(warmup_cuda, "compilers", with_few_jobs)
    monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("MINIGRAD_CUDA")
    return few


@needs_compiler
def test_warmup_compiles_cuda_kernels_without_a_gpu(few_jobs, tmp_path, capsys):
    """In processes of their own, which find what was compiled before."""
    printed = [run(capsys, "warmup", "--device", "cuda", "--architecture", "9.0") for _ in range(2)]
    assert [status for status, *_ in printed] == [0, 0], printed
    assert f"compiled {len(few_jobs)} kernels into {tmp_path}" in printed[0][1] and len(few_jobs) >= 3
    assert "nothing to compile" in printed[1][1] and "MINIGRAD_CUDA" not in os.environ
    assert len(list((tmp_path / "cuda").glob("*.cubin"))) == len(few_jobs)


@needs_compiler
@pytest.mark.parametrize(("architecture", "folder", "sentence"), [
    ("9.9", None, "warmup: there is no compute capability 9.9"), ("9.0", "a file", "a file/cuda cannot be written")])
def test_what_stops_warmup_of_cuda_is_one_sentence(few_jobs, tmp_path, monkeypatch, capsys, architecture, folder,
                                                   sentence):
    if folder:
        (tmp_path / folder).write_text("")
        monkeypatch.setenv("MINIGRAD_CACHE_DIR", str(tmp_path / folder))
    status, out, err = run(capsys, "warmup", "--device", "cuda", "--architecture", architecture)
    assert status == 1 and one_sentence(err) and sentence in err, err


@needs_compiler
def test_warmup_knows_what_training_launches_on_cuda(monkeypatch):
    import minigrad as mg
    from minigrad.kernels.cuda.kernel import KERNELS, Kernel

    known = {(name, types) for _, name, types in warmup_cuda.jobs()}
    assert {name for name, _ in known} == {kernel.__name__.strip("_") for kernel in KERNELS}
    launched, launch = set(), Kernel.launch

    def noted(self, grid, block, *arguments):
        launched.add((self.__name__.strip("_"), tuple([str(arguments[i].dtype) for i in self._plain])))
        return launch(self, grid, block, *arguments)

    monkeypatch.setattr(Kernel, "launch", noted)
    nn = mg.layers
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Dropout(), nn.Linear(18, 3)).to("cuda")
    optimizers = mg.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), mg.optim.Adam(net.parameters())
    x, labels = mg.randn(4, 1, 6, 6, device="cuda"), mg.tensor([0, 1, 2, 0], device="cuda")
    for optimizer in optimizers:
        optimizer.zero_grad()
        output = net(x)
        mg.functional.cross_entropy(output, labels).backward()
        optimizer.step()
        (output.argmax(1) == labels).float().mean().item()
    assert len(launched) > 15 and launched - known == set()


def test_warmup_of_the_emulator_is_refused(capsys):
    status, out, err = run(capsys, "warmup", "--device", "cuda")
    assert status == 1 and one_sentence(err) and "the emulator (MINIGRAD_CUDA=emulate) compiles nothing" in err


def test_what_is_being_compiled_is_shown_and_the_line_cleared():
    from minigrad.compiling import Compilations, TerminalLine

    listeners, stream = [], io.StringIO()
    with Compilations(listeners, TerminalLine(stream)) as compilations:
        for event, name in (("start", "matmul"), ("start", "relu"), ("end", "relu"), ("end", "matmul")):
            listeners[0](event, name, None)
    assert listeners == [] and compilations.names == ["matmul", "relu"]
    shown = stream.getvalue()
    assert "compiling matmul (kernel 1" in shown and "compiling relu (kernel 2" in shown and "\n" not in shown
    assert shown.endswith("\r") and shown.split("\r")[-2].strip() == ""  # the line is blank again


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "others", "shown"), [
    (Terminal, [], True), (io.StringIO, [], False), (Terminal, [lambda *event: None], False),
])
def test_compilations_are_shown_on_a_terminal_if_nobody_else_does(monkeypatch, stream, others, shown):
    from minigrad.compiling import show_compilations

    monkeypatch.setattr(sys, "stderr", stream())
    listeners = list(others)
    show_compilations(listeners)
    for listener in listeners:
        listener("start", "matmul", None)
    assert ("compiling matmul" in sys.stderr.getvalue()) == shown


@pytest.fixture
def interruptible():
    """Ctrl-C works even if the tests run with it ignored, as under nohup; processes started meanwhile inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="needs signals")
def test_ctrl_c_waits_while_it_is_held(interruptible):
    done = []
    with pytest.raises(KeyboardInterrupt):
        with held():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")
        done.append("not reached")
    assert done == ["whole"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with held():
        done.append("again")
    assert done == ["whole", "again"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_ctrl_c_ends_a_training_with_status_130_and_keeps_what_was_saved(interruptible, tmp_path):
    saved = tmp_path / "saved.npz"
    command = [sys.executable, "-m", "minigrad.cli", "train", "--model", "mlp", "--epochs", "5000",
               "--save", str(saved), "--plot", str(tmp_path / "plot.png")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        shown = ""
        while "epoch 1/5000" not in shown and (line := process.stdout.readline()):  # or it has ended
            shown += line
        deadline = time.monotonic() + 200
        while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        out = shown + out
    assert process.returncode == 130, err
    assert err.endswith("minigrad: interrupted\n") and "Traceback" not in err and "epoch 1/5000" in out
    from minigrad.cli.checkpoint import read

    assert read(saved)["epoch"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["saved.npz"]  # and no half-written file beside it
