# Each target does all the set-up that it needs; a bare Debian 12 with root, python3.11, git and
# make is enough. On other systems the lab's tests are skipped and the demo says what to do.

SHELL := /bin/bash
export SERVER_NAME API_SERVERS TEAM_WORKERS INVENTORIES CERTIFICATE CERTIFICATE_KEY
PYTHON ?= $(shell command -v /usr/bin/python3.11 || command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := systemd-container openssh-server openssh-client sudo iproute2 dbus procps haproxy curl \
	util-linux etcd-server etcd-client golang-cfssl openssl rsync python3-venv gcc libc6-dev \
	postgresql shellcheck fish tcsh zsh busybox-static age nftables iptables

# Tests with hosts wait part of their time, so more of them run at once than there are cores; with
# four on two cores all waited for each other, and a slow machine's ran into their limits.
WORKERS ?= 3
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

.PHONY: demo
demo: setup ## Bring up three hosts and an etcd cluster on them (ETCD=3.7.3, LAB=lab3)
	@$(BIN)/python -m tests.demo $(if $(LAB),--lab "$(LAB)") $(if $(ETCD),--etcd "$(ETCD)")

.PHONY: demo-kubernetes
demo-kubernetes: setup ## Bring up three Kubernetes nodes with a stacked etcd (KUBERNETES=1.34.4, LAB=kube3)
	@$(BIN)/python -m tests.demo --kubernetes "$(or $(KUBERNETES),1.37.2)" $(if $(LAB),--lab "$(LAB)")

.PHONY: team
team: team-packages $(VENV)/.complete ## Make this machine a team's server with workers (API_SERVERS=2; docs/team.md)
	@deployments/team.sh server

.PHONY: team-worker
team-worker: team-packages $(VENV)/.complete ## Add workers on this machine to a team's server (docs/team.md)
	@deployments/team.sh worker

.PHONY: team-packages
team-packages:
	@deployments/team.sh packages

.PHONY: test
test: setup ## Run all tests but the long chaos runs
	$(BIN)/pytest $(PARALLEL) -m "not chaos"

.PHONY: test-unit
test-unit: $(VENV)/.complete ## Run the tests that need no hosts
	$(BIN)/pytest $(PARALLEL) -m "not chaos and not lab"

.PHONY: test-pythons
test-pythons: $(VENV)/.complete ## Install the lock and run test-unit on each Python found, 3.11 to 3.14
	@$(BIN)/python -m tests.pythons $(PYTHONS)

.PHONY: test-chaos
test-chaos: setup ## Run every kill point and fault; takes long
	$(BIN)/pytest $(PARALLEL) -m chaos

.PHONY: test-browser
test-browser: setup ## Walk through approval in Chromium, in both of Prefect's UIs (PICTURES=directory)
	@command -v chromium >/dev/null || apt-get install -y -qq --no-install-recommends chromium >/dev/null
	@[ -x .venv-browser/bin/playwright ] || { $(PYTHON) -m venv .venv-browser && \
		.venv-browser/bin/pip install --quiet --disable-pip-version-check playwright==1.65.2; }
	$(BIN)/pytest -n 0 -m chaos tests/integration/test_browser.py

.PHONY: check
check: format-check lint types contracts schema-check docs test ## Everything that CI runs

.PHONY: format
format: $(VENV)/.complete ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: format-check
format-check: $(VENV)/.complete ## Check the code's format
	$(BIN)/ruff format --check .

.PHONY: lint
lint: $(VENV)/.complete ## Lint
	$(BIN)/ruff check .

.PHONY: types
types: $(VENV)/.complete ## Check types
	$(BIN)/mypy

.PHONY: contracts
contracts: $(VENV)/.complete ## Check the layers
	$(BIN)/lint-imports

.PHONY: schema
schema: $(VENV)/.complete ## Write the inventory's JSON Schema for editors
	$(BIN)/python -m tasks.model.schema > deployments/inventory.schema.json

.PHONY: schema-check
schema-check: $(VENV)/.complete ## Check that the JSON Schema is up to date
	$(BIN)/python -m tasks.model.schema | diff -u deployments/inventory.schema.json -

.PHONY: docs
docs: $(VENV)/.complete ## Build the documents into docs/_build; every warning and dead link is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build

.PHONY: bench
bench: setup ## Measure bootstrap_cluster against a shell script and an Ansible playbook
	$(BIN)/python -m tests.bench

.PHONY: bench-members
bench-members: setup ## Measure replace_member against the procedure done by hand
	$(BIN)/python -m tests.bench.members

.PHONY: bench-snapshots
bench-snapshots: setup ## Measure take_snapshot and rehearse_snapshot on 2 GB against etcd's own tools
	$(BIN)/python -m tests.bench.snapshots

.PHONY: bench-restores
bench-restores: setup ## Measure recover_quorum against etcd's own page on disaster recovery
	$(BIN)/python -m tests.bench.restores

.PHONY: bench-space
bench-space: setup ## Measure reclaim_space on 2 GB against etcdctl defrag, with clients that write
	$(BIN)/python -m tests.bench.space

.PHONY: bench-certificates
bench-certificates: setup ## Measure check_certificates on 300 endpoints against an Ansible playbook
	$(BIN)/python -m tests.bench.certificates

.PHONY: bench-fleet
bench-fleet: setup ## Measure check_fleet and check_certificates of 100 clusters on two workers
	$(BIN)/python -m tests.bench.fleet

.PHONY: lock
lock: $(VENV)/.complete ## Pin the dependencies of pyproject.toml again, for every Python that is supported
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra docs --extra team \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements.lock pyproject.toml

.PHONY: setup
setup: packages $(VENV)/.complete ## Install what the other targets need

# Debian only, and only as root: elsewhere the lab is skipped and says what it lacks.
.PHONY: packages
packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    ! dpkg-query -W $(PACKAGES) >/dev/null 2>&1; then \
		echo "installing Debian packages: $(PACKAGES)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null; \
	fi

$(VENV)/.complete: requirements.lock
	@$(PYTHON) -m ensurepip --version >/dev/null 2>&1 || $(MAKE) packages
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.PHONY: clean
clean: ## Take all labs down and remove what was made here
	-[ -x $(BIN)/python ] && $(BIN)/python -m tests.lab down --all
	rm -rf $(VENV) .venv-bench .venv-browser docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
