"""docs/cuda-kernels.md says what the kernels are compiled to today, so that a change is seen in review.

In this folder because it needs the reports that test_cuda_code makes: in one process nothing is compiled twice.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from minigrad.kernels.cuda import toolkit

FILE = Path(__file__).parents[2] / "docs" / "cuda_kernels.py"


def test_page_is_current():
    if not toolkit.HAS_COMPILER:
        pytest.skip("numba-cuda and cuda-core are not installed")
    from minigrad.kernels.cuda import code

    if code.disassembler() is None:
        pytest.skip("nvdisasm is not installed (the extra disassembler)")
    spec = importlib.util.spec_from_file_location("cuda_kernels", FILE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = script.PAGE.read_text()
    made_with = re.search(r"^Compilers: (.*)\.$", written, re.MULTILINE).group(1)
    if made_with != script.versions():
        pytest.skip(f"the page was made with other compilers: {made_with}")
    assert written == script.page(), "out of date: MINIGRAD_CUDA=emulate python docs/cuda_kernels.py"
