"""Latent directions of a molecule's fragments: an embedding without training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.registry import register
from multimodal_encoders.molecule.fragments import SIZES, FragmentProcessor, Fragments
from multimodal_encoders.molecule.smiles import require_rdkit
from multimodal_encoders.singular_directions import singular_directions

MOST_MOLECULES = 50_000  # to which the directions are fitted
KINDS: Sequence[Fragments] = list(SIZES)


@register("graph", "molecule_svd", extra="molecules")
class MoleculeSVD(Encoder):
    """Truncated singular value decomposition of a molecule's fragments, groups and atom pairs.

    The counts enter as log1p, and each kind is scaled so that all contribute equally to the length of a usual molecule. The
    directions are fitted to the training split; nothing in it is trained: only the projection head learns. With the text
    encoder ``svd`` it found more among a few thousand described molecules than the trained ``bag`` and ``molecule``.

    Args:
        width: number of directions; those beyond what the molecules have are 0.
        kinds: which fragments are counted, see ``FragmentProcessor``.

    Examples:
        >>> encoder = MoleculeSVD(width=2, kinds=["morgan", "groups"])
        >>> encoder.fit(["CCO", "CC(=O)O", "c1ccccc1O"])
        >>> encoder(**encoder.processor.collate([encoder.processor("CCN")])).shape
        torch.Size([1, 2])
    """

    def __init__(self, width: int = 600, kinds: Sequence[Fragments] = KINDS) -> None:
        super().__init__()
        if width < 1 or not kinds or not set(kinds) <= set(SIZES):
            raise UsageError(
                f"MoleculeSVD: width {width} must be at least 1, and kinds {list(kinds)} some of {', '.join(SIZES)}."
            )
        require_rdkit()
        self.width = width
        self.processor = FragmentProcessor(kinds)
        self._sizes = [SIZES[kind] for kind in kinds]
        self.directions = nn.Parameter(torch.zeros(sum(self._sizes), width), requires_grad=False)

    def fit(self, values: Iterable[Any]) -> None:
        """Fit the directions to those of the first 50,000 molecules that can be read.

        They are scaled so that the features of these molecules have a mean square of 1.
        """
        from scipy.sparse import csr_array, vstack

        rows = []
        for value in islice(values, MOST_MOLECULES):
            with suppress(Unreadable):  # the reader rejects this row
                rows.append(csr_array(np.log1p(self.processor(value)[None], dtype=np.float32)))
        if not rows:
            return
        counts = vstack(rows, format="csr")
        scales = self._scales(np.asarray(counts.multiply(counts).sum(axis=0)).ravel() / len(rows))
        directions = singular_directions(csr_array(counts.multiply(scales[None])), self.width)
        with torch.no_grad():
            self.directions.copy_(torch.from_numpy(scales[:, None] * directions))

    def _scales(self, squares: np.ndarray) -> np.ndarray:
        """Return the factor of each position that gives every kind a mean square length of 1, ``(positions,)`` float32.

        Args:
            squares: ``(positions,)``, the mean square of each position.
        """
        lengths = [np.sqrt(part.sum()) for part in np.split(squares, np.cumsum(self._sizes)[:-1])]
        factors = [1 / length if length > 0 else 0.0 for length in lengths]
        return np.repeat(factors, self._sizes).astype(np.float32)

    def forward(self, counts: Tensor) -> Tensor:
        """``counts`` ``(n, positions)`` uint8 -> ``(n, width)``."""
        return counts.to(self.directions.dtype).log1p() @ self.directions
