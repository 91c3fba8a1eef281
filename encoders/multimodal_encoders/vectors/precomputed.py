"""Vectors that another system made, in place of an encoder of any modality."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.files import not_a_file
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal_encoders.vectors.vector_files import VectorFile

MISSING_SHARE, NOISE = 0.25, 0.3  # of corrupted vectors
Scale = Literal["length", "standard", "none"]


class VectorProcessor(Processor):
    """Reads vectors of one width.

    Raw values: a list, array or tensor of numbers; the bytes of an ``.npy`` file; and, with a file of vectors, a key in it,
    or else the path of an ``.npy`` file.

    Args:
        width: the number of components.
        file: the file of vectors; None: there are no keys.
        column: of the file.
        scale: see ``Precomputed``.

    Examples:
        >>> processor = VectorProcessor(width=2, file=None, column=None, scale="none")
        >>> processor.collate([processor([1.0, 2.0])])["numbers"].tolist()
        [[1.0, 2.0]]
    """

    def __init__(self, width: int, file: str | None, column: str | None, scale: Scale) -> None:
        self.width, self.file, self.column, self.scale = width, file, column, scale
        self.reads_files = file is None
        self._opened: VectorFile | None = None
        self._mean: np.ndarray | None = None
        self._deviation: np.ndarray | None = None

    @property
    def vectors(self) -> VectorFile:
        """The file of vectors, opened when a key is looked up.

        Raises:
            UsageError: there is none, or its vectors are of another width.
        """
        if self._opened is None:
            self._opened = VectorFile(Path(self.file or ""), self.column)
            if self._opened.width != self.width:
                raise UsageError(
                    f"precomputed: the vectors in {self.file} have {self._opened.width} numbers, not width {self.width}."
                )
        return self._opened

    def __getstate__(self) -> dict[str, Any]:  # another process maps the file itself
        return vars(self) | {"_opened": None}

    def fit(self, values: Iterable[Any]) -> None:
        if self.file is not None:
            _ = self.vectors  # opened before worker processes part, they share its keys
        if self.scale != "standard":
            return
        count, mean, squares = 0, np.zeros(self.width), np.zeros(self.width)  # Welford 1962
        for value in values:
            with suppress(Unreadable):  # the reader skips this row
                vector = self._read(value).astype(np.float64)
                count += 1
                step = vector - mean
                mean += step / count
                squares += step * (vector - mean)
        if not count:
            raise UsageError("precomputed: the training split has no vector to learn mean and deviation from.")
        deviation = np.sqrt(squares / count)
        self._take(mean, np.where(deviation > 1e-6 * deviation.max(), deviation, 1.0))

    def _take(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        self._mean, self._deviation = mean.astype(np.float32), deviation.astype(np.float32)

    def state(self) -> dict[str, Any]:
        if self._mean is None or self._deviation is None:
            return {}
        return {"mean": self._mean.tolist(), "deviation": self._deviation.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._mean = self._deviation = None
        if state:
            self._take(np.array(state["mean"]), np.array(state["deviation"]))

    def is_one_value(self, given: Any) -> bool:
        """Whether numbers are one vector: whole numbers are keys if there is a file of vectors."""
        if isinstance(given, list | tuple):
            return bool(given) and all(isinstance(v, float if self.file else Real) for v in given)
        return given.ndim == 1 and (self.file is None or "float" in str(given.dtype))

    def __call__(self, value: Any) -> np.ndarray:
        """``(width,)`` float32, scaled."""
        vector = self._read(value)
        if self.scale == "standard":
            if self._mean is None or self._deviation is None:
                raise UsageError(
                    "the vectors' mean has not been learned; call fit_processors, train, or load a trained model."
                )
            return (vector - self._mean) / self._deviation
        if self.scale == "length":
            length = np.linalg.norm(vector.astype(np.float64))
            if not length:
                raise Unreadable("zero vector", "the vector is zero, so it has no direction; leave the value empty.")
            return (vector * (self.width**0.5 / length)).astype(np.float32)
        return vector

    def _read(self, value: Any) -> np.ndarray:
        if self.file is not None and isinstance(value, str | int):
            found = self.vectors.find(str(value))
            if found is None:
                raise Unreadable("unknown key", f"{value!r} is not a key of a vector in {self.file}.")
            return _check_vector(found, self.width)
        if isinstance(value, str | Path | bytes):
            return _check_vector(_load_npy(value), self.width)
        try:
            given = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else np.asarray(value)
        except (TypeError, ValueError) as error:
            raise Unreadable("not a vector", f"the value is not a list of numbers ({error}).") from error
        return _check_vector(given, self.width)

    def parts(self, value: Any) -> Parts:
        """Return the components; one is removed by setting it to 0, which is the mean with the scale "standard"."""
        item = self(value)

        def without(number: int) -> np.ndarray:
            changed = item.copy()
            changed[number] = 0
            return changed

        return Parts([f"component {number}" for number in range(1, len(item) + 1)], without, ["component"] * len(item))

    def corruptions(self) -> Mapping[str, Corruption]:
        return {"noise": self._with_noise, "missing components": self._with_missing}

    def _with_noise(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the vector with normal noise, of 0.3 of the root mean square of its components."""
        vector = self._read(value)
        size = NOISE * float(np.sqrt(np.mean(np.square(vector, dtype=np.float64))))
        return (vector + size * rng.normal(size=vector.shape)).astype(np.float32)

    def _with_missing(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the vector with a quarter of its components, one at least left, set to 0."""
        vector = self._read(value).copy()
        vector[rng.permutation(len(vector))[: int(MISSING_SHARE * len(vector))]] = 0
        return vector

    def preprocessing(self) -> dict[str, Any] | None:
        if self.scale == "standard" and not self.state():
            return None
        return {"kind": "numbers", "width": self.width, "scale": self.scale, **self.state()}

    def examples(self) -> list[Any]:
        return list(np.random.default_rng(0).normal(size=(2, self.width)))

    def collate(self, items: Sequence[np.ndarray]) -> Inputs:
        """``numbers`` ``(n, width)`` float32."""
        return {"numbers": torch.from_numpy(np.stack(items))}

    def linear_features(self) -> Any:
        """The vectors as the encoder gives them."""
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(_stack_vectors, kw_args={"processor": self})


def _stack_vectors(values: Sequence[Any], processor: VectorProcessor) -> np.ndarray:
    return np.stack([processor(value) for value in values])


def _load_npy(value: str | Path | bytes) -> np.ndarray:
    what = "the value" if isinstance(value, bytes) else str(value)
    try:
        if isinstance(value, bytes):
            return np.asarray(np.load(io.BytesIO(value), allow_pickle=False))
        return np.asarray(np.load(value, mmap_mode="r", allow_pickle=False))  # its shape is looked at before it is read
    except (FileNotFoundError, IsADirectoryError) as error:
        hint = " Lists of numbers in a CSV file are text; write the table as JSON Lines." if what.endswith("]") else ""
        raise not_a_file(what, "the vector", hint) from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise Unreadable(
            "not a vector", f"{what} is no .npy file of numbers ({_without_pickle_advice(error)})."
        ) from error


def _without_pickle_advice(error: Exception) -> str:
    """The error's text, without numpy's advice to load what could run anything."""
    return "it is damaged, or holds Python objects" if "pickle" in str(error) else str(error)


def _check_vector(vector: np.ndarray, width: int) -> np.ndarray:
    if vector.dtype.kind not in "fiu" and vector.size:
        raise Unreadable("not a vector", f"the value is not a list of numbers, but of {vector.dtype}.")
    if vector.shape != (width,):
        raise Unreadable("wrong width", f"the vector has shape {vector.shape}, not ({width},).")
    with np.errstate(over="ignore"):
        vector = np.array(vector, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise Unreadable("not finite", "the vector holds NaN or infinite numbers, or some too large for float32.")
    return vector


@register("image", "precomputed")
@register("text", "precomputed")
@register("graph", "precomputed")
@register("audio", "precomputed")
@register("tabular", "precomputed")
@register("vector", "precomputed")
class Precomputed(Encoder):
    """Vectors that another system made, as features; it has no weights.

    A saved model takes vectors anywhere; keys need the file at the same path.

    Args:
        width: the number of components; null: that of ``file``.
        file: vectors by key (.npy, .safetensors, .parquet, or a folder that ``multimodal embed`` wrote); the table's cells
            are then keys. null: they are vectors, or paths of .npy files.
        column: which tensor or column of the file; null: the only one.
        scale: "length" scales every vector to the square root of its width, so that its components are about 1 and its
            direction is kept; "standard" scales each component to mean 0 and deviation 1 over the training split; "none"
            leaves the components unchanged.

    Examples:
        >>> encoder = Precomputed(width=2, scale="none")
        >>> encoder(**encoder.processor.collate([encoder.processor([1.0, 2.0])])).tolist()
        [[1.0, 2.0]]
    """

    def __init__(
        self,
        width: int | None = None,
        file: str | None = None,
        column: str | None = None,
        scale: Scale = "length",
    ) -> None:
        super().__init__()
        if scale not in get_args(Scale):
            raise UsageError(f"Precomputed: scale {scale!r} is not one of {', '.join(get_args(Scale))}.")
        if file is None and (width is None or column is not None):
            raise UsageError(
                "Precomputed: set width, the number of components, or file (and column, if the file has several)."
            )
        if width is None:
            width = VectorFile(Path(file or ""), column).width
        if width < 1:
            raise UsageError(f"Precomputed: width must be at least 1, got {width}.")
        self.width = width
        self.processor = VectorProcessor(width, file, column, scale)
        self.settings |= {"width": width}  # a model is rebuilt where the file is not

    def forward(self, numbers: Tensor) -> Tensor:
        """``numbers`` ``(n, width)`` as they are."""
        return numbers
