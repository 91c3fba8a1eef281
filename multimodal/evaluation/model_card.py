"""The model card of a report: Markdown in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from multimodal.core.errors import MultimodalError
from multimodal.core.run_folder import RUN_CONFIG
from multimodal.core.yaml_file import read_yaml
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.provenance import versions
from multimodal.evaluation.render import all_measures_grid
from multimodal.evaluation.results import Results

CARD = "model_card.md"  # not README.md: a folder that is given may have one of its own
MEASURES = ("recall_at_1", "recall_at_10", "mrr")
TRAINING = ("objective", "optimizer", "schedule")  # of `model:`
SETTINGS = ("batch_size", "max_steps", "max_epochs", "precision")


def model_card(report: Results) -> str:
    """Return the model card of a report. What only the authors know is marked "fill in".

    Args:
        report: the report.
    """
    name = Path(report.run).name or "model"
    front = yaml.safe_dump(_front_matter(report, name), sort_keys=False, allow_unicode=True, width=120)
    parts = [
        f"---\n# license: fill in, such as apache-2.0\n{front}---",
        f"# {_line(name)}",
        "## What it is",
        _model(report),
        "## Intended use",
        "Search across modalities: the vectors of all modalities are in one space, of unit length, and are compared by their"
        " cosine. Fill in: who it is for, and what it is not for.",
        "## Limits",
        "\n".join(f"- {_line(limit)}" for limit in _limits(report)),
        "## Data",
        _data(report),
        "## Training",
        _training(Path(report.run), report.seed),
        "## Measures",
        _measures(report),
        "## How to load it",
        _how_to_load(report),
        "## How to cite it",
        "Fill in the model's authors. The framework: The multimodal developers, *multimodal*, version"
        f" {versions().get('multimodal', 'unknown')}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(report: Results, name: str) -> dict[str, Any]:
    modalities = [] if report.evaluated is None else report.evaluated.embedder.modalities
    table = "unknown" if report.evaluated is None else report.evaluated.queries.samples.name
    values = [
        {"type": measure, "name": f"{measure.replace('_at_', '@')}, {pair.replace('->', ' to ')}", "value": value}
        for pair, r in report.pairs.items()
        for measure in MEASURES
        if (value := round(getattr(r, measure), 4)) == value
    ]
    dataset = {"type": table, "name": table, "split": str(report.split)}
    task = {"type": "feature-extraction", "name": "retrieval across modalities"}
    return {
        "library_name": "multimodal",
        "pipeline_tag": "feature-extraction",
        "tags": ["multimodal", "embeddings", "retrieval", *modalities],
        "metrics": ["recall", "mrr"],
        "model-index": [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": values}]}],
    }


def _model(report: Results) -> str:
    if report.evaluated is None:
        return "An embedder: one encoder for each modality, into one space."
    embedder = report.evaluated.embedder
    rows = []
    for modality in embedder.modalities:
        encoder = embedder.encoder(modality)
        rows.append([modality, type(encoder).__name__, f"{sum(p.numel() for p in encoder.parameters()):,}"])
    table = _markdown(["modality", "encoder", "parameters"], rows)
    return f"An embedder into {embedder.dim} dimensions, one encoder for each modality.\n\n{table}"


def _limits(report: Results) -> list[str]:
    worst = min(report.pairs.items(), key=lambda entry: entry[1].recall_at_1, default=None)
    limits = []
    if worst is not None:
        pair, r = worst
        limits.append(
            f"The weakest pair is {pair.replace('->', ' to ')}: of {r.queries:,} queries, {100 * r.recall_at_1:.1f} % find a"
            f" right answer first among {r.pool:,} candidates."
        )
    limits.append("The measures are of the data below; on other data they may be much lower.")
    limits += report.notes
    limits.append("Fill in: known biases of the data, and what was not measured.")
    return limits


def _data(report: Results) -> str:
    if report.evaluated is None:
        return "Fill in."
    samples = report.evaluated.queries.samples
    lines = [
        f"- Table: `{_line(samples.name)}`, {len(samples):,} rows.",
        f"- Columns: {_line(samples.schema.columns_text)}.",
        f"- Evaluated: {_line(repr(report.split))}, {report.rows or 0:,} rows, searching {_line(repr(report.pool))}.",
        f"- Fingerprint: `{_line(samples.fingerprint)}`.",
        "- Fill in: where the data are from, and under which licence.",
    ]
    return "\n".join(lines)


def _training(run: Path, seed: int | None) -> str:
    try:
        config = read_yaml(run / RUN_CONFIG)
    except (MultimodalError, OSError):
        config = None
    if not isinstance(config, dict):
        return "This model has no run folder, so its training is not known here. Fill in."
    lines = [] if seed is None else [f"- seed: {seed}"]
    model, data, trainer = (
        part if isinstance(part := config.get(key), dict) else {} for key in ("model", "data", "trainer")
    )
    for key in TRAINING:
        if isinstance(part := model.get(key), dict) and "class_path" in part:
            given = part.get("init_args")
            settings = (
                ", ".join(f"{n} {v}" for n, v in given.items() if v is not None) if isinstance(given, dict) else ""
            )
            lines.append(f"- {key}: {_line(part['class_path'])}{f' ({_line(settings)})' if settings else ''}")
    for key in SETTINGS:
        value = data.get(key, trainer.get(key))
        if value is not None:
            lines.append(f"- {key}: {_line(value)}")
    lines += [f"- {name}: {number}" for name, number in versions().items()]
    return "\n".join(lines)


def _measures(report: Results) -> str:
    if not report.pairs:
        return "No query has a right answer in the pool."
    table = all_measures_grid(
        report.pairs, _line(report.title), report.intervals, report.highest_recall_at_1
    ).markdown()
    return (
        f"{table}\n\nRecalls in per cent, with 95 % bootstrap intervals. A query's right answers are the candidates of its"
        " group; ties count against the model."
    )


def _how_to_load(report: Results) -> str:
    modality = "text"
    if report.evaluated is not None and modality not in report.evaluated.embedder.modalities:
        modality = report.evaluated.embedder.modalities[0]
    return (
        "```python\nimport multimodal as mm\n\n"
        'embedder = mm.Embedder.from_pretrained("path/to/this/folder")\n'
        f"vectors = embedder.encode({modality}=[...])  # (n, dim) float32, of unit length\n```"
    )


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return Grid("", columns, rows).markdown().strip()


def _line(value: object) -> str:
    """Write text from the data on one line, in which nothing is markup."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return " ".join(shown.split()).replace("<", "&lt;").replace("`", "'")
