"""Equal inputs, such as one drawing that is the letter A of three alphabets, and the recall that they allow at best.

No model can distinguish equal inputs: equal queries get one ranking, equal candidates one score. As ties count against the
model (see ``multimodal.evaluation.retrieval``), this limits recall@1 whatever the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from hashlib import blake2b
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.core.batch import Sample
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Processor
from multimodal.core.rejects import Reject
from multimodal.data.loaders import ProcessedSamples
from multimodal.data.samplers import Draw
from multimodal.data.samples import Samples


class DigestedSamples(ProcessedSamples):
    """Data set that also records a digest of each item that it has read, by which equal items are found.

    Args:
        samples: the rows.
        processors: modality -> its processor, for the modalities to read.

    Attributes:
        digests: modality -> the digests of its items, in the order in which they were read by this process.

    Examples:
        >>> from multimodal import create
        >>> encoder = create("text", "bag")
        >>> encoder.fit(["a cup"])
        >>> samples = Samples.of([{"title": "a cup"}, {"title": "A CUP"}], {"text": "title"})
        >>> data = DigestedSamples(samples, {"text": encoder.processor})
        >>> _ = data[Draw(0)], data[Draw(1)]
        >>> data.digests["text"][0] == data.digests["text"][1]
        True
    """

    def __init__(self, samples: Samples, processors: Mapping[str, Processor]) -> None:
        super().__init__(samples, processors)
        self.digests: dict[str, list[bytes]] = defaultdict(list)

    def __getitem__(self, draw: Draw) -> list[Sample | Reject]:
        parts = super().__getitem__(draw)
        for part in parts:
            if isinstance(part, Sample):
                for modality, item in part.values.items():
                    self.digests[modality].append(_digest(self.processors[modality], item))
        return parts


def _digest(processor: Processor, item: Any) -> bytes:
    """Return the digest of the inputs that an encoder gets for an item."""
    found = blake2b(digest_size=16)
    for name, tensor in sorted(processor.collate([item]).items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes())
    return found.digest()


def highest_recall_at_1(
    queries: Iterable[Hashable],
    candidates: Iterable[Hashable],
    query_groups: np.ndarray | Tensor,
    candidate_groups: np.ndarray | Tensor,
) -> float:
    """Return the highest recall@1 that any model can have, in [0, 1].

    Equal queries have one first answer, so at most those of one group are right. It must not tie with a wrong one: some
    candidate of the group must be equal to candidates of its own group only.

    Args:
        queries, candidates: q and c numbers or digests; equal ones are of equal inputs.
        query_groups, candidate_groups: ``(q,)`` and ``(c,)`` int64.

    Returns:
        The fraction of the queries that have a right answer among the candidates; NaN if none has.

    Examples:
        >>> drawings, letters = np.array([0, 0, 1]), np.array([10, 11, 12])  # A and Alpha are one drawing, B is another
        >>> names = np.array([0, 1, 2])
        >>> highest_recall_at_1(names, drawings, letters, letters)  # only B's drawing has no equal
        0.3333333333333333
        >>> highest_recall_at_1(drawings, names, letters, letters)  # of A and Alpha, one is right
        0.6666666666666666
    """
    groups_of: dict[Any, set[int]] = defaultdict(set)
    for candidate, group in zip(candidates, candidate_groups.tolist(), strict=True):
        groups_of[candidate].add(group)
    answered = set().union(*groups_of.values())
    distinct = set().union(*(groups for groups in groups_of.values() if len(groups) == 1))
    counts: dict[Any, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    asked = 0
    for query, group in zip(queries, query_groups.tolist(), strict=True):
        asked += group in answered
        counts[query][group] += group in distinct
    return sum(max(by_group.values()) for by_group in counts.values()) / asked if asked else float("nan")


def highest_recalls(
    queries: Embeddings,
    query_digests: Mapping[str, list[bytes]],
    candidates: Embeddings,
    candidate_digests: Mapping[str, list[bytes]],
) -> dict[str, float]:
    """Return the highest recall@1 for every ordered pair of modalities, as ``{"text->image": 0.98}``.

    Args:
        queries: embeddings to search for.
        query_digests: their digests, of ``DigestedSamples``, one for each vector.
        candidates: embeddings to search in.
        candidate_digests: their digests.
    """
    found = {}
    for a, b in permutations(queries.modalities, 2):
        if b in candidates.vectors:
            found[f"{a}->{b}"] = highest_recall_at_1(
                query_digests[a], candidate_digests[b], queries.groups_of(a), candidates.groups_of(b)
            )
    return found
