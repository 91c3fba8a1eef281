"""Calibrations hold on queries that they were not made with, are saved with the model, and choose what a search returns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from multimodal.cli.main import main
from multimodal.core.calibration import COMPETITORS
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.data.run_data import load_run_data
from multimodal.evaluation.calibrate import calibrate, calibrate_embeddings, calibration_grid
from multimodal.evaluation.calibration_measures import CalibrationMeasures
from multimodal.evaluation.scored_hits import scored_hits
from multimodal.search.embed import embed_table
from multimodal.search.index import Index
from multimodal.search.query import search_index


def made(n: int, seed: int, noise: float = 0.1, dim: int = 24) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.nn.functional.normalize(torch.randn(n, dim, generator=generator), dim=1)
    vectors = {
        m: torch.nn.functional.normalize(middle + noise * torch.randn(n, dim, generator=generator), dim=1)
        for m in ("text", "image")
    }
    return Embeddings(vectors, dict.fromkeys(vectors, torch.arange(n)), groups=torch.arange(n))


# -- hits


def test_hits_equal_a_search_by_hand() -> None:
    e = made(60, 0)
    pool = made(90, 0)
    pool = Embeddings(pool.vectors, pool.rows, groups=torch.arange(90) // 2)  # two vectors of each group
    queries = Embeddings(e.vectors, e.rows, groups=torch.arange(60) // 2)
    found = scored_hits(queries, pool, "text", "image")
    assert found.pool == 45
    for n in range(60):
        scores = (pool.vectors["image"] @ e.vectors["text"][n]).double().numpy()
        if not found.has_answer[n]:
            scores[pool.groups.numpy() == n // 2] = -np.inf
        best: dict[int, float] = {}
        for candidate in np.argsort(-scores, kind="stable").tolist():
            best.setdefault(candidate // 2, float(scores[candidate]))
        in_order = [(g, s) for g, s in best.items() if np.isfinite(s)][:COMPETITORS]
        assert found.scores[n][: len(in_order)] == pytest.approx([s for _, s in in_order], abs=1e-6)
        assert found.is_right[n][: len(in_order)].tolist() == [g == n // 2 for g, _ in in_order]
    assert found.has_answer.reshape(30, 2).sum() == 30  # half of the groups, each with its queries
    assert found.has_answer.reshape(30, 2).all(axis=1).sum() == 15


# -- fitting


def test_a_calibration_holds_on_other_queries() -> None:
    calibration = calibrate_embeddings(made(3000, 0))
    measured = CalibrationMeasures.of(made(3000, 1), calibration=calibration)
    assert measured.source == "model"
    for pair in ("text->image", "image->text"):
        reliability = measured.pairs[pair]
        assert reliability.error < 0.03
        assert calibration.pairs[pair].error < 0.03
        for cut in reliability.cut_offs:
            if not np.isnan(cut.reached):
                assert cut.reached > cut.wanted - 0.03
        assert reliability.cut_offs[1].found > 0.5
        assert reliability.cut_offs[1].silent > 0.7
        assert sum(n for _, _, n in reliability.curve) == 3000


def test_a_report_without_a_calibration_fits_one_to_the_other_queries() -> None:
    measured = CalibrationMeasures.of(made(1000, 0))
    assert measured.source == "cross-fitting"
    assert measured.pairs["text->image"].error < 0.06
    assert [grid.columns[1] for grid in measured.grids()] == ["error %", "wanted"]
    with pytest.raises(UsageError, match="has 20 queries"):
        CalibrationMeasures.of(made(10, 0))


@pytest.mark.parametrize("kind", ["equal", "nan", "one group"])
def test_degenerate_vectors_give_a_calibration_of_chance_or_none(kind: str) -> None:
    e = made(50, 0)
    if kind == "equal":
        e = Embeddings({m: torch.ones(50, 4) / 2 for m in e.vectors}, e.rows, e.groups)
    if kind == "nan":
        e = Embeddings({m: torch.full((50, 4), torch.nan) for m in e.vectors}, e.rows, e.groups)
    if kind == "one group":
        e = Embeddings(e.vectors, e.rows, torch.zeros(50, dtype=torch.int64))
    found = calibrate_embeddings(e)
    for pair in found.pairs.values():
        assert np.isfinite(pair.probability(np.full((1, COMPETITORS), 0.5))).all()
    assert all(pair.cut_off(0.9) == float("inf") for pair in found.pairs.values())
    if kind == "one group":
        assert not found.pairs


# -- the command, and searches


WORDS = [f"word{n}" for n in range(80)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose two modalities agree: both are bags of the same words, with equal weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    draws = np.random.default_rng(0)
    names = [" ".join(draws.choice(WORDS, 4, replace=False)) for _ in range(400)]
    lines = [
        f"{n},{name},{name if n % 3 else name.split()[0]},{'train' if n < 40 else 'validation'}"
        for n, name in enumerate(names)
    ]
    (folder / "shop.csv").write_text("\n".join(["id,name,words,part", *lines]))
    data = {
        "table": str(folder / "shop.csv"),
        "columns": {"title": "name", "text": "words"},
        "key": "id",
        "split": "part",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 7, "data": data}))
    embedder = Embedder({m: create("text", "bag") for m in ("title", "text")}, dim=32)
    embedder.fit_processors(dict.fromkeys(("title", "text"), names))
    embedder.encoder("text").load_state_dict(embedder.encoder("title").state_dict())
    embedder.heads["text"].load_state_dict(embedder.heads["title"].state_dict())
    embedder.save_pretrained(folder / "model")
    return folder


def test_a_search_of_a_precision_finds_nothing_where_nothing_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, index = tmp_path / "run", tmp_path / "index"
    shutil.copytree(run, folder)
    embed_table(folder, out=tmp_path / "embeddings", split="validation")
    Index.build(tmp_path / "embeddings", index)
    search = ["search", str(folder), str(index), "--target", "title"]
    assert main([*search, "--text", "word1", "--min_precision", "0.8"]) == 1
    assert "The model's scores are not calibrated" in capsys.readouterr().err
    before = Embedder.from_pretrained(folder).fingerprint
    assert main(["calibrate", str(folder)]) == 0
    assert "query -> found" in capsys.readouterr().out
    assert Embedder.from_pretrained(folder).fingerprint == before  # so that indexes still belong to it

    known = Index.open(index, folder)
    name = next(h for h in known.items["metadata"].to_pylist())
    name = json.loads(name)["name"]
    found = known.search(text=name, target="title", min_precision=0.8)
    assert found[0].metadata["name"] == name
    assert found[0].probability is not None
    assert found[0].probability > 0.5
    assert known.search(text="nothing", target="title", min_precision=0.8) == []
    assert known.search(text="nothing", target="title")[0].probability is not None  # shown, but not chosen by
    anywhere = known.search(text=name, min_precision=0.8)
    assert [hit.modality for hit in anywhere] == ["title"] * len(anywhere)  # its own modality is not calibrated
    assert anywhere[0].key == found[0].key
    by_vector = known.search(known.embedder.encode(text=[name]), min_precision=0.8, target="title", modality="text")  # pyright: ignore
    assert by_vector[0] == found
    assert search_index(folder, index, target="title", min_precision=0.8, text=name) == found
    with pytest.raises(UsageError, match="needs the modality of the vectors"):
        known.search(np.ones((1, 32), np.float32), min_precision=0.8)
    with pytest.raises(UsageError, match=r"between 0 and 1, like 0\.9; got 90"):
        known.search(text=name, min_precision=90)

    assert main([*search, "--text", "nothing", "--min_precision", "0.8"]) == 0
    assert capsys.readouterr().out == "Nothing is found with a precision of 0.8.\n"
    assert main([*search, "--text", name, "--min_precision", "0.8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["probability"] == found[0].probability


def test_what_cannot_be_calibrated_is_said(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    with pytest.raises(UsageError, match="no split 'dev'"):
        calibrate(folder, split="dev")
    few = tmp_path / "few.csv"
    few.write_text("id,name,words,part\n1,red cup,red,validation\n2,old cup,old,validation\n")
    with pytest.raises(MultimodalError, match=r"needs 20 queries .* there are 2\. Name a split with more rows"):
        calibrate(folder, str(few), split="validation")
    assert Embedder.from_pretrained(folder).calibration is None
    found = calibrate(folder, split="validation", pool="all")
    assert found.pairs["text->title"].pool == 400
    assert found.pairs["text->title"].queries == 360
    assert len(calibration_grid(found).rows) == 2


def test_a_model_with_the_gap_closed_has_a_folder_of_its_own(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a folder for it"):
        calibrate(run, close_gap=True)
    assert main(["calibrate", str(run), "--close_gap", "--out", str(tmp_path / "centred")]) == 0
    before, after = Embedder.from_pretrained(run), Embedder.from_pretrained(tmp_path / "centred")
    assert after.calibration is not None
    assert before.calibration is None
    samples = load_run_data(run).samples
    names = [sample.values["title"] for row in samples.rows("train") if (sample := samples[int(row)])]
    mean = before.encode(title=names).mean(axis=0)
    expected = before.encode(title=names) - mean
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(after.encode(title=names) - expected).max() < 1e-5
