"""What an embedder makes of a batch, and all that an objective sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Embeddings:
    """For each modality the vectors of the rows that have it.

    Shapes: ``vectors[m]`` ``(n_m, dim)`` floating point, unit length; ``rows[m]`` ``(n_m,)`` int64 in [0, n);
    ``groups`` ``(n,)`` int64: rows of equal group are positives of each other; ``keys``: n strings, or empty.
    """

    vectors: dict[str, Tensor]
    rows: dict[str, Tensor]
    groups: Tensor
    keys: tuple[str, ...] = field(default=())

    @property
    def modalities(self) -> list[str]:
        return list(self.vectors)

    def groups_of(self, modality: str) -> Tensor:
        """The group of each vector of a modality, ``(n_m,)`` int64."""
        return self.groups[self.rows[modality]]

    def to(self, device: torch.device | str) -> Embeddings:
        return replace(
            self,
            vectors={m: v.to(device) for m, v in self.vectors.items()},
            rows={m: r.to(device) for m, r in self.rows.items()},
            groups=self.groups.to(device),
        )

    @classmethod
    def cat(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """The embeddings of consecutive batches as those of one batch."""
        vectors: dict[str, list[Tensor]] = {}
        rows: dict[str, list[Tensor]] = {}
        offset = 0
        for part in parts:
            for modality, v in part.vectors.items():
                vectors.setdefault(modality, []).append(v)
                rows.setdefault(modality, []).append(part.rows[modality] + offset)
            offset += len(part.groups)
        return cls(
            vectors={m: torch.cat(v) for m, v in vectors.items()},
            rows={m: torch.cat(r) for m, r in rows.items()},
            groups=torch.cat([part.groups for part in parts]) if parts else torch.zeros(0, dtype=torch.int64),
            keys=tuple(key for part in parts for key in part.keys),
        )
