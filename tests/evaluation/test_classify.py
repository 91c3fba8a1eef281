"""Training heads and predicting a table with them, against predictions made one value at a time."""

from __future__ import annotations

import csv
import io
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.optim import AdamW

import multimodal as mm
from multimodal.cli.main import main
from multimodal.evaluation import classify
from multimodal.objectives import Classification, MultiLabel, Regression, Sum
from multimodal.training import WarmupCosine

WORDS = {"cup": ["mug", "coffee"], "jug": ["spout", "water"], "pot": ["lid", "stew"]}
PRICES = {"cup": 100.0, "jug": 200.0, "pot": 400.0}


def bag() -> Any:
    return mm.create("text", "bag", vocab_size=200, width=16)


def shop() -> list[dict[str, Any]]:
    """36 rows to train on, 12 to test; "vase" is in the test split alone."""
    rows = []
    for n in range(48):
        kind = list(WORDS)[n % 3]
        words = WORDS[kind]
        rows.append({
            "id": f"r{n}",
            "title": words[n % 2],
            "note": " ".join(words) if n % 4 else None,
            "kind": "vase" if n == 47 else kind,
            "price": PRICES[kind],
            "tags": ["held"] if kind == "cup" else ["pours", "held"] if kind == "jug" else [],
            "part": "train" if n < 36 else "test",
        })  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and a run of it."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shop()))
    heads = {
        "kind": Classification("kind"),
        "price": Regression("price", standardise=True),
        "tags": MultiLabel("tags", modalities=["text"]),
    }
    mm.seed_everything(0)
    model = mm.EmbedderModule(
        {"text": bag(), "words": bag()},
        dim=8,
        objective=Sum(heads),
        optimizer=partial(AdamW, lr=0.03),
    )
    targets = {name: name for name in heads}
    data = mm.DataModule(
        str(folder / "shop.jsonl"),
        {"text": "title", "words": "note"},
        key="id",
        split="part",
        targets=targets,
        train="train",
        validation="test",
        batch_size=12,
    )
    mm.fit(model, data, folder / "run", max_steps=60, limit_val_batches=0, enable_progress_bar=False, accelerator="cpu")
    return folder


def read_csv(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def expected(embedder: mm.Embedder, row: dict[str, Any], target: str, modalities: tuple[str, ...]) -> np.ndarray:
    """The mean prediction from a row's values, one at a time."""
    values = {"text": row["title"], "words": row["note"]}
    given = [(m, values[m]) for m in modalities if values[m] is not None]
    return np.mean([embedder.predict(target=target, **{m: value}).values for m, value in given], axis=0)


def test_what_was_trained_is_used(folder: Path) -> None:
    embedder = mm.Embedder.from_pretrained(folder / "run")
    assert {name: p.names for name, p in embedder.predictors.items()} == {
        "kind": ("cup", "jug", "pot"),
        "price": ("0",),
        "tags": ("held", "pours"),
    }
    assert embedder.predict(target="kind", text=["mug", "spout", "stew"]).labels == ["cup", "jug", "pot"]
    assert embedder.predict(target="tags", text=["water", "lid"]).labels == [["held", "pours"], []]
    np.testing.assert_allclose(
        embedder.predict(target="price", text=["mug", "spout", "stew"]).values[:, 0], list(PRICES.values()), rtol=0.2
    )


def test_a_table_is_classified_by_the_values_that_each_row_has(folder: Path, tmp_path: Path) -> None:
    outcome = mm.classify_table(folder / "run", out=tmp_path / "kind.csv", target="kind")
    embedder = mm.Embedder.from_pretrained(folder / "run")
    test = [row for row in shop() if row["part"] == "test"]
    found = read_csv(tmp_path / "kind.csv")
    assert list(found) == [row["id"] for row in test]
    right = 0
    for row in test:
        probabilities = expected(embedder, row, "kind", ("text", "words"))
        columns = [float(found[row["id"]][f"probability_{name}"]) for name in WORDS]
        np.testing.assert_allclose(columns, probabilities, atol=1e-5)
        assert found[row["id"]]["label"] == list(WORDS)[int(probabilities.argmax())]
        right += found[row["id"]]["label"] == row["kind"]
    assert (outcome.rows, outcome.labelled, outcome.measure) == (12, 12, "accuracy")
    assert outcome.score == pytest.approx(right / 12)
    assert right == 11  # all but the vase
    assert outcome.unknown == {"vase": 1}
    assert str(outcome).startswith("12 rows of the split test, accuracy 0.917 of the 12")
    assert "not seen in training: vase (1)" in str(outcome)


def test_numbers_are_in_the_targets_units(folder: Path, tmp_path: Path) -> None:
    outcome = mm.classify_table(folder / "run", out=tmp_path / "price.parquet", target="price", split="all")
    table = pq.read_table(tmp_path / "price.parquet")
    assert table.column_names == ["key", "value"]
    embedder = mm.Embedder.from_pretrained(folder / "run")
    values = [expected(embedder, row, "price", ("text", "words"))[0] for row in shop()]
    np.testing.assert_allclose(table["value"].to_numpy(), values, rtol=1e-4)
    errors = [abs(value - row["price"]) for value, row in zip(values, shop(), strict=True)]
    assert outcome.score == pytest.approx(np.mean(errors), rel=1e-3)


def test_labels_are_lists_and_only_the_trained_modality_predicts(folder: Path, tmp_path: Path) -> None:
    outcome = mm.classify_table(folder / "run", out=tmp_path / "tags.parquet", target="tags", split="all")
    found = pq.read_table(tmp_path / "tags.parquet").to_pylist()
    embedder = mm.Embedder.from_pretrained(folder / "run")
    both = predicted = true = 0
    for row, line in zip(shop(), found, strict=True):
        probabilities = expected(embedder, row, "tags", ("text",))
        assert line["probability_pours"] == pytest.approx(probabilities[1], abs=1e-5)
        assert line["label"] == [n for n, p in zip(("held", "pours"), probabilities, strict=True) if p >= 0.5]
        both += len({*line["label"]} & {*row["tags"]})
        predicted, true = predicted + len(line["label"]), true + len(row["tags"])
    assert outcome.score == pytest.approx(2 * both / (predicted + true))
    mm.classify_table(folder / "run", out=tmp_path / "tags.csv", target="tags", split="all")
    assert json.loads(read_csv(tmp_path / "tags.csv")["r1"]["label"]) == found[1]["label"]


def test_another_table_needs_neither_labels_nor_every_value(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "mug"}, {"id": "b", "title": None}, {"id": "c", "title": "lid"}]
    out = io.BytesIO()
    embedder = mm.Embedder.from_pretrained(folder / "run")
    outcome = mm.classify_table(embedder, rows, columns={"text": "title"}, key="id", out=out, target="kind")
    lines = list(csv.DictReader(io.StringIO(out.getvalue().decode())))
    assert [(line["key"], line["label"]) for line in lines] == [("a", "cup"), ("b", ""), ("c", "pot")]
    assert lines[1]["probability_cup"] == ""
    assert (outcome.rows, outcome.rows_without, outcome.score) == (2, 1, None)
    labelled = [row | {"is": kind} for row, kind in zip(rows, ["cup", "cup", "jug"], strict=True)]
    settings: dict[str, Any] = {"columns": {"text": "title"}, "target": "kind", "out": io.BytesIO()}
    assert mm.classify_table(embedder, labelled, label="is", **settings).score == 0.5


def test_class_numbers_are_names_and_fractions_of_them_are_the_same(tmp_path: Path) -> None:
    from multimodal.core.predictors import Predictor

    embedder = mm.Embedder({"text": bag()}, dim=4)
    embedder.fit_processors({"text": ["a b"]})
    embedder.predictors = {"n": Predictor("n", "classes", ("0", "1"), np.zeros((2, 4)), np.array([0.0, 1.0]))}
    rows = [{"t": "a", "n": 1.0}, {"t": "b", "n": 0}, {"t": "a", "n": 2}]
    outcome = mm.classify_table(embedder, rows, columns={"text": "t"}, out=io.BytesIO(), label="n")
    assert (outcome.score, outcome.unknown) == (pytest.approx(1 / 3), {"2": 1})


def test_a_file_keeps_its_old_contents_when_the_work_fails(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "kind.csv"
    out.write_text("old")
    broken: Any = [{"title": "mug"}, {"title": 5.5}, {"title": ["not", "a", "text"]}]
    with pytest.raises(mm.MultimodalError, match="cannot be read"):
        mm.classify_table(folder / "run", broken, columns={"text": "title"}, out=out, target="kind", max_rejects=0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["kind.csv"]
    assert out.read_text() == "old"


def test_a_stream_gets_its_header_once_with_the_first_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: Any = [{"title": "mug"}, {"title": 5.5}, {"title": ["not", "a", "text"]}]
    stream = io.BytesIO()
    with pytest.raises(mm.MultimodalError, match="cannot be read"):
        mm.classify_table(folder / "run", broken, columns={"text": "title"}, out=stream, target="kind", max_rejects=0.0)
    assert stream.getvalue() == b""
    mm.classify_table(folder / "run", out=tmp_path / "kind.csv", target="kind")
    monkeypatch.setattr(classify, "ROWS_WRITTEN", 5)  # in several parts
    mm.classify_table(folder / "run", out=stream, target="kind")
    assert stream.getvalue() == (tmp_path / "kind.csv").read_bytes()


def test_the_command_prints_what_python_returns(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(folder / "run"), tmp_path / "kind.csv"
    assert main(["classify", run, "--target", "kind", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = mm.classify_table(run, out=tmp_path / "python.csv", target="kind")
    assert printed == expected.to_json() | {"out": str(out)}
    assert out.read_bytes() == (tmp_path / "python.csv").read_bytes()
    capsys.readouterr()
    assert main(["classify", run, "--target", "kind", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{expected}: {out}\n"
    table = str(folder / "shop.jsonl")
    arguments = ["--columns.text", "title", "--target", "kind", "--label", "price", "--split", "all"]
    assert main(["classify", run, table, *arguments, "--out", str(out)]) == 0
    assert "accuracy 0.000 of the 48" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "knid"], "no target 'knid'. Did you mean 'kind'"),
        ([], "predicts kind, price, tags: say which one"),
        (["--target", "kind", "--out", "kind.txt"], "ends in neither .csv nor .parquet"),
        (["--target", "kind", "--json"], "name a file for them with --out"),
        (["--target", "kind", "--split", "tset"], "no split 'tset'"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(folder / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_resumed_run_keeps_its_heads_and_refuses_other_classes(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def fit(rows: list[dict[str, Any]], steps: int) -> mm.Embedder:
        mm.seed_everything(0)
        encoders = {"text": bag(), "words": bag()}
        objective = Sum({"kind": Classification("kind"), "price": Regression("price", standardise=True)})
        constant = WarmupCosine(warmup=0.0, final=1.0)  # whatever the number of steps
        model = mm.EmbedderModule(
            encoders, dim=8, objective=objective, optimizer=partial(AdamW, lr=0.03), schedule=constant
        )
        columns: dict[str, str | list[str]] = {"text": "title", "words": "note"}
        targets = {"kind": "kind", "price": "price"}
        data = mm.DataModule(rows, columns, split="part", targets=targets, validation="test", batch_size=12)
        trainer: dict[str, Any] = {"val_check_interval": 2, "enable_progress_bar": False, "accelerator": "cpu"}
        return mm.fit(model, data, run, max_steps=steps, resume=run.exists(), **trainer)

    fit(shop(), 2)
    shutil.copytree(run, tmp_path / "stopped")
    fit(shop(), 4)
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    shutil.rmtree(run)
    fit(shop(), 4)
    whole = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["target_names"] == whole["target_names"] == {"kind": ["cup", "jug", "pot"], "price": []}
    for name, weight in whole["state_dict"].items():
        if name.startswith("objective."):
            torch.testing.assert_close(kept["state_dict"][name], weight, rtol=0, atol=0)
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "stopped", run)
    renamed = [row | {"kind": row["kind"].replace("jug", "ewer")} for row in shop()]
    with pytest.raises(mm.UsageError, match="trained on other classes of 'kind'"):
        fit(renamed, 4)
