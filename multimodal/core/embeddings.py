"""What an embedder makes of a batch, and all that an objective sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from multimodal.core.batch import Batch


@dataclass(frozen=True)
class Embeddings:
    """For each modality the vectors of the rows that have it.

    Shapes: ``vectors[m]`` ``(n_m, dim)`` floating point, unit length; ``rows[m]`` ``(n_m,)`` int64 in [0, n);
    ``groups`` ``(n,)`` int64: rows of equal group are positives of each other; ``keys``: n strings, or empty;
    ``targets[name]`` ``(n,)`` or ``(n, c)`` floating point, NaN where a row has none; ``negative_of`` ``(n,)`` int64,
    the row that this one is a hard negative of or -1, or None if there is no such row. As in ``Batch``.
    """

    vectors: dict[str, Tensor]
    rows: dict[str, Tensor]
    groups: Tensor
    keys: tuple[str, ...] = field(default=())
    targets: dict[str, Tensor] = field(default_factory=dict)
    negative_of: Tensor | None = None

    @classmethod
    def of_batch(cls, batch: Batch, vectors: dict[str, Tensor]) -> Embeddings:
        """The embeddings of a batch whose modalities have these vectors."""
        return cls(vectors, batch.rows, batch.groups, batch.keys, batch.targets, batch.negative_of)

    @property
    def modalities(self) -> list[str]:
        return list(self.vectors)

    def groups_of(self, modality: str) -> Tensor:
        """The group of each vector of a modality, ``(n_m,)`` int64."""
        return self.groups[self.rows[modality]]

    def targets_of(self, modality: str, name: str) -> Tensor:
        """The target of each vector of a modality, ``(n_m,)`` or ``(n_m, c)``."""
        return self.targets[name][self.rows[modality]]

    def keep(self, chosen: Mapping[str, Tensor]) -> Embeddings:
        """Only the vectors chosen by a mask ``(n_m,)`` for each modality."""
        return replace(
            self,
            vectors={m: v[chosen[m]] for m, v in self.vectors.items()},
            rows={m: r[chosen[m]] for m, r in self.rows.items()},
        )

    def to(self, device: torch.device | str) -> Embeddings:
        return replace(
            self,
            vectors={m: v.to(device) for m, v in self.vectors.items()},
            rows={m: r.to(device) for m, r in self.rows.items()},
            groups=self.groups.to(device),
            targets={name: t.to(device) for name, t in self.targets.items()},
            negative_of=None if self.negative_of is None else self.negative_of.to(device),
        )

    @classmethod
    def cat(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """The embeddings of consecutive batches as those of one batch."""
        vectors: dict[str, list[Tensor]] = {}
        rows: dict[str, list[Tensor]] = {}
        negative_of: list[Tensor] = []
        offset = 0
        for part in parts:
            for modality, v in part.vectors.items():
                vectors.setdefault(modality, []).append(v)
                rows.setdefault(modality, []).append(part.rows[modality] + offset)
            row = part.groups.new_full(part.groups.shape, -1) if part.negative_of is None else part.negative_of
            negative_of.append(row + offset * (row >= 0))
            offset += len(part.groups)
        return cls(
            vectors={m: torch.cat(v) for m, v in vectors.items()},
            rows={m: torch.cat(r) for m, r in rows.items()},
            groups=torch.cat([part.groups for part in parts]) if parts else torch.zeros(0, dtype=torch.int64),
            keys=tuple(key for part in parts for key in part.keys),
            targets=_cat_targets(parts),
            negative_of=torch.cat(negative_of) if any(part.negative_of is not None for part in parts) else None,
        )


def _cat_targets(parts: Sequence[Embeddings]) -> dict[str, Tensor]:
    known = {name: t for part in parts for name, t in part.targets.items()}
    return {
        name: torch.cat([p.targets.get(name, t.new_full((len(p.groups), *t.shape[1:]), torch.nan)) for p in parts])
        for name, t in known.items()
    }
