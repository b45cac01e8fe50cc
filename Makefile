# Keystrand: the two promised commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
SEEDS ?= 500
N ?= 10000
POINTS ?= 250000
ARGS ?=
export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba_cache

.PHONY: help setup system check test test-kernel demo simulate planted mutants crash kill docs clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 24

setup: .venv/.ready ## install uv and the locked environment

.venv/.ready: pyproject.toml uv.lock
	@command -v uv >/dev/null 2>&1 || test -x .tools/bin/uv || \
		(echo "installing uv" >&2; python3 -m venv .tools && .tools/bin/pip install -q uv)
	@PATH="$$PATH:$(CURDIR)/.tools/bin" uv sync --quiet --locked --extra sim --extra report --extra hsm --extra postgres --extra plan
	@touch $@

system: ## programs that tests drive: chromium, openssl, sshd (needs root and apt)
	@scripts/system-packages

check: setup ## style, types and floors
	@$(BIN)/ruff format --check -q . || ($(BIN)/ruff format --check . ; exit 1)
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >.lint-imports.out 2>&1 || (cat .lint-imports.out; exit 1)

test: check system ## everything that must pass before a commit lands
	@$(BIN)/pytest -n 2 --dist worksteal -q $(ARGS)

demo: setup ## two sites, a QKD link, a file under rotating keys (ARGS="--once --json" for machines)
	@$(BIN)/keystrand demo $(ARGS)

simulate: setup ## the deterministic simulation (SEEDS=500)
	@$(BIN)/python -m keystrand.testing.world --seeds $(SEEDS)

planted: setup ## every planted bug must be found by a judge
	@$(BIN)/python -m keystrand.testing.world --planted

mutants: setup ## plant small bugs, see which the tests miss (ARGS="--modules govern --tests tests/unit/govern --seed 1")
	@$(BIN)/python scripts/mutants $(or $(ARGS),--modules govern --tests tests/unit/govern)

crash: setup ## cut every operation short at every write (POINTS=250000), and find planted bugs
	@$(BIN)/python -m keystrand.testing.crash --planted
	@$(BIN)/python -m keystrand.testing.crash --points $(POINTS)

kill: setup ## kill -9 the sites of a loaded pair, again and again (N=10000)
	@$(BIN)/python -m keystrand.testing.crash.kill --kills $(N)

test-kernel: setup ## MACsec, WireGuard and ESP of a real kernel, which it boots (root, apt; some minutes)
	@scripts/test-kernel $(ARGS)

bench-main-job: setup ## keys per second, gateway against its peers
	@$(BIN)/python -m bench.bench_main_job $(ARGS)

bench-keys: setup ## the key service: single keys, batches of 64, half load
	@$(BIN)/python -m bench.bench_keys $(ARGS)

bench-postgres: setup ## two replicas on PostgreSQL beside one process on SQLite
	@$(BIN)/python -m bench.bench_postgres $(ARGS)

bench-restore: setup ## backup and restore of a large store
	@$(BIN)/python -m bench.bench_restore $(ARGS)

bench-gateway: setup ## the gateway beside raw TCP, scp, rsync, age, TLS and stunnel
	@$(BIN)/python -m bench.bench_gateway $(ARGS)

bench-scale: setup ## a large site beside a small one (ARGS="--keys 10000000")
	@$(BIN)/python -m bench.bench_scale $(ARGS)

bench-fair: setup ## one greedy SAE beside those that keep to their quota
	@$(BIN)/python -m bench.bench_fair $(ARGS)

bench-distill: setup ## reconcile and verify 10^9 sifted bits, amplify
	@$(BIN)/python -m bench.bench_distill --bits 1e9

test-mlkem: setup ## IPsec with ML-KEM, by the strongSwan of a Debian sid in a folder (needs root and apt)
	@root=$$(scripts/strongswan-sid) && STRONGSWAN_ROOT=$$root $(BIN)/pytest -q tests/integration/test_tunnel_ipsec*.py $(ARGS)

tunnel-space: setup ## every order of events between two tunnel ends, within bounds (ARGS="--lost 2 --restarted 1")
	@$(BIN)/python -m keystrand.testing.tunnelspace $(ARGS)

bench-transport: setup ## tunnels of each kind: loss, latency, throughput, drills, many (ARGS="--kinds wireguard --seconds 60")
	@$(BIN)/python -m bench.bench_transport $(ARGS)

authz: setup ## every cell of the authorisation matrix, over mutual TLS
	@$(BIN)/python tests/integration/authz_estate.py

bench-link: setup ## an hour of light simulated; distillation: each stage on one core, the whole link on two
	@$(BIN)/python -m bench.bench_optics
	@$(BIN)/python -m bench.bench_link $(ARGS)

cover-kernels: setup ## the tests of the kernels with NUMBA_DISABLE_JIT=1, for coverage of what is compiled
	@NUMBA_DISABLE_JIT=1 $(BIN)/pytest -q tests/unit/qkd/test_kernels.py tests/unit/qkd/test_amplify.py \
		tests/unit/qkd/test_ldpc.py tests/unit/qkd/test_sift.py tests/unit/qkd/test_optics_twin.py tests/unit/qkd/test_cascade.py \
		-k "twin or textbook or vectors or gather or stream or halves or weave or syndromes"

bench-plan: setup ## the planner: 1,000 links with risk, 100 sites placed, published links, brute force
	@$(BIN)/python -m bench.bench_plan $(ARGS)

bench-network: setup ## routing, exposure, simulated networks; ARGS="--live" starts real sites
	@$(BIN)/python -m bench.bench_network $(ARGS)

simulate-network: setup ## networks of 30 sites that live for years, under faults (YEARS=10)
	@$(BIN)/python -m keystrand.testing.network --years $(or $(YEARS),10) $(ARGS)

bench-monitor: setup ## attacks and faults on a link, and a healthy year of it
	@$(BIN)/python -m bench.bench_monitor $(ARGS)

audit-faults: setup ## break a required audit sink while keys are drawn (N=10000)
	@$(BIN)/python -m keystrand.testing.faultysink --instants $(or $(N),10000)

docs: setup ## generate the reference pages from the code
	@for page in docs/*.py; do $(BIN)/python $$page; done

clean: ## remove what was made here
	rm -rf .venv .tools .kernels .numba_cache .mypy_cache .ruff_cache .pytest_cache bench/out demo dist
