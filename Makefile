# Needs Python 3.11 or newer and make; everything else is set up in .venv.
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= $(firstword $(foreach v,3.14 3.13 3.12 3.11,$(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := $(VENV)/.native
LOCK := requirements/development.lock
# Most tests wait for brokers and servers, so there are more processes than cores; each has a broker of its own.
JOBS ?= 5
# Tests of a module stay together, for the topics they share; a process that has none left takes some from another.
PARALLEL := -n $(JOBS) --dist worksteal
SOURCES := batcher sinks tests benchmarks deploy native/build.py
# The core, everything that users may install, and what the tests need as well: each agrees with the one before it.
LOCKS := runtime full development
NEEDS_runtime :=
# All but native: the extension is made from the source beside it, and not asked for.
EXTRAS := $(filter-out native,$(shell sed -n '/^\[project.optional-dep/,/^\[project.s/s/^\([a-z0-9-]*\) = \[.*/\1/p' pyproject.toml))
NEEDS_full := $(addprefix --extra ,$(EXTRAS)) -c requirements/runtime.lock
NEEDS_development := $(NEEDS_full) -c requirements/full.lock --group dev

# The tests start more than a thousand Pythons: each would compile all of it again where this is set.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-long test-crash test-soak coverage check bench bench-compare lock format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 22

setup: $(NATIVE) ## make the virtual environment with the locked dependencies, and the extension where cargo is

$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "batcher needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV) (about 1.5 GB with the embedded ClickHouse; once)"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK) && \
		uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
		"$(PYTHON)" -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $(READY)

$(NATIVE): $(READY) native/build.py native/Cargo.toml native/Cargo.lock $(wildcard native/src/*.rs native/src/*/*.rs)
	@$(BIN)/python native/build.py $(NATIVE)

demo: $(READY) ## load a small Kafka into an embedded ClickHouse, with a crash in the middle
	@$(BIN)/python -m batcher demo $(ARGS)

test: $(NATIVE) ## run the tests, and say what was skipped and why
	@$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL))

test-long: $(NATIVE) ## the long form of all tests: more records, every case; then test-crash
	@BATCHER_TEST_LONG=1 $(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL) -m "not crash")
	@[ -n "$(ARGS)" ] || $(MAKE) --no-print-directory test-crash

test-crash: $(NATIVE) ## kill, freeze and rebalance it for an hour, and keep the score in docs/testing.md
	@rows=$$(mktemp); \
	BATCHER_TEST_LONG=1 BATCHER_TEST_SCORE=$$rows $(BIN)/python -m pytest -m crash -p no:randomly $(or $(ARGS),tests); code=$$?; \
	keep=$$([ $$code = 0 ] && [ -z "$(ARGS)" ] && echo "--write tests/crash/score.json docs/testing.md"); \
	$(BIN)/python -m tests.harness.crash_score $$rows $$keep; rm -f $$rows; exit $$code

test-soak: $(NATIVE) ## let everything fail at random for ten minutes (SECONDS=600), then the same with Parquet
	@BATCHER_TEST_SOAK_S=$(or $(SECONDS),600) $(BIN)/python -m pytest tests/crash/test_soak.py -s $(ARGS)

coverage: $(NATIVE) ## lines and branches that the tests reach, in subprocesses too; lists the files below 90 %
	@$(BIN)/python -m pytest --cov --cov-report= $(or $(ARGS),$(PARALLEL))
	@$(BIN)/coverage report | awk '/^(Name|TOTAL)/ || $$6 + 0 < 90'

check: $(READY) ## lint, format, types, import rules, known vulnerabilities
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python deploy/materials.py
	@if command -v cargo >/dev/null 2>&1; then cd native && cargo fmt --check && \
		cargo clippy --quiet --locked --all-targets --no-default-features -- -D warnings && \
		cargo test --quiet --locked --no-default-features; \
	else echo "no cargo: the native extension is not checked"; fi

bench: $(NATIVE) ## measure this machine: rows a second beside the bare client library
	@$(BIN)/python -m benchmarks.bench_pipeline $(ARGS)

bench-compare: $(NATIVE) ## measure it beside loops, ClickHouse's Kafka engine, Spark and three frameworks
	@$(BIN)/python -m benchmarks.bench_compare $(ARGS)

lock: ## resolve the dependencies again (needs uv)
	@$(foreach lock,$(LOCKS),uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
		--upgrade $(NEEDS_$(lock)) --custom-compile-command "make lock" -o requirements/$(lock).lock;)

format: $(READY) ## format the code
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build dist
