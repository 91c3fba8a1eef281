"""Folder with the towers of a model in another program's format and a description of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from multimodal.core.arguments import check_types
from multimodal.core.digests import FILES, describe_files, with_digest
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.encoder_description import describe_encoder
from multimodal.core.errors import UsageError, suggest
from multimodal.core.files import atomic_folder
from multimodal.core.manifests import EXPORT as DESCRIPTION
from multimodal.core.progress import progress
from multimodal.export.examples import write_example
from multimodal.export.open_clip import save_open_clip
from multimodal.export.programs import save_onnx, save_torch_export
from multimodal.export.sentence_transformers import save_sentence_transformers
from multimodal.export.towers import Tower, TrialBatches, check_difference, describe_inputs, describe_processor

Format = Literal["onnx", "torch-export", "open_clip", "sentence-transformers"]
TOWER_FORMATS: dict[str, tuple[str, Callable[[Tower, TrialBatches, Path], Tensor]]] = {  # one file for each tower
    "onnx": (".onnx", save_onnx),
    "torch-export": (".pt2", save_torch_export),
}
MODEL_FORMATS: dict[
    str, Callable[[Embedder, Sequence[Tower], Path], dict[str, dict[str, Any]]]
] = {  # one model with all towers
    "open_clip": save_open_clip,
    "sentence-transformers": save_sentence_transformers,
}


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        files: modality -> its file in the folder.
        differences: modality -> the largest difference of a component between the exported tower's and the model's vectors.

    Examples:
        >>> Exported({"text": "text.onnx"}, {"text": 1e-7}).to_json()
        {'text': {'file': 'text.onnx', 'max_difference': 1e-07}}
    """

    files: dict[str, str]
    differences: dict[str, float]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return the file and the difference of each modality."""
        return {m: {"file": file, "max_difference": self.differences[m]} for m, file in self.files.items()}


def export_model(
    run: str | Path | Embedder, to: Format, out: str | Path | None = None, modalities: Sequence[str] = ()
) -> Exported:
    """Export the encoders with their heads to another program, as ``multimodal export`` does.

    The written files are loaded again and must return the same vectors to 1e-4.

    Args:
        run: folder of a run or of an exported model, or an embedder on the CPU.
        to: "onnx", "torch-export", "open_clip" or "sentence-transformers".
        out: the folder to write; an earlier export is replaced. None: a folder named ``to`` in the run's folder.
        modalities: the modalities to export. Empty: all.

    Returns:
        The files and the differences of their vectors from the model's.

    Raises:
        UsageError: the format or a modality is unknown, or ``out`` is missing for an embedder.
        MultimodalError: an encoder cannot be exported to the format, or returns other vectors there.
    """
    check_types("export_model", export_model, {"modalities": modalities}, {"modalities": "['text']"})
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run, list(modalities) or None)
    if out is None:
        if isinstance(run, Embedder):
            raise UsageError("An Embedder has no run folder to export to; name a folder with out=...")
        out = Path(run) / to
    with progress("Exporting", len(embedder.modalities)) as advance:
        return export(embedder, to, Path(out), modalities, advance)


def export(
    embedder: Embedder,
    to: Format,
    folder: Path,
    modalities: Sequence[str] = (),
    advance: Callable[[int], object] | None = None,
) -> Exported:
    """Write a folder of exported towers, replacing an earlier one.

    Args:
        embedder: the model, on the CPU.
        to: the format.
        folder: the folder to write.
        modalities: the modalities to export. Empty: all.
        advance: called with 1 for each finished tower.

    Returns:
        The files and the differences of their vectors from the model's.

    Raises:
        UsageError: the format or a modality is unknown.
        MultimodalError: an encoder cannot be exported to the format, or returns other vectors there.
    """
    if to not in get_args(Format):
        raise UsageError(f"There is no format {to!r}.{suggest(to, list(get_args(Format)))}")
    towers = [Tower(embedder, modality) for modality in modalities or embedder.modalities]
    with atomic_folder(folder, marker=DESCRIPTION) as new:
        if to in TOWER_FORMATS:
            entries = _export_towers(towers, to, new, advance)
            if to == "onnx":
                write_example(towers, {m: entry["file"] for m, entry in entries.items()}, new)
        else:
            entries = MODEL_FORMATS[to](embedder, towers, new)
            entries = {t.modality: _describe(t) | entries[t.modality] for t in towers if t.modality in entries}
        description = {
            "to": to,
            "dim": embedder.dim,
            "fingerprint": embedder.fingerprint,
            "multimodal": version("multimodal"),
            "modalities": entries,
            FILES: describe_files(new, sorted(str(p.relative_to(new)) for p in new.rglob("*") if p.is_file())),
        }
        (new / DESCRIPTION).write_text(
            json.dumps(with_digest(description), indent=1, ensure_ascii=False), encoding="utf-8"
        )
    return Exported(
        {m: entry["file"] for m, entry in entries.items()}, {m: e["max_difference"] for m, e in entries.items()}
    )


def _export_towers(
    towers: Sequence[Tower], to: Format, folder: Path, advance: Callable[[int], object] | None
) -> dict[str, dict[str, Any]]:
    suffix, save = TOWER_FORMATS[to]
    entries: dict[str, dict[str, Any]] = {}
    for tower in towers:
        trial = TrialBatches.of(tower)
        file = tower.modality + suffix
        difference = check_difference(tower, save(tower, trial, folder / file), trial.vectors, to)
        entries[tower.modality] = _describe(tower) | {
            "inputs": describe_inputs(trial),
            "output": {"vectors": "(n, dim) float32 of unit length"},
            "file": file,
            "max_difference": difference,
        }
        if advance is not None:
            advance(1)
    return entries


def _describe(tower: Tower) -> dict[str, Any]:
    encoder = tower.encoder
    assert isinstance(encoder, Encoder)
    described = describe_encoder(tower.modality, encoder)
    return {
        "encoder": {name: described[name] for name in ("name", "class", "settings")},
        "preprocessing": describe_processor(encoder.processor),
    }
