# make demo   everything from import to recommendations, on generated data or yours: make demo CATALOG=catalog.csv REVIEWS=reviews.csv
# make check  while you work: lint, and the fast tests that need no server
# make test   the tests that every change must pass
# make soak   all tests, and all variants of tests of which `make test` runs a sample; takes hours
# make docs-test   runs all commands of the documents, and checks links and names in them; `make test` does so only for README.md
# make site   builds the documents as a site, in build/site
# make screenshots DSN=...   retakes the documents' pictures of the page, with that database
# make docker-test   tests the containers, from building them to a recommendation by curl; needs a Docker engine
# make lint   ruff, mypy, sqlfluff; zizmor and, if installed, actionlint on the workflows
# make setup  installs what is missing; the targets above do it first
# make clean  stops the embedded server and removes it, the virtual environment and everything that was built

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PYTHONPATH :=
# Otherwise, every program that a test starts would recompile the package.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
WORKERS ?= auto
ARGS ?=

.PHONY: help setup demo check test soak docs-test site screenshots docker-test lint clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup:
	@./setup.sh

demo: setup
	@$(BIN)/two-tower demo $(if $(CATALOG),--catalog '$(CATALOG)') $(if $(REVIEWS),--reviews '$(REVIEWS)') $(ARGS)

check: lint
	@$(BIN)/pytest -q -n $(WORKERS) --maxprocesses 4 -m 'not database and not slow' $(ARGS)

test:
	@./setup.sh --test
	@$(BIN)/pytest -n $(WORKERS) --maxprocesses 8 --dist loadgroup $(ARGS)

soak:
	@$(MAKE) test ARGS='--soak $(ARGS)'

docs-test:
	@./setup.sh --test
	@$(BIN)/pytest tests/test_docs.py --soak $(ARGS)

site: setup
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --conf-dir docs/site . build/site
	@echo build/site/index.html

screenshots:
	@./setup.sh --test
	@$(BIN)/python tests/screenshots.py --dsn '$(DSN)'

docker-test:
	@docker/test.sh

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint migrations sql
	@$(BIN)/zizmor --quiet --offline .github
	@PATH=$(BIN):$$PATH; if command -v actionlint >/dev/null; then actionlint; fi

clean:
	@if [ -x $(BIN)/two-tower ]; then $(BIN)/two-tower down || true; fi
	@if [ -L .two-tower ]; then rm -rf "$$(readlink -f .two-tower)"; fi
	@rm -rf .two-tower .venv .setup.log .setup.lock build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
