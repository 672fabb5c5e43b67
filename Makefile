# make run    set up, then open the app (without a terminal: train and compare all four stages)
# make test   set up, then run the tests
# make bench  set up, then measure against peers: NANOGPT=FOLDER, TEXT=FOLDER of Parquet files, PAIRS=5
# make check  lint, types, import contracts
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_CPU ?= 2.13.0+cpu
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TEXT ?=
NANOGPT ?=
PAIRS ?= 5

.DEFAULT_GOAL := run
.PHONY: run test test-long bench check format clean

run: $(VENV)/.installed
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/bbtui; else $(BIN)/bbtui quickstart; fi

test: $(VENV)/.dev-installed
	$(BIN)/python -m pytest -n 2

test-long: $(VENV)/.dev-installed
	$(BIN)/python -m pytest -m long

# llama.cpp is built from source, which takes minutes and a compiler; it is compared with where that worked.
bench: $(VENV)/.dev-installed
	@$(BIN)/python -m pip install -q -e '.[bench]' || echo "llama.cpp could not be installed; going on without it." >&2
	@NANOGPT="$(NANOGPT)" $(BIN)/python -m tests.bench.everything --pairs $(PAIRS) --text "$(TEXT)"

check: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bbtui needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# Where no NVIDIA GPU is seen, a CPU build of torch is taken first: the plain one brings gigabytes of CUDA along.
# macOS has no other build. If neither index offers it, the plain one is installed with the rest.
$(VENV)/.torch: $(VENV)/bin/python
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then :; \
	elif [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then \
		$(BIN)/python -m pip install -q "torch==$(TORCH_CPU)" || \
		$(BIN)/python -m pip install -q -i $(TORCH_CPU_INDEX) "torch>=2.13" || \
		echo "No CPU build of torch was offered; installing the plain one."; \
	fi
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@ $(VENV)/.installed
