# Two commands set everything up on a machine with Python >= 3.11 and make:
#   make quickstart   install into .venv and run the main job, small
#   make test         lint, types and tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_S3 := $(VENV)/.installed-s3
INSTALLED_EXCHANGE := $(VENV)/.installed-exchange
INSTALLED_DOCS := $(VENV)/.installed-docs

.PHONY: install quickstart test test-after test-slow test-exchange test-faults test-kills test-cluster benchmark bench-check clean
.PHONY: lint lint-style lint-format lint-types lint-imports lint-systems lint-macos lint-windows format docs docs-links

install: $(INSTALLED)

quickstart: install
	$(BIN)/python -m cnnsearch.sweep part1 --profile quick
	@echo "The report: $(CURDIR)/results/part1/report.html"

test: $(INSTALLED_TEST) $(INSTALLED_S3) lint
	$(BIN)/python -m pytest -n 2 --dist loadscope

# What takes longer than a change should wait for; `.ci/run` does it too. Three at a time, also on two cores: most of
# them wait for a process they started.
test-after: $(INSTALLED_TEST) $(INSTALLED_S3)
	$(BIN)/python -m pytest -n 3 --dist loadscope -m "after and not slow"

# MLflow and TensorBoard, which tests of exchange ask, take minutes to install: without them those are skipped.
test-exchange: $(INSTALLED_TEST) $(INSTALLED_EXCHANGE)
	$(BIN)/python -m pytest tests/exchange -m "not slow"

test-slow: $(INSTALLED_TEST) $(INSTALLED_S3)
	$(BIN)/python -m pytest -m slow

# Everything that is done to a run on purpose, with a table of what came of it: see docs/durability.md.
test-faults: $(INSTALLED_TEST)
	$(BIN)/python -m pytest tests/faults -m 'not kills' --faults-table

# Each kind of process of a run, killed twenty times at random moments.
test-kills: $(INSTALLED_TEST)
	$(BIN)/python -m pytest tests/faults/test_kills.py -m kills -s

# Ray clusters of several nodes, each a machine of its own as far as it can tell. Linux, as root or where users may make
# namespaces; else skipped.
test-cluster: $(INSTALLED_TEST)
	$(BIN)/python -m pytest tests/cluster -m cluster

# Its four tools side by side. They do not touch what tests read, and mypy takes longest where it knows nothing yet.
lint: $(INSTALLED_TEST)
	@$(MAKE) --no-print-directory --jobs 4 --keep-going lint-style lint-format lint-types lint-imports

lint-style:
	$(BIN)/ruff check

lint-format:
	$(BIN)/ruff format --check

lint-types:
	$(BIN)/mypy

# Types as they are on macOS and Windows, on which nothing has been run yet. Not part of `make lint`: where mypy knows
# nothing yet, each takes as long as Linux's own, and few changes touch what differs. `.ci/run` has both checked.
lint-systems: $(INSTALLED_TEST)
	@$(MAKE) --no-print-directory --jobs 2 --keep-going lint-macos lint-windows

lint-macos:
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin cnnsearch

lint-windows:
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 cnnsearch

lint-imports:
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED_TEST)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The site, from docs/: build/docs/index.html. Every warning is an error, such as a link that leads nowhere.
docs: $(INSTALLED_DOCS)
	$(BIN)/python -m sphinx -b html -W --keep-going -n -E -q docs build/docs
	@echo "The site: $(CURDIR)/build/docs/index.html"

# Links to other sites, which needs a network.
docs-links: $(INSTALLED_DOCS)
	$(BIN)/python -m sphinx -b linkcheck -q docs build/docs-links

# make benchmark OPTIONS='--workloads grid-32 --rounds 1'; benchmarks/README.md says more
benchmark: install
	$(BIN)/python -m benchmarks $(OPTIONS)

bench-check: install
	$(BIN)/python -m benchmarks.check

clean:
	rm -rf $(VENV) build *.egg-info

# The exact versions that are known to work; pyproject.toml says what else may.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; choose another: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(INSTALLED_TEST): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

# An S3-compatible server that tests start; what it needs does not go with the rest.
$(INSTALLED_S3): tests/s3/requirements.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/s3
	$(VENV)/s3/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Tools to which trials go, and from which they come. They are large, and what is installed for all else comes first.
$(INSTALLED_EXCHANGE): tests/exchange/requirements.txt | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/exchange
	$(VENV)/exchange/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
