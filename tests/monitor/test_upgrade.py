"""An upgraded index has the rows of the old one, the vectors of the new model, and can be rolled back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from embedded_shop import ShopTable
from upgraded_index import COLUMNS, Upgradable, in_memory_row, keys_of, upgradable

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.folder_lock import write_lock
from multimodal.data.samples import Samples
from multimodal.monitor import new_index, upgrade
from multimodal.monitor.upgrade import rollback_index, upgrade_index
from multimodal.search.embed import embed_samples, embed_table
from multimodal.search.engines.engine import IndexReplaced
from multimodal.search.index import Index
from multimodal.search.index_rows import IndexRows

ENGINES = pytest.mark.parametrize("engine", ["qdrant-edge", "exact"])
KEY = {"columns": COLUMNS, "key": "id"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Upgradable:
    return upgradable(tmp_path_factory.mktemp("made"), 60)


def vectors_by_key(index: Index, modality: str) -> dict[str, np.ndarray]:
    vectors, items = index.engine.select(modality)
    return dict(zip(items["key"].to_pylist(), vectors, strict=True))


@ENGINES
def test_the_new_index_is_that_of_the_new_model_with_the_rows_of_the_old(
    made: Upgradable, tmp_path: Path, engine: str
) -> None:
    folder = made.index(tmp_path / "index", engine=engine)
    before = keys_of(folder)
    done = upgrade_index(folder, made.new)
    new = Embedder.from_pretrained(made.new)
    table = pd.read_csv(made.table)
    assert (done.rows, done.added, done.removed, done.already) == (57, 0, 0, False)
    assert keys_of(folder) == before
    assert len(before) == 2 * 57  # two modalities; the rows of the other split are not in it
    with Index.open(folder, model=new) as index:
        for modality, column in COLUMNS.items():
            found = vectors_by_key(index, modality)
            values: dict[str, Any] = {modality: [table[column][int(key)] for key in found]}
            expected = new.encode(**values)
            assert (np.array(list(found.values())) * expected).sum(axis=1).min() > 0.999  # embedded in bfloat16
        assert index.engine.name == engine
        assert {hit.metadata["split"] for hit in index.search(text="red cup", k=5)} == {"train"}
    with pytest.raises(MultimodalError, match="made with another model"):
        Index.open(folder, model=made.old)
    assert sorted(os.listdir(tmp_path)) == ["index", "index.former"]
    assert upgrade_index(folder, made.new).already


def test_another_copy_of_the_table_needs_no_column_of_splits(made: Upgradable, tmp_path: Path) -> None:
    samples = Samples.of(str(made.table), COLUMNS, split="split")
    old = Embedder.from_pretrained(made.old)
    embed_samples(old, samples, samples.rows("train"), tmp_path / "vectors", metadata=["name"])
    Index.build(tmp_path / "vectors", tmp_path / "index", engine="exact").close()
    pd.read_csv(made.table).drop(columns="split").to_csv(tmp_path / "copy.csv", index=False)
    before = keys_of(tmp_path / "index")
    assert upgrade_index(tmp_path / "index", made.new, str(tmp_path / "copy.csv")).rows == 57
    assert keys_of(tmp_path / "index") == before


def test_rollback_brings_the_old_index_back_and_forth(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index", quantization="int8")
    old, new = (Embedder.from_pretrained(path) for path in (made.old, made.new))
    with Index.open(folder, model=old) as index:
        before = vectors_by_key(index, "text")
    upgrade_index(folder, made.new)
    for model in (old, new, old):
        rollback_index(folder)
        with Index.open(folder, model=model) as index:
            assert index.search(text="red cup", k=3)
    with Index.open(folder, model=old) as index:
        after = vectors_by_key(index, "text")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)
    for each in (folder, tmp_path / "index.former"):
        assert json.loads((each / "engine" / "layout.json").read_text())["quantization"] == "int8"


def test_rows_that_were_added_replaced_and_removed_are_in_the_new_index(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    pd.DataFrame([in_memory_row("from a file", "tall pot")]).to_csv(tmp_path / "more.csv", index=False)
    with Index.open(folder, model=made.old) as index:
        index.upsert([in_memory_row("mine", "old bowl"), in_memory_row("gone", "new jug")], **KEY)
        index.upsert([in_memory_row("1", "small jug")], **KEY)  # in the place of a row of the table
        index.upsert(str(tmp_path / "more.csv"), **KEY)
        assert index.remove(["gone", "2"]) == 2
    done = upgrade_index(folder, made.new)
    assert (done.rows, done.added) == (58, 3)
    new = Embedder.from_pretrained(made.new)
    with Index.open(folder, model=new) as index:
        found = vectors_by_key(index, "text")
        assert {"gone", "2"} & set(found) == set()
        for key, text in (("mine", "old bowl"), ("1", "small jug"), ("from a file", "tall pot")):
            np.testing.assert_allclose(found[key], new.encode(text=text), atol=2e-3)
        assert b"new jug" not in (folder / "rows.sqlite").read_bytes()


def test_changes_during_the_upgrade_are_kept(made: Upgradable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made.index(tmp_path / "index")
    index = Index.open(folder, model=made.old)  # as a server has it open; it is the only one that may
    brought = new_index.bring_up_to_date
    calls = []

    def change_then_bring(*arguments: object) -> object:
        number = len(calls)
        calls.append(number)
        if number < 2:  # before and after the first rows are brought; the third time it is locked
            index.upsert([in_memory_row(f"added {number}", "blue bowl")], **KEY)
            index.remove([str(10 + number)])
        return brought(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(upgrade, "bring_up_to_date", change_then_bring)
    done = upgrade_index(folder, made.new)
    assert (calls, done.added, done.removed) == ([0, 1, 2], 2, 2)
    keys = set(keys_of(folder))
    assert {"added 0", "added 1"} <= keys
    assert not {"10", "11"} & keys
    assert index.search(text="red cup", k=3)  # the old one is still read
    with pytest.raises(IndexReplaced, match="upgraded since it was opened"):
        index.upsert([in_memory_row("late", "red cup")], **KEY)
    with pytest.raises(IndexReplaced):
        index.remove(["3"])
    index.close()
    assert "late" not in keys_of(folder)
    assert "3" in keys_of(folder)


def test_rollback_takes_changes_since_the_upgrade_along(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    upgrade_index(folder, made.new)
    with Index.open(folder, model=made.new) as index:
        index.remove(["4"])
    assert rollback_index(folder).removed == 1  # no model is needed to remove
    rollback_index(folder)
    with Index.open(folder, model=made.new) as index:
        index.upsert([in_memory_row("later", "red bowl")], **KEY)
    with pytest.raises(MultimodalError, match="name the former run"):
        rollback_index(folder)
    assert rollback_index(folder, made.old).added == 1
    old = Embedder.from_pretrained(made.old)
    with Index.open(folder, model=old) as index:
        found = vectors_by_key(index, "text")
        np.testing.assert_allclose(found["later"], old.encode(text="red bowl"), atol=1e-5)
        assert "4" not in found
    rollback_index(folder)  # forward: the new model is known, and has the row already
    assert "later" in keys_of(folder)


def test_an_interrupted_upgrade_continues(made: Upgradable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made.index(tmp_path / "index", engine="exact")

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    for name in ("embed_rows", "build_index", "bring_up_to_date", "remove_others", "exchange_folders"):
        with monkeypatch.context() as patched:
            patched.setattr(upgrade, name, stop)
            with pytest.raises(KeyboardInterrupt):
                upgrade_index(folder, made.new)
        with Index.open(folder, model=made.old) as index:
            index.upsert([in_memory_row(f"after {name}", "red cup")], **KEY)
    with monkeypatch.context() as patched:
        patched.setattr(upgrade, "os", SimpleNamespace(rename=stop))  # after the exchange
        with pytest.raises(KeyboardInterrupt):
            upgrade_index(folder, made.new)
    with Index.open(folder, model=made.new) as index:
        assert sum(key.startswith("after") for key in vectors_by_key(index, "text")) == 5
    assert upgrade_index(folder, made.new).already
    assert sorted(os.listdir(tmp_path)) == ["index", "index.former"]
    rollback_index(folder)
    assert Index.open(folder, model=made.old).search(text="red cup", k=1)


def test_a_table_without_some_rows_of_the_index_is_refused(made: Upgradable, tmp_path: Path) -> None:
    embed_table(made.old, str(made.table), out=tmp_path / "e", columns=COLUMNS, key="name", processes=1)
    Index.build(tmp_path / "e", tmp_path / "index", engine="exact").close()
    shorter = pd.read_csv(made.table)[:-2]
    shorter.to_csv(tmp_path / "shorter.csv", index=False)
    with pytest.raises(MultimodalError, match=r"2 of the 60 rows that .* was built from are not in the table"):
        upgrade_index(tmp_path / "index", made.new, str(tmp_path / "shorter.csv"))
    with Index.open(tmp_path / "index", model=made.old) as index:
        index.remove(pd.read_csv(made.table)["name"][-2:].tolist())
    assert upgrade_index(tmp_path / "index", made.new, str(tmp_path / "shorter.csv")).rows == 58


def test_values_that_are_not_kept_are_refused(made: Upgradable, tmp_path: Path) -> None:
    rows = IndexRows.create(tmp_path, ["a"])
    table = ShopTable("in memory", {"sku": ["mine"], "title": [object()], "product": [1]})
    opened = Samples.of(table, {"text": "title"}, key="sku")
    rows.record_upsert(opened, ["mine"])
    index = Index.open(made.index(tmp_path / "index", engine="exact"), model=made.old)
    with pytest.raises(MultimodalError, match="objects of a program, which are not kept: mine"):
        new_index.bring_up_to_date(rows, index, 0)


def test_canaries_that_fail_keep_the_old_index(
    made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    name = pd.read_csv(made.table)["name"][7]
    canaries = tmp_path / "canaries.jsonl"
    canaries.write_text(json.dumps({"text": name, "expected": "no such key"}))
    assert main(["upgrade", str(folder), str(made.new), "--canaries", str(canaries)]) == 1
    said = capsys.readouterr().err
    assert "1 of 1 canaries fail in the new index" in said
    assert said.count("canaries fail") == said.count("no such key (not") == 1
    assert "The embeddings stay in" in said
    assert Index.open(folder, model=made.old).search(text=name, k=1)
    canaries.write_text(json.dumps({"text": name, "expected": "7", "k": 20}))
    assert main(["upgrade", str(folder), str(made.new), "--canaries", str(canaries)]) == 0
    assert Index.open(folder, model=made.new).search(text=name, k=1)


def test_an_index_of_an_earlier_version_is_upgraded(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    (folder / "rows.sqlite").unlink()
    with Index.open(folder, model=made.old) as index:
        index.upsert([in_memory_row("mine", "red cup")], **KEY)
    with pytest.raises(MultimodalError, match=r"1 of the 58 rows .* are not in the table"):
        upgrade_index(folder, made.new)
    assert os.listdir(tmp_path) == ["index"]  # nothing is left of what was refused
    with Index.open(folder, model=made.old) as index:
        index.remove(["mine"])
    assert upgrade_index(folder, made.new).rows == 57


def test_one_upgrade_at_a_time(made: Upgradable, tmp_path: Path) -> None:
    import threading

    folder = made.index(tmp_path / "index", engine="exact")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with write_lock(tmp_path / ".index.upgrade"):
            entered.set()
            leave.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    assert entered.wait(30)
    with pytest.raises(MultimodalError, match="is being written by"):
        upgrade_index(folder, made.new)
    leave.set()
    other.join()


def test_the_command_reports_what_it_did(made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    assert main(["upgrade", str(folder), str(made.new)]) == 0
    out = capsys.readouterr().out
    assert out == f"{folder}: 57 rows; model {made.new}. The former index is {folder}.former.\n"
    assert main(["upgrade", str(folder), str(made.new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["already"]
    assert main(["upgrade", str(folder), "--rollback", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == Embedder.from_pretrained(made.old).fingerprint
    assert main(["upgrade", str(folder)]) == 2
    assert main(["upgrade", str(folder), "--rollback", "--canaries", "c.csv"]) == 2


def test_what_cannot_be_upgraded_says_why(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    Embedder.from_pretrained(made.new, modalities=["text"]).save_pretrained(tmp_path / "text")
    with pytest.raises(UsageError, match=r"has vectors of words, and the new model only knows text"):
        upgrade_index(folder, tmp_path / "text")
    with pytest.raises(MultimodalError, match=r"There is no former index .*index.former"):
        rollback_index(folder)
    with pytest.raises(MultimodalError, match="is not an index"):
        upgrade_index(tmp_path / "nothing", made.new)
    Index.from_table(
        Embedder.from_pretrained(made.old), [in_memory_row("a", "red cup")], **KEY
    ).save(tmp_path / "in memory", engine="exact")  # fmt: skip
    with pytest.raises(UsageError, match="does not know the table"):
        upgrade_index(tmp_path / "in memory", made.new)
    assert sorted(os.listdir(tmp_path)) == ["in memory", "index", "text"]
