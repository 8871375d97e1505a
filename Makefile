# Every target makes .venv if it is missing and installs what it needs; nothing else has to be set up.
#   make train ARGS="--epochs 5"        PYTHON=python3.12 make test

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
MEASURED ?=
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help train batchnorm test lint bench bench-gpu parity bounds coverage interpreted covered docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo 'Extra arguments: ARGS="...".  Another interpreter: PYTHON=python3.13.'

train: $(VENV)/.installed-examples ## train the small convolutional net on handwritten digits
	$(BIN)/python examples/train.py $(ARGS)

batchnorm: $(VENV)/.installed-examples ## repeat the experiments of the batch normalization paper
	$(BIN)/python examples/batchnorm_paper.py $(ARGS)

test: $(VENV)/.installed-test,examples ## run the tests that need nothing but this repository
	$(BIN)/python $(MEASURED) -m pytest --ignore=tests/parity $(ARGS)

lint: $(VENV)/.installed-lint ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy $(ARGS)

bench: $(VENV)/.installed-bench ## compare with NumPy on this machine
	$(BIN)/python -m minigrad.cli bench $(ARGS)

bench-gpu: $(VENV)/.installed-bench $(VENV)/.installed-cuda ## compare with PyTorch (where installed) on this machine's GPU
	$(BIN)/python -m minigrad.bench.gpu --json docs/benchmarks-gpu.json --markdown docs/benchmarks-gpu.md $(ARGS)

parity: $(VENV)/.installed-test,examples $(VENV)/.installed-torch ## run the tests against PyTorch
	$(BIN)/python -m pytest tests/parity $(ARGS)

# Without the derivative checks, which add no kernel and no line that the others leave out, and without the CUDA kernels,
# which run as Python anyway.
WITHOUT_DERIVATIVES := not gradcheck and not gradgradcheck and not reference_and_advances

bounds: $(VENV)/.installed-test,examples ## run the kernels with bounds checking
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -q tests/kernels tests/test_ops.py --ignore-glob="*/test_cuda*" \
	  -k "$(WITHOUT_DERIVATIVES)" $(ARGS)

# The tests as they are, traced where that shows something (tests/measured.py), and the CPU kernels with the JIT off, when
# their bodies are plain Python and count. What emits LLVM runs only when something is compiled: hence the empty cache.
# `.ci/run` makes the parts one by one.
coverage: ## line coverage, kernels included: at least 95 %
	MINIGRAD_CACHE_DIR=$$(mktemp -d) COVERAGE_FILE=.coverage.compiled $(MAKE) test MEASURED="-m coverage run"
	$(MAKE) interpreted covered

# Large arrays are left out, whose lines smaller ones run too, and float64 except for random numbers, which have lines of
# their own for it (test_ops compares the gradients in both).
interpreted: $(VENV)/.installed-test,examples ## the part of it with the JIT off
	NUMBA_DISABLE_JIT=1 COVERAGE_FILE=.coverage.interpreted $(BIN)/python -m coverage run -m pytest -q tests/test_ops.py \
	  tests/kernels --ignore-glob="*/test_cuda*" --deselect tests/kernels/test_random.py::test_uniform_moments \
	  --deselect "tests/kernels/test_loss.py::test_cross_entropy[0.0-float32]" \
	  -k "$(WITHOUT_DERIVATIVES) and not many_tasks and not drawn and (not float64 or test_random)"

covered: export COVERAGE_FILE = .coverage
covered: $(VENV)/.installed-test,examples ## its report from the parts
	$(BIN)/python -m coverage combine .coverage.compiled* .coverage.interpreted
	$(BIN)/python -m coverage report --fail-under=95

docs: $(VENV)/.installed-docs ## build the site: docs/_build/html/index.html
	$(BIN)/python -m sphinx -b html -W --keep-going -E -q docs docs/_build/html $(ARGS)
	@echo "open docs/_build/html/index.html"

clean: ## remove .venv, caches and build outputs (runs/ is kept)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov \
	  docs/_build docs/api/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp file per set of extras: installed again only when pyproject.toml or setup.py changes.
$(VENV)/.installed-torch: pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --quiet torch==2.13.0
	@touch $@

$(VENV)/.installed-%: pyproject.toml setup.py | $(VENV)/.created
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || \
	  { echo "minigrad needs Python 3.11 to 3.14, $(PYTHON) is $$($(PYTHON) --version 2>&1); try PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@
