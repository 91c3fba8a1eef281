# make demo: train, evaluate and search on real data.   make page: search it in the browser.   make test: all that CI runs.   make docs: the site, in site/.
MAKEFLAGS += --jobs=2  # the checks run next to the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/glyphs
BUILD_DOCS := $(BIN)/zensical build --strict --clean  # to site/; a broken link or an unknown name is an error

.PHONY: demo page test check pytest test-slow docs env benchmark

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
	@echo; echo "make page  opens a page to search all characters: by typing, by drawing, by files"

page: env $(RUN)/page/index/index.json
	$(BIN)/multimodal serve $(RUN) $(RUN)/page/index --open

# Of all 54,097 drawings, while the demo's index has one drawing of each character that training never showed.
$(RUN)/page/index/index.json: $(RUN)/model/embedder.json | env
	$(BIN)/multimodal embed $(RUN) --out $(RUN)/page/embeddings
	$(BIN)/multimodal index $(RUN)/page/embeddings --out $(RUN)/page/index

$(RUN)/model/embedder.json:
	@echo "make demo trains the model first"; exit 1

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
