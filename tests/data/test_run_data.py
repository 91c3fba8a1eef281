"""The data of a run, of another configuration, or of another table is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pandas import DataFrame

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.datamodule import DataModule
from multimodal.data.run_data import ALL_ROWS, RunData, load_run_data, load_training_rows
from multimodal.data.samples import Samples

DATA = {
    "table": "glyphs",
    "columns": {"image": "image", "text": "name"},
    "key": "key",
    "group": "character",
    "split": "split",
    "test": "unseen_characters",
    "batch_size": 256,  # a setting of training, not of the samples
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write(tmp_path / "run" / "config.yaml", {"seed_everything": 3, "data": DATA, "model": {"dim": 8}})
    return tmp_path / "run"


def write(path: Path, config: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def settings_of(data: RunData) -> dict[str, Any]:
    samples = data.samples
    return {name: samples.settings[name] for name in ("table", "columns", "key", "group", "split")}


def test_a_run_has_its_samples_test_split_and_seed(run: Path) -> None:
    data = load_run_data(run)
    assert settings_of(data) == {name: DATA[name] for name in ("table", "columns", "key", "group", "split")}
    assert (data.test_split, data.seed) == ("unseen_characters", 3)


def test_missing_settings_have_the_defaults_of_training(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", {"data": {"table": "glyphs", "columns": {"text": "name"}}})
    data = load_run_data(tmp_path)
    assert [settings_of(data)[name] for name in ("key", "group", "split")] == [None] * 3
    assert (data.test_split, data.seed) == ("test", None)


def test_columns_that_another_table_does_not_have_are_left_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("name,key\nstar,a\n")
    data = load_run_data(run, str(tmp_path / "words.csv"), {"columns": {"text": "name"}})
    found = settings_of(data)
    assert (found["key"], found["group"], found["split"]) == ("key", None, ALL_ROWS)
    assert (data.missing_key, data.missing_group) == (None, "character")
    assert load_run_data(run).missing_group is None
    with pytest.raises(UsageError, match=r"group: .* has no column 'sort'"):  # requested columns must exist
        load_run_data(run, str(tmp_path / "words.csv"), {"columns": {"text": "name"}, "group": "sort"})


def test_rows_that_are_stored_need_the_column_of_keys_of_the_run(run: Path, tmp_path: Path) -> None:
    table, columns = tmp_path / "words.csv", {"text": "name"}
    table.write_text("name,sku\nstar,a\n")
    data = load_run_data(run, str(table), {"columns": columns})
    assert (settings_of(data)["key"], data.missing_key) == (None, "key")  # enough to evaluate
    with pytest.raises(
        UsageError, match=r"by the column 'key', which the table '.*words\.csv' .* --key COLUMN; .* --key ''"
    ):
        data.check_key()
    for key, expected in (("sku", "a"), ("", "0"), (None, "0")):
        chosen = load_run_data(run, str(table), {"columns": columns, "key": key})
        chosen.check_key()
        assert chosen.samples[0].key == expected
    load_run_data(run).check_key()
    other = write(
        tmp_path / "other.yaml", {"data": {"table": str(table), "columns": columns}}
    )  # has settings of its own
    load_run_data(run, str(other)).check_key()


def test_another_table_is_read_with_the_settings_of_the_run(run: Path) -> None:
    assert settings_of(load_run_data(run, "glyphs")) == settings_of(load_run_data(run))
    with pytest.raises(UsageError, match="no table 'scenes'"):
        load_run_data(run, "scenes")


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_configuration_replaces_that_of_the_run(run: Path, tmp_path: Path, suffix: str) -> None:
    other = {"table": "glyphs", "columns": {"graph": "outline"}, "test": "validation"}
    data = load_run_data(run, str(write(tmp_path / f"other{suffix}", {"data": other})))
    assert data.samples.schema.columns == {"graph": ("outline",)}
    assert (data.samples.schema.key, data.test_split) == (None, "validation")


def test_the_seed_is_that_of_the_run_also_with_other_data(run: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.yaml", {"seed_everything": 4, "data": DATA})
    assert [load_run_data(run, data).seed for data in (None, "glyphs", str(other))] == [3, 3, 3]


def test_a_configuration_needs_no_run(tmp_path: Path) -> None:
    config = write(tmp_path / "data.yaml", {"data": DATA})
    data = load_run_data(tmp_path / "nowhere", str(config))
    assert (settings_of(data)["table"], data.seed) == ("glyphs", None)


@pytest.mark.parametrize("data", [None, "glyphs"])
def test_a_folder_without_a_configuration_is_named(tmp_path: Path, data: str | None) -> None:
    with pytest.raises(MultimodalError, match=rf"{tmp_path} has no config\.yaml"):
        load_run_data(tmp_path, data)


def test_a_missing_configuration_is_named(run: Path) -> None:
    with pytest.raises(MultimodalError, match=r"nowhere\.yaml cannot be read"):
        load_run_data(run, "nowhere.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"data: [",
        b"\xff\xfe\x00",
        b"- data",
        b"data: glyphs",
        b"data: {table: glyphs}",
        b"data: {columns: {text: name}}",
        b"data: {table: glyphs, columns: name}",
        b"!!python/object/apply:os.getcwd []",
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(MultimodalError, match=r"config\.yaml"):
        load_run_data(tmp_path)


@pytest.mark.parametrize("table", [5, ["glyphs"]])
def test_a_table_setting_that_is_not_a_name_is_rejected(tmp_path: Path, table: Any) -> None:
    write(tmp_path / "config.yaml", {"data": DATA | {"table": table}})
    with pytest.raises(UsageError, match=rf"The table {re.escape(repr(table))} is not a name"):
        load_run_data(tmp_path)


def test_a_run_of_a_table_in_memory_needs_the_table(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", {"data": {"columns": {"text": "name"}}})
    with pytest.raises(UsageError, match=r"config\.yaml names no table.* pass the table as `data`"):
        load_run_data(tmp_path)
    assert load_run_data(tmp_path, [{"name": "star"}], {"columns": {"text": "name"}}).samples[0].values == {
        "text": "star"
    }


# -- data without a run


@pytest.fixture
def in_a_run_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a ``config.yaml``, which applies to no other model."""
    monkeypatch.chdir(run)


@pytest.mark.usefixtures("in_a_run_folder")
def test_without_a_run_the_table_is_needed() -> None:
    with pytest.raises(UsageError, match="An embedder has no data of its own: give the table"):
        load_run_data(None)
    with pytest.raises(UsageError, match="The table 'glyphs' needs columns, like columns="):
        load_run_data(None, "glyphs")
    data = load_run_data(None, "glyphs", {"columns": {"text": "name"}})
    assert settings_of(data) == {
        "table": "glyphs",
        "columns": {"text": "name"},
        "key": None,
        "group": None,
        "split": ALL_ROWS,
    }
    assert (data.test_split, data.seed) == ("all", None)


@pytest.mark.usefixtures("in_a_run_folder")
def test_the_working_folder_is_a_run_if_it_is_given() -> None:
    assert load_run_data(Path()).seed == 3


def test_a_configuration_without_a_table_is_named(run: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other" / "config.yaml", {"data": {"columns": {"text": "name"}}})
    for folder in (None, run):
        with pytest.raises(UsageError, match=rf"{other} names no table"):
            load_run_data(folder, other)


@pytest.mark.parametrize("kind", [Samples.of, DataModule])
def test_settings_are_not_for_data_that_have_their_own(run: Path, kind: Callable[..., Any]) -> None:
    data = kind([{"name": "star", "kind": "a"}], {"text": "name"})
    assert load_run_data(None, data).samples[0].values == {"text": "star"}
    for folder in (None, run):
        with pytest.raises(
            UsageError, match=r"A (Samples|DataModule) has settings of its own, so group, max_rejects cannot"
        ):
            load_run_data(folder, data, {"group": "kind", "max_rejects": 0.5})


# -- another table, and the rows that a run was trained on


SHOP = [{"title": f"cup {row}", "label": f"mug {row}", "part": "train" if row < 6 else "test"} for row in range(10)]


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, str]:
    """A run whose table is divided by shares, and another table with the same columns."""
    for name in ("shop", "other"):
        (tmp_path / f"{name}.csv").write_text(DataFrame(SHOP).to_csv(index=False))
    data = {"table": str(tmp_path / "shop.csv"), "columns": {"a": "title", "b": "label"}}
    write(tmp_path / "run" / "config.yaml", {"data": data | {"split": {"train": 0.5, "test": 0.5}}})
    return tmp_path / "run", str(tmp_path / "other.csv")


def test_split_shares_are_not_those_of_another_table(shop: tuple[Path, str]) -> None:
    run, other = shop
    own = load_run_data(run)
    assert (own.test_split, set(own.samples.splits), own.is_another_table) == ("test", {"train", "test"}, False)
    for table in (other, SHOP, DataFrame(SHOP)):
        data = load_run_data(run, table)
        assert (data.test_split, len(data.samples.rows(data.test_split)), data.is_another_table) == ("all", 10, True)
        with pytest.raises(UsageError, match="no split 'test'"):
            data.samples.rows("test")


def test_splits_that_are_given_or_in_a_column_are_those_of_another_table(shop: tuple[Path, str]) -> None:
    run, other = shop
    for split in ("part", {"train": 0.6, "test": 0.4}):
        data = load_run_data(run, other, {"split": split})
        assert data.test_split == "test"
        assert 0 < len(data.samples.rows("test")) < 10
    config = yaml.safe_load((run / "config.yaml").read_text())
    write(run / "config.yaml", {"data": config["data"] | {"split": "part"}})
    data = load_run_data(run, other)
    assert (data.test_split, data.samples.rows("test").tolist()) == ("test", [6, 7, 8, 9])


def test_the_rows_of_the_training_are_those_of_the_table_of_the_run(shop: tuple[Path, str]) -> None:
    run, other = shop
    own = load_run_data(run)
    module = DataModule(other, columns={"a": "title", "b": "label"})
    for data in (None, own.samples.name, other, SHOP, module, module.samples):
        samples, rows = load_training_rows(run, load_run_data(run, data))
        assert samples.name == own.samples.name
        assert rows.tolist() == own.samples.rows("train").tolist()


def test_a_table_in_memory_is_that_of_a_run_that_was_trained_on_one(shop: tuple[Path, str]) -> None:
    run, _ = shop
    config = yaml.safe_load((run / "config.yaml").read_text())
    write(run / "config.yaml", {"data": config["data"] | {"table": None}})
    data = load_run_data(run, SHOP)
    assert (data.test_split, data.is_another_table) == ("test", False)
    samples, rows = load_training_rows(run, data)
    assert samples is data.samples
    assert rows.tolist() == samples.splits["train"].tolist()


def test_an_exported_model_does_not_know_its_training_rows(tmp_path: Path, shop: tuple[Path, str]) -> None:
    data = load_run_data(tmp_path, shop[1], {"columns": {"a": "title", "b": "label"}})
    assert (data.test_split, data.is_another_table) == ("all", True)
    with pytest.raises(MultimodalError, match=r"has no config\.yaml"):
        load_training_rows(tmp_path, data)
