"""The vectors of a batch: the output of an embedder and the input of an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from multimodal.core.batch import Batch


@dataclass(frozen=True)
class Embeddings:
    """The vectors of n rows, for each modality of the rows that have it.

    Args:
        vectors: modality -> ``(n_m, dim)`` floating point, of unit length.
        rows: modality -> ``(n_m,)`` int64 in [0, n): the row of each vector.
        groups: ``(n,)`` int64; rows of equal group are positives of each other.
        keys: n names of rows, or empty.
        targets: name -> ``(n,)`` or ``(n, c)`` floating point, NaN where a row has none.
        negative_of: ``(n,)`` int64, the row that this one is a hard negative of, or -1. None: there are no hard negatives.

    Examples:
        >>> import torch
        >>> vectors = {"image": torch.eye(2), "text": torch.eye(2)[:1]}  # row 1 has no text
        >>> rows = {"image": torch.tensor([0, 1]), "text": torch.tensor([0])}
        >>> embeddings = Embeddings(vectors, rows, groups=torch.tensor([7, 8]))
        >>> embeddings.groups_of("text").tolist()
        [7]
    """

    vectors: dict[str, Tensor]
    rows: dict[str, Tensor]
    groups: Tensor
    keys: tuple[str, ...] = field(default=())
    targets: dict[str, Tensor] = field(default_factory=dict)
    negative_of: Tensor | None = None

    @classmethod
    def of_batch(cls, batch: Batch, vectors: dict[str, Tensor]) -> Embeddings:
        """Combine vectors with the rows, groups, keys and targets of their batch."""
        return cls(vectors, batch.rows, batch.groups, batch.keys, batch.targets, batch.negative_of)

    @property
    def modalities(self) -> list[str]:
        return list(self.vectors)

    def groups_of(self, modality: str) -> Tensor:
        """Return the group of each vector of a modality, ``(n_m,)`` int64."""
        return self.groups[self.rows[modality]]

    def targets_of(self, modality: str, name: str) -> Tensor:
        """Return the target of each vector of a modality, ``(n_m,)`` or ``(n_m, c)``."""
        return self.targets[name][self.rows[modality]]

    def keep(self, chosen: Mapping[str, Tensor]) -> Embeddings:
        """Keep the vectors that a mask ``(n_m,)`` selects for each modality."""
        return replace(
            self,
            vectors={m: v[chosen[m]] for m, v in self.vectors.items()},
            rows={m: r[chosen[m]] for m, r in self.rows.items()},
        )

    def to(self, device: torch.device | str) -> Embeddings:
        """Move all tensors to a device."""
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
        """Concatenate the embeddings of consecutive batches."""
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
