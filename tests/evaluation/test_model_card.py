"""The model card is Markdown with a front matter that the hub reads, and says what its authors have to fill in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml

from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.evaluation.model_card import model_card
from multimodal.evaluation.report import Report
from multimodal.evaluation.run_evaluation import evaluate

ROWS = [{"id": str(n), "title": f"cup {n}", "words": f"a cup {n}"} for n in range(12)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("runs") / "cups"
    embedder = Embedder({m: create("text", "bag") for m in ("text", "caption")}, dim=8)
    embedder.fit_processors({m: [f"cup {n}" for n in range(12)] for m in ("text", "caption")})
    embedder.save_pretrained(run / "model")
    config: dict[str, Any] = {
        "seed_everything": 5,
        "data": {"table": "a `b` <i>.csv", "columns": {"text": "title", "caption": "words"}, "batch_size": 33},
        "model": {"objective": {"class_path": "multimodal.InfoNCE", "init_args": {"temperature": 0.07, "pairs": None}}},
        "trainer": {"max_steps": 77},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    columns = {"text": "title", "caption": "words"}
    return replace(evaluate(run, ROWS, columns=columns, split="all"), run=str(run))


def split(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_that_of_the_hub(report: Report) -> None:
    card = model_card(report)
    front, _ = split(card)
    assert (front["library_name"], front["pipeline_tag"]) == ("multimodal", "feature-extraction")
    assert set(front["tags"]) >= {"embeddings", "text", "caption"}
    assert "license" not in front
    assert "# license: fill in" in card
    (model,) = front["model-index"]
    (result,) = model["results"]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values["recall@1, text to caption"] == pytest.approx(report.pairs["text->caption"].recall_at_1, abs=1e-4)
    assert len(values) == 6


def test_the_card_says_what_the_run_was(report: Report) -> None:
    _, body = split(model_card(report))
    parts = ("What it is", "Intended use", "Limits", "Data", "Training", "Measures", "How to load it", "How to cite it")
    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == list(parts)
    assert body.startswith("\n# cups\n")
    for text in (
        "- seed: 0",
        "multimodal.InfoNCE (temperature 0.07)",
        "- batch_size: 33",
        "- max_steps: 77",
        "BagOfWords",
    ):
        assert text.replace("seed: 0", "seed: 5") in body
    weakest = min(r.recall_at_1 for r in report.pairs.values())
    assert f"{100 * weakest:.1f} % find a right answer first" in body
    code = (
        body.split("```python\n")[1]
        .split("```")[0]
        .replace("path/to/this/folder", report.run)
        .replace("[...]", "['a cup']")
    )
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["vectors"].shape == (1, 8)


def test_without_a_run_the_card_says_what_is_missing(report: Report) -> None:
    _, body = split(model_card(Report("embedder", "all", "all", None, pairs={})))
    assert "its training is not known here" in body
    assert "No query has a right answer" in body
    _, body = split(model_card(replace(report, run="a\n# b <i>")))
    assert "\n# b" not in body
    assert "<i>" not in body.split("## Measures")[0]
