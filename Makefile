# Every command a user or CI needs. All set themselves up; nothing but Python 3.11+, its venv module and make is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv installs what constraints.txt pins and checks its hashes; pip is only used to get that uv, hash-checked too.
UV_INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
PYTEST = $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install demo up down test test-all check docs chaos bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

$(VENV)/.uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/it" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ {keep = /^uv==/} keep' constraints.txt > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@touch $@

$(VENV)/.main: $(VENV)/.uv pyproject.toml
	@echo "installing into $(VENV) …"
	@$(UV_INSTALL) hatchling editables
	@$(UV_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.main
	@echo "installing test tools into $(VENV) …"
	@$(UV_INSTALL) --no-build-isolation --editable '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.main
	@echo "installing what builds the pages into $(VENV) …"
	@$(UV_INSTALL) --no-build-isolation --editable '.[docs]'
	@touch $@

$(VENV)/.all: $(VENV)/.test
	@echo "installing everything else tests need into $(VENV) …"
	@$(UV_INSTALL) --no-build-isolation --editable '.[test,full,bench,s3,postgres,ray,docs]'
	@touch $@

install: $(VENV)/.main ## create .venv with the pinned dependencies and the lakehouse command

demo: $(VENV)/.main ## run everything against the bundled feed server; Ctrl-C stops it (DEMO_SECONDS=120 ends it by itself)
	@$(BIN)/lakehouse demo

up: $(VENV)/.main ## record and build what exchanges.yaml names; Ctrl-C or make down stops it
	@$(BIN)/lakehouse up

down: $(VENV)/.main ## stop what make up started
	@$(BIN)/lakehouse down

test: $(VENV)/.test ## unit, property, lake, feed and worker tests, then one real Dagster end to end
	@$(PYTEST) -n 2 --dist worksteal -m "not (e2e or full or browser or bench)"
	@$(PYTEST) -m "e2e and not (full or browser or bench)"

test-all: $(VENV)/.all ## what make test leaves out: other back ends, Ray, browser, short benchmarks
	@$(PYTEST) -m "full or bench"
	@$(PYTEST) -m browser

check: $(VENV)/.test ## lint, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports

docs: $(VENV)/.docs ## write docs/reference from the code, and the pages into build-artifacts/docs
	@$(BIN)/python -m lakehouse_pipeline_tests.reference
	@$(BIN)/mkdocs build --quiet --strict

chaos: $(VENV)/.test ## the long crash programme: workers killed at random moments; prints a table
	@$(BIN)/python -m lakehouse_pipeline_tests.chaos

bench: $(VENV)/.all ## benchmarks against peers in the same run, as ratios
	@$(BIN)/lakehouse bench

clean: ## remove .venv (state in .lakehouse/ stays)
	rm -rf $(VENV)
