"""Export of towers as programs that do not need Python: torch.export and ONNX."""

from __future__ import annotations

import io
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
from multimodal.core.system_errors import system_fault
from multimodal.export.towers import Tower, TrialBatches

OUTPUT = "vectors"


def save_torch_export(tower: Tower, trial: TrialBatches, path: Path) -> Tensor:
    """Write a tower as a ``.pt2`` file for ``torch.export.load``.

    Args:
        tower: the tower.
        trial: the batches to export and to check with.
        path: the file to write.

    Returns:
        ``(n, dim)`` vectors that the written program computes for the trial's second batch.

    Raises:
        MultimodalError: the exporter fails.
    """
    program = _program(tower, trial)
    with _exporter_errors(tower, "torch-export"):
        file = io.BytesIO()  # as torch ends the process if it cannot write the end of a file, on a full disk
        torch.export.save(program, file)
        path.write_bytes(file.getbuffer())
        return torch.export.load(path).module()(**trial.second).detach()


def save_onnx(tower: Tower, trial: TrialBatches, path: Path) -> Tensor:
    """Write a tower as an ``.onnx`` file.

    Args:
        tower: the tower.
        trial: the batches to export and to check with.
        path: the file to write.

    Returns:
        ``(n, dim)`` vectors that onnxruntime computes for the trial's second batch.

    Raises:
        UsageError: a library of the extra ``export`` is missing.
        MultimodalError: the exporter fails.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"ONNX needs {error.name}, which is not installed: pip install 'multimodal[export]'."
        ) from error
    program = _program(tower, trial)
    with _exporter_errors(tower, "onnx"):
        onnx_program: Any = torch.onnx.export(
            program, (), kwargs=trial.first, dynamo=True, output_names=[OUTPUT], verbose=False
        )
        _name_dynamic_dims(onnx_program.model.graph)
        onnx_program.save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feeds = {i.name: trial.second[i.name].numpy() for i in session.get_inputs()}
        return torch.from_numpy(session.run([OUTPUT], feeds)[0])


def _name_dynamic_dims(graph: Any) -> None:
    """Name the dynamic sizes "batch" or after the first input and axis that has them, such as "tokens_1".

    torch numbers these sizes; a size that is computed from others is an expression of their names.
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
                value.shape[axis] = symbol.sub(lambda match: names[match[1]], str(size))


def _program(tower: Tower, trial: TrialBatches) -> ExportedProgram:
    dynamic = {
        name: {axis: Dim.AUTO for axis, size in enumerate(shape) if size is None}
        for name, shape in trial.sizes().items()
    }
    fused = torch.backends.mha.get_fastpath_enabled()  # fused attention, which other programs do not have
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _exporter_errors(tower, "torch-export"), torch.no_grad():
            return torch.export.export(tower, (), kwargs=trial.first, dynamic_shapes=dynamic, strict=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _exporter_errors(tower: Tower, to: str) -> Iterator[None]:
    """Send the exporters' messages to standard error or nowhere, and raise their errors as a ``MultimodalError``."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch._export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporters raise errors of any type for a module that they do not support
        if system_fault(error) is not None:  # a full disk is not the encoder's fault
            raise
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise MultimodalError(
            f"{tower.description} cannot be exported to {to} ({type(cause).__name__}: {reason}); try another format, or"
            " leave it out with --modality."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
