"""What an engine stores: modalities, columns, and how vectors are compressed; in ``layout.json`` next to the engine's files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.conditions import Kind, comparable, filter_text
from multimodal.core.digests import DIGEST, FILES, DamagedFile, check_document, check_file, describe_files, with_digest
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.json_file import read_json
from multimodal.core.manifests import LAYOUT
from multimodal.core.npy import map_npy

WORDS = "words"  # the vectors of words
QUANTIZATIONS = ("int8", "binary")
REDUCTIONS = ("prefix", "pca", "svd")
PROJECTION = "projection.npy"
KINDS: tuple[Kind, ...] = ("number", "date")
SAMPLE = 20_000  # vectors to which a projection is fitted


@dataclass(frozen=True)
class Layout:
    """What an engine stores.

    Args:
        dim: width of the vectors.
        modalities: the modalities.
        columns: columns of the metadata, each of which has an index for conditions.
        quantization: how the vectors that are searched are compressed: "int8", "binary" or None. The candidates are
            compared again by the whole vectors.
        searched_dim: width of the reduced vectors that are searched first. None: the whole vectors.
        reduction: how they are reduced: "prefix", their first components, for models whose prefixes are trained
            (``matryoshka_dims``); "pca", their principal components; "svd", the same without subtracting the mean.
        projection: ``(1 + searched_dim, dim)`` float32: the mean that is subtracted, and the components. None: not fitted.
        words_a_row: the mean number of words in a row's texts.
        grouped: whether several rows may be in one group.
        ranges: which columns have numbers or dates, each with an index for ranges: "n2" for numbers in the third column, "d2"
            for dates. None: the rows were stored before there were ranges.

    Raises:
        UsageError: an argument is out of range.

    Examples:
        >>> layout = Layout(dim=4, searched_dim=2, columns=["set"])
        >>> layout.reduce(np.float32([[3, 4, 5, 6]])).round(2)
        array([[0.6, 0.8]], dtype=float32)
        >>> layout.where_of({"set": "a", "year": 2020})
        {'c0': 'a'}
        >>> priced = layout.with_rows([{"price": "3.50"}], ["a"], ["#a"])
        >>> priced.ranges_of({"price": "3.50"}), priced.kinds("price"), priced.kinds("set")
        ({'n1': 3.5}, {'number'}, set())
    """

    dim: int
    modalities: Sequence[str] = ()
    columns: Sequence[str] = ()
    quantization: str | None = None
    searched_dim: int | None = None
    reduction: str = "prefix"
    projection: np.ndarray | None = field(default=None, compare=False, repr=False)
    words_a_row: float = 8.0
    grouped: bool = False
    ranges: Sequence[str] | None = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise UsageError(f"quantization must be {' or '.join(QUANTIZATIONS)}, not {self.quantization!r}.")
        if self.reduction not in REDUCTIONS:
            raise UsageError(
                f"reduction must be {', '.join(REDUCTIONS[:-1])} or {REDUCTIONS[-1]}, not {self.reduction!r}."
            )
        if not 1 <= self.width <= self.dim:
            raise UsageError(f"The vectors are {self.dim} wide, so their first {self.width} cannot be searched.")

    @property
    def width(self) -> int:
        """Width of the vectors that are searched."""
        return self.dim if self.searched_dim is None else self.searched_dim

    @property
    def reduced(self) -> bool:
        """Whether a prefix of the vectors is searched."""
        return self.width < self.dim

    def reduce(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors that are searched, ``(n, width)`` float32 of unit length.

        Args:
            vectors: ``(n, dim)`` float32 of unit length.
        """
        if not self.reduced:
            return vectors
        if self.reduction == "prefix":
            reduced = vectors[:, : self.width]
        elif self.projection is None:
            raise ValueError("the projection is not fitted")
        else:
            reduced = (vectors - self.projection[0]) @ self.projection[1:].T
        return reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-12)

    def fitted(self, sample: np.ndarray) -> Layout:
        """Return the layout with the projection that keeps most of the sample's variance.

        Args:
            sample: ``(n, dim)`` float32 of unit length; a few thousand suffice.
        """
        if not self.reduced or self.reduction == "prefix":
            return self
        mean = sample.mean(axis=0) if self.reduction == "pca" and len(sample) else np.zeros(self.dim, np.float32)
        centred = sample - mean
        values, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)  # ascending
        components = vectors[:, np.argsort(-values)[: self.width]].T
        return replace(self, projection=np.concatenate([mean[None], components]).astype(np.float32))

    def vectors_of(self, modality: str) -> str:
        """Return the name of a modality's searched vectors; one of our own, as the engine makes it the name of a folder.

        Args:
            modality: one of ``modalities``.
        """
        return f"m{list(self.modalities).index(modality)}"

    def full_vectors_of(self, modality: str) -> str:
        """Return the name of a modality's vectors of full width.

        Args:
            modality: one of ``modalities``.
        """
        return self.vectors_of(modality) + ("full" if self.reduced else "")

    def full_names(self, modality: str | None) -> dict[str, str]:
        """Return modality -> name of its vectors of full width.

        Args:
            modality: the modality. None: all.
        """
        return {name: self.full_vectors_of(name) for name in (self.modalities if modality is None else [modality])}

    def check_modalities(self, modalities: Sequence[str]) -> None:
        """Raise a ``MultimodalError`` if vectors of a modality cannot be stored.

        Args:
            modalities: those of rows to add.
        """
        if new := [modality for modality in modalities if modality not in self.modalities]:
            raise MultimodalError(
                f"The index stores vectors of {', '.join(self.modalities)}, not of {', '.join(new)};"
                " build it again from embeddings of all of them."
            )

    def field_of(self, column: str) -> str:
        """Return the path of a column's texts in the stored rows; a name of our own, as a column's may hold any character.

        Args:
            column: one of ``columns``.
        """
        return f"where.c{list(self.columns).index(column)}"

    def where_of(self, metadata: Mapping[str, Any]) -> dict[str, str]:
        """Return the texts of a row that conditions compare with.

        Args:
            metadata: the row's columns.
        """
        texts = ((number, filter_text(metadata.get(column))) for number, column in enumerate(self.columns))
        return {f"c{number}": text for number, text in texts if text is not None}

    def range_name(self, column: str, kind: Kind) -> str:
        """Return the name under which a column's numbers or dates are stored.

        Args:
            column: one of ``columns``.
            kind: "number" or "date".
        """
        return f"{kind[0]}{list(self.columns).index(column)}"

    def range_field(self, column: str, kind: Kind) -> str:
        """Return the path of a column's numbers or dates in the stored rows.

        Args:
            column: one of ``columns``.
            kind: "number" or "date".
        """
        return f"range.{self.range_name(column, kind)}"

    def ranges_of(self, metadata: Mapping[str, Any]) -> dict[str, float]:
        """Return the numbers and dates of a row that ranges compare.

        Args:
            metadata: the row's columns.
        """
        cells = ((number, comparable(metadata.get(column))) for number, column in enumerate(self.columns))
        return {f"{found[0][0]}{number}": found[1] for number, found in cells if found is not None}

    def kinds(self, column: str) -> set[Kind]:
        """Return what ranges of a column can compare, as ``Engine.kinds`` defines it.

        Args:
            column: one of ``columns``.

        Raises:
            UsageError: the rows were stored before there were ranges.
        """
        if self.ranges is None:
            raise UsageError(
                "where: the index was built by a version without ranges; build it again from its embeddings."
            )
        return {kind for kind in KINDS if self.range_name(column, kind) in self.ranges}

    def new_fields(self, before: Layout) -> dict[str, str]:
        """Return the fields for conditions that an earlier layout does not have: path -> "keyword" or "float".

        Args:
            before: the earlier layout.
        """
        texts = {self.field_of(column): "keyword" for column in self.columns[len(before.columns) :]}
        known = set(before.ranges or ())
        return texts | {f"range.{name}": "float" for name in self.ranges or () if name not in known}

    def with_rows(self, described: Sequence[Mapping[str, Any]], keys: Sequence[str], groups: Sequence[str]) -> Layout:
        """Return the layout with the columns of further rows.

        Args:
            described: the columns of each row.
            keys: the rows' keys.
            groups: the rows' groups; one that begins with "#" is of its row alone, see ``multimodal.search.embed``.
        """
        columns = dict.fromkeys([*self.columns, *(name for row in described for name in row)])
        grouped = len(set(keys)) < len(keys) or any(not group.startswith("#") for group in groups)
        wider = replace(self, columns=list(columns), grouped=self.grouped or grouped)
        if self.ranges is None:  # the earlier rows would be missed
            return wider
        ranges = dict.fromkeys([*self.ranges, *(name for row in described for name in wider.ranges_of(row))])
        return replace(wider, ranges=list(ranges))

    def write(self, folder: Path) -> None:
        """Write the layout into an engine's folder, in the place of an earlier one.

        Args:
            folder: the folder.
        """
        document = self.document()
        if self.projection is not None:
            if not (folder / PROJECTION).exists():  # it is not changed once rows are stored by it
                np.save(folder / PROJECTION, self.projection)
            document[FILES] = describe_files(folder, [PROJECTION])
        new = folder / f"{LAYOUT}.new"
        new.write_text(json.dumps(with_digest(document), indent=1), encoding="utf-8")
        os.replace(new, folder / LAYOUT)

    def document(self) -> dict[str, Any]:
        """Return the layout's attributes for a JSON document, without the projection."""
        return {name: value for name, value in asdict(self).items() if name != "projection"}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Layout:
        """Return the layout of a JSON document.

        Args:
            document: the layout's attributes.

        Raises:
            TypeError: it is not one.
            UsageError: an attribute is out of range.
        """
        layout = cls(**{"ranges": None, **document})
        if not all(isinstance(name, str) for name in (*layout.modalities, *layout.columns, *(layout.ranges or ()))):
            raise TypeError("names are not texts")
        return layout

    @classmethod
    def read(cls, folder: Path) -> Layout:
        """Read the layout in an engine's folder.

        Args:
            folder: the folder.

        Raises:
            MultimodalError: it is missing or damaged.
        """
        try:
            document = read_json(folder / LAYOUT)
            check_document(document, folder / LAYOUT)
            entries = document.pop(FILES, {})
            layout = cls.of({name: value for name, value in document.items() if name != DIGEST})
            if layout.reduced and layout.reduction != "prefix":
                check_file(folder / PROJECTION, entries[PROJECTION])
                layout = replace(layout, projection=map_npy(folder / PROJECTION))
            return layout
        except (
            DamagedFile,
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            UsageError,
        ) as error:
            raise MultimodalError(
                f"The index {folder.parent} is damaged ({LAYOUT}: {error}); build it again."
            ) from error


def search_texts(key: str, metadata: Mapping[str, Any]) -> str:
    """Return the words of a row that hybrid search looks for: those of its key and of its columns of text.

    Args:
        key: the row's key.
        metadata: the row's columns.

    Examples:
        >>> search_texts("cup-1", {"title": "a red cup", "price": 3})
        'cup-1 a red cup'
    """
    return " ".join([key, *(value for value in metadata.values() if isinstance(value, str) and value != key)])
