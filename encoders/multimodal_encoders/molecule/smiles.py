"""SMILES strings: parsing by RDKit, and counts of fragments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.errors import Unreadable, UsageError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MAX_ATOMS = 1000
MAX_SMILES_LENGTH = 10_000
# of RDKit's drawings: what is the default of SVG, and names that nothing uses
DEFAULTS = re.compile(
    r"<\?xml[^>]*\?>\s*|<!--.*?-->\s*| class='[^']*'|fill-rule:evenodd;|stroke-width:2\.0px;"
    r"|stroke-line(?:cap:butt|join:miter);|stroke-miterlimit:10;|;?stroke-opacity:1;?|\s*(?:xmlns:\w+|xml:space|baseProfile)='[^']*'"
)


def parse(smiles: Any) -> Mol:
    """Parse a SMILES string into RDKit's molecule, without messages on standard error.

    Raises:
        Unreadable: it is not a string, empty, too long, or not valid.
    """
    from rdkit import rdBase
    from rdkit.Chem import MolFromSmiles

    if not isinstance(smiles, str):
        raise Unreadable("not a SMILES string", f"{type(smiles).__name__} is not SMILES; give a string like 'CCO'.")
    if len(smiles) > MAX_SMILES_LENGTH:
        raise Unreadable(
            "molecule too large", f"a SMILES of {len(smiles):,} letters; at most {MAX_SMILES_LENGTH:,} are read."
        )
    if not smiles.strip():
        raise Unreadable("empty SMILES", f"{smiles!r} has no atom; give a SMILES like 'CCO'.")
    try:
        with rdBase.BlockLogs():
            molecule = MolFromSmiles(smiles)
    except UnicodeEncodeError:  # half of a character, which no UTF-8 has
        molecule = None
    if molecule is None:
        raise Unreadable("invalid SMILES", f"{smiles!r} is not valid SMILES; RDKit cannot read it.")
    atoms = molecule.GetNumAtoms()
    if atoms > MAX_ATOMS:
        raise Unreadable("molecule too large", f"a molecule of {atoms:,} atoms; at most {MAX_ATOMS:,} are read.")
    return molecule


def draw_svg(smiles: Any, size: int = 160) -> str:
    """Draw the structural formula of a SMILES string as SVG.

    Args:
        smiles: the string.
        size: width and height in pixels.

    Raises:
        Unreadable: as ``parse``.

    Examples:
        >>> "<svg" in draw_svg("CCO")
        True
    """
    from rdkit import rdBase
    from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DSVG

    molecule = parse(smiles)
    canvas = MolDraw2DSVG(size, size)
    with rdBase.BlockLogs():
        canvas.DrawMolecule(molecule)
        canvas.FinishDrawing()
    drawing = DEFAULTS.sub("", canvas.GetDrawingText())  # a third of the size
    return drawing.replace("<svg ", "<svg stroke-width='2' ", 1)


def morgan_generator(bits: int, radius: int) -> Any:
    """Return RDKit's generator of Morgan fingerprints, of a number of bits and a radius in bonds."""
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    return GetMorganGenerator(radius=radius, fpSize=bits)


def require_rdkit() -> None:
    """Raise a ``UsageError`` that says how to install RDKit if it is missing."""
    try:
        import rdkit  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "Molecules need RDKit, which is not installed; install it with: pip install 'multimodal[molecules]'."
        ) from error


def morgan_counts(bits: int = 2048, radius: int = 2) -> Any:
    """Return a scikit-learn transformer: SMILES strings -> log1p of their Morgan counts, ``(n, bits)`` float32."""
    from sklearn.preprocessing import FunctionTransformer

    require_rdkit()
    return FunctionTransformer(_log_counts, kw_args={"bits": bits, "radius": radius})


def _log_counts(smiles: Sequence[str], bits: int, radius: int) -> np.ndarray:
    generator = morgan_generator(bits, radius)
    return np.log1p(np.stack([generator.GetCountFingerprintAsNumPy(parse(text)) for text in smiles]), dtype=np.float32)
