"""``evaluate`` equals a numpy transcription of the protocol, and the command line prints its numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_up_measures import measures
from PIL import Image

from multimodal.cli.main import main
from multimodal.core.batch import Batch
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.data.samples import Samples
from multimodal.evaluation.class_measures import ClassMeasures
from multimodal.evaluation.linear_baseline import fit_linear
from multimodal.evaluation.render import render_text
from multimodal.evaluation.report import Report
from multimodal.evaluation.run_evaluation import evaluate
from multimodal.evaluation.space import Space

MODALITIES = ("title", "caption")
COLUMNS = {"title": "name", "caption": "words"}
WORDS = ["red", "blue", "old", "tall", "cup", "bowl", "vase", "plate", "round", "deep", "small", "of clay"]
Row = dict[str, str]
Vectors = dict[str, tuple[np.ndarray, list[str]]]  # modality -> (n, dim) vectors and their groups


def shop() -> list[Row]:
    """60 rows to train on and 24 to test with; two rows share each group, and every fifth has no caption."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(84):
        name = " ".join(random.choice(WORDS, 3, replace=False))
        words = "" if number % 5 == 0 else f"a {name} {random.choice(WORDS)}"
        split = "train" if number < 60 else "test"
        rows.append({"id": f"s-{number}", "name": name, "words": words, "set": f"g{number // 2}", "part": split})
    return rows


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("\n".join(",".join(cells) for cells in [list(rows[0]), *(row.values() for row in rows)]))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained model of two text encoders."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    table = write(folder / "shop.csv", shop())
    data = {"table": str(table), "columns": COLUMNS, "key": "id", "group": "set", "split": "part"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 7, "data": data}))
    embedder = Embedder({m: create("text", "bag") for m in MODALITIES}, dim=16)
    embedder.fit_processors({m: [row[COLUMNS[m]] for row in shop()[:60] if row[COLUMNS[m]]] for m in MODALITIES})
    embedder.save_pretrained(folder / "model")
    return folder


def embed(encode: Callable[[str, list[str]], np.ndarray], rows: Sequence[Row]) -> Vectors:
    present = {m: [row for row in rows if row[COLUMNS[m]]] for m in MODALITIES}
    return {
        m: (encode(m, [row[COLUMNS[m]] for row in chosen]).astype(np.float64), [row["set"] for row in chosen])
        for m, chosen in present.items()
    }


def embed_with_model(run: Path, rows: Sequence[Row]) -> Vectors:
    embedder = Embedder.from_pretrained(run)
    return embed(
        lambda modality, values: embedder.encode(batch_size=256, precision="float32", **{modality: values}), rows
    )


def measure(queries: Vectors, candidates: Vectors) -> dict[str, dict[str, Any]]:
    """Transcribe the protocol for both directions, one query at a time."""
    result = {}
    for a, b in (MODALITIES, MODALITIES[::-1]):
        pool, groups = candidates[b]
        ranks, precisions, averages, gains = [], [], [], []
        for query, group in zip(*queries[a], strict=True):
            scores, right = pool @ query, np.array([other == group for other in groups])
            if right.any():
                # a wrong answer within a millionth ranks before a right one
                found = np.sort(right[np.argsort(-(scores - 1e-6 * right), kind="stable")].nonzero()[0]) + 1
                ranks.append(found[0])
                precisions.append([(found <= k).mean() * len(found) / k for k in (5, 10)])
                averages.append((np.arange(1, len(found) + 1) / found).mean())
                ideal = (1 / np.log2(1 + np.arange(1, min(len(found), 10) + 1))).sum()
                gains.append((1 / np.log2(1 + found[found <= 10])).sum() / ideal)
        r = np.array(ranks)
        result[f"{a}->{b}"] = {
            **{f"recall@{k}": (r <= k).mean() for k in (1, 5, 10)},
            "mrr": (1 / r).mean(),
            "median_rank": np.median(r),
            "mean_rank": r.mean(),
            "queries": len(r),
            "pool": len(pool),
            **dict(zip(("precision@5", "precision@10"), np.mean(precisions, axis=0), strict=True)),
            "map": np.mean(averages),
            "ndcg@10": np.mean(gains),
        }
    return result


def as_approximate(measures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {pair: pytest.approx(values) for pair, values in measures.items()}


def to_json(pairs: Any) -> dict[str, Any]:
    return {pair: measures.to_json() for pair, measures in pairs.items()}


@pytest.mark.parametrize(
    ("split", "pool", "searched"),
    [
        (None, None, slice(60, None)),
        ("train", None, slice(0, 60)),
        ("test", "test", slice(60, None)),
        ("test", "all", slice(None)),
    ],
)
def test_measures_equal_those_of_numpy(run: Path, split: str | None, pool: str | None, searched: slice) -> None:
    queries = shop()[:60] if split == "train" else shop()[60:]
    report = evaluate(run, split=split, pool=pool)
    expected = measure(embed_with_model(run, queries), embed_with_model(run, shop()[searched]))
    assert to_json(report.pairs) == as_approximate(expected)
    assert (report.run, report.split, report.pool) == (str(run), split or "test", pool or split or "test")
    assert (report.seed, report.baselines, report.notes) == (7, {}, ())


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({"pool": "test"}, 24),  # the default split
        ({"split": "test", "pool": ["test"]}, 24),
        ({"split": ["train", "test"], "pool": "all"}, 84),
        ({"split": "test", "pool": "train"}, 84),
    ],
)
def test_rows_that_are_queries_and_pool_are_embedded_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], rows: int
) -> None:
    embedded = []
    embed = Embedder.embed

    def record(self: Embedder, batch: Batch) -> Embeddings:
        embedded.append(len(batch))
        return embed(self, batch)

    monkeypatch.setattr(Embedder, "embed", record)
    report = evaluate(run, **arguments)
    assert sum(embedded) == rows
    assert report.pool == arguments["pool"]


@pytest.mark.parametrize("pool", [None, "all"])
def test_the_baseline_is_fitted_on_the_training_split_and_searched_like_the_model(run: Path, pool: str | None) -> None:
    report = evaluate(run, pool=pool, baseline="linear")
    train = {m: [row[COLUMNS[m]] or None for row in shop()[:60]] for m in MODALITIES}
    space = fit_linear(train, Embedder.from_pretrained(run).processors)
    queries, candidates = (embed(space.embed, rows) for rows in (shop()[60:], shop() if pool else shop()[60:]))
    assert to_json(report.baselines["linear"]) == as_approximate(measure(queries, candidates))
    assert to_json(report.pairs) != to_json(report.baselines["linear"])
    model, baseline = report.tables()
    assert "fitted on 'train'" in str(baseline.title)
    assert str(model.title) == report.title


@pytest.mark.parametrize("source", ["samples", "rows", "table", "configuration"])
def test_an_embedder_is_evaluated_on_given_data_like_its_run(run: Path, tmp_path: Path, source: str) -> None:
    settings: dict[str, Any] = {"columns": COLUMNS, "key": "id", "group": "set", "split": "part"}
    table = write(tmp_path / "same.csv", shop())
    (tmp_path / "same.yaml").write_text(yaml.safe_dump({"data": {"table": str(table), **settings}}))
    named = {name: value for name, value in settings.items() if name != "split"}
    embedder = Embedder.from_pretrained(run)
    if source == "samples":
        report = evaluate(embedder, Samples.of(str(table), **settings), split="test")
    elif source == "configuration":
        report = evaluate(embedder, tmp_path / "same.yaml")
    else:  # without a column of splits: all rows
        rows = [{name: cell or None for name, cell in row.items()} for row in shop()[60:]]
        data = rows if source == "rows" else str(write(tmp_path / "test.csv", shop()[60:]))
        report = evaluate(embedder, data, split="all", **named)
    assert to_json(report.pairs) == as_approximate(to_json(evaluate(run).pairs))
    assert (report.run, report.seed) == ("embedder", None)


# -- the command line


def without_times(document: Any) -> Any:
    """The document without measured times, which differ from run to run."""
    if isinstance(document, dict):
        return {name: without_times(value) for name, value in document.items() if name != "milliseconds"}
    return [without_times(value) for value in document] if isinstance(document, list | tuple) else document


@pytest.mark.parametrize("pool", [[], ["--pool", "all"]])
def test_the_command_line_prints_the_numbers_of_python(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pool: list[str]
) -> None:
    report = evaluate(run, split="test", pool=pool[-1] if pool else None, baseline="linear", out=tmp_path / "python")
    command = ["evaluate", str(run), "--split", "test", *pool, "--baseline", "linear"]
    assert main([*command, "--json", "--out", str(tmp_path / "command")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert without_times(printed) == without_times(report.to_json())
    for folder in ("python", "command"):
        assert without_times(json.loads((tmp_path / folder / "metrics.json").read_text())) == without_times(printed)
        written = {path.name for path in (tmp_path / folder).iterdir()}
        assert written == {
            *("metrics.json", "metrics.md", "model_card.md", "points.parquet", "report.html", "retrieval.png"),
        }
        with Image.open(tmp_path / folder / "retrieval.png") as chart:
            assert chart.width > chart.height > 0

    assert main(command) == 0
    printed = capsys.readouterr().out.split()
    assert printed == render_text(report.tables(sections=False)).split()
    assert printed == str(replace(report, sections={}, notes=())).split()


# -- rows that cannot be read, and notes


@pytest.fixture
def faulty(run: Path, tmp_path: Path) -> dict[str, Any]:
    """Arguments of ``evaluate`` for a table with two test rows whose caption cannot be read."""
    rows = shop()
    for row in rows[62:64]:
        row["words"] = "' '"
    lines = write(tmp_path / "faulty.csv", rows).read_text().replace("' '", '" "')
    (tmp_path / "faulty.csv").write_text(lines)
    return {"run": run, "data": str(tmp_path / "faulty.csv"), "max_rejects": 0.05}


def test_rows_that_cannot_be_read_are_reported_and_left_out(faulty: dict[str, Any], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "rejects.jsonl").write_text("from an earlier evaluation")
    report = evaluate(**faulty, out=out)
    (note,) = report.notes
    assert note.startswith("2 of 84 rows cannot be read (2 x empty text)")
    assert " ".join(str(report).split()).endswith(" ".join(note.split()))  # in lines of 120 characters
    assert [json.loads(line)["row"] for line in (out / "rejects.jsonl").read_text().splitlines()] == [62, 63]
    expected = embed_with_model(run, [*shop()[60:62], *shop()[64:]])
    assert to_json(report.pairs) == as_approximate(measure(expected, expected))


def test_too_many_rows_that_cannot_be_read_raise(faulty: dict[str, Any], tmp_path: Path) -> None:
    strict: dict[str, Any] = faulty | {"max_rejects": 0.02}
    with pytest.raises(
        MultimodalError, match=r"2 of 84 rows cannot be read.* max_rejects 0\.024 would allow those found"
    ):
        evaluate(**strict, out=tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_pool_of_equal_vectors_is_noted(run: Path) -> None:
    rows = [{"id": str(n), "name": f"{WORDS[n]} cup", "words": "the same words", "set": str(n)} for n in range(10)]
    (note,) = evaluate(run / "model", rows, split="all", columns=COLUMNS, group="set").notes
    assert note.startswith("The pool of caption holds 1 different vectors among 10")


# -- errors


def test_data_without_a_pair_of_the_model_are_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=r"\['title', 'caption'\], the data have \['title'\]: no pair"):
        evaluate(run, columns={"title": "name"}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_split_is_wrong_usage(run: Path) -> None:
    with pytest.raises(UsageError, match=r"tset.*Did you mean 'test'"):
        evaluate(run, split="tset")
    with pytest.raises(UsageError, match=r"tarin.*Did you mean 'train'"):
        evaluate(run, pool="tarin")


def other_shop(folder: Path) -> tuple[Path, list[Row]]:
    """Write a table that the run has not seen, whose column of splits has another name."""
    rows = [{**row, "name": f"{row['name']} {row['id']}", "part": "new"} for row in reversed(shop())]
    return write(folder / "other.csv", [{k: v for k, v in row.items() if k != "part"} for row in rows]), rows


def test_another_table_is_evaluated_with_all_its_rows(run: Path, tmp_path: Path) -> None:
    table, rows = other_shop(tmp_path)
    report = evaluate(run, str(table))
    vectors = embed_with_model(run, rows)
    assert to_json(report.pairs) == as_approximate(measure(vectors, vectors))
    assert (report.split, report.rows, report.table_rows) == ("all", 84, 84)
    assert report.title.endswith(": 84 of 84 rows")
    assert evaluate(run).title.endswith(": 24 of 84 rows")


def test_the_baseline_of_another_table_is_fitted_on_the_table_of_the_run(run: Path, tmp_path: Path) -> None:
    table, rows = other_shop(tmp_path)
    report = evaluate(run, str(table), baseline="linear")
    train = {m: [row[COLUMNS[m]] or None for row in shop()[:60]] for m in MODALITIES}
    vectors = embed(fit_linear(train, Embedder.from_pretrained(run).processors).embed, rows)
    assert to_json(report.baselines["linear"]) == as_approximate(measure(vectors, vectors))


def test_without_the_rows_of_the_training_the_baseline_is_left_out(run: Path, tmp_path: Path) -> None:
    table, _ = other_shop(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    shutil.copytree(run / "model", tmp_path / "moved" / "model")
    config["data"]["table"] = str(tmp_path / "gone.csv")
    (tmp_path / "moved" / "config.yaml").write_text(yaml.safe_dump(config))
    for folder, reason in ((tmp_path / "moved", "gone.csv"), (tmp_path / "moved" / "model", "has no config.yaml")):
        report = evaluate(folder, str(table), baseline="linear", columns=COLUMNS)
        assert report.baselines == {}
        assert "Baseline, means and classifiers are left out" in report.notes[0]
        assert reason in report.notes[0]


def test_a_baseline_is_never_fitted_on_the_rows_that_it_is_measured_on(run: Path) -> None:
    assert evaluate(run, split="train", baseline="linear").baselines == {}
    report = evaluate(run, split=["train", "test"], baseline="linear")
    assert report.baselines == {}
    assert (
        report.notes[0]
        == "Baseline, means and classifiers are left out: all rows that the model was trained on are evaluated."
    )


def test_a_pool_without_right_answers_is_noted(run: Path) -> None:
    report = evaluate(run, split="test", pool="train")
    assert report.pairs == {}
    assert report.notes[-1].startswith("No query has a right answer in the pool")


def test_an_unknown_baseline_is_wrong_usage(run: Path) -> None:
    with pytest.raises(UsageError, match=r"no baseline 'quadratic'.*Known: linear"):
        evaluate(run, baseline="quadratic")  # pyright: ignore[reportArgumentType]


@pytest.fixture
def embedding_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail that reaches the embedding."""
    monkeypatch.setattr(Embedder, "embed_all", None)


@pytest.mark.usefixtures("embedding_fails")
@pytest.mark.parametrize("out", ["notes.txt", "notes.txt/out"])
def test_a_file_is_not_a_folder_to_write_to(run: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt is a file, not a folder; name another"):
        evaluate(run, out=tmp_path / out)
    with pytest.raises(UsageError, match=r"notes\.txt is a file, not a folder; name another"):
        REPORT.save(tmp_path / out)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("embedding_fails")
def test_a_missing_training_split_of_the_baseline_is_found_before_the_embedding(run: Path) -> None:
    samples = Samples.of(shop()[60:], COLUMNS, split="part")
    with pytest.raises(UsageError, match=r"no split 'train'"):
        evaluate(Embedder.from_pretrained(run), samples, baseline="linear")


def test_without_a_training_split_classes_are_measured_as_far_as_possible(run: Path) -> None:
    report = evaluate(Embedder.from_pretrained(run), shop()[60:], columns=COLUMNS, label="set", sections="space")
    classes, space = report.sections["classes"], report.sections["space"]
    assert isinstance(classes, ClassMeasures)
    assert isinstance(space, Space)
    assert set(classes.clusters) == set(MODALITIES)
    assert not classes.knn
    assert not space.centred
    assert any("Baseline, means and classifiers are left out" in note for note in report.notes)
    with pytest.raises(UsageError, match=r"must contain \{\} once"):
        evaluate(run, label="set", templates="a photo")


def test_a_misspelled_argument_and_a_split_for_the_data_are_reported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^evaluate\(\) takes no argument 'splits'\. Did you mean 'split'"):
        evaluate(run, splits="test")
    with pytest.raises(UsageError, match=r"There is no table 'test': .* Did you mean split='test'\?"):
        evaluate(run, "test")


def test_an_embedder_needs_data(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)  # its config.yaml is not the embedder's
    with pytest.raises(UsageError, match="An embedder has no data of its own: give the table"):
        evaluate(Embedder.from_pretrained(run))


def test_an_unknown_setting_is_wrong_usage(run: Path) -> None:
    with pytest.raises(UsageError, match=r"evaluate\(\) takes no argument 'max_rejcts'\. Did you mean 'max_rejects'"):
        evaluate(run, max_rejcts=0.5)


# -- the report


REPORT = Report(
    run="runs/shop",
    split="test",
    pool="all",
    seed=None,
    pairs={
        "a->b": measures(0.25, 0.5, 0.75, mrr=0.4, median_rank=4.5, mean_rank=8.25, queries=4, pool=30),
        "b->a": measures(0.5, 0.5, 1.0, mrr=0.6, median_rank=3.0, mean_rank=4.0, queries=2, pool=20),
    },
    baselines={
        "linear": {"a->b": measures(0.0, 0.0, 0.5, mrr=0.1, median_rank=9.0, mean_rank=9.5, queries=4, pool=30)},
        "other": {},
    },
    notes=("a note",),
)


def test_the_shape_of_the_space_is_measured_if_asked_for(run: Path, tmp_path: Path) -> None:
    assert not evaluate(run).sections
    report = evaluate(run, sections="space", out=tmp_path / "out")
    space = report.sections["space"]
    assert isinstance(space, Space)
    assert set(space.mixed_centred) == set(MODALITIES)  # by means of the training rows
    saved = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert saved["sections"]["space"]["pairs"]["title-caption"]["gap"] == space.pairs["title-caption"].gap
    text = (tmp_path / "out" / "metrics.md").read_text()
    assert "Search in all modalities at once" in text
    assert "- In brackets: 95 % confidence intervals, by drawing the groups of the queries again." in text
    assert "Search in all modalities at once" in str(report)
    none_left = evaluate(run, split="train", sections=["space"])
    space = none_left.sections["space"]
    assert isinstance(space, Space)
    assert not space.mixed_centred
    assert any("Baseline, means and classifiers are left out" in note for note in none_left.notes)


def test_classes_of_a_column_are_measured_if_named(run: Path) -> None:
    report = evaluate(run, label="set")
    classes = report.sections["classes"]
    assert isinstance(classes, ClassMeasures)
    assert set(classes.knn) == set(MODALITIES)
    assert classes.label in str(report)
    with pytest.raises(UsageError, match=r"no column 'sett'.*Did you mean 'set'"):
        evaluate(run, label="sett")


def test_queries_and_pool_are_chosen_by_columns(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"shop": "ab"[n % 2]} for n, row in enumerate(shop())]
    table = write(tmp_path / "two.csv", rows)
    report = evaluate(run, str(table), split="test", query_where={"shop": "a"}, pool_where={"shop": ["b"]})
    test = rows[60:]
    queries, pool = ([row for row in test if row["shop"] == shop_] for shop_ in "ab")
    expected = measure(embed_with_model(run, queries), embed_with_model(run, pool))
    across = {pair: r for pair, r in to_json(report.pairs).items() if pair in expected}
    assert across == as_approximate(expected)
    assert {"title->title", "caption->caption"} <= set(report.pairs)  # also within one modality
    assert report.title.startswith("Retrieval in 'test' where shop = b, queries of 'test' where shop = a")
    command = ["evaluate", str(run), "--data", str(table), "--split", "test", "--query_where", "shop=a"]
    assert main([*command, "--pool_where", "shop=b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report.to_json()
    assert main([*command, "--pool_where", "b"]) == 2
    assert "--pool_where b: a condition is COLUMN=VALUE" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"No row has shop = c\. Known: a, b"):
        evaluate(run, str(table), query_where={"shop": "c"})


def test_queries_and_pool_are_chosen_by_ranges(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "priced.csv", [row | {"price": str(n / 2)} for n, row in enumerate(shop())])
    queries, pool = {"price": {"lt": 40}}, {"price": {"gt": "35.5", "lt": 42}}
    report = evaluate(run, str(table), split="test", query_where=queries, pool_where=pool)
    named = [{"price": [str(n / 2) for n in numbers]} for numbers in (range(80), range(72, 84))]
    assert report.pairs == evaluate(run, str(table), split="test", query_where=named[0], pool_where=named[1]).pairs
    assert report.title.startswith(
        "Retrieval in 'test' where price > 35.5 and < 42, queries of 'test' where price < 40"
    )
    command = ["evaluate", str(run), "--data", str(table), "--split", "test", "--query_where", "price<40", "--json"]
    assert main([*command, "--pool_where", "price>35.5", "--pool_where", "price<42"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == report.to_json()["pairs"]
    for where, message in (
        ({"price": {"gt": 99}}, "No row has price > 99"),
        ({"shelf": {"gt": 99}}, "no column 'shelf'"),
        ({"name": {"gt": 99}}, "no row has a number in 'name'"),
        ({"price": {"over": 99}}, "price has no operator 'over'"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(run, str(table), query_where=where)


def test_within_one_modality_the_query_itself_does_not_count(run: Path) -> None:
    found = evaluate(run, split="test", query_where={"part": "test"}).pairs["title->title"]
    test = [row for row in shop() if row["part"] == "test"]
    vectors, groups = embed_with_model(run, test)["title"]
    ranks = []
    for n, query in enumerate(vectors):
        scores = vectors @ query
        others = [m for m in range(len(test)) if m != n]
        right = max(scores[m] + 1e-6 for m in others if groups[m] == groups[n])
        ranks.append(1 + sum(scores[m] + 2e-6 >= right for m in others if groups[m] != groups[n]))
    assert found.mrr == pytest.approx(np.mean(1 / np.array(ranks)))


def test_slices_fusions_and_neighbour_tests_are_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "triplets.csv").write_text("anchor,nearer,farther\nred cup,red bowl,old vase\n")
    command = ["evaluate", str(run), "--split", "test", "--slice", "part", "--fuse", "title+caption"]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["sections"]["slices"]["columns"]["part"]["slices"]["test"]["title->caption"]["queries"] > 0
    assert "missing" not in printed["sections"]
    assert main([*command, "--sections", "missing"]) == 2  # named, it is an error
    assert "Fusions are measured for 3 to 6 modalities" in capsys.readouterr().err
    assert main([*command, "--neighbours", str(tmp_path / "triplets.csv")]) == 2
    assert "The model has no modality 'text'" in capsys.readouterr().err


def test_intervals_contain_their_means(run: Path) -> None:
    report = evaluate(run)
    for pair, r in report.pairs.items():
        for name in ("recall@1", "mrr", "map", "ndcg@10"):
            interval = report.intervals[pair][name]
            assert interval.low <= r.to_json()[name] <= interval.high
            assert interval.mean == pytest.approx(r.to_json()[name])


def test_a_report_is_a_table_for_pandas_and_notebooks() -> None:
    frame = REPORT.to_pandas()
    assert frame[["by", "pair", "queries"]].values.tolist() == [
        ["model", "a->b", 4],
        ["model", "b->a", 2],
        ["linear", "a->b", 4],
    ]
    measures = list(REPORT.pairs["a->b"].to_json())
    assert list(frame.columns) == ["by", "pair", *measures]
    assert frame.loc[0, measures].tolist() == [0.25, 0.5, 0.75, 0.4, 4.5, 8.25, 4, 30, 0.1, 0.075, 0.4, 0.375]


def test_a_report_without_pairs_has_the_columns_of_every_report() -> None:
    empty = replace(REPORT, pairs={}, baselines={}).to_pandas()
    assert len(empty) == 0
    assert list(empty.columns) == list(REPORT.to_pandas().columns)


def test_a_notebook_shows_the_table_of_the_terminal_and_the_notes() -> None:
    page = REPORT._repr_html_()
    assert page.count("<table") == 2
    assert page.count("<tr") == 2 + 3  # two heads, and the rows of the model and the baseline
    assert "<td>a -&gt; b</td><td>25.0</td><td>50.0</td><td>75.0</td><td>0.400</td><td>4.5</td><td>8.2</td>" in page
    assert page.endswith("<p>a note</p>")


def test_a_notebook_shows_names_as_text() -> None:
    report = replace(REPORT, run="<b>", notes=("<script>",), baselines={})
    assert "<b>" not in report._repr_html_()
    assert "<script>" not in report._repr_html_()


def test_a_report_prints_its_tables_and_notes() -> None:
    text = str(REPORT)
    assert repr(REPORT) == text
    assert "Retrieval in 'all', queries of 'test' (runs/shop)" in text
    assert "The linear baseline, fitted on 'train'" in text
    assert "other" not in text  # a baseline without results
    assert text.endswith("a note")
    lines = [line.split() for line in text.splitlines()]
    assert ["a", "->", "b", "25.0", "50.0", "75.0", "0.400", "4.5", "8.2", "4", "30"] in lines  # 8.25 to an even digit
