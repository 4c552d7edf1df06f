# Everything runs in .venv, with the versions of constraints.txt. PYTHON may name another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
FILES ?=
INPUTS ?= 100000
KILLS ?= 200
MINUTES ?= 60
TORCH ?= 2.5.0
TRITON ?= 3.7.1
DEVICE ?= cuda

.PHONY: install demo test test-slow test-torch test-kernels gpu-check fuzz faults soak lint types format docs notebooks package images bench clean

# The stamp is newer than what it was made from, so the environment follows changes of either file.
$(VENV)/stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("progan needs python 3.11 or newer; name one: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/stamp

demo: install
	$(BIN)/progan train builtin:glyphs --recipe quickstart --data.labels folders --out $(RUN)
	$(BIN)/progan generate $(RUN) --n 100 --out $(RUN)/final.png
	$(BIN)/progan interpolate $(RUN) --grid 3 6 --seconds 6 --fps 15 --out $(RUN)/walk.gif
	$(BIN)/progan movie $(RUN) --out $(RUN)/growth.mp4
	$(BIN)/progan report $(RUN)
	$(BIN)/progan explore $(RUN) --out $(RUN)/explore --title Glyphs
	$(BIN)/progan info $(RUN)
	@echo
	@echo 'Open $(RUN)/growth.mp4, $(RUN)/report.html, $(RUN)/final.png and $(RUN)/walk.gif; for sliders: $(BIN)/progan explore $(RUN)'

# Two processes, for tests use one core; a file stays in one of them, with what its tests share.
test: install
	$(BIN)/pytest -n 2 --dist loadfile $(FILES)

test-slow: install
	$(BIN)/pytest -m slow $(FILES)

# With another version of PyTorch, in .venv/torch-TORCH; several gigabytes where it comes with CUDA.
test-torch: OLD = $(VENV)/torch-$(TORCH)
test-torch: install
	test -x $(OLD)/bin/python || $(PYTHON) -m venv $(OLD)
	sed -E '/^(torch|sympy|mpmath|networkx|fsspec|setuptools)==/d' constraints.txt > $(OLD)/constraints.txt
	$(OLD)/bin/pip install --quiet --disable-pip-version-check -c $(OLD)/constraints.txt torch==$(TORCH) '.[dev]'
	PYTHONPATH=$(CURDIR)/src $(OLD)/bin/pytest -n 2 --dist loadfile $(FILES)

# The fused kernels, carried out on the CPU by Triton's interpreter; Triton lies in .venv/triton-TRITON.
test-kernels: OWN = $(VENV)/triton-$(TRITON)
test-kernels: install
	test -d $(OWN) || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(OWN) triton==$(TRITON)
	PYTHONPATH=$(CURDIR)/$(OWN) TRITON_INTERPRET=1 $(BIN)/pytest tests/models/test_fused_hidden.py

# Under eight minutes on one card: its tests, speed, memory, a killed run, generation; into gpu-check.json and .md.
gpu-check: install
	$(BIN)/python benchmarks/gpu_check.py --device $(DEVICE)

# INPUTS mutated files for each reader of files from strangers; says how to repeat what it finds.
fuzz: install
	PYTHONPATH=tests:tests/helpers OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --inputs $(INPUTS)

# KILLS processes are killed and resumed, disks fail, files are damaged, clocks jump, the power fails.
faults: install
	PYTHONPATH=tests:tests/helpers OMP_NUM_THREADS=1 $(BIN)/python tests/helpers/faults.py --kills $(KILLS)
	PYTHONPATH=tests:tests/helpers OMP_NUM_THREADS=1 $(BIN)/python tests/helpers/system_faults.py

soak: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages that are made from the code, then the site, in site/; a dead link, a page without a place or an unknown name ends it.
docs: install
	$(BIN)/python -m progan.config.docs docs
	$(BIN)/python benchmarks/draw_figures.py docs/images
	PATH=$(CURDIR)/$(BIN):$$PATH NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: install
	$(BIN)/python notebooks/execute.py

# Wheel and source, in dist/.
package: install
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -c 'from setuptools import build_meta; print(build_meta.build_sdist("dist"))'

# The pictures of README.md, from the run of `make demo`; needs Chromium (Debian: apt install chromium) and
# tells how fast the page is.
images: install
	$(BIN)/progan movie $(RUN) --from generators --grid 1x10 --seconds 6 --fps 8 --out docs/images/growth.webp
	cp "$$(ls $(RUN)/samples/0*.png | tail -1)" docs/images/samples.png
	$(BIN)/python benchmarks/page.py $(RUN) --title Glyphs --images docs/images
	$(BIN)/python benchmarks/wishes.py $(RUN) --images docs/images/wishes

bench: install
	$(BIN)/progan bench --config benchmarks/light-32.yaml --levels 3 --variants plain float32 bfloat16
	$(BIN)/progan bench --config benchmarks/light-64.yaml --levels 4 --variants plain float32 bfloat16
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/start.py

clean:
	rm -rf $(VENV) build dist site src/*.egg-info
