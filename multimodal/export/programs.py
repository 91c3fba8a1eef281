"""Towers as programs without Python: of torch.export, and of ONNX."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.export.towers import Tower, TrialBatches

OUTPUT = "vectors"


def save_torch_export(tower: Tower, trial: TrialBatches, path: Path) -> Tensor:
    """Write a ``.pt2`` file for ``torch.export.load``; what it makes of the trial's second batch."""
    program = _program(tower, trial)
    with _exporter_errors(tower, "torch-export"):
        torch.export.save(program, path)
        return torch.export.load(path).module()(**trial.second).detach()


def save_onnx(tower: Tower, trial: TrialBatches, path: Path) -> Tensor:
    """Write an ``.onnx`` file; what onnxruntime makes of the trial's second batch."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"ONNX needs {error.name}, which is not installed: pip install 'multimodal[export]'."
        ) from error
    program = _program(tower, trial)
    with _exporter_errors(tower, "onnx"):
        made: Any = torch.onnx.export(
            program, (), kwargs=trial.first, dynamo=True, output_names=[OUTPUT], verbose=False
        )
        _name_dynamic_dims(made.model.graph)
        made.save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = {i.name: trial.second[i.name].numpy() for i in session.get_inputs()}
        return torch.from_numpy(session.run([OUTPUT], given)[0])


def _name_dynamic_dims(graph: Any) -> None:
    """Name the sizes that may change: "batch", or by the input and the axis that they are first met at, as in "tokens_1".

    torch numbers them; where several sizes make one, it writes a term of their names.
    """
    names = {str(graph.outputs[0].shape[0]): "batch"}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                names.setdefault(str(size), f"{value.name}_{axis}")
    symbol = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                value.shape[axis] = symbol.sub(lambda found: names[found[1]], str(size))


def _program(tower: Tower, trial: TrialBatches) -> ExportedProgram:
    dynamic = {
        name: {axis: Dim.AUTO for axis, size in enumerate(shape) if size is None}
        for name, shape in trial.sizes().items()
    }
    fused = torch.backends.mha.get_fastpath_enabled()  # of attention: other programs lack it
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _exporter_errors(tower, "torch-export"), torch.no_grad():
            return torch.export.export(tower, (), kwargs=trial.first, dynamic_shapes=dynamic, strict=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _exporter_errors(tower: Tower, to: str) -> Iterator[None]:
    """The exporters' reports go to standard error or nowhere, and their errors become one of ours."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch._export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever the exporters do with a module that is not theirs
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise MultimodalError(
            f"{tower.what} cannot be exported to {to} ({type(cause).__name__}: {reason}); try another format, or leave it"
            " out with --modality."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
