"""Writes the tables of docs/batchnorm.md that name the lines of the kernels; docs/pages.py writes what its code prints.

    python docs/batchnorm.py
"""

import ast
from pathlib import Path

from minigrad.bench.blocks import replace

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "batchnorm.md"

REFERENCE, NJIT = "kernels/reference/batch_norm.py", "kernels/cpu/batch_norm.py"
FORMULAS, ROWS, WINDOWS = (f"kernels/cpu/{name}.py" for name in ("batch_norm_formulas", "batch_norm_rows", "windows"))
OP, LAYER = "minigrad/ops/norm.py", "layers/norm.py"

# Of every block of lines: (what it is, file, function or class, text that stands in one line of it).
LINES = {
    "activations": (
        ("layer, checks the shape", LAYER, "_BatchNorm.run", "check_input("),
        ("Function, makes (N, C, H, W)", OP, "_images", "return x if len(shape) == 4"),
        ("njit, chooses rows or images", NJIT, "batch_norm_statistics", "return statistics_of_rows"),
    ),
    "statistics": (
        ("Function", OP, "BatchNorm", "k.batch_norm_statistics("),
        ("reference, mean", REFERENCE, "batch_norm_statistics", "mean[...] ="),
        ("reference, variance", REFERENCE, "batch_norm_statistics", "variance[...] ="),
        ("njit, (N, C): mean", ROWS, "statistics_of_rows", "deviations_from("),
        ("njit, (N, C): variance", ROWS, "statistics_of_rows", "squares_about("),
        ("njit, images: mean so far", NJIT, "_plane_statistics", "center += "),
        ("njit, images: squares so far", NJIT, "_plane_statistics", "squares += "),
    ),
    "normalise": (
        ("Function", OP, "BatchNorm", "kernels.batch_norm_forward("),
        ("reference", REFERENCE, "_normalised", "y = (x -"),
        ("njit, 1 / deviation", FORMULAS, "rstd_of", "return"),
        ("njit, (N, C)", ROWS, "_forward_rows", "target[i] = (source[i]"),
        ("njit, images", NJIT, "_normalise", "target[i] = (source[i]"),
    ),
    "scale": (
        ("reference, gamma", REFERENCE, "_normalised", "y = y * "),
        ("reference, beta", REFERENCE, "_normalised", "return y + "),
        ("njit, (N, C)", ROWS, "_patterns", "scale[k] = rstd * weight"),
        ("njit, images", NJIT, "_affine", "scale = rstd * weight[c]"),
    ),
    "running": (
        ("Function", OP, "BatchNorm", "k.batch_norm_running("),
        ("reference, mean", REFERENCE, "batch_norm_running", "running_mean[...] ="),
        ("reference, variance", REFERENCE, "batch_norm_running", "running_var[...] ="),
        ("njit, mean", NJIT, "batch_norm_running", "running_mean[c] ="),
        ("njit, variance", NJIT, "batch_norm_running", "running_var[c] ="),
    ),
    "inference": (
        ("Function, forward", OP, "BatchNormEval", "self.normalise("),
        ("Function, gradient by x", OP, "BatchNormEval", "grad * scale if needs[0]"),
    ),
    "backward": (
        ("Function", OP, "BatchNorm", "kernels.batch_norm_backward("),
        ("reference, by beta", REFERENCE, "batch_norm_backward", "grad_bias[...] ="),
        ("reference, by gamma", REFERENCE, "batch_norm_backward", "grad_weight[...] ="),
        ("reference, by x", REFERENCE, "batch_norm_backward", "grad_x[...] ="),
        ("njit, (N, C): by x", ROWS, "_center_rows", "target[i] = scale[i] *"),
        ("njit, images: by x", NJIT, "_backward_planes", "target[i] = scale * ((d -"),
        ("vectors, with ReLU and pooling: by x", WINDOWS, "affine_windows_gradient", "results.append("),
    ),
}


def line_of(path, function, text):
    """The number of the one line of a function, class or `Class.method` that holds a text, and the line itself."""
    source = (ROOT / path).read_text("utf-8")
    scope = ast.parse(source)
    for name in function.split("."):
        scope = next((node for node in scope.body if getattr(node, "name", None) == name), None)
        if scope is None:
            raise ValueError(f"batchnorm: there is no function {function} in {path}")
    lines = source.splitlines()
    found = [number for number in range(scope.lineno, scope.end_lineno + 1) if text in lines[number - 1]]
    if len(found) != 1:
        raise ValueError(f"batchnorm: {text!r} stands in {len(found)} lines of {function} in {path}, expected one")
    return found[0], lines[found[0] - 1].strip()


def lines_table(name):
    """The table of the lines that do a step."""
    rows = ["| | line | |", "|---|---|---|"]
    for label, path, function, text in LINES[name]:
        number, code = line_of(path, function, text)
        rows.append(f"| {label} | [{path}:{number}](../{path}#L{number}) | `{code}` |")
    return "\n".join(rows)


def with_lines(text):
    """The page with its tables of lines."""
    for name in LINES:
        text = replace(text, f"lines {name}", lines_table(name))
    return text


if __name__ == "__main__":
    PAGE.write_text(with_lines(PAGE.read_text("utf-8")), "utf-8")
