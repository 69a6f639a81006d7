# make demo   the whole road on scikit-learn's digits: teacher, cache, students, report
# make test   the tests
# make test-gpu  the tests that only a GPU can answer, in about a minute; skipped without one
# make bench-gpu  what only a GPU can say about speed, in less than eight minutes: benchmarks/README.md
# make test-busy  the tests three times, beside two processes that keep two cores busy
# make test-begin  the tutorial, the demonstration, pages with code, wheel and sdist, exports, what stages import, what DVC does
#                  with caches, processes of Dask, the report in a browser: minutes
# make site   the pages of docs/ and the reference, as a site in build/site
# make cifar100  CIFAR-100 with the literature's ResNets: hours on a GPU, days without
# make cifar100-methods  every method beside every other, 12 epochs of 10,000 images each: hours on two cores
# make cifar100-constants  weights of methods whose authors say none, on images held out
# make cifar100-pairs    the one that needs two views of a sample in a step, MLLD
# make cifar100-exact    those that have an exact signal of their own: AT, ICKD, FSP
# make cifar100-vit      a ViT student of a ResNet teacher
# make cifar100-240      the literature's 240 epochs, for a GPU
# All set up a virtual environment in .venv first.

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo cifar100 cifar100-methods cifar100-constants cifar100-pairs cifar100-exact cifar100-vit cifar100-240 test test-begin test-busy test-gpu bench-gpu test-long lint types site setup

demo: setup
	dvc repro
	@pipeline report --show

cifar100 cifar100-methods cifar100-constants cifar100-pairs cifar100-exact cifar100-vit cifar100-240: setup
	pipeline dvc-file --config configs/$@.yaml --output experiments/$@/dvc.yaml
	dvc repro experiments/$@/dvc.yaml
	@pipeline report --config configs/$@.yaml --show

test: setup
	OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal

test-busy: setup
	set -e; trap 'kill $$beside' EXIT; \
	for i in 1 2; do $(VENV)/bin/python -c 'while True: pass' & beside="$$beside $$!"; done; \
	for i in 1 2 3; do OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal; done

PYTEST_LONG = pytest -m long -n 0 --timeout 3600 -o faulthandler_timeout=3660

test-begin: setup
	$(PYTEST_LONG) tests/docs/test_tutorial.py tests/commands/test_demo.py \
	  tests/docs/test_own_data.py tests/api/test_python_pages.py tests/stages/test_installed.py \
	  tests/shipping/test_deploy_page.py tests/shipping/test_export.py tests/reporting/test_browser.py \
	  tests/stages/test_dvc.py tests/stages/test_dvc_cache.py tests/stages/test_dvc_shared.py tests/store/test_clusters.py

test-gpu: setup
	CUBLAS_WORKSPACE_CONFIG=:4096:8 pytest -m gpu -n 0 -rs tests/gpu

bench-gpu: setup
	$(VENV)/bin/python benchmarks/gpu.py
	$(VENV)/bin/python benchmarks/performance.py

test-long: setup
	$(PYTEST_LONG)
	OBJECT_SERVER=moto pytest -n 0 $$(grep -lw bucket -r tests --include='test_*.py')  # a second server of objects

lint: setup
	ruff check .
	ruff format --check .

types: setup
	mypy

site: setup
	sphinx-build -q -E -W --keep-going -d build/site-read -b html docs build/site
	@echo "build/site/index.html"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Decant needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@
