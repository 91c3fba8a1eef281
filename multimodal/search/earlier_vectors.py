"""Vectors of an earlier state of a table, found by digests of what the encoders got."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError
from multimodal.search.stored_vectors import stored_of

Found = list[tuple[np.ndarray, np.ndarray]]  # places ``(n,)`` and the stored vectors ``(n, dim)`` that belong there


class EarlierVectors:
    """The vectors in some parts; 24 bytes of memory a row.

    Args:
        parts: whole parts of one model; those of earlier versions, which have no digests, are left out.
        modalities: their columns of vectors.
        dim: width of the vectors.

    Examples:
        >>> columns = {"digest": pa.array([b"0123456789abcdef"]), "text": pa.array([[0.6, 0.8]], pa.list_(pa.float32(), 2))}
        >>> pq.write_table(pa.table(columns), "part.parquet")
        >>> earlier = EarlierVectors([Path("part.parquet")], ["text"], dim=2)
        >>> b"0123456789abcdef" in earlier, earlier.take([b"0123456789abcdef"])
        (True, {'text': [(array([0]), array([[0.6, 0.8]], dtype=float32))]})
    """

    def __init__(self, parts: Iterable[Path], modalities: Sequence[str], dim: int) -> None:
        self.parts = [part for part in parts if "digest" in pq.read_schema(part).names]
        self.modalities, self.dim = modalities, dim
        halves, places = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)]
        for number, part in enumerate(self.parts):
            digests = pq.read_table(part, columns=["digest"])["digest"].to_pylist()
            halves.append(np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2))
            places.append((number << 32) + np.arange(len(digests)))
        both = np.concatenate(halves)
        order = np.lexsort((both[:, 1], both[:, 0]))
        self._first, self._second = both[order, 0], both[order, 1]
        self._places = np.concatenate(places)[order]

    def __contains__(self, digest: bytes) -> bool:
        return self._find(digest) is not None

    def _find(self, digest: bytes) -> int | None:
        first, second = np.frombuffer(digest, np.uint64)
        at = int(np.searchsorted(self._first, first))
        while at < len(self._first) and self._first[at] == first:
            if self._second[at] == second:
                return int(self._places[at])
            at += 1
        return None

    def take(self, digests: Sequence[bytes]) -> dict[str, Found]:
        """Return the stored vectors of rows.

        Args:
            digests: those of the rows, all of which are contained.

        Returns:
            Modality -> positions in ``digests`` of rows that have it, and their vectors, from each part that has some.

        Raises:
            MultimodalError: a part was changed after this object was made.
        """
        found: dict[str, Found] = {m: [] for m in self.modalities}
        at = np.array([self._find(digest) for digest in digests], np.int64)
        numbers = at >> 32
        for number in np.unique(numbers).tolist():
            wanted = np.flatnonzero(numbers == number)
            try:
                part = pq.read_table(self.parts[number]).take(pa.array(at[wanted] & 0xFFFFFFFF))
            except (OSError, pa.ArrowException) as error:
                raise MultimodalError(f"{self.parts[number]} was changed while it was read.") from error
            if part["digest"].to_pylist() != [digests[i] for i in wanted.tolist()]:
                raise MultimodalError(f"{self.parts[number]} was changed while it was read.")
            for modality in self.modalities:
                present = part[modality].is_valid().to_numpy()
                found[modality].append((wanted[present], stored_of(part, modality, self.dim)))
        return found
