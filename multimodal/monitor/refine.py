"""Refine a run by feedback, and accept the new model only if it is better on judged queries and not worse elsewhere.

1. Judgements become weighted pairs, joined with the rows of the run's table; some queries are held out.
2. Hard negatives are mined from the index, and rows of the old training split are mixed in.
3. The run's model is trained on, for some steps, in a folder next to the new run's, so that a killed process loses little.
4. Both models are measured on the held-out queries, on the run's test rows of other groups, and on canaries.
5. An accepted model is moved to the new run's folder by one rename. A refused one is removed. The old run and the index are
   only read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import check_folder
from multimodal.core.folder_lock import hold_lock, replacement_lock_file
from multimodal.core.hardware import fast_device, share_cores
from multimodal.core.run_folder import BEST, CHECKPOINTS, LAST, RUN_CONFIG
from multimodal.core.yaml_file import read_yaml
from multimodal.data.datamodule import DataModule
from multimodal.data.run_data import RunData, load_run_data
from multimodal.experiment.load import load_config
from multimodal.experiment.quiet import quiet_libraries
from multimodal.experiment.write_config import write_config
from multimodal.monitor.acceptance import Criterion, HeldOut, judge, measure_model
from multimodal.monitor.canary import Canary, read_canaries
from multimodal.monitor.feedback import Feedback, read_feedback
from multimodal.monitor.feedback_pairs import weighted_pairs
from multimodal.monitor.position_bias import PositionBias, estimate_position_bias
from multimodal.monitor.refine_table import JudgedPair, RefineTable, chosen_pairs, split_queries, with_negatives
from multimodal.search.index import Index
from multimodal.training.checkpoint_io import checkpoint_to_resume

REPORT = "refine.json"
INPUTS, RUN, TRAINED = "inputs.json", "run", "trained"  # in the folder of the work
FEWEST_QUERIES = 20  # held out; fewer say nothing
POOL_ROWS, TEST_ROWS = 2000, 1000  # that are embedded by both models
COPIES = 4  # rows for each judged pair, on average


class Refused(MultimodalError):
    """The refined model is not accepted; the message says why.

    Examples:
        >>> Refused("not better").exit_code
        3
    """

    exit_code = 3


@dataclass(frozen=True)
class RefineSettings:
    """How a run is refined.

    Args:
        steps: training steps.
        rate: factor of the run's learning rate, above 0.
        replay: fraction of the training rows that are rows of the run's training split, in [0, 1).
        held_out: fraction of the judged queries that are measured instead of trained on, in (0, 1).
        tolerance: how much the lower end of a "not worse" interval may be below 0: of reciprocal ranks, or of the fraction of
            canaries that pass.
        seed: of the draws and the training.

    Raises:
        UsageError: a setting is out of its range.

    Examples:
        >>> RefineSettings(steps=50).replay
        0.75
    """

    steps: int = 100
    rate: float = 0.1
    replay: float = 0.75
    held_out: float = 0.25
    tolerance: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.rate > 0:
            raise UsageError(f"refine: steps must be at least 1 and rate above 0, got {self.steps} and {self.rate}.")
        if not 0 <= self.replay < 1 or not 0 < self.held_out < 1 or not 0 <= self.tolerance <= 1:
            raise UsageError(
                "refine: replay is a fraction below 1, held_out one between 0 and 1, tolerance one from 0 to 1; got"
                f" {self.replay}, {self.held_out} and {self.tolerance}."
            )


@dataclass(frozen=True)
class Refined:
    """The result of ``refine``.

    Attributes:
        accepted: whether there is a new run.
        run: folder of the new run; if it is not accepted, that of the old one.
        criteria: the measures of both models.
        feedback: what was read, in words.
        bias: how examination was taken to fall with the position, in words.
        trained: number of judged pairs that were trained on.
        settings: how it was refined.

    Examples:
        >>> Refined(False, "runs/a", (), "3 judgements (3 up)", "assumed", 2, {}).accepted
        False
    """

    accepted: bool
    run: str
    criteria: Sequence[Criterion]
    feedback: str
    bias: str
    trained: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[Criterion]:
        """The criteria that were not passed."""
        return [criterion for criterion in self.criteria if not criterion.passed]

    def __repr__(self) -> str:
        verdict = "Accepted" if self.accepted else "Refused, and nothing was written"
        lines = [self.feedback, self.bias, f"Trained on {self.trained:,} judged pairs", *map(repr, self.criteria)]
        return "\n".join([*lines, f"{verdict}: the run is {self.run}"])

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return vars(self) | {"criteria": [criterion.to_json() for criterion in self.criteria]}


def refine(
    run: str | Path,
    feedback: str | Path,
    index: str | Path | Index,
    out: str | Path,
    *,
    canaries: Any = None,
    settings: RefineSettings | None = None,
) -> Refined:
    """Refine a run by feedback on its index, into a new run, if the new model is accepted.

    A process that is killed leaves the old run and the index as they are, and no new run; the same call continues.

    Args:
        run: folder of the run, which was trained on a table with a name.
        feedback: judgements, as ``multimodal serve --feedback FILE`` writes them.
        index: folder of the index that was judged, or the opened index, of this run's model.
        out: folder of the new run, which must not exist.
        canaries: table of queries whose hits are known, see ``read_canaries``. None: none are.
        settings: how it is refined. None: the defaults.

    Returns:
        Whether the new model is accepted, and why.

    Raises:
        MultimodalError: the run, the feedback or the index cannot be read or do not belong together, there is too little
            feedback, or another process is refining into the folder.
        UsageError: the folder exists, or the run cannot be refined.
    """
    run, out, settings = Path(run), Path(out).absolute(), settings or RefineSettings()
    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is there already: name another folder for the new run.")
    out.parent.mkdir(parents=True, exist_ok=True)
    share_cores(0)
    embedder = Embedder.from_pretrained(run).to(fast_device())
    data = load_run_data(run)
    _check_run(run, data)
    found = read_feedback(feedback)
    bias = estimate_position_bias(found.judgements)
    known = read_canaries(canaries, embedder.processors) if canaries is not None else []
    with _opened(index, embedder) as opened, hold_lock(replacement_lock_file(out), out):
        train, held_out = _prepare(opened, data, found, bias, known, settings)
        work = _work_folder(out, run, embedder, train, held_out, settings)
        _train(run, work / RUN, embedder, data, train, settings)
        new = Embedder.from_pretrained(work / RUN).to(fast_device())
        criteria = judge(measure_model(embedder, held_out), measure_model(new, held_out), settings.tolerance)
        accepted = all(criterion.passed for criterion in criteria)
        result = Refined(
            accepted, str(out if accepted else run), criteria, repr(found), repr(bias), len(train), asdict(settings)
        )
        if accepted:
            _publish(run, work, out, result)
        shutil.rmtree(work)
    return result


@contextmanager
def _opened(index: str | Path | Index, embedder: Embedder) -> Iterator[Index]:
    if isinstance(index, Index):
        index.check_model(embedder.fingerprint)
        yield index
        return
    with Index.open(index, model=embedder) as opened:
        yield opened


def _check_run(run: Path, data: RunData) -> None:
    config = read_yaml(run / RUN_CONFIG)
    if not config.get("model"):
        raise UsageError(f"refine: {run / RUN_CONFIG} has no model to train; of an ensemble, refine its runs.")
    if data.samples.schema.targets or (config.get("data") or {}).get("targets"):
        raise UsageError(f"refine: {run} was trained with targets, which judged queries do not have.")


def _prepare(
    index: Index,
    data: RunData,
    feedback: Feedback,
    bias: PositionBias,
    canaries: Sequence[Canary],
    settings: RefineSettings,
) -> tuple[list[JudgedPair], HeldOut]:
    """Return the judged pairs to train on, with negatives, and what both models are measured on."""
    samples = data.samples
    pairs, wrong = chosen_pairs(weighted_pairs(feedback.judgements, bias), samples, index.need_model())
    train, measured = split_queries(pairs, settings.held_out, settings.seed)
    if len({(pair.modality, pair.value) for pair in measured}) < FEWEST_QUERIES or not train:
        raise MultimodalError(
            f"There is too little feedback: {len(pairs):,} queries of one typed value lead to a row of {samples.name!r},"
            f" {len(measured):,} of them are held out, and at least {FEWEST_QUERIES} are needed. {feedback!r}."
        )
    train = with_negatives(train, wrong, index, samples, settings.seed)
    draws = np.random.default_rng(settings.seed)
    numbers = samples.group_numbers
    trained = np.unique(numbers[[pair.row for pair in train]])
    test = samples.rows(data.test_split)
    test = _some(test[~np.isin(numbers[test], trained)], TEST_ROWS, draws)
    rows = samples.rows_by_key
    expected = [rows[key] for canary in canaries for key in canary.expected if key in rows]
    indexed = np.array([rows[key] for key in index.items["key"].to_pylist() if key in rows], np.int64)
    first = indexed[np.unique(numbers[indexed], return_index=True)[1]]
    pool = np.unique([*(pair.row for pair in measured), *expected, *_some(first, POOL_ROWS, draws).tolist()])
    return train, HeldOut(samples, measured, test, pool, canaries, data.max_rejects)


def _some(rows: np.ndarray, most: int, draws: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(draws.choice(rows, most, replace=False))


def _work_folder(
    out: Path, run: Path, embedder: Embedder, train: Sequence[JudgedPair], held_out: HeldOut, settings: RefineSettings
) -> Path:
    """Return the folder of the work, which a killed process may have begun; one of other inputs is emptied first."""
    work = out.with_name(f".{out.name}.refine")
    text = json.dumps([str(run.absolute()), embedder.fingerprint, asdict(settings), [asdict(pair) for pair in train]])
    inputs = {"sha256": sha256(text.encode()).hexdigest()}
    try:
        same = json.loads((work / INPUTS).read_text(encoding="utf-8")) == inputs
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / INPUTS).write_text(json.dumps(inputs), encoding="utf-8")
    return work


def _train(
    run: Path, folder: Path, embedder: Embedder, data: RunData, pairs: Sequence[JudgedPair], settings: RefineSettings
) -> None:
    """Train the run's model on the judged pairs and replayed rows, from where a killed process stopped."""
    if (folder.parent / TRAINED).exists():
        return
    if _last_step(folder) >= settings.steps:  # killed between its last checkpoint and the model
        shutil.rmtree(folder)
    config = read_yaml(run / RUN_CONFIG)
    rate = _learning_rate(run, config) * settings.rate
    trainer = {"max_steps": settings.steps, "max_epochs": -1, "limit_val_batches": 0, "val_check_interval": None}
    trainer |= {"callbacks": None, "max_time": None, "limit_train_batches": None, "enable_model_summary": False}
    optimizer = {"init_args": {"lr": rate}}
    changes = {"run": str(folder), "seed_everything": settings.seed, "trainer": trainer}
    experiment = load_config(run, changes | {"model": {"begin_with": None, "optimizer": optimizer}})
    model = experiment.model
    model.embedder.load_state_dict(embedder.to("cpu").state_dict())
    for modality, processor in model.embedder.processors.items():
        processor.load_state(embedder.processors[modality].state())
    _load_objective(run, model)
    samples, batch = data.samples, experiment.data.batch_size
    count = int(np.clip(COPIES * len(pairs), min(batch, len(pairs) * COPIES), 20_000))
    table = RefineTable(
        samples,
        pairs,
        samples.rows(data.train_split),
        count=count,
        replay=settings.replay,
        seed=settings.seed,
    )
    module = DataModule(
        table,
        {modality: modality for modality in samples.modalities},
        key="key",
        group="group",
        split="split",
        negatives={modality: column for modality, column in table.negatives.items() if modality in embedder.modalities},
        max_rejects=data.max_rejects,
        epoch="rows",
        validation="train",
        test="train",
        batch_size=min(batch, len(table)),
        micro_batch=experiment.data.micro_batch,
        keep_items=True,
    )
    with quiet_libraries():
        last = checkpoint_to_resume(folder)
        experiment.trainer.fit(model, datamodule=module, ckpt_path=last, weights_only=True)
    (folder.parent / TRAINED).touch()
    embedder.to(fast_device())


def _last_step(folder: Path) -> int:
    """Return the step of the last checkpoint; 0: there is none."""
    if not (path := folder / CHECKPOINTS / LAST).is_file():
        return 0
    return int(torch.load(path, map_location="cpu", mmap=True, weights_only=True)["global_step"])


def _learning_rate(run: Path, config: Mapping[str, Any]) -> float:
    arguments = ((config.get("model") or {}).get("optimizer") or {}).get("init_args") or {}
    if not isinstance(rate := arguments.get("lr"), int | float):
        raise UsageError(f"refine: {run / RUN_CONFIG} has no model.optimizer.init_args.lr, which is lowered.")
    return float(rate)


def _load_objective(run: Path, model: Any) -> None:
    """Load the objective's own parameters, such as the temperature, from the run's checkpoint, if there is one."""
    for name in (BEST, LAST):
        if (path := run / CHECKPOINTS / name).is_file():
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)["state_dict"]
            of_objective = {k.removeprefix("objective."): v for k, v in state.items() if k.startswith("objective.")}
            model.objective.load_state_dict(of_objective)
            return


def _publish(run: Path, work: Path, out: Path, result: Refined) -> None:
    """Move the new run to its folder, with the old run's configuration and the report."""
    new = work / RUN
    config = {**read_yaml(run / RUN_CONFIG), "run": str(out)}
    comments = [
        f"The model is that of {run}, refined by feedback: {REPORT} says how. The configuration is that of {run}."
    ]
    write_config(new, config, comments)
    shutil.rmtree(new / CHECKPOINTS, ignore_errors=True)  # of a few steps on other data
    (new / REPORT).write_text(json.dumps(result.to_json(), indent=1), encoding="utf-8")
    if out.exists():
        out.rmdir()  # empty
    os.rename(new, out)
