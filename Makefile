# Every target is one command for a user; `make help` lists them. Settings: see the variables below.
DATASET ?= mnist
DEVICES ?= auto
SEED ?= 0
SEEDS ?= 3
RUN ?=
ARGS ?=

PYTHON ?= python3.11
VENV := .venv
VQVAE := $(VENV)/bin/vqvae
PIP := $(VENV)/bin/pip --disable-pip-version-check install -qq --constraint .ci/constraints.txt
TRAIN = $(VQVAE) train experiments/$(DATASET)/$(1).yaml trainer.devices=$(DEVICES) seed=$(SEED) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup data train-ae train-vae train-vqvae train-prior sample evaluate compare study check lint test test-slow clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1@\2/' | awk -F@ '{printf "%-20s %s\n", $$1, $$2}'
	@echo
	@echo '  DATASET=mnist|fashion_mnist|cifar10  DEVICES=2  SEED=1  RUN=runs/NAME  ARGS="model.codebook_size=1024"'

# torch comes first and pinned: without a pin an installer takes the newest CUDA build.
$(VENV)/.run: pyproject.toml .ci/constraints.txt
	@echo 'setup     $(VENV) (once, about a minute)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch numpy
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(PIP) --editable '.[dev]'
	@touch $@

setup: $(VENV)/.run  ## the environment in .venv, with pinned versions

data: $(VENV)/.run  ## fetch and verify DATASET
	@$(VQVAE) data name=$(DATASET)

train-ae: $(VENV)/.run  ## train an autoencoder on DATASET
	@$(call TRAIN,ae)

train-vae: $(VENV)/.run  ## train a variational autoencoder on DATASET
	@$(call TRAIN,vae)

train-vqvae: $(VENV)/.run  ## train a VQ-VAE on DATASET: the tokenizer of train-prior
	@$(call TRAIN,vqvae)

train-prior: $(VENV)/.run  ## train a Transformer on the codes of the newest VQ-VAE of DATASET, and draw samples
	@$(call TRAIN,prior)

sample: $(VENV)/.run  ## draw images from RUN (default: the newest of DATASET)
	@$(VQVAE) sample $(if $(RUN),$(RUN),dataset=$(DATASET)) seed=$(SEED) $(ARGS)

evaluate: $(VENV)/.run  ## test metrics of RUN (default: the newest of DATASET)
	@$(VQVAE) evaluate $(if $(RUN),$(RUN),dataset=$(DATASET)) $(ARGS)

compare: $(VENV)/.run  ## all finished runs side by side: a table and runs/compare.html
	@$(VQVAE) compare $(RUN) $(ARGS)

study: $(VENV)/.run  ## AE, VAE, VQ-VAE and prior on DATASET with SEEDS seeds: train, compare, mean and spread
	@$(VQVAE) study dataset=$(DATASET) seeds=$(SEEDS) $(ARGS)

check: lint test  ## lint, types and tests: what CI runs

lint: $(VENV)/.dev  ## ruff and mypy
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

test: $(VENV)/.dev  ## all tests that are not slow; no network
	@$(VENV)/bin/pytest

test-slow: $(VENV)/.dev  ## the slow tests
	@$(VENV)/bin/pytest -m slow

clean:  ## remove the environment and caches; data and runs stay
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
