"""A run is refined by feedback: good feedback makes a better run, poisoned feedback none, and a kill harms nothing."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from asked_things import feedback, in_other_words, indexed, rows, trained_run
from command_processes import Command

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.run_data import load_run_data
from multimodal.data.samples import Samples
from multimodal.experiment.ensemble_runs import ensemble_runs
from multimodal.monitor.acceptance import Criterion, compare_values
from multimodal.monitor.feedback_pairs import WeightedPair
from multimodal.monitor.refine import RefineSettings, refine
from multimodal.monitor.refine_table import JudgedPair, RefineTable, chosen_pairs, split_queries, with_negatives
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.index import Index

SETTINGS = RefineSettings(steps=100, rate=1.0, replay=0.85, tolerance=0.1)  # 43 rows are tested: intervals are wide
OPTIONS = ("--steps", "100", "--rate", "1.0", "--replay", "0.85", "--tolerance", "0.1")


def digests(*folders: Path) -> dict[str, str]:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def index(run: Path) -> Path:
    return indexed(run, run.parent / "index")


@pytest.fixture(scope="module")
def honest(run: Path) -> Path:
    return feedback(run.parent / "feedback.jsonl")


def ranks_in_other_words(run: Path, folder: Path) -> np.ndarray:
    """1 / rank of the things that nobody asked for, searched by other words among the codes of all things."""
    with Index.open(indexed(run, folder), model=run) as index:
        found = []
        for row in rows():
            if row["part"] == "test":
                keys = [hit.key for hit in index.search(text=in_other_words(row), k=216, target="code")]
                found.append(1 / (keys.index(row["sku"]) + 1))
    return np.array(found)


def test_feedback_makes_a_better_run_that_is_like_any_other(
    run: Path, index: Path, honest: Path, tmp_path: Path
) -> None:
    before = digests(run, index)
    result = refine(run, honest, index, tmp_path / "new", settings=SETTINGS)
    assert result.accepted, result
    assert {criterion.name for criterion in result.criteria} == {
        "judged queries", "test", "test text->code", "test code->text",
    }  # fmt: skip
    assert digests(run, index) == before
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    report = json.loads((tmp_path / "new" / "refine.json").read_text())
    assert report["accepted"] is True
    assert all(criterion["passed"] for criterion in report["criteria"])
    config, old = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (tmp_path / "new", run))
    assert config == old | {"run": str(tmp_path / "new")}
    assert len(load_run_data(tmp_path / "new").samples) == 216
    assert main(["evaluate", str(tmp_path / "new"), "--split", "test"]) == 0
    # the things of the test were asked for by nobody, so that they are found by what was learned of other things
    old_ranks, new_ranks = (
        ranks_in_other_words(folder, tmp_path / f"index of {folder.name}") for folder in (run, tmp_path / "new")
    )
    assert compare_values("test", old_ranks, new_ranks, np.arange(43), 0.0).passed
    assert new_ranks.mean() > 3 * old_ranks.mean()


def test_wrong_feedback_is_refused_and_leaves_nothing(
    run: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned = feedback(tmp_path / "poisoned.jsonl", wrong=1.0)
    before = digests(run, index)
    command = ["refine", str(run), str(poisoned), "--index", str(index), "--out", str(tmp_path / "new"), *OPTIONS]
    assert main([*command, "--json"]) == 3
    printed = capsys.readouterr()
    found = json.loads(printed.out[printed.out.index("{\n") :])
    assert found["accepted"] is False
    assert found["run"] == str(run)
    assert "judged queries" in [c["name"] for c in found["criteria"] if not c["passed"]]
    assert "the refined model is not accepted (" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["poisoned.jsonl"]
    assert digests(run, index) == before


def test_an_ensemble_is_not_refined(run: Path, index: Path, honest: Path, tmp_path: Path) -> None:
    ensemble_runs([run, run], tmp_path / "both")
    with pytest.raises(UsageError, match="has no model to train; of an ensemble, refine its runs"):
        refine(tmp_path / "both", honest, index, tmp_path / "new", settings=SETTINGS)


def test_the_flood_of_a_user_is_bounded(run: Path, index: Path, honest: Path, tmp_path: Path) -> None:
    flooded, draws, things = tmp_path / "flooded.jsonl", np.random.default_rng(0), rows()
    with flooded.open("w") as opened:
        opened.write(honest.read_text())
        for number in range(3000):  # ten times as many as those of the others
            asked, key = things[draws.integers(216)], things[draws.integers(216)]["sku"]
            line = {"verdict": "up", "key": key, "modality": "code", "query": {"text": in_other_words(asked)}}
            opened.write(json.dumps(line | {"position": 10, "query_id": f"{number}", "user": "flood"}) + "\n")
    assert refine(run, flooded, index, tmp_path / "new", settings=SETTINGS).accepted


def test_canaries_that_fail_refuse_the_new_model(run: Path, index: Path, honest: Path, tmp_path: Path) -> None:
    with Index.open(index, model=run) as opened:  # what the old model finds, which the new one will not
        asked = [in_other_words(row) for row in rows()[:40]]
        expected = [opened.search(text=text, k=1, target="code")[0].key for text in asked]
    known = [{"text": t, "expected": key, "k": 1, "target": "code"} for t, key in zip(asked, expected, strict=True)]
    result = refine(run, honest, index, tmp_path / "new", settings=SETTINGS, canaries=known)
    assert [criterion.name for criterion in result.failed] == ["canaries"]
    assert result.failed[0].old == 1.0
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_refined_is_reported(run: Path, index: Path, honest: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(honest.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(MultimodalError, match=r"too little feedback: \d+ queries"):
        refine(run, few, index, tmp_path / "new")
    with pytest.raises(UsageError, match="there already"):
        refine(run, honest, index, run)
    with pytest.raises(MultimodalError, match="another model"):
        refine(trained_run(tmp_path, steps=2), honest, index, tmp_path / "new")
    with pytest.raises(UsageError, match="replay is a fraction"):
        RefineSettings(replay=1.0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("state", ["no model yet", "trained"])
def test_a_process_killed_after_the_last_step_is_continued(
    state: str, run: Path, index: Path, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("multimodal.monitor.refine.measure_model", stop)
    with pytest.raises(KeyboardInterrupt):
        refine(run, honest, index, tmp_path / "new", settings=SETTINGS)
    monkeypatch.undo()
    work = tmp_path / ".new.refine"
    assert (work / "trained").exists()
    assert not (tmp_path / "new").exists()
    before = Embedder.from_pretrained(work / "run").fingerprint
    if state == "no model yet":
        (work / "trained").unlink()
        shutil.rmtree(work / "run" / "model")
    assert refine(run, honest, index, tmp_path / "new", settings=SETTINGS).accepted
    assert Embedder.from_pretrained(tmp_path / "new").fingerprint == before
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def killed(run: Path, index: Path, honest: Path, folder: Path, moments: int) -> list[str]:
    """Kill the command at several moments, and finish it; returns what was there after each kill."""
    before, new = digests(run, index), folder / "new"
    arguments = ["refine", run, honest, "--index", index, *OPTIONS, "--steps", "30", "--out"]
    Command(["refine", "--help"], folder / "help.log").wait()  # the server of processes starts with the first
    started = time.monotonic()
    first = Command([*arguments, folder / "whole"], folder / "whole.log")
    assert first.wait() == 0, first.printed
    whole = time.monotonic() - started
    draws, found = random.Random(0), []
    for moment in range(moments):
        command = Command([*arguments, new], folder / f"{moment}.log")
        time.sleep(whole * (moment + draws.random()) / moments)
        command.kill()
        assert digests(run, index) == before
        if new.exists():  # it had ended: whole, and like the one that was not killed
            assert json.loads((new / "refine.json").read_text())["accepted"]
            found.append("finished")
            Embedder.from_pretrained(new)
            for path in sorted(new.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            new.rmdir()
        else:
            found.append("began" if (folder / ".new.refine").exists() else "not begun")
    last = Command([*arguments, new], folder / "last.log")
    assert last.wait() == 0, last.printed
    one, other = (Embedder.from_pretrained(folder / name) for name in ("whole", "new"))
    assert one.fingerprint == other.fingerprint  # the draws and the training are those of the seed
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    return found


def test_a_killed_process_leaves_the_old_run_and_is_continued(
    run: Path, index: Path, honest: Path, tmp_path: Path
) -> None:
    assert len(killed(run, index, honest, tmp_path, moments=2)) == 2


@pytest.mark.slow
def test_killed_at_ten_moments(run: Path, index: Path, honest: Path, tmp_path: Path) -> None:
    found = killed(run, index, honest, tmp_path, moments=10)
    print({state: found.count(state) for state in ("not begun", "began", "finished")})
    assert found.count("began") >= 4


ROWS = [{"sku": f"s{n}", "name": f"name {n}", "about": f"about {n}", "set": f"{n // 2}"} for n in range(12)]


class Aligned:
    """A model of which "q" is the first axis, and whose processors read typed values."""

    calibration = None
    modalities = ("text", "more")
    processors: Mapping[str, object] = dict.fromkeys(modalities, type("Typed", (), {"reads_files": False})())

    def encode(self, **values: object) -> np.ndarray:
        (given,) = [v for v in values.values() if isinstance(v, list)]
        return np.tile(np.eye(2, dtype=np.float32)[0], (len(given), 1))


def things() -> Samples:
    return Samples.of(ROWS, {"text": "name", "more": "about"}, key="sku", group="set")


def test_what_most_judgements_say_is_kept() -> None:
    query = (("text", "q"),)
    pairs = [
        WeightedPair(query, key, "more", weight)
        for key, weight in (("s0", 6.0), ("s1", 1.0), ("s4", 3.0), ("s6", -2.0))
    ]
    pairs += [WeightedPair(query, "gone", "more", 9.0), WeightedPair((("text", "a"), ("more", "b")), "s0", "", 9.0)]
    pairs += [WeightedPair((("picture", "cup.png"),), "s0", "", 9.0)]
    chosen, wrong = chosen_pairs(pairs, things(), Aligned())  # pyright: ignore[reportArgumentType]
    assert [(pair.row, pair.weight) for pair in chosen] == [
        (0, 6.0),
        (1, 1.0),
    ]  # 3 is below half of 6 + 1, of one group
    assert wrong == {("text", "q"): {"s6"}}


PAIR = [JudgedPair("text", "q", 0, "more", 1.0)]


def index_of(cosines: np.ndarray) -> Index:
    """Return the index of twelve rows that have these cosines with every query."""
    vectors = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    table = pa.table(
        {
            "key": [row["sku"] for row in ROWS],
            "group": [f"={row['set']}" for row in ROWS],
            "metadata": ["{}"] * 12,
            "modality": ["more"] * 12,
        }
    )
    return Index(ExactEngine(vectors, table), "f" * 64, embedder=Aligned())  # pyright: ignore[reportArgumentType]


def test_negatives_are_of_other_groups_and_below_the_margin() -> None:
    cosines = np.array([0.80, 0.99, 0.78, 0.75, 0.70, 0.60, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    index = index_of(cosines)
    drawn = {found.negative for seed in range(60) for found in with_negatives(PAIR, {}, index, things(), seed)}
    # row 1 is of the right group; row 2 has 0.78, above 0.95 of 0.80; hits are the best of each group
    assert drawn == {4, 6, 8, 10}
    (found,) = with_negatives(PAIR, {("text", "q"): {"s9"}}, index, things())
    assert found.negative == 9  # that people judged wrong


def test_a_row_that_scores_below_zero_has_no_negatives_above_it() -> None:
    cosines = np.array([-0.40, -0.40, -0.39, -0.385, -0.41, -0.42, -0.43, *np.linspace(-0.5, -0.9, 5)])
    drawn = {
        found.negative for seed in range(40) for found in with_negatives(PAIR, {}, index_of(cosines), things(), seed)
    }
    assert drawn == {6, 8, 10}  # at most -0.42, which is 5 % of 0.40 below; the others may be right too


def test_the_table_has_the_queries_their_rows_and_replayed_ones() -> None:
    pairs = [JudgedPair("text", "q", 0, "more", 3.0, negative=5), JudgedPair("text", "r", 2, "more", 1.0)]
    table = RefineTable(things(), pairs, np.array([8, 9]), count=400, replay=0.75)
    assert len(table) == 1600
    asked = [row for row in range(400) if table.value(row, "text") == "q"]
    assert 0.65 < len(asked) / 400 < 0.85  # by weight
    assert {(table.value(n, "more"), table.value(n, "negative more"), table.value(n, "group")) for n in asked} == {
        ("about 0", "about 5", "=0")
    }
    assert {(table.value(n, "text"), table.value(n, "more")) for n in range(400, 1600)} == {
        ("name 8", "about 8"), ("name 9", "about 9"),
    }  # fmt: skip
    assert table.negatives == {"more": "negative more"}
    assert len({table.value(n, "key") for n in range(1600)}) == 1600


def test_whole_queries_are_held_out() -> None:
    pairs = [JudgedPair("text", f"query {n // 3}", n, "more", 1.0) for n in range(3000)]
    train, held_out = split_queries(pairs, 0.25, seed=0)
    assert {pair.value for pair in train}.isdisjoint(pair.value for pair in held_out)
    assert len(train) + len(held_out) == 3000
    assert 0.2 < len(held_out) / 3000 < 0.3


def test_a_criterion_is_about_the_lower_end_of_the_interval() -> None:
    draws = np.random.default_rng(0)
    old = draws.random(400)
    better = np.clip(old + draws.normal(0.05, 0.1, 400), 0, 1)
    assert compare_values("x", old, better, np.arange(400), 0.0).passed
    few = np.repeat([0.3, -0.1], [200, 200])
    assert compare_values("x", old, old + few, np.arange(400), 0.0).passed
    assert not compare_values("x", old, old + few, np.arange(400) // 200, 0.0).passed  # two groups say little
    same = compare_values("x", old, old + draws.normal(0, 0.1, 400), np.arange(400), 0.0)
    assert not same.passed
    assert Criterion("x", 1, 0.5, 0.5, -0.01, 0.01, -0.02).passed
