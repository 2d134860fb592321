# make demo   the main job on real images: trains two losses on the same footing, says which to use, writes demo/report.html
# make test   the tests; of mutants, interpreted GPU kernels and other long grids some cases, the same everywhere
# make test-all  all cases, an hour or more
# make check  style, types and the fast tests, in a minute
# make docs   the site, in site/index.html; what is computed is kept in build/docs while its sources stay the same
# make bench  the benchmark: every loss against the memory floor and the rivals
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all check docs bench

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[lab,dev]"
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/lossmith compare bacteria --loss ce --loss dice --seeds 3 --out demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal --thorough

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" -k "not test_catalogue or value_is_the_reference or repr" \
		tests/test_algebra.py tests/test_catalogue.py tests/test_docs.py tests/test_errors.py tests/test_identities.py

docs: $(VENV)/.docs
	$(BIN)/python docs/site/build.py

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py --out benchmarks/results
