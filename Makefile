# `make` lists the targets; CONTRIBUTING.md says more. PYTHON=/path/to/python3.12 picks another Python: 3.10 or later
# for lint and unit, 3.11 or later where real vLLM is installed.
PYTHON ?= python3
export PYTHON
VENV := .venv
STEP := tests/environments/step
BUILD := $(PYTHON) tests/environments/build.py
# One process more than CI has cores, for the tests that wait: with two, Ray gave up starting on a slow machine. PROCESSES=1: all tests one after the other.
PROCESSES ?= 3
TOGETHER := $(if $(filter-out 1,$(PROCESSES)),-n $(PROCESSES) --dist loadscope)

.DEFAULT_GOAL := help
.PHONY: help demo test faults versions check lint unit unit-all bench bench-quick docs picture dist format clean system node

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: system $(VENV)/.installed node ## serve a tiny Qwen2 over two lab hosts (root) or on this machine, with the README's commands
	@$(STEP) "demo" tests/demo/demo.sh

test: system $(VENV)/.installed node ## all tests: unit, lab (needs root), e2e with real Ray and vLLM
	@$(STEP) "all tests" $(VENV)/bin/python -m pytest $(TOGETHER)

faults: system $(VENV)/.installed node ## every fault at every stage, 50 starts and stops in a row, 50 faults in a row twice, ten rounds of parallel jobs, groups of ranks, every hostile input (root); writes faults.md
	@$(STEP) "fault matrix and soak" env FSD_FAULTS=all FSD_SOAK=50 FSD_FAULTS_TABLE=faults.md $(VENV)/bin/python -m pytest tests/lab/faults
	@$(STEP) "groups of ranks at length" env FSD_FAULTS=all $(VENV)/bin/python -m pytest -n 0 tests/e2e/test_groups_at_length.py tests/e2e/test_groups_changed.py tests/e2e/test_no_false_restart.py tests/e2e/test_replicas.py
	@$(STEP) "hostile replies, inputs and patterns" env FSD_FAULTS=all $(VENV)/bin/python -m pytest -n 2 --timeout 1800 $$(grep -rl FSD_FAULTS tests/unit tests/component tests/lab/product)

versions: system $(VENV)/.installed ## serve with other releases of vLLM, VERSIONS="0.28.0 0.20.2" (root, 10 minutes a release); writes docs/versions.md
	@$(STEP) "releases of vLLM" $(VENV)/bin/python -m tests.versions $(VERSIONS)

check: lint unit ## format, lint, types and unit tests, warnings as errors

unit: $(VENV)/.installed ## unit tests only
	@$(STEP) "unit tests" $(VENV)/bin/python -m pytest -n 2 tests/unit tests/component

unit-all: $(VENV)/.installed ## unit tests under the other Pythons of this machine: 3.10 to 3.13, and remote/ under 3.8
	@$(STEP) "unit tests under other Pythons" $(VENV)/bin/python tests/environments/pythons.py

lint: $(VENV)/.installed ## format, lint and types only
	@$(STEP) "format: ruff format --check" $(VENV)/bin/ruff format --check
	@$(STEP) "lint: ruff check" $(VENV)/bin/ruff check
	@$(STEP) "types: mypy --strict" $(VENV)/bin/mypy

bench: system $(VENV)/.bench node ## product and peers side by side (root, 15 minutes): a table, and outputs/bench with JSON and a plot
	@$(STEP) "benchmarks" $(VENV)/bin/python -m benchmarks --output outputs/bench

bench-quick: system $(VENV)/.installed ## the same, reduced (root, 2 minutes): fails at twice a target only
	@$(STEP) "benchmarks, reduced" $(VENV)/bin/python -m benchmarks --quick --output outputs/bench

docs: $(VENV)/.docs ## the documentation as a site, in build/site; writes its generated parts anew
	@$(STEP) "generated parts of the pages" $(VENV)/bin/python -m docs.generate
	@$(STEP) "site: mkdocs build --strict" env NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

picture: demo ## the README's picture, docs/run.svg, from what the demo's `run` printed
	@$(STEP) "docs/run.svg" $(VENV)/bin/python tests/demo/picture.py outputs/demo/run.txt docs/run.svg

dist: $(VENV)/.installed ## wheel and source distribution, in dist/
	@$(STEP) "dist" $(VENV)/bin/python -m build --outdir dist

format: $(VENV)/.installed ## format the code and mend what the linter can mend
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

clean: ## remove what was built in this clone; what `make test` built for hosts stays in the cache and is named
	rm -rf $(VENV) build dist outputs smoke-artifacts faults.md *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@echo "kept: $${FSD_CACHE:-$$HOME/.cache/flagscale-deploy} (node environments and models)"

system:
	@$(STEP) "programs of this machine" $(PYTHON) tests/environments/system.py

node: | system
	@$(STEP) "node environment: vLLM for CPU and Ray" $(BUILD) node
	@$(STEP) "model: a tiny Qwen2" $(BUILD) model

# From nothing whenever the requirements change, so that what is no longer asked for is gone.
$(VENV)/.installed: setup.cfg pyproject.toml
	@$(STEP) "operator environment: $(VENV)" $(PYTHON) -m venv --clear $(VENV)
	@$(STEP) "pip install -e .[dev]" $(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@

# What builds the site.
$(VENV)/.docs: $(VENV)/.installed
	@$(STEP) "pip install -e .[docs]" $(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[docs]'
	@touch $@

# What the product is compared with, beside what the tests need.
$(VENV)/.bench: $(VENV)/.installed
	@$(STEP) "pip install -e .[bench]" $(VENV)/bin/python -m pip install -qq --disable-pip-version-check -e '.[bench]'
	@touch $@
