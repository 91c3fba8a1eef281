"""A Ray cluster embeds the same rows as this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedded_shop import TITLES, assert_like, new_embedder, state

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.samples import Samples
from multimodal.search.embed import embed_samples
from multimodal.search.embed_ray import _cause

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of Ray's own settings
pytest.importorskip("ray.data", reason="the library ray is not installed")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return new_embedder()


def embed(embedder: Embedder, folder: Path, name: str, titles: list[str], **settings: Any) -> Any:
    rows = "".join(f"{row},{title},{title[::-1]}\n" for row, title in enumerate(titles))
    (folder / "shop.csv").write_text(f"sku,title,other\n{rows}")
    samples = Samples.of(str(folder / "shop.csv"), {"text": ["title", "other"]}, key="sku")
    return embed_samples(embedder, samples, np.arange(len(titles)), folder / name, part_rows=5, **settings)


def test_a_local_cluster_writes_the_same_rows(embedder: Embedder, tmp_path: Path) -> None:
    titles = [title for title in TITLES if title] * 3 + [" ", "jug"]
    expected = embed(embedder, tmp_path, "alone", titles, max_rejects=0.1)
    advanced: list[int] = []
    made = embed(embedder, tmp_path, "out", titles, max_rejects=0.1, ray="local", advance=advanced.append)
    assert (made.rows, made.with_alternatives, len(made.rejects)) == (expected.rows, expected.with_alternatives, 1)
    assert (made.rows, sum(advanced)) == (len(titles) - 1, len(titles))
    assert_like(state(tmp_path / "out"), state(tmp_path / "alone"))
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "alone"))
    assert (tmp_path / "out" / "rejects.jsonl").read_text() == (tmp_path / "alone" / "rejects.jsonl").read_text()
    with pytest.raises(MultimodalError, match="max_rejects 0 allows 0"):
        embed(embedder, tmp_path, "none", titles, max_rejects=0, ray="local")
    titles[0] = "tea"
    made = embed(embedder, tmp_path, "out", titles, max_rejects=0.1, ray="local", processes=1)
    assert made.unchanged == made.with_alternatives - 2


def test_a_cluster_that_does_not_exist_is_named(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: Any) -> None:
        raise ConnectionError(f"nothing\nat {settings['address']}")

    monkeypatch.setattr("ray.init", refuse)  # which would try for minutes
    with pytest.raises(MultimodalError, match=r"There is no Ray cluster at ray://head \(nothing at ray://head\)"):
        embed(embedder, tmp_path, "out", ["cup"], ray="ray://head")


def test_the_error_of_an_actor_is_found_in_that_of_ray() -> None:
    error, outer, middle = (
        UsageError("the tokenizer has not been fitted"),
        RuntimeError("of Ray"),
        RuntimeError("user code"),
    )
    middle.cause = error  # type: ignore[attr-defined]
    outer.__cause__ = middle
    assert _cause(outer) is error
    assert str(_cause(RuntimeError("lost"))) == "Ray failed: lost"
