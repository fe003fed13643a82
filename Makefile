# Every target makes and reuses a local .venv; nothing is installed outside it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
REPO   ?= model_repo
ARGS   ?=

# constraints.txt pins every package, so two machines install the same.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help serve test test-full lint check bench lock clean

help:
	@echo "make serve      install what serving needs and serve $(REPO) (ARGS='--http-port=9000' adds flags)"
	@echo "make test       install everything and run every check and test"
	@echo "make test-full  as test; also what takes long"
	@echo "make lint       ruff, mypy, import contracts only"
	@echo "make bench      measure served against raw throughput (tests/bench)"
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

serve: $(VENV)/.serve
	$(BIN)/tensorquay serve $(REPO) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The conformance suite a second time, over uvicorn and grpcio: what they answer is what ours must.
REFERENCE := SERVER_UNDER_TEST_FLAGS='--http-transport=asgi --grpc-transport=grpcio'

test: lint
	$(BIN)/pytest $(ARGS)
	$(REFERENCE) $(BIN)/pytest tests/conformance $(ARGS)

test-full: lint
	$(BIN)/pytest -m '' $(ARGS)
	$(REFERENCE) $(BIN)/pytest -m '' tests/conformance tests/fault $(ARGS)

check: $(VENV)/.serve
	$(BIN)/tensorquay check $(REPO)

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench $(ARGS)

lock:
	uv pip compile --quiet --universal --python-version 3.11 --extra cpu --extra dev --no-header --no-annotate \
		--upgrade pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
