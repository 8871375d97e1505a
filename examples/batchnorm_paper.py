"""What batch normalization does: Figure 1 of the paper and further experiments, on MNIST.

    python examples/batchnorm_paper.py                                   all of them, into runs/batchnorm
    python examples/batchnorm_paper.py --experiments figure1,rates --data-dir FOLDER
    python examples/batchnorm_paper.py --data digits --quick             a look, without a download
    python examples/batchnorm_paper.py --redraw --out docs               pictures and page from the results at hand

Ioffe and Szegedy, arXiv 1502.03167, section 4.1. The experiments are in examples/batchnorm/experiments.py. Results are
joined with those that batchnorm.json in the folder holds already; if batchnorm.md lies beside it, its blocks are
rewritten (``--out docs`` makes docs/batchnorm.md).
"""

import argparse
import json
import sys
import time
from pathlib import Path

from batchnorm import figures, page
from batchnorm.experiments import EXPERIMENTS, STEPS
from batchnorm.training import Bar, load

import minigrad as mg
from minigrad.cli.options import device, whole_number

RESULTS = "batchnorm.json"
QUICK = 20  # how many times smaller the budgets of --quick are


def chosen(text):
    """A type for the names of experiments, with commas between."""
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if name not in EXPERIMENTS]
    if wrong:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(EXPERIMENTS)}, got {wrong[0]!r}")
    return names


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--data", choices=("mnist", "digits"), default="mnist", help="the data set (default: mnist)")
    add("--data-dir", type=Path, metavar="FOLDER", help="where MNIST's files are (default: downloaded once)")
    add("--experiments", type=chosen, default=list(EXPERIMENTS), metavar="A,B",
        help=f"which ones: {', '.join(EXPERIMENTS)} (default: all)")
    add("--out", type=Path, default=Path("runs/batchnorm"), metavar="FOLDER",
        help="where results and pictures go (default: runs/batchnorm)")
    add("--device", type=device, default="cpu", metavar="NAME", help="cpu or cuda (default: cpu)")
    add("--redraw", action="store_true", help="train nothing: pictures and page from the results in the folder")
    length = result.add_mutually_exclusive_group()
    length.add_argument("--steps", type=whole_number(1), default=STEPS, metavar="N",
                        help=f"training steps of figure 1 (default: {STEPS:,}); all other budgets shrink with it")
    length.add_argument("--quick", action="store_const", dest="steps", const=STEPS // QUICK,
                        help=f"budgets {QUICK} times smaller")
    return result


def run(options):
    """Run the experiments one by one and write what each has found before the next begins."""
    from rich.console import Console

    console = Console(highlight=False)
    if options.redraw:
        write(options.out, read(options.out, needed=True))
        return
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    problem = load(options.data, options.data_dir, options.device, lambda text: console.print(text, soft_wrap=True))
    where = f"CPU, {mg.get_num_threads()} threads" if str(options.device) == "cpu" else str(options.device)
    for name in options.experiments:
        start = time.perf_counter()
        with Bar(console) as bar:
            result = EXPERIMENTS[name](problem, options.steps / STEPS, bar)
        results = read(options.out)  # now: another run may have added something
        results[name] = {"data": problem.name, "device": where,
                         "seconds": round(time.perf_counter() - start, 1), **result}
        (options.out / RESULTS).write_text(_compact(results), "utf-8")
        write(options.out, results, [name])
        console.print(f"\n{name}\n{page.block(name, results[name])}", soft_wrap=True, markup=False)
    console.print(f"\nresults in {options.out / RESULTS}, pictures in {options.out / 'images'}", soft_wrap=True)


def read(folder, needed=False):
    """The results that a folder holds; none are an error only where they are needed."""
    path = folder / RESULTS
    if not path.exists():
        if needed:
            raise FileNotFoundError(f"--redraw expects the results of an earlier run, got no {path}")
        return {}
    return json.loads(path.read_text("utf-8"))


def write(folder, results, names=None):
    """Draw the pictures of the named experiments (all), and rewrite the page's blocks where there is a page."""
    for name in names or results:
        figures.draw(name, results[name], folder / "images" / f"batchnorm-{name}.png")
    text = folder / "batchnorm.md"
    if text.exists():
        text.write_text(page.rewrite(text.read_text("utf-8"), results), "utf-8")


def _compact(results):
    """JSON with a line for each number or list of an experiment: short, and a change is seen in review."""
    experiments = []
    for name in [name for name in EXPERIMENTS if name in results]:
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in results[name].items()]
        experiments.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(experiments) + "\n}\n"


def main(arguments=None):
    """The exit status."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"batchnorm_paper: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("batchnorm_paper: stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
