"""Encoders of drawings of molecules, made from their SMILES strings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal_encoders.image.cnn import CNN
from multimodal_encoders.molecule.smiles import parse, require_rdkit
from multimodal_encoders.molecule.smiles_processor import SmilesProcessor


class DrawingProcessor(SmilesProcessor):
    """Draws molecules from SMILES strings by RDKit, and processes the drawings as pictures.

    Args:
        pictures: the processor of the drawings.
        size: edge of a drawing, in pixels.

    Examples:
        >>> encoder = DrawingCNN(size=32)
        >>> encoder.processor("CCO").shape
        torch.Size([32, 32, 1])
    """

    def __init__(self, pictures: Processor, size: int) -> None:
        self.pictures, self.size = pictures, size

    def __call__(self, value: Any) -> Any:
        return self.pictures(draw(value, self.size))

    def parts(self, value: Any) -> Parts | None:
        """Return the parts of the drawing."""
        return self.pictures.parts(draw(value, self.size))

    def augment(self, item: Any, rng: np.random.Generator) -> Any:
        return self.pictures.augment(item, rng)

    def collate(self, items: Sequence[Any]) -> Inputs:
        return self.pictures.collate(items)


def draw(smiles: Any, size: int) -> Image.Image:
    """Draw the structural formula of a SMILES string on a white ground, ``size`` x ``size`` pixels; deterministic.

    Raises:
        Unreadable: as ``parse``.
    """
    from rdkit import rdBase
    from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DCairo

    molecule = parse(smiles)
    canvas = MolDraw2DCairo(size, size)
    with rdBase.BlockLogs():
        canvas.DrawMolecule(molecule)
        canvas.FinishDrawing()
    picture = Image.open(io.BytesIO(canvas.GetDrawingText()))
    picture.load()
    return picture


@register("image", "drawing", extra="molecules")
class DrawingCNN(Encoder):
    """The residual network of the image encoder ``cnn``, on drawings of molecules.

    Args:
        size: edge of the drawings, in pixels.
        cnn: the other settings of ``cnn``.

    Examples:
        >>> encoder = DrawingCNN(size=32)
        >>> encoder(encoder.processor.collate([encoder.processor("CCO")])["pixels"]).shape
        torch.Size([1, 512])
    """

    def __init__(self, size: int = 96, **cnn: Any) -> None:
        super().__init__()
        require_rdkit()
        self.cnn = CNN(size=size, **cnn)
        self.width = self.cnn.width
        self.processor = DrawingProcessor(self.cnn.processor, size)

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` as ``cnn`` takes them -> ``(n, width)``."""
        return self.cnn(pixels=pixels)
