# The demo of the README in a container:
#   docker build --tag multimodal . && docker run --rm --volume multimodal-runs:/home/demo/multimodal/runs multimodal
# Without the libraries of GPUs, gigabytes smaller:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu --tag multimodal .
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 demo

USER 1000
WORKDIR /home/demo/multimodal
ARG PIP_EXTRA_INDEX_URL

# The dependencies alone, so that a change of the code does not install them again.
COPY --chown=1000 pyproject.toml pins.txt README.md LICENSE ./
RUN mkdir -p multimodal encoders/multimodal_encoders runs \
    && echo '__version__ = "0"' > multimodal/__init__.py \
    && python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --constraint pins.txt --editable . \
    && touch .venv/current

COPY --chown=1000 . .
RUN .venv/bin/pip install --no-cache-dir --no-deps --editable . && touch .venv/current

CMD ["make", "demo"]
