# SPDX-License-Identifier: Apache-2.0
# Needs Python 3.11 or 3.12, make and git; everything else goes into virtual environments inside the checkout.

PYTHON ?= python3
CONTROL := .venv/control/bin
CORE := .venv/core/bin
# ansible-lint and its kin start each other by name. CURDIR may hold spaces, hence the quotes.
# exec, because make tells an interruption to the shell, which would leave the program running.
WITH_CONTROL := exec env PATH="$(CURDIR)/$(CONTROL):$$PATH"
# Where community.docker lies when a role needs it; this collection itself is found through the editable install.
COLLECTIONS := ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/.cache/collections"
PYTEST_ARGS ?=
# How long the places of `make chaos` are walked, and from which seed on.
SECONDS ?= 90
SEED ?= 1
# Some thousand processes would each compile what they import: 6 s instead of 1.5 s for a client of MLflow.
unexport PYTHONDONTWRITEBYTECODE
# The longest first: two at a time end together then.
SCENARIOS ?= fleet day2 mlflow_native native_systemd mlflow_docker triton_docker remove native
# A file's tests share servers, so that files are what is spread over processes, in the order of tests/conftest.py. More processes than
# processors, because tests wait: for starts and loads, and in tests/faults for time-outs half of the time.
PARALLEL = -n $(1) --dist loadfile --no-loadscope-reorder
# Targets at the same time, each with what it said in one piece; where one fails the others go on.
BESIDE = $(MAKE) --no-print-directory --output-sync=target --keep-going SIDE_BY_SIDE=yes
IN_TURN = $(MAKE) --no-print-directory SIDE_BY_SIDE=
# Clients and servers of older releases of MLflow.
OLD_CLIENTS := $(addprefix old-client-,2.11.3 2)
OLD_SERVERS := $(addprefix old-server-,2.11.3 2)
MOLECULES := $(SCENARIOS:%=molecule-%)
BED := $(CONTROL)/python tools/docker_bed.py

# Everything else is in turn, whatever -j says: whole targets share servers, ports and processors.
ifeq ($(SIDE_BY_SIDE),)
.NOTPARALLEL:
endif
# With MINUTES, a file, each command of a recipe leaves its seconds there (.ci/run prints them).
ifneq ($(MINUTES),)
OWN_SHELL := $(SHELL)
SHELL = tools/minutes.sh
.SHELLFLAGS = $(OWN_SHELL) $@ -c
endif
.DEFAULT_GOAL := help
.PHONY: help preflight venvs venv-control venv-core venv-frameworks quickstart quickstart-down clean \
	lock lint sanity unit unit-core differential-short differential integration integration-long test faults chaos compat gpu fuzz molecule \
	test-all build venvs-old bed $(OLD_CLIENTS) $(OLD_SERVERS) $(MOLECULES)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "  %-16s %s\n", $$1, $$2 }'

preflight: ## what this machine lacks, if anything
	@$(PYTHON) tools/preflight.py

quickstart: preflight ## MLflow, Triton and three models on this machine, end to end
	@$(PYTHON) tools/quickstart.py up

quickstart-down: ## stop what quickstart started
	@$(PYTHON) tools/quickstart.py down

clean: ## stop quickstart and remove everything that these targets made
	@$(PYTHON) tools/quickstart.py clean

venvs: preflight ## all virtual environments
	@$(PYTHON) tools/venvs.py

venv-control: preflight
	@$(PYTHON) tools/venvs.py control

venv-core: preflight
	@$(PYTHON) tools/venvs.py core

lock: venv-control ## the lists of exact packages with hashes, from which role triton installs, anew
	$(CONTROL)/python tools/lock.py

lint: venv-control ## ruff, mypy, ansible-lint with yamllint, changelog and documentation
	$(CONTROL)/ruff format --check .
	$(CONTROL)/ruff check .
	$(CONTROL)/mypy
	@$(CONTROL)/python tools/community_docker.py --if-needed
	$(WITH_CONTROL) $(COLLECTIONS) ansible-lint --offline
	$(WITH_CONTROL) antsibull-changelog lint
	$(WITH_CONTROL) antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .

sanity: venv-control ## ansible-test sanity, on a copy of the checkout
	$(CONTROL)/python tools/sanity.py

unit: venv-control ## unit tests
	$(WITH_CONTROL) pytest tests/unit $(if $(CORE_ELSEWHERE),--core-elsewhere) $(PYTEST_ARGS)

unit-core: venv-core ## the core's tests where there is no Ansible
	$(CORE)/python -m pytest tests/unit/core $(PYTEST_ARGS)

venv-frameworks: preflight
	@$(PYTHON) tools/venvs.py frameworks

differential-short: venv-frameworks ## converted models and the libraries that trained them, the same examples each time
	.venv/frameworks/bin/python -m pytest tests/differential $(PYTEST_ARGS)

differential: venvs venv-frameworks ## the same, and configurations against Triton, with many more examples: half an hour
	env HYPOTHESIS_PROFILE=search .venv/frameworks/bin/python -m pytest tests/differential $(PYTEST_ARGS)
	$(WITH_CONTROL) HYPOTHESIS_PROFILE=search pytest tests/integration/test_config_oracle.py $(PYTEST_ARGS)

integration: venvs ## tests on a real MLflow and a real Triton
	$(WITH_CONTROL) pytest tests/integration -m "not long" $(call PARALLEL,3) --durations=20 $(PYTEST_ARGS)

integration-long: venvs ## the same for S3, fleets, long lists, transfers, access control, the roles and trained models
	$(WITH_CONTROL) pytest tests/integration -m long $(call PARALLEL,3) --durations=20 $(PYTEST_ARGS)

# One processor each; integration tests have both, because time-outs are among what they test. What unit-core runs is not run twice.
test: venvs ## everything above
	@$(BESIDE) --jobs=2 CORE_ELSEWHERE=yes unit-core sanity unit lint differential-short
	@$(IN_TURN) integration

faults: venvs ## kills, full disks and silent servers
	@if test -d tests/faults; then $(WITH_CONTROL) pytest tests/faults $(call PARALLEL,4) --durations=20 $(PYTEST_ARGS); fi

# One process for each kind of place; a walk waits for servers most of the time.
chaos: venvs ## random operations and mishaps, for SECONDS, from seed SEED on
	$(WITH_CONTROL) pytest tests/chaos -n 3 --seconds=$(SECONDS) --first-seed=$(SEED) $(PYTEST_ARGS)

venvs-old: venvs
	@$(PYTHON) tools/venvs.py $(OLD_CLIENTS:old-client-%=compat-%) $(OLD_SERVERS:old-server-%=compat-server-%)

compat: venvs-old ## the MLflow plugin and publishing with older releases of MLflow
	@$(BESIDE) --jobs=2 $(OLD_CLIENTS) $(OLD_SERVERS)

$(OLD_CLIENTS): old-client-%: venvs-old
	$(WITH_CONTROL) python tests/compat/run.py $*

$(OLD_SERVERS): old-server-%: venvs-old
	$(WITH_CONTROL) python tests/compat/run_servers.py $*

gpu: venvs ## what needs an NVIDIA GPU; no other target runs it
	$(WITH_CONTROL) pytest tests/gpu $(PYTEST_ARGS)

# RUNS counts for all parsers together, SECONDS for each of them; .cache/fuzz keeps what was found on the way.
fuzz: private SECONDS := $(if $(RUNS),0,60)
fuzz: preflight ## the parsers of foreign bytes, on what nobody wrote: RUNS=1000000 or SECONDS=60, JOBS=2
	@$(PYTHON) tools/venvs.py fuzz
	.venv/fuzz/bin/python tests/fuzz/run.py --runs $(or $(RUNS),0) --seconds $(SECONDS) --jobs $(or $(JOBS),1)

molecule: preflight ## the roles, in Molecule, on a Docker Engine; root starts one where none answers
	@$(PYTHON) tools/venvs.py control mlflow-server triton-server
	@$(BED) run -- env -u MAKEFLAGS $(BESIDE) --jobs=2 $(MOLECULES)

bed: preflight
	@$(PYTHON) tools/venvs.py control mlflow-server triton-server
	@$(CONTROL)/python tools/community_docker.py --if-needed
	@$(BED) up

$(MOLECULES): molecule-%: bed
	$(WITH_CONTROL) $(COLLECTIONS) $(BED) run --keep -- $(PLAY)

PLAY = molecule test -s $*
# Where both run, day2 goes on with the hosts of fleet; each of them stops what runs when it fails. What Molecule remembers of an earlier
# run, which other hosts had, is forgotten first.
ifeq ($(words $(filter molecule-fleet molecule-day2,$(MAKECMDGOALS))),2)
molecule-day2: | molecule-fleet
molecule-fleet: private PLAY = sh -c 'molecule destroy -s fleet && molecule test -s fleet --destroy=never || { molecule destroy -s fleet; exit 1; }'
molecule-day2: private PLAY = sh -c 'molecule reset -s day2 && molecule converge -s day2 && molecule verify -s day2; code=$$?; molecule destroy -s day2 && exit $$code'
endif

test-all: venvs ## everything
	@$(IN_TURN) --keep-going test integration-long faults chaos compat molecule

build: venv-control ## Galaxy tarball and wheel in dist/
	$(CONTROL)/python tools/build.py
