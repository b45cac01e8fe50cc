# Keystrand: the two promised commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := .venv/bin
export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba_cache

.PHONY: help setup check test demo simulate clean

help: ## this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 20

setup: .venv/.ready ## install uv and the locked environment

.venv/.ready: pyproject.toml uv.lock
	@command -v uv >/dev/null 2>&1 || test -x .tools/bin/uv || (python3 -m venv .tools && .tools/bin/pip install -q uv)
	@$(UV) sync --quiet --locked --extra sim
	@touch $@

check: setup ## style, types and floors
	@$(BIN)/ruff format --check -q . || ($(BIN)/ruff format --diff . ; exit 1)
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >/tmp/keystrand-lint-imports.$$$$ || (cat /tmp/keystrand-lint-imports.$$$$; exit 1)
