"""``compare`` equals a transcription, finds what was damaged and nothing else, and compares the same rows only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from multimodal_encoders.vectors.precomputed import Precomputed
from PIL import Image
from scipy import stats

import multimodal as mm
from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.registry import create
from multimodal.evaluation.comparison import Comparison, CorrectedDifference
from multimodal.evaluation.intervals import holm

COLUMNS = {"image": "picture", "text": "title"}
DIM = 8
Rows = list[dict[str, Any]]


def things(rows: int, noise: float = 0.6, groups: int | None = None) -> Rows:
    """Rows whose title is their picture's vector, with noise; ``groups`` of them share a group."""
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(rows, DIM))
    titles = pictures + noise * rng.normal(size=(rows, DIM))
    return [
        {"picture": pictures[n].tolist(), "title": titles[n].tolist(), "set": f"g{n % (groups or rows)}"}
        for n in range(rows)
    ]


def model(damage: float = 0.0, modalities: Sequence[str] = ("image", "text"), seed: int = 1) -> Embedder:
    """The vectors as they are, but for random changes of those of texts."""
    heads: Any = {m: "linear" if m == "text" else "none" for m in modalities}
    embedder = Embedder({m: Precomputed(DIM) for m in modalities}, dim=DIM, heads=heads)
    if "text" in modalities:
        rng = torch.Generator().manual_seed(seed)
        weight, bias = embedder.heads["text"].parameters()
        bias.data.zero_()
        weight.data = torch.eye(DIM) + damage * torch.randn(DIM, DIM, generator=rng)
    return embedder


def compared(models: dict[str, Embedder], rows: Rows, **settings: Any) -> Comparison:
    return mm.compare(models, rows, **({"columns": COLUMNS, "group": "set", "split": "all"} | settings))


def all_differences(comparison: Comparison) -> list[CorrectedDifference]:
    return [t for found in comparison.pairs.values() for of_run in found.differences.values() for t in of_run.values()]


def test_of_equal_models_no_difference_holds() -> None:
    comparison = compared({"a": model(), "b": model(), "c": model()}, things(60))
    assert len(all_differences(comparison)) == 2 * 2 * 6  # directions, other runs, measures without the repeated ones
    assert all(
        (t.difference.mean, t.difference.low, t.difference.high) == (0.0, 0.0, 0.0) for t in all_differences(comparison)
    )
    assert all(
        (t.difference.p_value, t.corrected_p_value, t.holds) == (1.0, 1.0, False) for t in all_differences(comparison)
    )
    assert comparison.summary.startswith("0 of 24 differences to a hold")


def test_a_damaged_model_is_worse_and_that_holds() -> None:
    comparison = compared({"whole": model(), "damaged": model(2.0)}, things(150))
    for found in comparison.pairs.values():
        differences = found.differences["damaged"]
        assert all(differences[name].holds for name in ("recall@1", "mrr", "mean_rank"))
        assert differences["recall@1"].difference.high < 0 < differences["mean_rank"].difference.low
    printed = str(comparison)
    assert printed.count("▼") > 5
    assert printed.count("▲") == 1  # in the explanation
    turned = compared({"whole": model(), "damaged": model(2.0)}, things(150), baseline="damaged")
    assert (turned.baseline, str(turned).count("▼")) == ("damaged", 1)
    difference = turned.pairs["text->image"].differences["whole"]["mrr"].difference
    assert difference.mean == pytest.approx(
        -comparison.pairs["text->image"].differences["damaged"]["mrr"].difference.mean
    )


def of_modality(modality: str, rows: Rows) -> dict[str, Any]:
    return {modality: [row[COLUMNS[modality]] for row in rows]}


def vectors(embedder: Embedder, rows: Rows) -> dict[str, np.ndarray]:
    return {m: embedder.encode(**of_modality(m, rows)).astype(np.float64) for m in COLUMNS}


def first_ranks(queries: np.ndarray, candidates: np.ndarray, groups: np.ndarray) -> np.ndarray:
    scores = queries @ candidates.T
    right = groups[:, None] == groups
    best = np.where(right, scores, -np.inf).max(axis=1)
    return 1 + ((scores >= best[:, None] - 1e-6) & ~right).sum(axis=1)


def test_figures_and_p_values_are_those_of_a_transcription() -> None:
    rows = things(40, groups=10)  # four rows to a group: all 2^10 exchanges of groups can be made
    models = {"a": model(0.1, seed=1), "b": model(0.3, seed=2), "c": model(0.6, seed=3)}
    comparison = compared(models, rows)
    groups = np.array([int(row["set"][1:]) for row in rows])
    p_values: dict[str, list[float]] = {}
    corrected: dict[str, list[float]] = {}
    for pair, found in comparison.pairs.items():
        query, target = pair.split("->")
        ranks = {name: first_ranks((v := vectors(m, rows))[query], v[target], groups) for name, m in models.items()}
        for name, r in found.retrieval.items():
            assert r.recall_at_5 == pytest.approx((ranks[name] <= 5).mean())
            assert r.mean_rank == pytest.approx(ranks[name].mean())
        for other in ("b", "c"):
            differences = found.differences[other]
            mrr = 1 / ranks[other] - 1 / ranks["a"]
            assert differences["mrr"].difference.mean == pytest.approx(mrr.mean())
            sums = np.bincount(groups, weights=mrr)
            exact = stats.permutation_test(
                (sums,), lambda d, axis: d.sum(axis=axis), permutation_type="samples", vectorized=True
            )
            assert differences["mrr"].difference.p_value == pytest.approx(exact.pvalue, abs=0.02)
            for name, tested in differences.items():
                p_values.setdefault(name, []).append(tested.difference.p_value)
                corrected.setdefault(name, []).append(tested.corrected_p_value)
                assert tested.holds == (tested.corrected_p_value <= 0.05)
    for name, of_measure in p_values.items():
        order = sorted(range(4), key=lambda n: of_measure[n])  # two directions, two other runs
        expected, largest = [0.0] * 4, 0.0
        for place, n in enumerate(order):
            largest = max(largest, min(1.0, of_measure[n] * (4 - place)))
            expected[n] = largest
        assert corrected[name] == pytest.approx(expected)
    assert len(corrected) == 9  # with several right answers, map and precision say something of their own


def test_holm_of_no_and_of_one_comparison() -> None:
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([1.0, 0.9]) == [1.0, 1.0]


class Picky(Precomputed):
    """Cannot read the value whose first component is the given one."""

    def __init__(self, refused: float) -> None:
        super().__init__(DIM)
        plain = self.processor

        class PickyProcessor(type(plain)):
            def __call__(self, value: Any) -> Any:
                if value[0] == refused:
                    raise Unreadable("refused", "this one is refused.")
                return super().__call__(value)

        plain.__class__ = PickyProcessor


def test_a_row_that_one_model_cannot_read_is_left_out_for_all() -> None:
    rows = things(30)
    heads: Any = {"image": "none", "text": "none"}
    picky = Embedder({"image": Picky(rows[7]["picture"][0]), "text": Precomputed(DIM)}, dim=DIM, heads=heads)
    comparison = compared({"a": model(), "picky": picky}, rows, max_rejects=0.1)
    without = compared({"a": model(), "b": model()}, [row for n, row in enumerate(rows) if n != 7])
    for pair in ("image->text", "text->image"):
        found = comparison.pairs[pair].retrieval
        assert found["a"] == without.pairs[pair].retrieval["a"]
        assert found["a"].queries == found["picky"].pool == 29
    assert any("picky cannot read" in note and "1 x refused" in note for note in comparison.notes)


def test_a_missing_value_and_alternative_columns_are_the_same_for_all_models() -> None:
    rows = things(30)
    for n, row in enumerate(rows):
        row["caption"] = None if n % 3 else rows[n]["picture"]
    rows[4]["title"] = None
    columns = {"image": "picture", "text": ["title", "caption"]}
    comparison = compared({"a": model(), "b": model(0.2)}, rows, columns=columns)
    found = comparison.pairs["text->image"].retrieval
    assert found["a"].queries == found["b"].queries == 29 + 10
    assert not any(
        t.difference.mean for t in all_differences(compared({"a": model(), "b": model()}, rows, columns=columns))
    )


def test_another_pool_is_searched_by_all() -> None:
    rows = [row | {"part": "test" if n < 20 else "train"} for n, row in enumerate(things(60))]
    split = {"split": ["test"], "pool": "all"}
    data = mm.Samples.of(rows, COLUMNS, group="set", split="part")
    comparison = mm.compare({"a": model(), "b": model(0.2)}, data, **split)
    found = comparison.pairs["text->image"].retrieval
    assert (found["a"].queries, found["b"].pool) == (20, 60)
    own = vectors(model(), rows)
    ranks = first_ranks(own["text"], own["image"], np.arange(60))[:20]
    assert found["a"].mean_rank == pytest.approx(ranks.mean())
    alone = mm.compare({"a": model(), "b": model(0.2)}, data, split="test", pool="train")
    assert alone.pairs == {}
    assert "No query has a right answer in the pool" in alone.notes[-1]


def test_modalities_that_only_some_models_have_are_stated_gaps() -> None:
    rows = [row | {"sound": row["picture"]} for row in things(30)]
    columns = COLUMNS | {"audio": "sound"}
    models = {"two": model(), "three": model(modalities=("image", "text", "audio")), "again": model()}
    comparison = compared(models, rows, columns=columns)
    assert set(comparison.pairs["image->text"].differences) == {"three", "again"}
    assert "image -> audio is not compared: two has no vectors for it." in comparison.notes
    assert set(comparison.pairs["image->audio"].retrieval) == {"three"}
    turned = compared(models, rows, columns=columns, baseline="three")
    assert "image -> audio is not measured for two, again: no vectors for it." in turned.notes


# -- folders of runs


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a run of two texts read by one encoder, or, damaged, by two that have nothing in common."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    words = ["red", "blue", "old", "tall", "cup", "bowl", "vase", "plate", "round", "deep", "small", "clay"]
    names = [" ".join(rng.choice(words, 3, replace=False)) for _ in range(80)]
    lines = [f"s{n},{name},a {name},{'train' if n < 40 else 'test'}" for n, name in enumerate(names)]
    for table in ("shop", "other"):
        (folder / f"{table}.csv").write_text("\n".join(["id,name,words,part", *lines[table == "other" :]]))

    def make(name: str, damaged: bool = False, **data: Any) -> Path:
        settings = {"table": str(folder / "shop.csv"), "columns": {"title": "name", "caption": "words"}, "key": "id"}
        run = folder / name
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump({"data": settings | {"split": "part"} | data}))
        torch.manual_seed(3)
        first, second = (create("text", "bag", vocab_size=1000, width=16) for _ in range(2))
        embedder = Embedder({"title": first, "caption": second if damaged else first}, dim=16)
        if not damaged:
            embedder.heads["caption"].load_state_dict(embedder.heads["title"].state_dict())
        embedder.fit_processors({"title": names, "caption": names})
        embedder.save_pretrained(run / "model")
        return run

    return make


@pytest.fixture(scope="module")
def good(make_run: Callable[..., Path]) -> Path:
    return make_run("good")


@pytest.fixture(scope="module")
def bad(make_run: Callable[..., Path]) -> Path:
    return make_run("bad", damaged=True)


def test_the_command_prints_and_writes_what_holds(
    good: Path, bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(good), str(bad), "--json", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == document
    assert (document["baseline"], document["split"], document["rows"]) == (str(good), "test", 40)
    difference = document["pairs"]["title->caption"]["differences"][str(bad)]["recall@1"]
    assert difference["holds"] is True
    assert difference["high"] < 0
    written = (tmp_path / "out" / "compare.md").read_text()
    assert f"title -> caption, difference to {good}" in written
    assert f"| {bad} | MRR | -" in written
    assert "▼" in written
    with Image.open(tmp_path / "out" / "compare.png") as chart:
        assert len(chart.convert("RGB").getcolors(2**24) or ()) > 10
    assert main(["compare", str(bad), str(good), "--baseline", str(good)]) == 0
    assert f"differences to {good} hold" in " ".join(capsys.readouterr().out.split())


def test_a_model_without_data_is_measured_on_those_of_a_run(good: Path, bad: Path) -> None:
    comparison = mm.compare([good / "model", bad])
    assert comparison.rows == 40
    assert comparison.pairs.keys() == {"title->caption", "caption->title"}
    other = mm.compare([good / "model", bad], good.parent / "other.csv", split="all")  # with the columns of the run
    assert other.rows == 79
    with pytest.raises(MultimodalError, match="its data are unknown"):
        mm.compare([good / "model", bad / "model"])


def test_a_run_that_was_trained_on_the_rows_is_named(good: Path, bad: Path) -> None:
    notes = mm.compare([good, bad], split="train").notes
    assert f"{good} was trained on 40 of the 40 rows of this comparison." in notes
    assert not any("was trained on" in note for note in mm.compare([good, bad]).notes)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"table": "other.csv"}, r"The table of \S+ is \S+ \(80 rows\), that of \S+ \S+ \(79 rows\).*--data TABLE"),
        ({"split": {"train": 0.5, "test": 0.5}}, "The split 'test' of .* has other rows than that of .*--data TABLE"),
        ({"test": "train"}, "The test split of .* is 'test', that of .* 'train': name one for both with --split"),
        ({"group": "name"}, "group the rows differently.* --group"),
        ({"columns": {"title": "words", "caption": "name"}}, "reads caption from the column 'words', .* from 'name'"),
    ],
)
def test_runs_with_other_rows_are_refused(
    good: Path, make_run: Callable[..., Path], data: dict[str, Any], said: str
) -> None:
    if "table" in data:
        data = {"table": str(good.parent / data["table"])}
    other = make_run(f"other-{next(iter(data))}", **data)
    with pytest.raises(UsageError, match=said):
        mm.compare([good, other])
    if "columns" not in data:
        settings = {"split": "part", "test": "test", "group": None}
        table = {"table": str(good.parent / "shop.csv"), "columns": {"title": "name", "caption": "words"}}
        config = good.parent / f"{other.name}.yaml"
        config.write_text(yaml.safe_dump({"data": table | settings}))
        assert mm.compare([good, other], str(config)).rows == 40


def test_wrong_arguments_are_refused(good: Path, bad: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least two runs"):
        mm.compare([good])
    with pytest.raises(UsageError, match="is given twice"):
        mm.compare([good, bad, f"{good}/"])
    with pytest.raises(UsageError, match="takes a list of runs"):
        mm.compare(str(good))
    with pytest.raises(UsageError, match="Embedders need names"):
        mm.compare([model(), model()])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="The baseline 'x' is not one of the compared runs"):
        mm.compare([good, bad], baseline="x")
    with pytest.raises(UsageError, match=r"compare\(\) takes no argument 'spilt'. Did you mean 'split'"):
        mm.compare([good, bad], spilt="test")
    with pytest.raises(UsageError, match="no split 'tests'"):
        mm.compare([good, bad], split="tests")
    with pytest.raises(MultimodalError, match="does not exist"):
        mm.compare([good, tmp_path / "nowhere"])
    with pytest.raises(MultimodalError, match="knows"):
        compared({"a": model(), "b": Embedder({"sound": Precomputed(DIM)}, dim=DIM)}, things(5))
