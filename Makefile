# SPDX-License-Identifier: Apache-2.0
# make demo        the whole story on one machine (KEEP=1 leaves the server and its page running)
# make test        everything: environments, checks, all tests
# make test-fast   the tests without real process stories, browser and slow ones
# make story       only the story on real processes
# make check       format, lint, types, import rule
# make venv        both Python environments and the two Debian programs
# make docs        rewrite the pages that are generated from the code
# make clean       remove what these made

SHELL := /bin/sh
.DEFAULT_GOAL := help

# torch has wheels for Python 3.11 that our pins need; PYTHON=/path/to/python3.11 chooses another one.
PYTHON ?= $(shell for p in python3.11 python3; do \
    $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
# Options of pip for torch alone, such as an index that holds its CPU wheels: a plain torch may bring CUDA.
TORCH_OPTIONS ?=
TORCH := torch==2.13.0
EXTRAS := workstation,agent,agent-litert,agent-onnx,fleet,examples,dev

# The stamp carries a digest of what it was built from, so a check-out of another version builds again.
FACTS := $(shell cat pyproject.toml constraints.txt constraints-tflite.txt | sha256sum | cut -c1-16)
STAMP := .venv/.strop-$(FACTS)
STAMP_TFLITE := .venv-tflite/.strop-$(FACTS)
PY := .venv/bin/python

.PHONY: help demo test test-fast story check format venv system docs freeze clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: venv
	$(PY) -m examples.digits.demo $(if $(KEEP),--keep)

test: check
	$(PY) -m pytest

test-fast: venv
	$(PY) -m pytest -m "not story and not browser and not slow"

story: venv
	$(PY) -m pytest -m story

check: venv
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: venv
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

docs: venv
	$(PY) -m edge_contract.diagrams

venv: $(STAMP) $(STAMP_TFLITE)

# torch first and alone: it is the one package whose source a user may have to choose.
$(STAMP): | system
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 found; run: apt-get install python3.11 python3.11-venv" \
	  "or: make venv PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt $(TORCH_OPTIONS) $(TORCH)
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	rm -f .venv/.strop-*
	touch $@

$(STAMP_TFLITE): | system
	test -x .venv-tflite/bin/python || $(PYTHON) -m venv .venv-tflite
	.venv-tflite/bin/pip install --quiet --constraint constraints-tflite.txt --editable '.[agent,agent-tflite]'
	rm -f .venv-tflite/.strop-*
	touch $@

# The broker and the browser are programs, not packages. /usr/sbin is outside a user's PATH on Debian.
system:
	@missing=""; PATH="$$PATH:/usr/sbin:/usr/local/sbin"; \
	command -v mosquitto >/dev/null || missing="$$missing mosquitto"; \
	command -v chromium >/dev/null || missing="$$missing chromium fonts-dejavu-core"; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3.11 python3.11-venv"; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; \
	else \
	  echo "error: missing$$missing; run: sudo apt-get install -y --no-install-recommends$$missing" >&2; exit 1; \
	fi

freeze:
	@.venv/bin/pip freeze --exclude-editable | sed -e 's/+cpu$$//'

clean:
	rm -rf .venv .venv-tflite build dist demo-out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
