# `make help` lists the targets. They heed CLUSTER (kind, the default, or current), STORE (versitygw, the default, or
# minio), LANGUAGES (python, the default, most, or all), KCR_PORT (8000) and KCR_REGISTRY.
SHELL := bash
.DEFAULT_GOAL := help
VENV := build/venv/bin

.PHONY: binaries chaos test-faults test-languages help run stop test test-store lint bench cluster-up images deploy venv crds constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## everything: cluster, images, deployment, a first answered call (CLUSTER=current: on your own cluster)
	@cluster/run.sh

stop: ## take it all away again
	@cluster/stop.sh

test: ## every test, on a cluster of its own; a table of times at the end
	@python3 cluster/test.py

test-store: venv ## does an S3 store work for KubeCodeRun? KCR_STORE_* say which: docs/object-store.md
	@$(VENV)/python -m pytest -q tests/store $(ARGS)

test-languages: venv ## every language: its image, and a pool in the running cluster (after make run; about 25 minutes at first)
	@LANGUAGES=all cluster/images.sh
	CI=true $(VENV)/python -m pytest -q -n 2 tests/languages $(ARGS)
	@LANGUAGES=all cluster/deploy.sh
	@set -a; . build/env; CI=true exec $(VENV)/python -m pytest -q tests/e2e/test_languages.py $(ARGS)

lint: venv ## ruff and mypy
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

bench: ## measure the running system
	@set -a; . build/env; exec $(VENV)/python tests/bench/run.py $(ARGS)

chaos: ## kill every part of the running system 20 times under load; about half an hour
	@set -a; . build/env; exec $(VENV)/python tests/chaos/run.py $(ARGS)

cluster-up: ## only the cluster
	@cluster/prerequisites.sh
	@cluster/up.sh

binaries: ## etcd and kube-apiserver, for tests/faults
	@cluster/control-plane.sh

test-faults: venv binaries ## only the tests with faults and kills before a real API server (about 6 minutes)
	CI=true $(VENV)/python -m pytest -q tests/faults $(ARGS)

images: ## build the images whose inputs changed
	@cluster/images.sh

deploy: ## bring images and manifests into the cluster and wait
	@cluster/deploy.sh

venv: ## build/venv with everything the tests need
	@cluster/venv.sh

crds: venv ## write crds/*.yaml and the field reference in docs from the models
	$(VENV)/python -m kubecoderun_crds.schema crds/
	$(VENV)/python -m kubecoderun_crds.reference docs/resources.md

constraints: venv ## write constraints.txt from pyproject.toml
	@cluster/constraints.sh

clean: stop ## also remove build/ (not the cache: see cluster/README.md)
	rm -rf build
