"""An encoder of molecules, from SMILES."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from encoders.graph import Pooling, message_passing, readout
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.registry import register

# The columns of an atom and of a bond, each with how many values it can take (the sets of OGB, Hu et al. 2020).
ATOM = {"element": 119, "chirality": 9, "degree": 11, "charge": 12, "hydrogens": 9, "aromatic": 2, "ring": 2}
BOND = {"type": 22, "stereo": 6, "conjugated": 2}
LOWEST_CHARGE = -5
MORGAN = 2048  # hashed counts of the neighbourhoods up to two bonds around each atom
ELEMENTS = ("C", "N", "O", "S", "P", "F", "Cl", "Br", "I", "Si", "Na", "K", "B", "Se", "Fe", "Mg")
CARBONS, OXYGENS, NITROGENS, CHARGES = range(1, 50), range(20), range(10), range(-4, 4)  # told apart exactly
COUNTS_WEIGH = 2.0  # beside the far more numerous neighbourhoods
RINGS = range(3, 9)

Conv = Literal["gine", "gat", "none"]


def molecule(smiles: Any) -> Any:
    """An RDKit molecule with at least one atom.

    Raises:
        UsageError: RDKit is not installed.
        Unreadable: the value is no SMILES.
    """
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise UsageError("molecules need RDKit: pip install 'multimodal[molecules]'.") from error
    if not isinstance(smiles, str):
        raise Unreadable("wrong type", f"{type(smiles).__name__} is no SMILES; give a string like 'CCO'.")
    with rdBase.BlockLogs():  # the error says it
        found = Chem.MolFromSmiles(smiles)
    if found is None or not found.GetNumAtoms():
        raise Unreadable("invalid SMILES", f"{smiles[:100]!r} is no SMILES of a molecule.")
    return found


def atoms_and_bonds(mol: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(atoms, 7)`` and ``(bonds, 3)`` int64 categories in the order of ``ATOM`` and ``BOND``; ``(bonds, 2)`` their ends."""
    atoms = [
        (
            a.GetAtomicNum(),
            a.GetChiralTag(),
            a.GetTotalDegree(),
            a.GetFormalCharge() - LOWEST_CHARGE,
            a.GetTotalNumHs(),
            a.GetIsAromatic(),
            a.IsInRing(),
        )
        for a in mol.GetAtoms()
    ]
    bonds = [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetBondType(), b.GetStereo(), b.GetIsConjugated())
        for b in mol.GetBonds()
    ]
    highest = np.array(list(ATOM.values())) - 1
    with_ends = np.array(bonds, dtype=np.int64).reshape(-1, 5)
    return np.array(atoms, dtype=np.int64).clip(0, highest), with_ends[:, 2:], with_ends[:, :2]


def morgan_counts(mol: Any) -> np.ndarray:
    """``(2048,)`` float32: log(1 + count) of each hashed neighbourhood (Morgan 1965; Rogers and Hahn 2010, ECFP4)."""
    from rdkit.Chem import rdFingerprintGenerator

    if "morgan" not in _made:
        _made["morgan"] = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=MORGAN)
    return np.log1p(_made["morgan"].GetCountFingerprintAsNumPy(mol).astype(np.float32))


def descriptors(mol: Any) -> np.ndarray:
    """What chemists count: elements, charges, rings, functional groups; ``(descriptor_count,)`` float32, log(1 + count),
    and the numbers of carbon, oxygen, nitrogen and the charge once more, each number a column.
    """
    from rdkit import Chem
    from rdkit.Chem import rdMolDescriptors

    elements = Counter(atom.GetSymbol() for atom in mol.GetAtoms())
    charges = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    chirality = Counter(str(atom.GetChiralTag()) for atom in mol.GetAtoms())
    orders = Counter(bond.GetBondTypeAsDouble() for bond in mol.GetBonds())
    rings = Counter(map(len, mol.GetRingInfo().AtomRings()))
    charge = sum(charges)
    counts = [
        *(elements[element] for element in ELEMENTS),
        sum(atom.GetTotalNumHs() for atom in mol.GetAtoms()),
        max(charge, 0),
        max(-charge, 0),
        sum(c > 0 for c in charges),
        sum(c < 0 for c in charges),
        rdMolDescriptors.CalcNumRings(mol),
        rdMolDescriptors.CalcNumAromaticRings(mol),
        rdMolDescriptors.CalcNumAliphaticRings(mol),
        rdMolDescriptors.CalcNumHeterocycles(mol),
        rdMolDescriptors.CalcNumRotatableBonds(mol),
        rdMolDescriptors.CalcNumSpiroAtoms(mol),
        rdMolDescriptors.CalcNumBridgeheadAtoms(mol),
        rdMolDescriptors.CalcNumHBD(mol),
        rdMolDescriptors.CalcNumHBA(mol),
        len(Chem.GetMolFrags(mol)),
        chirality["CHI_TETRAHEDRAL_CW"],
        chirality["CHI_TETRAHEDRAL_CCW"],
        orders[2.0],
        orders[3.0],
        *(rings[size] for size in RINGS),
        *(counter(mol) for counter in _functional_groups()),
    ]
    exact = [
        *(elements["C"] == n for n in CARBONS),
        *(elements["O"] == n for n in OXYGENS),
        *(elements["N"] == n for n in NITROGENS),
        *(charge == n for n in CHARGES),
    ]
    return COUNTS_WEIGH * np.concatenate([np.log1p(np.array(counts, np.float32)), np.array(exact, np.float32)])


def _functional_groups() -> list[Any]:
    from rdkit.Chem import Fragments

    if "groups" not in _made:
        _made["groups"] = [getattr(Fragments, name) for name in sorted(dir(Fragments)) if name.startswith("fr_")]
    return _made["groups"]


_made: dict[str, Any] = {}  # what costs time to make


class MoleculeProcessor(Processor):
    """SMILES -> atoms, bonds and, if asked for, a fingerprint.

    Args:
        graph: take atoms and bonds.
        fingerprint: take ``morgan_counts`` and ``descriptors``.
        drop: for training, the probability that an entry of the fingerprint is left out; the others weigh more.
    """

    def __init__(self, graph: bool, fingerprint: bool, drop: float) -> None:
        self.graph, self.fingerprint, self.drop = graph, fingerprint, drop

    def __call__(self, value: Any) -> dict[str, np.ndarray]:
        mol = molecule(value)
        item = {}
        if self.graph:
            item["atoms"], item["bonds"], item["ends"] = atoms_and_bonds(mol)
        if self.fingerprint:
            item["fingerprint"] = np.concatenate([morgan_counts(mol), descriptors(mol)])
        return item

    def augment(self, item: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        if not (self.fingerprint and self.drop):
            return item
        entries = item["fingerprint"]
        keep = rng.random(len(entries), dtype=np.float32) >= self.drop
        return item | {"fingerprint": entries * keep / np.float32(1 - self.drop)}

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> Inputs:
        """``atoms`` ``(atoms, 7)``, ``bonds`` ``(2 bonds, 3)`` and ``edge_index`` ``(2, 2 bonds)`` of the disjoint union,
        both ways of each bond one after the other, all int64; ``sizes`` ``(n,)`` atoms of each; ``fingerprint`` ``(n, f)``.
        """
        inputs: dict[str, Tensor] = {}
        if self.graph:
            sizes = np.array([len(item["atoms"]) for item in items])
            bonds = [len(item["ends"]) for item in items]
            ends = np.concatenate([item["ends"] for item in items])
            ends = ends + np.repeat(sizes.cumsum() - sizes, bonds)[:, None]
            both = np.stack([ends, ends[:, ::-1]], axis=1).reshape(-1, 2)
            inputs["atoms"] = torch.from_numpy(np.concatenate([item["atoms"] for item in items]))
            inputs["bonds"] = torch.from_numpy(np.concatenate([item["bonds"] for item in items]).repeat(2, axis=0))
            inputs["edge_index"] = torch.from_numpy(np.ascontiguousarray(both.T))
            inputs["sizes"] = torch.from_numpy(sizes)
        if self.fingerprint:
            inputs["fingerprint"] = torch.from_numpy(np.stack([item["fingerprint"] for item in items]))
        return inputs

    def linear_features(self) -> Any:
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(_morgan_rows)


def _morgan_rows(smiles: Sequence[Any]) -> np.ndarray:
    return np.stack([morgan_counts(molecule(value)) for value in smiles])


def fingerprint_size() -> int:
    """Entries of a fingerprint."""
    return MORGAN + len(descriptors(molecule("C")))


class Categories(nn.Module):
    """Rows of categories -> the sum of their embeddings.

    Args:
        sizes: how many values each column can take.
        width: of the embeddings.
    """

    offsets: Tensor

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(sum(sizes), width, mode="sum")
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """``(n, columns)`` int64 -> ``(n, width)``."""
        return self.table(rows + self.offsets)


@register("graph", "molecule", extra="molecules")
class Molecule(Encoder):
    """A message-passing network over atoms and bonds, a perceptron over a fingerprint, or both side by side.

    Args:
        conv: "gine" (Hu et al. 2020), "gat" (GATv2, Brody et al. 2022), both with bond features; "none": the fingerprint alone.
        pooling: how the atoms become one vector: "sum", "mean", "max" or "attention".
        width: width of the atoms.
        layers: number of message-passing layers.
        virtual_node: a node that all atoms of a molecule see and that sees all (Gilmer et al. 2017, section 5.2).
        fingerprint: width of the perceptron over Morgan counts and descriptors; 0: none.
        drop: dropout in the layers and of the features.
        fingerprint_drop: in training, the probability that an entry of the fingerprint is left out.
    """

    def __init__(
        self,
        conv: Conv = "gine",
        pooling: Pooling = "sum",
        width: int = 256,
        layers: int = 4,
        virtual_node: bool = False,
        fingerprint: int = 1024,
        drop: float = 0.2,
        fingerprint_drop: float = 0.3,
    ) -> None:
        super().__init__()
        if conv not in get_args(Conv) or pooling not in get_args(Pooling):
            raise UsageError(
                f"Molecule: conv {conv!r} is none of {get_args(Conv)}, or pooling {pooling!r} of {get_args(Pooling)}."
            )
        if conv == "none" and not fingerprint:
            raise UsageError("Molecule: with conv none there must be a fingerprint.")
        if not 0 <= fingerprint_drop < 1:
            raise UsageError(f"Molecule: fingerprint_drop {fingerprint_drop} lies outside [0, 1).")
        graph = conv != "none"
        self.width = (width if graph else 0) + fingerprint
        self.processor = MoleculeProcessor(graph, fingerprint > 0, fingerprint_drop)
        if graph:
            self.atoms, self.bonds = Categories(list(ATOM.values()), width), Categories(list(BOND.values()), width)
            self.convs = nn.ModuleList(message_passing(conv, width, width) for _ in range(layers))
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
            self.virtual = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
                for _ in range(layers * virtual_node)
            )
            self.pool, self.pooled = readout(pooling, width), nn.Sequential(nn.LayerNorm(width), nn.Dropout(drop))
            self.drop = nn.Dropout(drop)
        if fingerprint:
            self.counts = nn.Sequential(
                nn.Linear(fingerprint_size(), fingerprint), nn.LayerNorm(fingerprint), nn.GELU(), nn.Dropout(drop)
            )

    def forward(
        self,
        atoms: Tensor | None = None,
        bonds: Tensor | None = None,
        edge_index: Tensor | None = None,
        sizes: Tensor | None = None,
        fingerprint: Tensor | None = None,
    ) -> Tensor:
        """The inputs of ``MoleculeProcessor.collate`` for n molecules -> ``(n, width)``."""
        features = []
        if atoms is not None and bonds is not None and edge_index is not None and sizes is not None:
            features.append(self._of_graph(atoms, bonds, edge_index, sizes))
        if fingerprint is not None:
            features.append(self.counts(fingerprint))
        return torch.cat(features, dim=1)

    def _of_graph(self, atoms: Tensor, bonds: Tensor, edge_index: Tensor, sizes: Tensor) -> Tensor:
        nodes, edges = self.atoms(atoms), self.bonds(bonds)
        graph = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            nodes = nodes + self.drop(nn.functional.gelu(conv(norm(nodes), edge_index, edge_attr=edges)))
            if self.virtual:
                mean = torch.zeros(len(sizes), nodes.shape[1], dtype=nodes.dtype, device=nodes.device)
                mean = mean.index_add(0, graph, nodes) / sizes[:, None]
                nodes = nodes + self.virtual[layer](mean)[graph]
        return self.pooled(self.pool(nodes, graph, dim_size=len(sizes)))
