# SPDX-License-Identifier: Apache-2.0
# make demo        the whole story on one machine (KEEP=1 leaves the server and its page running)
# make test        everything: environments, checks, all tests
# make test-fast   the tests without real process stories, browser and slow ones
# make story       only the story on real processes
# make test-long   minutes on real processes: an agent that updates itself, whole
# make test-old-runtimes  our files on tflite-runtime 2.7 to 2.13
# make test-arm64  the agent's tests on emulated ARM64, Python 3.11 and 3.13 (minutes)
# make test-boot   a card, flashed and booted on an emulated board, to the fleet and back (half an hour, as root)
# make crash-long  thousands of kills of agent and server, and of states that a power cut may leave (hours)
# make soak MINUTES=30  real agents, broker and server while cables, processes and clocks fail
# make power-cuts  power cuts of a virtual machine with the agent in it (the end of crash-long)
# make api-fuzz    the server's API under documents that fit or break its schema
# make fuzz        minutes of hostile files against the readers
# make test-ray    a search on two workers of Ray, in an environment of its own
# make peers       other tools on the same work, in environments of their own (long)
# make delta       patches of real model files beside bsdiff's
# make tuf-conformance SUITE=path  the public TUF conformance suite against the device's verifier (needs faketime)
# make trainings   distillation, pruning and trained quantization against what others reach (hours)
# make bench       our own speed against the figures kept of this machine (minutes; KEEP=1 keeps new ones and the noise)
# make bench-results  rows of this machine in benchmarks/results/ and its page (minutes, wants a quiet machine)
# make drift-numbers  false alarms, power, delay and cost of the drift statistics (an hour)
# make check       format, lint, types, import rule
# make venv        both Python environments and what Debian has to give
# make models      model files of other people, for the tests
# make machines    emulated Raspberry Pis, for the tests
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
EXTRAS := workstation,search,tensorflow,agent,agent-litert,agent-onnx,fleet,flash,postgres,s3,parquet,examples,dev

# The stamp carries a digest of what it was built from, so a check-out of another version builds again.
FACTS := $(shell cat pyproject.toml constraints.txt constraints-tflite.txt | sha256sum | cut -c1-16)
STAMP := .venv/.strop-$(FACTS)
STAMP_TFLITE := .venv-tflite/.strop-$(FACTS)
PY := .venv/bin/python

.PHONY: help demo test test-fast test-long test-old-runtimes test-ray test-arm64 test-boot crash-long power-cuts soak api-fuzz fuzz bench bench-results delta tuf-conformance peers trainings drift-numbers \
  story check format venv models machines system docs freeze clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: venv
	$(PY) -m examples.digits.demo $(if $(KEEP),--keep)

# Test files are shared out among so many processes, each with one thread for arithmetic: they would only fight for cores.
# Three on two cores, because tests of real processes mostly wait.
WORKERS ?= 3
SHARED := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile

# The story mostly waits for its own clocks, so it runs beside the other tests; its output is shown at the end.
test: check models machines
	$(PY) -m pytest -m story tests/story >.story.log 2>&1 & told=$$!; \
	$(SHARED) -m "not story and not ($(HEAVY))"; others=$$?; \
	wait $$told; story=$$?; cat .story.log; exit $$((others | story))

FAST := not story and not browser and not slow and not machines
HEAVY := old_runtimes or fuzz or peers or ray or crash_long or long or boot
test-fast: venv
	$(SHARED) -m "$(FAST) and not ($(HEAVY))"

test-long: venv
	$(PY) -m pytest -q -m long

test-old-runtimes: venv
	$(PY) -m tests.machines.old_runtimes
	$(PY) -m pytest -m old_runtimes tests/machines tests/export

# Ray is large, so it stands in an environment of its own that sees the packages of the first one.
test-ray: venv
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --constraint constraints.txt 'ray>=2.40,<3'
	PYTHONPATH="$$($(PY) -c 'import site; print(site.getsitepackages()[0])'):." .venv-ray/bin/python -m pytest -m ray tests/compress

# atheris has wheels for few Pythons and is of no use to anybody else, so it stands in an environment of its own.
FUZZ := .venv-fuzz/bin/python
SECONDS ?= 120
fuzz: venv
	test -x $(FUZZ) || $(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/pip install --quiet --constraint constraints.txt atheris==3.0.0 numpy hypothesis typer zstandard
	mkdir -p .fuzz/tflite .fuzz/lying .fuzz/onnx .fuzz/delta .fuzz/drift
	$(FUZZ) fuzz/fuzz_tflite.py -max_total_time=$(SECONDS) -rss_limit_mb=1024 -timeout=10 .fuzz/tflite
	$(FUZZ) fuzz/fuzz_tflite.py --lying -len_control=0 -max_len=2048 -max_total_time=$(SECONDS) -rss_limit_mb=1024 \
	  -timeout=10 .fuzz/lying
	$(FUZZ) fuzz/fuzz_onnx.py -max_total_time=$(SECONDS) -rss_limit_mb=1024 -timeout=10 .fuzz/onnx
	$(FUZZ) fuzz/fuzz_delta.py -max_total_time=$(SECONDS) -rss_limit_mb=1024 -timeout=10 .fuzz/delta
	$(FUZZ) fuzz/fuzz_drift.py -max_total_time=$(SECONDS) -rss_limit_mb=1024 -timeout=10 .fuzz/drift

test-arm64: venv machines
	nice -n 5 $(PY) -m tests.machines.agent_tests

test-boot: venv
	$(PY) -m tests.machines.board || test -z "$$CI"
	$(PY) -m pytest -q -s -m boot tests/fleet/flash/boot

# Without root or QEMU they are skipped, and say what to install.
power-cuts: venv
	$(PY) -m tests.machines.vm || test -z "$$CI"
	$(PY) -m pytest -q -s -m crash_long --timeout=3600 tests/edge_agent/power

crash-long: venv
	STROP_CRASH_KILLS=5000 STROP_CRASH_DRAWS=200 $(PY) -m pytest -q -s -m crash_long --timeout=3600 tests/edge_agent/crash
	STROP_SOFTWARE_STRIDE=1 $(PY) -m pytest -q -s -m crash_long --timeout=3600 tests/edge_agent/software
	STROP_CRASH_KILLS=500 $(PY) -m pytest -q -s -m crash_long --timeout=14400 tests/fleet/crash
	STROP_FAT_IMAGES=1000 $(PY) -m pytest -q -s -m crash_long --timeout=3600 tests/fleet/flash/test_fat.py
	$(MAKE) power-cuts

soak: venv
	$(PY) -m tests.edge_agent.soak --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1)

api-fuzz: venv
	STROP_API_EXAMPLES=60 $(PY) -m pytest -q tests/fleet/test_hostile.py -k schema

tuf-conformance: venv
	@test -d "$(SUITE)/tuf_conformance" || { echo "error: SUITE=path to a copy of tuf-conformance" >&2; exit 1; }
	@command -v faketime >/dev/null || { echo "error: faketime is missing; run: apt-get install faketime" >&2; exit 1; }
	cd "$(SUITE)" && PYTHONPATH="$(CURDIR)" "$(CURDIR)/$(PY)" -m pytest -p no:cacheprovider tuf_conformance \
	  --entrypoint "$(CURDIR)/$(PY) -m edge_agent.tuf_conformance"

# bsdiff4 is there to be compared with, so it stands in an environment of its own.
delta: venv
	test -x .venv-bsdiff/bin/python || $(PYTHON) -m venv .venv-bsdiff
	.venv-bsdiff/bin/pip install --quiet bsdiff4==1.3.2
	$(PY) -m benchmarks.delta --bsdiff-python .venv-bsdiff/bin/python

peers: venv
	$(PY) -m benchmarks.peers.environments google nncf agents
	for net in mobilenet-v2 mobilenet-v3 efficientnet-lite0; do \
	  $(PY) -m benchmarks.peers.run --net $$net && $(PY) -m benchmarks.peers.run --net $$net --speed || exit 1; done
	$(PY) -m benchmarks.peers.show
	$(MAKE) delta
	$(PY) -m benchmarks.drift.failing_loudly
	test -d demo-out/bundles/2.0.0 || $(MAKE) demo
	$(PY) -m benchmarks.peers.agents demo-out/bundles/2.0.0
	$(PY) -m benchmarks.peers

drift-numbers: venv
	for n in power false_alarms failing_loudly delay real_pairs accuracy cost; do $(PY) -m benchmarks.drift.$$n || exit 1; done

bench: venv
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.own_speed $(if $(KEEP),--launches 10 --aa)

bench-results: venv
	$(PY) -m benchmarks.results_here
	$(PY) -m benchmarks.results_page

trainings: venv
	for row in distillation pruning combined qat; do $(PY) -W ignore -m benchmarks.training.$$row || exit 1; done

story: venv
	$(PY) -m pytest -m story tests/story

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
	$(PY) -m benchmarks.result.page
	$(PY) -m benchmarks.results_page

venv: $(STAMP) $(STAMP_TFLITE)

models: venv
	$(PY) -m tests.zoo.third_party

# Without root there are no emulated boards: their tests are skipped, but not in CI.
machines: venv
	$(PY) -m tests.machines.arm64 || test -z "$$CI"

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

# An SSH server and cloud-init are services, so only a machine of CI gets them; elsewhere their tests are skipped.
# The broker and the browser are programs, not packages; gcc builds a delegate that hangs, for a test. /usr/sbin is outside a user's PATH on Debian.
system:
	@missing=""; PATH="$$PATH:/usr/sbin:/usr/local/sbin"; \
	command -v mosquitto >/dev/null || missing="$$missing mosquitto"; \
	command -v mmdebstrap >/dev/null || missing="$$missing mmdebstrap"; \
	command -v gcc >/dev/null || missing="$$missing gcc libc6-dev"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing postgresql"; \
	command -v curl >/dev/null || missing="$$missing curl"; \
	command -v mcopy >/dev/null || missing="$$missing mtools"; \
	command -v fsck.vfat >/dev/null || missing="$$missing dosfstools"; \
	command -v sfdisk >/dev/null || missing="$$missing fdisk"; \
	command -v mke2fs >/dev/null || missing="$$missing e2fsprogs"; \
	command -v bmaptool >/dev/null || missing="$$missing bmap-tools"; \
	command -v zstd >/dev/null || missing="$$missing zstd"; \
	command -v xz >/dev/null || missing="$$missing xz-utils"; \
	command -v gpg >/dev/null || missing="$$missing gpg"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	test -z "$$CI" || command -v sshd >/dev/null || missing="$$missing openssh-server"; \
	test -z "$$CI" || command -v cloud-init >/dev/null || missing="$$missing cloud-init"; \
	test -d /usr/share/datasets/fashion-mnist || missing="$$missing dataset-fashion-mnist"; \
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
	rm -rf .venv .venv-tflite .venv-ray .venv-bsdiff .venv-old .venv-peers-* .arm64 .board .power .models .fuzz build dist demo-out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
