# make run         set up everything and run the study (CONFIG=config/config.yaml, CORES=all)
# make run PROFILE=slurm  the same on a cluster (docs/running.md)
# make test        set up everything and run all checks
# make test-slurm  the study and its accidents through a Slurm started here (root; installs Debian's packages)
# Needs only Python 3.11 to 3.13 (with venv and headers), g++, git and make.

SHELL := /bin/bash
PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
# A folder of profiles/: slurm or generic.
PROFILE ?=
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
# Every job is a fresh interpreter: compiled once here, imports take half the time.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE
# The name of a build of GPAW: uv keeps each, and an older one has to make way.
GPAW_BUILD := $(shell cksum < tools/gpaw_siteconfig.py | cut -d" " -f1)
export GPAW_CONFIG := $(CURDIR)/tools/gpaw_siteconfig.py

.DELETE_ON_ERROR:
.PHONY: run test test-slurm cluster setup smoke docs format pins crate-validator

run: setup $(if $(PROFILE),cluster)
	@$(BIN)/defraction preflight --config $(CONFIG)
	@$(BIN)/snakemake --configfile $(CONFIG) $(if $(PROFILE),--workflow-profile profiles/$(PROFILE),--cores $(CORES)) $(ARGS)
	@echo "defraction: open results/report.html; the numbers are in results/accuracy.csv"

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/python -m defraction.config --check
	$(BIN)/pytest $(ARGS)

# Tests of Slurm that `make test` runs too where all they need is there; the last lines say what was done and what not.
test-slurm: cluster
	@if [ "$$(id -u)" = 0 ] && command -v apt-get && ! { command -v slurmctld && command -v munged; }; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends slurm-wlm munge; fi > /dev/null
	$(BIN)/pytest tests/slurm -rs $(ARGS)

cluster: .venv/.cluster

.venv/.cluster: requirements-cluster.txt .venv/.done
	@$(UV) pip install --quiet --python $(BIN)/python --constraint requirements.txt --requirement requirements-cluster.txt
	@touch $@

setup: .venv/.done

.venv/.done: requirements.txt pyproject.toml tools/gpaw_siteconfig.py | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "defraction needs Python 3.11 to 3.13; set PYTHON=")'
	@test -x $(BIN)/python || $(UV) venv --quiet --python $$(command -v $(PYTHON)) .venv
	@echo "Installing pinned packages; GPAW is built here (about a minute)"
	@test -e .venv/.gpaw-$(GPAW_BUILD) || $(UV) pip uninstall --quiet --python $(BIN)/python gpaw
	@$(UV) pip sync --quiet --python $(BIN)/python --config-settings-package gpaw:build=$(GPAW_BUILD) requirements.txt
	@rm -f .venv/.gpaw-* && touch .venv/.gpaw-$(GPAW_BUILD)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.tools/uv/bin/uv:
	@$(PYTHON) -m venv .tools/uv
	@.tools/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

smoke: CONFIG := config/smoke.yaml
smoke: run

# The public validator of RO-Crates, for tests/crate; not part of the setup.
crate-validator: .tools/crate/.done

.tools/crate/.done: tools/requirements-crate.txt | $(UV)
	@test -x .tools/crate/bin/python || $(UV) venv --quiet --python $$(command -v $(PYTHON)) .tools/crate
	@$(UV) pip install --quiet --python .tools/crate/bin/python -r tools/requirements-crate.txt
	@touch $@

docs: setup
	$(BIN)/python -m defraction.config

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# After a change of pyproject.toml's dependencies: pin again. By hand, so that nobody gets other versions than tested.
pins: | $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.11 --extra dev --extra onnx --extra peers --extra provenance --no-header pyproject.toml -o requirements.txt
