# make demo: install, then pre-train, distil and evaluate on the embedded recordings, with a table and pictures.
# make test: install, then every check, the docs and every test.
# make test-slow: the checks that take minutes each: a wheel, a head node, 100,000 damaged inputs.
# make docs: the site, in site/.
# make test-browser: the tests that need a Chromium, and ONNX Runtime for browsers from npm.
# make test-kits: the adapters, checked by HEAR, X-ARES and MTEB themselves in a separate environment (8 GB).
# make test-gpu: the tests that run on a CPU and on a GPU; without a GPU they fail.
# make bench-gpu: all GPU measurements, in 8 minutes; then the GPU section of docs/performance.md.
# make chaos: install, then disturb every job repeatedly (docs/reliability.md). It takes long.
# make audit: known vulnerabilities (from PyPI, needs the internet) and licences of the installed packages.
# make bench: install, then every benchmark and docs/benchmarks.md. The machine should have nothing else to do.

PYTHON ?= python3
# faiss for this machine: search (on CPUs), or gpu (Linux with an NVIDIA driver for CUDA 12.6 or newer).
FAISS ?= search
# Runs, shards and tracking of the targets below.
export UNFUSED_RAY_HOME ?= $(CURDIR)/output
# Folder of the free corpus, and of the Debian packages it is made from (outside git).
CORPUS ?= ../corpus
CORPUS_PACKAGES ?= $(CORPUS).debs
# Benchmarks in the order of running, and the folder of their results.
BENCHMARKS ?= stream step end_to_end kmeans scale start ingest search
BENCH ?= output/bench
# Files that the browser tests load, and the environment of the kits.
BROWSER ?= output/browser
KITS ?= output/kits

BIN := .venv/bin
SHARDS := $(UNFUSED_RAY_HOME)/shards
RUNS := $(UNFUSED_RAY_HOME)/runs

.PHONY: demo test test-slow docs audit test-browser test-kits test-gpu bench-gpu chaos bench check venv peers corpus corpus-shards clean

demo: venv
	$(BIN)/unfused-ray prepare --source recordings/drums.tar --output $(SHARDS)/drums
	$(BIN)/unfused-ray prepare --source recordings/languages.tar --output $(SHARDS)/languages
	$(BIN)/unfused-ray pretrain demo --data $(SHARDS)/drums $(SHARDS)/languages \
		--watch.data $(SHARDS)/drums $(SHARDS)/languages --watch.every 7 --runtime.num-workers 2
	$(BIN)/unfused-ray distill demo-drums --data $(SHARDS)/drums --teacher $(RUNS)/demo \
		--watch.data $(SHARDS)/drums --watch.every 10
	$(BIN)/unfused-ray distill demo-languages --data $(SHARDS)/languages --teacher $(RUNS)/demo \
		--watch.data $(SHARDS)/languages --watch.every 10
	$(BIN)/unfused-ray evaluate --name demo --tasks $(SHARDS)/drums $(SHARDS)/languages \
		--models DECAR-v2=$(RUNS)/demo 'UnFuSeD student=$(RUNS)/demo-{task}'

# Three processes for two cores, each with its own Ray: most tests wait for processes to start, and compute on one
# thread. Files run in the order of the folders: whole jobs begin first, so no process waits long for the last of them.
test: venv check docs
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-slow: venv
	$(BIN)/python -m pytest -m slow

# Strict: a package without access to its advisories fails too.
audit: venv
	$(BIN)/python -m pip install --quiet --editable '.[audit]'
	$(BIN)/pip-licenses
	$(BIN)/pip-audit --strict --skip-editable

# Uses a Chromium on PATH, or else playwright's own, which needs the internet.
test-browser: venv
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name && exit; done; $(BIN)/playwright install --with-deps chromium
	npm install --silent --no-audit --no-fund --prefix $(BROWSER) onnxruntime-web@1.30
	$(BIN)/python -m pytest -m browser

# The kits' own dependencies would pull in other versions of torch's packages. The HEAR validator needs TensorFlow.
test-kits: venv
	$(PYTHON) -m venv $(KITS)
	$(KITS)/bin/pip install --quiet --constraint deploy/constraints.txt . tensorflow loguru mteb
	$(KITS)/bin/pip install --quiet --no-deps hearvalidator xares
	KITS=$(abspath $(KITS))/bin $(BIN)/python -m pytest -m kits

test-gpu bench-gpu: FAISS = gpu

test-gpu: venv
	UNFUSED_RAY_REQUIRE_GPU=1 $(BIN)/python -m pytest -m gpu tests/gpu

bench-gpu: venv
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu.page

chaos: venv
	$(BIN)/python -m benchmarks.chaos.run --output $(BENCH)

bench: venv
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.speed.$$name --output $(BENCH); done
	$(BIN)/python -m benchmarks.speed.page --results $(BENCH)

# Strict: a broken link, or a page missing from the navigation, fails.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

venv: .venv/installed

.venv/installed: pyproject.toml deploy/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, make PYTHON=… names another" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint deploy/constraints.txt --editable '.[train,$(FAISS),export,dev,peers]'
	$(MAKE) peers
	touch $@

# Published encoders, as rows of a table. Only the weights in these wheels are read. Their dependencies are left out,
# because they need a C compiler and cannot be installed with NumPy 2.
peers:
	$(BIN)/python -m pip install --quiet --no-deps openwakeword==0.5.1 Resemblyzer==0.1.4 basic-pitch==0.4.0

# Labelled tasks and clips for pre-training from Debian packages (docs/corpus.md); then shards of each.
corpus: venv
	$(BIN)/python -m corpus --output $(CORPUS) --packages $(CORPUS_PACKAGES)
	$(MAKE) corpus-shards

corpus-shards: venv
	$(BIN)/unfused-ray prepare --source $(CORPUS)/pretrain.csv --output $(SHARDS)/pretrain
	$(BIN)/unfused-ray prepare --source $(CORPUS)/pretrain.csv --output $(SHARDS)/pretrain-quarter --fraction 0.25
	set -e; for table in $(CORPUS)/*/test.csv; do \
		task=$$(basename $$(dirname $$table)); \
		$(BIN)/unfused-ray prepare --source $(CORPUS)/$$task --output $(SHARDS)/$$task; \
	done
	$(BIN)/unfused-ray pretrain corpus --data $(SHARDS)/pretrain --dry-run

clean:
	rm -rf .venv build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
