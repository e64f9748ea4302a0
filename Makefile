# make demo   Lee & Heimersheim 2024, quickly, on nano, the model that comes with tiltmeter
# make test   the tests
# make test-formats  the tests of SAE formats against the formats' own libraries, in .venv-formats
# make test-floor    some tests with the lowest versions that pyproject.toml allows, in .venv-floor
# make test-wheel    the built wheel, outside the clone: a figure of a study, and the README's example
# make bench  tiltmeter beside other tools, on a machine that does nothing else
# make real-model   checks on SmolLM2-135M, a third-party pretrained model, or on MODEL=DIRECTORY
# make docs   the documentation site, in site/
# make lint   style, types, and which room imports which
# Each sets up what it needs in .venv. PYTHON=python3.12 make demo uses another interpreter.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MODEL ?= models/smollm2

SITE_OF := sh -c '"$$0" -c "import site; print(site.getsitepackages()[0])"'

FLOOR := $(addprefix tests/,saes/test_hub.py saes/test_formats.py models/test_split_model.py runs \
	analysis/test_curves.py reports/test_page.py reports/test_mpl.py reports/test_plotly.py)

.PHONY: demo test test-floor test-formats test-wheel bench real-model docs lint clean

demo: .venv/installed
	$(BIN)/tiltmeter reproduce lee2024 --quick --out runs/demo

test: .venv/installed-dev
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# From the sdist, so that both are tried; over .venv, which has what it needs.
test-wheel: .venv/installed-dev
	rm -rf .venv-wheel && $(PYTHON) -m venv .venv-wheel
	$(SITE_OF) .venv/bin/python > $$($(SITE_OF) .venv-wheel/bin/python)/over.pth
	.venv/bin/python -m build --no-isolation --outdir .venv-wheel/dist . > /dev/null
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .venv-wheel/dist/*.whl
	cd .venv-wheel && bin/tiltmeter reproduce lee2024 --quick --figure 2 --control none --quiet --out study > /dev/null
	cd .venv-wheel && bin/python ../scripts/readme_example.py ../README.md

test-formats: .venv-formats/installed
	.venv-formats/bin/pytest tests/saes/test_libraries.py

test-floor: .venv-floor/installed
	.venv-floor/bin/tiltmeter sweep --help > /dev/null
	.venv-floor/bin/python -m pytest $(FLOOR)

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks

real-model: .venv/installed-gguf
	$(BIN)/python scripts/real_model.py $(MODEL)

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-floor .venv-formats .venv-wheel runs site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"tiltmeter needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "setting up .venv (a few minutes the first time)"
	$(PIP) --editable '.[report]'
	@touch $@

# With figures, like .venv/installed, which they stand for as well.
.venv/installed-%: .venv/bin/python pyproject.toml constraints.txt
	@echo "setting up .venv (a few minutes the first time)"
	$(PIP) --editable '.[report,$*]'
	@touch .venv/installed $@

# nnsight requires torchvision, which nothing here imports, and whose PyPI builds crash beside a torch without CUDA.
.venv-formats/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-formats
	.venv-formats/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[formats]' pytest beartype
	.venv-formats/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

# Over .venv: only what differs from it is installed, which saves the minutes that torch takes.
.venv-floor/installed: .venv/installed-dev constraints-floor.txt
	$(PYTHON) -m venv .venv-floor
	$(SITE_OF) .venv/bin/python > $$($(SITE_OF) .venv-floor/bin/python)/over.pth
	.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --constraint constraints-floor.txt --editable '.[report,parquet,plotly]'
	@touch $@
