# make demo: train, evaluate and search on real data.   make test: all that CI runs.   make docs: the site, in site/.
MAKEFLAGS += --jobs=2  # the checks run next to the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/glyphs
BUILD_DOCS := $(BIN)/zensical build --strict --clean  # to site/; a broken link or an unknown name is an error

.PHONY: demo test check pytest test-slow docs env benchmark

env: $(VENV)/current

# Made again only when the pins or the project's dependencies change.
$(VENV)/current: pins.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint pins.txt --editable '.[dev]'
	touch $@

demo: env
	$(BIN)/multimodal fit --config configs/glyphs.yaml --run $(RUN) --ckpt_path last  # continues if it was stopped
	$(BIN)/multimodal evaluate $(RUN) --split unseen_characters
	$(BIN)/multimodal embed $(RUN) --split unseen_characters --out $(RUN)/embeddings
	$(BIN)/multimodal index $(RUN)/embeddings --out $(RUN)/index
	@for query in "rightwards arrow" "white star" "face with eyes closed"; do \
		echo; echo "multimodal search $(RUN) $(RUN)/index --text \"$$query\" --target image -k 3"; \
		$(BIN)/multimodal search $(RUN) $(RUN)/index --text "$$query" --target image -k 3; \
	done

test: check pytest

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/docstrings.py --check
	$(BUILD_DOCS)

pytest: env
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

docs: env
	$(BUILD_DOCS)

test-slow: env
	$(BIN)/python -m pytest -m slow

benchmark: env
	@for question in benchmarks/*.py; do echo; echo $$question; $(BIN)/python $$question || exit 1; done
