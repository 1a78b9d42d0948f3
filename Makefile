# Everything a developer or a user of the local cluster calls. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLUSTER := PYTHONPATH=tests $(BIN)/python -m support.cluster
# End-to-end scenarios wait more than they compute: six at a time share one cluster.
E2E_WORKERS ?= 6
SOURCES := common plugin analysis picker tests

.DEFAULT_GOAL := help
.PHONY: help demo up down test check lint type unit unit-random integration e2e bench-plugin bench-picker bench-growth bench-analysis bench-picks bench-control bench-live calibrate proto lock fmt clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: $(VENV)/installed ## Play six canaries on a real cluster; the analysis decides five
	$(CLUSTER) exec -- $(BIN)/python -m support.demo

up: $(VENV)/installed ## Start the local cluster and leave it running
	$(CLUSTER) up

down: $(VENV)/installed ## Stop the local cluster
	$(CLUSTER) down

test: check unit integration e2e ## Run everything that CI runs

check: lint type ## Lint, types, layers (under a minute)

lint: $(VENV)/installed ## Ruff and the import contracts
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports

type: $(VENV)/installed ## mypy, strict
	$(BIN)/mypy

unit: $(VENV)/installed ## Unit tests: no I/O
	$(BIN)/pytest tests/unit -n 2 --durations 20

unit-random: $(VENV)/installed ## The properties of the unit tests on new random examples
	$(BIN)/pytest tests/unit -n 2 --hypothesis-profile random --hypothesis-seed random

integration: $(VENV)/installed ## One component against real parts (API server, Envoy)
	$(CLUSTER) exec -- $(BIN)/pytest tests/integration -n 2 --durations 20

e2e: $(VENV)/installed ## Real controller, real gateway, real traffic
	$(CLUSTER) exec -- sh -ec '\
	  $(BIN)/pytest tests/e2e -m "not alone" -n $(E2E_WORKERS) --durations 20; \
	  $(BIN)/pytest tests/e2e -m alone --durations 20'

bench-plugin: $(VENV)/installed ## Speed and size of the plugin, as a table
	$(CLUSTER) exec -- $(BIN)/python tests/bench/plugin.py
	$(CLUSTER) exec $(addprefix --without ,prometheus node-agent gateway envoy bridge plugin argo-rollouts) -- $(BIN)/python -m bench.plugin_scale

bench-picker: $(VENV)/installed ## CPU of the picker for a request, a stream and a scrape
	PYTHONPATH=tests $(BIN)/python tests/bench/picker.py

bench-growth: $(VENV)/installed ## Size of the picker over 200,000 requests (minutes)
	PYTHONPATH=tests $(BIN)/python tests/bench/picker_growth.py

bench-analysis: $(VENV)/installed ## Time and memory of a verdict
	PYTHONPATH=tests $(BIN)/python tests/bench/analysis_speed.py

bench-picks: $(VENV)/installed ## Quality of picks against simple policies and upstream, and their cost
	$(BIN)/python tests/bench/picker_scheduling.py
	PYTHONPATH=tests $(BIN)/python tests/bench/picker_floor.py
	PYTHONPATH=tests $(BIN)/python tests/bench/picker_picks.py

bench-control: $(VENV)/installed ## An identical canary against its control arm, by traffic and share
	PYTHONPATH=tests $(BIN)/python tests/bench/picker_control.py

bench-live: $(VENV)/installed ## Picks on eight running servers through Envoy: TTFT by client
	PYTHONPATH=tests $(BIN)/python tests/bench/picker_live.py

vllm: $(VENV)/installed ## The picker before real vLLM on CPU: 6 GB of disk, minutes; not in CI
	PYTHONPATH=tests $(BIN)/python -m support.real_vllm

calibrate: $(VENV)/installed ## Error rates and power of the analysis, simulated (slow)
	PYTHONPATH=tests $(BIN)/python tests/bench/analysis_calibration.py

proto: $(VENV)/installed ## Regenerate the gRPC stubs
	$(BIN)/python plugin/proto/generate.py

lock: ## Resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --group dev pyproject.toml -o requirements.lock

fmt: $(VENV)/installed ## Format and fix
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean: ## Remove the virtual environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
