# README, CI and people all use these targets.

.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
WORKERS ?= 2
# All tests of a file run in one process, which creates the file's fixtures once. In the order of the alphabet, since
# xdist's own begins with the files that have the most tests, which are not the slowest.
PARALLEL = --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
# Without compiled modules, which some environments forbid, each of the many processes would compile all it imports.
export PYTHONDONTWRITEBYTECODE :=
E2E := $(PYTHON) -m pytest --override-ini addopts= --verbose --durations=20 tests/e2e
STACK ?= dev
STATE ?=
BASE ?= origin/main
OUT ?=
IN ?=
REAL = --stack $(STACK) --non-interactive --color never --suppress-progress
AGENT = $(if $(filter lab,$(STACK)),SSH_AUTH_SOCK=$(CURDIR)/.lab/run/ssh-agent.socket)
OUTPUTS = $(if $(filter lab,$(STACK)),$(PYTHON) -m lab outputs,pulumi stack output --stack $(STACK)) --json --show-secrets
# Commands about backups. Those of the lab's stack run in the lab's environment.
FROM ?=
REGION ?=
ZONE ?=
BACKUP ?=
SET ?=
CALLER ?=
KEEP ?=
CHECK_LIMIT ?=
JSON ?=
LOST_STATE ?=
YES ?=
IN_LAB = $(filter lab,$(STACK) $(FROM))
RECOVERY = $(if $(IN_LAB),$(PYTHON) -m lab run --) $(PYTHON) -m recovery
SELECTED = --stack $(STACK) $(if $(IN_LAB),--settings .lab/stack/Pulumi.lab.yaml) $(if $(REGION),--region $(REGION))
COPIED = $(SELECTED) $(if $(ZONE),--zone $(ZONE)) $(if $(BACKUP),--backup $(BACKUP)) $(foreach each,$(SET),--set '$(each)')
PIN := uv pip compile --quiet --no-header --generate-hashes --python-version 3.11

.PHONY: help up status preview preview-diff aws-preview aws-drift comment doctor root-password backups restore drill destroy forget-backups \
    test test-product test-lab test-tools lint e2e e2e-faults \
    contract omnibus faults-table checks-table reachability-table settings-table down clean pins plugins pulumi-cli requirements

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: $(INSTALLED)  ## start the lab and run pulumi up on it
	@$(PYTHON) -m lab up

status: $(INSTALLED)  ## show the lab's machines, load balancers, volumes and flows, and which parts are real or simulated
	@$(PYTHON) -m lab status

preview: $(INSTALLED)  ## show what pulumi up of STACK would create on AWS, and its cost; needs no account, key or machine
	@$(PYTHON) -m lab preview $(if $(STATE),--state $(STATE)) $(STACK)

preview-diff: $(INSTALLED)  ## show as Markdown how this change affects a STACK that was created by BASE
	@$(PYTHON) -m lab preview-diff $(STACK) $(BASE) $(if $(OUT),>$(OUT))

aws-preview: $(INSTALLED) plugins  ## show what pulumi up would change in STACK on AWS; needs its account and secrets
	@.ci/report $(or $(OUT),/dev/null) "pulumi preview of $(STACK)" pulumi preview $(REAL) --diff

aws-drift: $(INSTALLED) plugins  ## fail and report the differences if STACK on AWS differs from the program
	@.ci/report $(or $(OUT),/dev/null) "drift of $(STACK)" pulumi preview $(REAL) --diff --refresh --expect-no-changes

# Prevents Pulumi from downloading plugins without a check.
aws-preview aws-drift restore drill: export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION := true

plugins: $(INSTALLED)  ## install the pinned versions of Pulumi's plugins, verified by checksum if one is known
	@$(PYTHON) -m tools.install_pulumi

pulumi-cli: $(INSTALLED)  ## install the pinned Pulumi CLI into .pulumi-cli, for CI on Linux
	@$(PYTHON) -m tools.install_pulumi --cli .pulumi-cli

comment:  ## post the Markdown in IN as a comment on the pull or merge request in the environment
	@python3 .ci/comment.py $(IN)

doctor: $(INSTALLED)  ## report the first failing check of STACK; STACK=lab for the lab; DOCTOR=--quick skips the pipeline
	@$(OUTPUTS) | $(AGENT) $(PYTHON) doctor.py $(DOCTOR)

root-password: $(INSTALLED)  ## show the first password of GitLab's root user in STACK, until it is changed
	@$(OUTPUTS) | $(AGENT) $(PYTHON) root_password.py

backups: $(INSTALLED)  ## list the backups of STACK
	@$(RECOVERY) backups $(SELECTED)

restore: $(INSTALLED) $(if $(IN_LAB),,plugins)  ## create STACK from the newest backup of FROM, which it replaces; ZONE, REGION, BACKUP, SET=KEY=VALUE, YES=1
	@$(RECOVERY) restore $(COPIED) --from $(FROM) $(if $(YES),--yes)

drill: $(INSTALLED) $(if $(IN_LAB),,plugins)  ## restore the newest backup of STACK into a silenced copy, check it, and destroy it; REGION, BACKUP, CALLER, KEEP=1, JSON, CHECK_LIMIT=MINUTES
	@$(RECOVERY) drill $(COPIED) $(if $(CALLER),--caller $(CALLER)) $(if $(KEEP),--keep) $(if $(JSON),--json $(JSON)) \
	    $(if $(CHECK_LIMIT),--check-limit $(CHECK_LIMIT))

destroy: $(INSTALLED)  ## destroy STACK, and list what is left of it in AWS; YES=1 does not ask, LOST_STATE=1 if its state is lost
	@$(RECOVERY) destroy $(SELECTED) $(if $(LOST_STATE),--lost-state) $(if $(YES),--yes)

forget-backups: $(INSTALLED)  ## delete the snapshots of the destroyed STACK whose locks have ended; YES=1 does not ask
	@$(RECOVERY) forget-backups $(SELECTED) $(if $(YES),--yes)

test: test-tools  ## unit tests and static checks: no Docker, no cloud, no engine
	@$(MAKE) --no-print-directory --jobs=3 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint test-product test-lab

test-product: $(INSTALLED)  ## unit tests of the product only
	$(PYTHON) -m pytest $(PARALLEL) tests

test-lab: $(INSTALLED)  ## unit tests of the lab only
	$(PYTHON) -m pytest $(PARALLEL) lab/tests

test-tools: $(INSTALLED)  ## install the programs that the unit tests use; as root on Debian
	@$(PYTHON) -c 'from lab import host; host.ensure_test_tools()'

contract: $(INSTALLED)  ## test gitlab.rb with the recipes of GitLab's own package; OMNIBUS lists checkouts of omnibus-gitlab
	@OMNIBUS="$$(echo $(OMNIBUS))" $(PYTHON) -m pytest --override-ini addopts= tests/contract

omnibus: $(INSTALLED)  ## clone the checkouts that CI uses for make contract into .omnibus; needs the internet
	@$(PYTHON) -m tools.omnibus .omnibus

lint: $(INSTALLED)  ## static checks only
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy .
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci .gitlab-ci.yml
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" jactionlint .github/workflows/*.yaml
	$(VENV)/bin/zizmor --offline --quiet --persona pedantic .github/workflows

e2e: $(INSTALLED)  ## end-to-end tests: a stack on the lab, from up to destroy
	$(E2E) -m "not long"

e2e-faults: $(INSTALLED)  ## long end-to-end tests: every fault, every replacement, a killed lab
	TEST_EFFORT=48 $(PYTHON) -m pytest tests/test_settings_fuzz.py tests/test_registry_tree.py tests/test_registry_collection.py \
	    tests/test_backup_retention.py -k "any or random or two_damages"
	$(E2E) -m "long or end"

checks-table: $(INSTALLED)  ## generate the table of checks in docs/operations.md
	$(PYTHON) -m tools.docs_tables checks

faults-table: $(INSTALLED)  ## generate the table of faults in docs/operations.md from the measurements
	$(PYTHON) -m tools.docs_tables faults

reachability-table: $(INSTALLED)  ## generate the reachability table in SECURITY.md
	$(PYTHON) -m tools.docs_tables reachability

settings-table: $(INSTALLED)  ## generate the tables of settings in docs/settings.md
	$(PYTHON) -m tools.docs_tables settings

down:  ## tear the lab down; keep what was built
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m lab down; fi

clean: down  ## tear the lab down, and remove what was built and installed here
	rm -rf .lab .omnibus .pulumi-cli $(VENV) .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

pins: $(INSTALLED)  ## verify the pins in tools/pins.yaml and show what has changed; needs the internet and gpg
	@$(PYTHON) -m tools.pins

requirements:  ## re-pin the dependencies in the .in files; needs uv
	$(PIN) requirements.in --output-file requirements.txt
	$(PIN) requirements-dev.in --output-file requirements-dev.txt
	$(PIN) lab/engine/go.in --output-file lab/engine/go.txt

$(INSTALLED): requirements-dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@python3 -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" -ne 0 ] || apt-get install --yes python3-venv
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
