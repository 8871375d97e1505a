"""Writes the generated blocks of README.md: the example, what it prints, accuracies and start-up times.

    python docs/readme.py                                       rewrite the blocks (runs the example)
    python docs/readme.py --accuracy MNIST_DIR FASHION_DIR      first train the nets of the table: docs/accuracy.json
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from minigrad.bench.blocks import replace

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "mnist_in_30_lines.py"

# What the table of accuracies trains: data, model, epochs; all else is the command's default, seed 0.
RUNS = (
    ("digits", "cnn", 15),
    ("mnist", "mlp", 5),
    ("mnist", "cnn", 3),
    ("fashion-mnist", "cnn", 5),
)


def fenced(text, language=""):
    """A code block."""
    return f"```{language}\n{text.strip()}\n```"


def accuracy_table(results):
    """The table of docs/accuracy.json."""
    lines = ["| data | net | epochs | test accuracy |", "|---|---|---:|---:|"]
    lines += [f"| {r['data']} | {r['model']} | {r['epochs']} | {r['accuracy']:.2f} % |" for r in results]
    return "\n".join(lines)


def startup_table(report):
    """Import and first-step times of a benchmark report."""
    names = {"import": "`import minigrad`", "cached": "first training step of a process, kernels on disk",
             "cold": "first training step ever, everything compiled"}
    lines = ["| | seconds, from the start of the process |", "|---|---:|"]
    for mode, label in names.items():
        for row in report["rows"]:
            if row["mode"] == mode and "median" in row["results"].get("minigrad", {}):
                net = "" if mode == "import" else f" ({row['name'].split(',')[0]})"
                lines.append(f"| {label}{net} | {row['results']['minigrad']['median']:.2f} |")
    return "\n".join(lines)


def train(data, model, epochs, folder):
    """The test accuracy, in percent, that ``minigrad train`` reports."""
    command = [sys.executable, str(ROOT / "examples" / "train.py"), "--data", data, "--model", model,
               "--epochs", str(epochs), "--seed", "0"]
    with tempfile.TemporaryDirectory() as scratch:
        command += ["--plot", str(Path(scratch) / "curves.png")]
        printed = subprocess.run(command + (["--data-dir", folder] if folder else []), check=True, text=True,
                                 stdout=subprocess.PIPE).stdout
    return float(re.search(r"test accuracy ([\d.]+) ?% \(", printed)[1])


def main(arguments):
    """Rewrite the blocks of README.md; with --accuracy, train first."""
    if arguments[:1] == ["--accuracy"]:
        folders = dict(zip(("mnist", "fashion-mnist"), arguments[1:], strict=True))
        results = [{"data": d, "model": m, "epochs": e, "seed": 0, "accuracy": train(d, m, e, folders.get(d))}
                   for d, m, e in RUNS]
        (ROOT / "docs" / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n")
    printed = subprocess.run([sys.executable, str(EXAMPLE)], check=True, text=True, stdout=subprocess.PIPE).stdout
    text = (ROOT / "README.md").read_text("utf-8")
    text = replace(text, "example", fenced(EXAMPLE.read_text("utf-8"), "python"))
    text = replace(text, "output", fenced(printed))
    text = replace(text, "accuracy", accuracy_table(json.loads((ROOT / "docs" / "accuracy.json").read_text())))
    text = replace(text, "start-up", startup_table(json.loads((ROOT / "docs" / "benchmarks.json").read_text())))
    (ROOT / "README.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
