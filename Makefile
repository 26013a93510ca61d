# make demo   the whole path on a small world, or on your files: make demo CATALOG=catalog.csv REVIEWS=reviews.csv
# make check  the inner loop: lint, and the tests that need no server and take no time
# make test   the tests that every change has to pass
# make soak   every test, and every variant where `make test` runs a sample; takes hours
# make docs-test   every command of the documents, as written; links and names in them; `make test` runs README.md alone
# make site   the documents as a site, in build/site
# make screenshots DSN=...   pictures of the page for the documents, of that database
# make docker-test   the containers, from building them to a recommendation by curl; takes a Docker engine
# make lint   ruff, mypy, sqlfluff; zizmor and, where it is installed, actionlint on the workflows
# make setup  installs what is missing; the targets above do it first
# make clean  stops the embedded server and removes it, the virtual environment and all that was built

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PYTHONPATH :=
# Every program that a test starts would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
WORKERS ?= auto
ARGS ?=

.PHONY: help setup demo check test soak docs-test site screenshots docker-test lint clean

help:
	@sed -n 's/^# //p' Makefile

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
	@echo build/site/docs/site/index.html

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
