# Everything a developer does, from a machine with Python 3.11+, make and git.
#
#   make run        the gateway with a demo provider on http://127.0.0.1:3000
#   make run-llm    the same in front of a small language model on this machine
#   make test       unit and integration tests (Redis and PostgreSQL from the PATH, else from wheels)
#   make check      style, types, imports, dependencies, generated files
#   make help       the rest
#
# Locks carry hashes and no registry's address: your pip configuration says where packages come from.

SHELL := /bin/sh
unexport PYTHONDONTWRITEBYTECODE  # each start would compile anew what has changed since the installation
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# A Python that was built without --enable-optimizations, as pyenv does by default, takes a sixth longer for the tests and
# for what is only Python (docs/performance.md). A distribution's was built with them, though it may not say so.
new_enough = import sys; sys.exit(sys.version_info < (3, 11))
optimised = import sys, sysconfig; sys.exit(sys.version_info < (3, 11) or \
	"--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""))
# $(call first,names,a program that ends with 0)
first = for p in $(1); do $$p -c '$(2)' 2>/dev/null && echo $$p && break; done
PYTHON := $(or $(PYTHON),$(shell \
	$(call first,python3 python3.13 python3.12 python3.11,$(optimised)) || \
	$(call first,/usr/bin/python3,import ensurepip; $(new_enough)) || \
	$(call first,python3 python3.13 python3.12 python3.11,$(new_enough))))
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv)
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
LLM := $(VENV)/.installed-llm
FUZZ := $(VENV)/.installed-fuzz
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

# The environment gets no pip of its own where another can fill it: uv, or Python's own from pip 22.3 on. That, and leaving
# it to a first start to compile what it imports, is a third of the time until `make run` answers.
# $(call quietly,a command) shows what went wrong when it failed, and nothing when Ctrl-C ended it.
quietly = said=$$(mktemp) && trap 'rm -f $$said; exit 130' INT && \
	if $(1) 2>$$said; then rm -f $$said; else cat $$said >&2; rm -f $$said; exit 1; fi
# $(call install,options of pip install)
ifeq ($(UV),)
PIP = $$(test -x $(BIN)/pip && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)
install = $(call quietly,$(PIP) install --quiet --disable-pip-version-check --no-compile --no-deps $(1))
without_pip = $$($(PYTHON) -c 'import pip; exit([int(n) for n in pip.__version__.split(".")[:2]] < [22, 3])' \
	2>/dev/null && echo --without-pip)
else
install = $(call quietly,VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --no-deps $(1))
without_pip = --without-pip
endif
compile = $(BIN)/python -m compileall -q -j 0 $(VENV)/lib perpetuo || true  # a few packages ship templates that are no Python

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ------------------------------------------------------------- environment

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Perpetuo needs Python 3.11 or newer; none was found. Try: make PYTHON=/path/to/python3.12"; exit 1; }
	@trap 'rm -rf $(VENV); exit 130' INT; pip=$(without_pip); $(PYTHON) -m venv $$pip $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) can't make a virtual environment. On Debian: apt install python3-venv"; exit 1; }

$(RUN): requirements.txt requirements-build.txt | $(BIN)/python
	@echo "Installing what Perpetuo needs into $(VENV) (once) …"
	@$(call install,--require-hashes -r requirements.txt -r requirements-build.txt)
	@$(call install,--no-build-isolation -e .)
	@touch $@

$(DEV): requirements-dev.txt | $(RUN)
	@echo "Installing the tools for tests and checks into $(VENV) (once) …"
	@$(call install,--require-hashes -r requirements-dev.txt)
	@$(compile)
	@touch $@

$(LLM): requirements-llm.txt | $(RUN)
	@echo "Installing a small language model (200 MB) into $(VENV) (once) …"
	@$(call install,--only-binary :all: --require-hashes -r requirements-llm.txt)
	@touch $@

$(FUZZ): requirements-fuzz.txt | $(DEV)
	@echo "Installing a coverage-guided fuzzer (35 MB) into $(VENV) (once) …"
	@$(call install,--only-binary :all: --require-hashes -r requirements-fuzz.txt)
	@touch $@

.PHONY: install install-dev
install: $(RUN) ## only the virtual environment
install-dev: $(DEV) ## the same with all tools

# --------------------------------------------------------------------- run

.PHONY: run run-llm
run: $(RUN) ## the gateway with a demo provider: no Redis, no PostgreSQL, no key
	@exec $(BIN)/perpetuo dev

run-llm: $(LLM) ## the gateway in front of a small language model on this machine
	@exec $(BIN)/python scripts/run_llm.py

# ------------------------------------------------------------------- tests

PARALLEL := --numprocesses 4 --dist loadscope  # most of the time of a test is waiting

.PHONY: test test-unit test-slow test-clients mutants chaos fuzz fuzz-transport soak
.PHONY: bench bench-budget bench-peers bench-peers-lock bench-scale bench-smoke
test: $(DEV) ## unit and integration tests
	@$(MAKE) --no-print-directory $(LLM) || test "$(CI)" != true  # no wheel for this machine: its tests say so
	@$(BIN)/python -m pytest --cache-clear $(PARALLEL) || $(BIN)/python scripts/second_look.py $$?

test-unit: $(DEV) ## only what needs no server
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit

test-slow: $(DEV) ## what takes minutes: soaks, chaos, clean installs, many examples for Hypothesis
	@EXAMPLES=many $(BIN)/python -m pytest -m "slow or examples"

test-clients: $(DEV) ## other people's tests, directly and through the gateway (PyPI, npm, node 20)
	@$(BIN)/python -m pytest tests/clients

mutants: $(DEV) ## planted bugs in policies and scripts: is each one caught?
	@$(BIN)/python -m pytest -m slow tests/unit/policy/test_mutants.py tests/integration/redis/test_mutants.py \
		tests/integration/test_breaker_mutants.py

chaos: $(DEV) ## ten minutes of faults, then every sum is compared; SEED=7 SECONDS=60 LOSSY=1
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --seconds $(or $(SECONDS),600) $(if $(LOSSY),--lossy)

fuzz: $(DEV) ## requests at random: schemathesis over our OpenAPI document, and raw bytes (FUZZ_SECONDS=60 each, FUZZ_SEED)
	@$(BIN)/python -m pytest -s -m slow tests/integration/gateway/test_fuzz.py tests/integration/gateway/test_vectors.py

fuzz-transport: $(DEV) $(FUZZ) ## ten minutes of what a provider's server may say, led by coverage (Linux); SECONDS=3600 KEEP=1
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(KEEP),--keep)

SECONDS ?= 600
soak: $(DEV) ## ten minutes of everything: does anything grow or stay? writes bench/SOAK.md and bench/soak.png
	@$(BIN)/python -m bench.soak --seconds $(SECONDS)

BENCH = $(BIN)/python -m bench $(if $(filter command%,$(origin SECONDS)),--seconds $(SECONDS))
bench: $(DEV) ## CPU of a call, beside nginx and what bench-peers installed; writes bench/RESULTS.md (nginx, wrk; SECONDS=2)
	@$(BENCH)

bench-peers: $(DEV) ## the same, after installing LiteLLM and Portkey into .peers (PyPI, npm, node 20)
	@$(BIN)/python -m bench.peers.install
	@$(BENCH)

bench-peers-lock: $(DEV)
	@$(COMPILE) --override bench/peers/litellm/overrides.txt bench/peers/litellm/requirements.in \
		--output-file bench/peers/litellm/requirements.txt
	@cd bench/peers/portkey && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit

bench-budget: $(DEV) ## on which steps of a call its CPU time goes (py-spy, wrk, nginx)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m bench.budget

bench-scale: $(DEV) ## ten minutes: more tenants, workers, rows, streams; writes bench/SCALE.md and bench/scale.png
	@$(BIN)/python -m bench.scale

bench-smoke: $(DEV) ## 25 s: does a call cost much more than it did? compared within the run
	@$(BIN)/python -m bench.smoke

# ------------------------------------------------------------------ checks

TWO_AT_ONCE := $(if $(filter output-sync,$(.FEATURES)),--jobs=2 --output-sync=target)

.PHONY: check lint types imports dependencies generated docs format
check: $(DEV) ## everything CI looks at beside the tests
	@$(MAKE) --keep-going --no-print-directory $(TWO_AT_ONCE) lint types imports dependencies generated docs

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV)
	@$(BIN)/mypy

imports: $(DEV)
	@$(BIN)/lint-imports --no-cache --no-logo

dependencies: $(DEV)
	@$(BIN)/deptry .

generated: $(DEV)
	@$(BIN)/python scripts/generate_schema.py --check
	@$(BIN)/python scripts/generate_init_sql.py --check
	@$(BIN)/python -m scripts.reference --check
	@$(BIN)/python -m scripts.monitoring --check
	@$(BIN)/check-jsonschema --schemafile perpetuo.schema.json perpetuo.config.yaml

docs: $(DEV) ## the documentation as a site in build/site; broken links and anchors are errors
	@$(BIN)/python scripts/build_site.py

format: $(DEV) ## put files in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# --------------------------------------------------------- generated files

.PHONY: monitoring rules
monitoring: $(DEV) ## alert rules for Prometheus, a dashboard for Grafana; RUNBOOKS=https://docs.example.com/alerts.html
	@$(BIN)/python -m scripts.monitoring $(if $(RUNBOOKS),--runbooks $(RUNBOOKS))

rules: ## the alert rules, checked and tried (promtool, from Debian's package prometheus)
	@promtool check rules deploy/prometheus/perpetuo.rules.yaml
	@promtool test rules deploy/prometheus/perpetuo.test.yaml

.PHONY: lock schema reference catalogue migrations
lock: $(DEV) ## newest allowed versions into requirements*.txt, with hashes
	@$(COMPILE) --upgrade pyproject.toml --output-file requirements.txt
	@printf 'hatchling>=1.27\neditables>=0.5\n' | $(COMPILE) --upgrade - --output-file requirements-build.txt
	@printf 'atheris<3.1; python_version < "3.12"\natheris>=3.1; python_version >= "3.12"\n' | $(COMPILE) --upgrade - --output-file requirements-fuzz.txt
	@$(COMPILE) --upgrade --all-extras -c requirements.txt pyproject.toml --output-file requirements-dev.txt
	@$(COMPILE) --upgrade --extra otel -c requirements-dev.txt --no-annotate pyproject.toml --output-file requirements-otel.txt
	@for client in tests/clients/openai tests/clients/langchain; do \
		$(COMPILE) --upgrade -c requirements-dev.txt $$client/requirements.in --output-file $$client/requirements.txt; done

schema: $(DEV) ## perpetuo.schema.json from the config classes
	@$(BIN)/python scripts/generate_schema.py

reference: $(DEV) ## docs/reference and the list of decisions, from the code
	@$(BIN)/python -m scripts.reference

catalogue: $(DEV) ## newest prices and limits of known models
	@$(BIN)/python scripts/refresh_catalogue.py

migrations: $(DEV) ## migrations/001_init.sql from alembic
	@$(BIN)/python scripts/generate_init_sql.py

# --------------------------------------------------------------- container

.PHONY: up down
up: ## gateway, Redis and PostgreSQL in containers
	docker compose up -d --build

down:
	docker compose down

# ------------------------------------------------------------------- clean

.PHONY: clean distclean
clean: ## caches and local state (var/)
	@rm -rf var build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis bench/out
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## and the virtual environments
	@rm -rf $(VENV) .peers
