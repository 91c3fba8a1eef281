"""Encoders of molecules, given as SMILES strings: as graphs of atoms and bonds, and as drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Inputs
from multimodal.core.errors import UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal_encoders.graph.message_passing import EdgeConv, GraphNetwork, Pooling, graph_of_node
from multimodal_encoders.graph.structure import StructureProcessor
from multimodal_encoders.molecule.environments import Environments
from multimodal_encoders.molecule.smiles import morgan_generator, parse, require_rdkit
from multimodal_encoders.molecule.smiles_processor import SmilesProcessor, molecule_parts

if TYPE_CHECKING:
    from rdkit.Chem import Mol


ELEMENTS = 119  # 0 is the wildcard *
# category counts of an atom's columns
ATOM_COLUMNS = {
    "element": ELEMENTS,
    "neighbours": 8,  # hydrogens among them; the last stands for as many and more
    "hydrogens": 6,
    "charge": 9,  # -4 to 4
    "isotope": 2,
    "ring": 7,  # the smallest that it lies in: none, of 3, 4, ... 7, more
    "aromatic": 2,
    "stereo": 4,  # no centre, R, S, a centre of another kind
}
# and of a bond's: double bonds may have a side
BOND_COLUMNS = {"order": 5, "stereo": 3}
DOUBLE, AROMATIC_ORDER, OTHER_ORDER = 1, 3, 4
ORDERS = np.full(16, OTHER_ORDER, dtype=np.uint8)  # twice the bond's order -> category
ORDERS[[2, 4, 6, 3]] = [0, DOUBLE, 2, AROMATIC_ORDER]
BOND_STEREO = {"STEREOE": 1, "STEREOTRANS": 1, "STEREOZ": 2, "STEREOCIS": 2}
# Adam's steps are of one size, so that the length of a row of counts sets how fast their weights change.
CATEGORY_SCALE = 0.5  # brings those of a usual molecule to a length of about 4: some sixty of them occur in a set
FRAGMENT_SCALE = 0.35  # and the fragments to 2: most are rare
COLUMNS = list(ATOM_COLUMNS)
RING, AROMATIC, STEREO = (COLUMNS.index(name) for name in ("ring", "aromatic", "stereo"))
SUMMED_COLUMNS = ("hydrogens", "charge")
NEUTRAL = 4  # the category of charge 0
TYPICAL_ATOMS = 32  # of an ordinary molecule, without hydrogens
TOTALS = 4  # atoms, hydrogens, positive charge, negative charge


@dataclass(frozen=True)
class Molecule:
    """One molecule as arrays.

    Args:
        atoms: ``(a, 8)`` uint8 categories, the columns of ``ATOM_COLUMNS``.
        bonds: ``(e, 2)`` uint8 categories, the columns of ``BOND_COLUMNS``.
        ends: ``(2, e)`` int64, each bond in both directions.
        counts: ``(bits,)`` uint8, of hashed fragments.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    ends: np.ndarray
    counts: np.ndarray


class MoleculeProcessor(SmilesProcessor):
    """Turns SMILES strings into atoms, bonds and hashed fragments, by RDKit.

    Hydrogens are counts of their atoms, not atoms. Fragments are the environments of the atoms up to ``radius`` bonds
    (Morgan or circular fingerprints; Rogers and Hahn 2010), counted, and hashed to ``bits`` positions.

    Args:
        bits: the number of counts; 0: none.
        radius: of the environments, in bonds.

    Examples:
        >>> MoleculeProcessor(bits=64, radius=2)("CCO").atoms.shape  # ethanol, without hydrogens
        (3, 8)
    """

    def __init__(self, bits: int, radius: int) -> None:
        self.bits, self.radius = bits, radius
        # RDKit's calls for single atoms are slow from Python. One call for all atoms returns hashes of the first columns;
        # the columns themselves are computed for new hashes.
        self._columns_of: dict[int, bytes] = {}

    def __call__(self, value: Any) -> Molecule:
        molecule = parse(value)
        orders = self._rdkit.GetAdjacencyMatrix(molecule, useBO=True)
        orders = np.maximum(orders, orders.T)  # dative bonds are listed in one direction
        ends = np.stack(orders.nonzero())
        bonds = np.zeros((ends.shape[1], len(BOND_COLUMNS)), dtype=np.uint8)
        bonds[:, 0] = ORDERS[(2 * orders[ends[0], ends[1]]).astype(np.int64)]
        atoms = self._atoms(molecule)
        atoms[ends[0, bonds[:, 0] == AROMATIC_ORDER], AROMATIC] = 1
        for ring in sorted(molecule.GetRingInfo().AtomRings(), key=len, reverse=True):
            atoms[ring, RING] = min(len(ring), 8) - 2
        if "@" in value:
            for atom in molecule.GetAtomsMatchingQuery(self._is_centre):
                atoms[atom.GetIdx(), STEREO] = _stereo_category(atom)
        if "/" in value or "\\" in value:
            for edge in np.flatnonzero(bonds[:, 0] == DOUBLE):
                a, b = ends[:, edge].tolist()
                bonds[edge, 1] = BOND_STEREO.get(str(molecule.GetBondBetweenAtoms(a, b).GetStereo()), 0)
        counts = np.zeros(0, dtype=np.uint8)
        if self.bits:
            counts = np.minimum(self._generator.GetCountFingerprintAsNumPy(molecule), 255).astype(np.uint8)
        return Molecule(atoms, bonds, ends, counts)

    def _atoms(self, molecule: Mol) -> np.ndarray:
        known = self._columns_of
        invariants = self._invariants(molecule, True)
        for atom, invariant in enumerate(invariants):
            if invariant not in known:
                known[invariant] = _columns(molecule.GetAtomWithIdx(atom))
        joined = bytearray().join([known[invariant] for invariant in invariants])
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, len(ATOM_COLUMNS))

    @cached_property
    def _generator(self) -> Any:
        return morgan_generator(self.bits, self.radius)

    @cached_property
    def _rdkit(self) -> Any:  # found once: an import statement takes as long as a bond
        from rdkit import Chem

        return Chem

    @cached_property
    def _invariants(self) -> Any:
        from rdkit.Chem.rdMolDescriptors import GetConnectivityInvariants

        return GetConnectivityInvariants

    @cached_property
    def _is_centre(self) -> Any:
        from rdkit.Chem.rdqueries import HasChiralTagQueryAtom

        return HasChiralTagQueryAtom()

    def __getstate__(self) -> dict[str, Any]:  # RDKit's generators cannot be pickled
        return {"bits": self.bits, "radius": self.radius, "_columns_of": {}}

    def cost(self, item: Molecule) -> float:
        """In ordinary molecules, by the number of atoms."""
        return max(len(item.atoms), 1) / TYPICAL_ATOMS

    def collate(self, items: Sequence[Molecule]) -> Inputs:
        """The disjoint union of n molecules.

        ``atoms`` ``(atoms, 8)`` and ``bonds`` ``(edges, 2)`` uint8 categories, ``edge_index`` ``(2, edges)`` int64,
        ``sizes`` ``(n,)`` int64, and ``counts`` ``(n, bits)`` uint8 if there are any bits.
        """
        sizes = np.array([len(item.atoms) for item in items])
        edges = [item.ends.shape[1] for item in items]
        ends = np.concatenate([item.ends for item in items], axis=1)
        inputs = {
            "atoms": torch.from_numpy(np.concatenate([item.atoms for item in items])),
            "bonds": torch.from_numpy(np.concatenate([item.bonds for item in items])),
            "edge_index": torch.from_numpy(ends + np.repeat(sizes.cumsum() - sizes, edges)),
            "sizes": torch.from_numpy(sizes),
        }
        if self.bits:
            inputs["counts"] = torch.from_numpy(np.stack([item.counts for item in items]))
        return inputs

    def parts(self, value: Any) -> Parts:
        """Return the parts of ``molecule_parts``.

        What is removed is hidden from the encoder, with the fragments that contain it; the other atoms keep their hydrogens and
        other columns.
        """
        molecule, item = parse(value), self(value)
        environments = Environments.of(molecule, self._generator if self.bits else None, self.bits)

        def without(atoms: np.ndarray, bonds: np.ndarray) -> Molecule:
            counts = environments.counts(~environments.with_any(~atoms, item.ends[:, ~bonds]))
            number = np.cumsum(atoms) - 1
            return Molecule(item.atoms[atoms], item.bonds[bonds], number[item.ends[:, bonds]], counts)

        return molecule_parts(molecule, item.ends, without)


def _columns(atom: Any) -> bytes:
    """The columns of an atom that do not depend on its bonds' orders or on stereo."""
    from rdkit.Chem import GetPeriodicTable

    usual = GetPeriodicTable().GetAtomicWeight(atom.GetAtomicNum())
    values = {
        "element": min(atom.GetAtomicNum(), ELEMENTS - 1),
        "neighbours": atom.GetTotalDegree(),
        "hydrogens": atom.GetTotalNumHs(includeNeighbors=True),
        "charge": max(atom.GetFormalCharge() + NEUTRAL, 0),
        "isotope": int(abs(atom.GetMass() - usual) >= 1),
    }
    return bytes(min(values.get(name, 0), size - 1) for name, size in ATOM_COLUMNS.items())


def _stereo_category(atom: Any) -> int:
    label = atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else ""
    return {"R": 1, "S": 2}.get(label, 3)


@register("graph", "molecule", extra="molecules")
class MoleculeGNN(GraphNetwork):
    """A message-passing network over atoms and bonds, with counts of fragments.

    Atoms and bonds are sums of learned embeddings of their categories. Each category (which together give the formula, charge,
    rings and stereo centres) and each circular fragment is counted in the molecule. The counts are projected to
    ``count_width`` and concatenated with the readout of the network.

    Args:
        conv: "gine" (Hu et al. 2020), "gat" (GATv2, Brody et al. 2022), "pna" (Corso et al. 2020), all with the bonds'
            features; or "gps" (Rampášek et al. 2022), gine and attention over all atoms in parallel.
        pooling: "sum", "mean", "max" or "attention" (Li et al. 2016): how atoms are reduced to one vector.
        width: width of the atoms.
        layers: number of message-passing layers.
        virtual_node: an extra node in each molecule, connected to all atoms between the layers (Gilmer et al. 2017).
        walks: steps of random walks that encode the atoms' positions, as in the encoder ``gps``; 0: none.
        drop: dropout after each layer.
        bits: the number of hashed fragments; 0: no counts are used.
        radius: of the fragments, in bonds.
        count_width: width of the projected counts.
        input_drop: dropout of the counts.
        count_drop: dropout of the projected counts.

    Examples:
        >>> encoder = MoleculeGNN(width=16, layers=1, bits=64, count_width=8)
        >>> encoder.eval()(**encoder.processor.collate([encoder.processor("CCO")])).shape
        torch.Size([1, 24])
    """

    def __init__(
        self,
        conv: EdgeConv = "gine",
        pooling: Pooling = "attention",
        width: int = 256,
        layers: int = 4,
        virtual_node: bool = False,
        walks: int = 0,
        drop: float = 0.0,
        bits: int = 2048,
        radius: int = 2,
        count_width: int = 512,
        input_drop: float = 0.0,
        count_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if conv not in get_args(EdgeConv):
            raise UsageError(f"MoleculeGNN: conv {conv!r} is not one of {', '.join(get_args(EdgeConv))}.")
        if bits < 0 or radius < 0 or walks < 0:
            raise UsageError(f"MoleculeGNN: bits {bits}, radius {radius} and walks {walks} must be at least 0.")
        require_rdkit()
        molecules = MoleculeProcessor(bits, radius)
        needs = {"walks": walks, "places": conv == "gps", "degrees": conv == "pna"}
        self.processor = StructureProcessor(molecules, **needs) if any(needs.values()) else molecules
        self.atoms = _CategoryEmbedding(list(ATOM_COLUMNS.values()), width)
        self.bonds = _CategoryEmbedding(list(BOND_COLUMNS.values()), width)
        self._set_layers(conv, pooling, width, layers, drop, width, virtual_node, walks)
        categories = self.atoms.size + self.bonds.size + TOTALS
        self.counts = CountProjection(categories, bits, count_width, input_drop, count_drop) if bits else None
        self.width = width + count_width if bits else width

    def forward(
        self,
        atoms: Tensor,
        bonds: Tensor,
        edge_index: Tensor,
        sizes: Tensor,
        counts: Tensor | None = None,
        walks: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Encode the disjoint union of n molecules, from the processor's ``collate``, as ``(n, width)``."""
        features = self._readout(self.atoms(atoms), edge_index, sizes, self.bonds(bonds), walks, places)
        if self.counts is None or counts is None:
            return features
        graph, n = graph_of_node(sizes, atoms.shape[0]), sizes.shape[0]
        hydrogens, charge = (graph_sums(atoms[:, COLUMNS.index(name)], graph, n) for name in SUMMED_COLUMNS)
        charge = charge - NEUTRAL * sizes
        composition = [
            self.atoms.counts(atoms, graph, n),
            self.bonds.counts(bonds, graph[edge_index[0]], n),
            torch.stack([sizes, hydrogens, charge.clamp(min=0), (-charge).clamp(min=0)], dim=1),
        ]
        return torch.cat([features, self.counts(torch.cat(composition, dim=1), counts)], dim=1)


class _CategoryEmbedding(nn.Module):
    """Columns of categories -> the sum of their embeddings, ``(n, columns)`` uint8 -> ``(n, width)``."""

    offsets: Tensor

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.size = sum(sizes)
        self.table = nn.EmbeddingBag(self.size, width, mode="sum")
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        nn.init.normal_(self.table.weight, std=len(sizes) ** -0.5)

    def forward(self, columns: Tensor) -> Tensor:
        return self.table(columns + self.offsets)

    def counts(self, columns: Tensor, graph: Tensor, graphs: int) -> Tensor:
        """How often each category occurs in each graph, ``(graphs, size)`` int64; ``graph`` ``(n,)`` int64 in [0, graphs)."""
        places = graph[:, None] * self.size + columns + self.offsets
        found = torch.zeros(graphs * self.size, dtype=torch.int64, device=places.device)  # bincount cannot be exported
        return found.index_add(0, places.flatten(), torch.ones_like(places.flatten())).reshape(graphs, self.size)


def graph_sums(values: Tensor, graph: Tensor, graphs: int) -> Tensor:
    """Sum a column in each graph, ``(graphs,)`` int64.

    Args:
        values: ``(n,)``.
        graph: ``(n,)`` int64 in [0, graphs).
        graphs: the number of graphs.
    """
    return torch.zeros(graphs, dtype=torch.int64, device=values.device).index_add(0, graph, values.long())


class CountProjection(nn.Module):
    """Projects counts of categories ``(n, categories)`` and of fragments ``(n, bits)`` to ``(n, width)``.

    Both enter as log1p. The categories are standardised (Ioffe and Szegedy 2015), so that a rare one weighs as much as a
    common one; the fragments, most of which are rare, are not.

    Args:
        categories: the number of categories.
        bits: the number of fragments.
        width: of the result.
        input_drop: dropout of the counts.
        drop: dropout of the result.

    Examples:
        >>> projection = CountProjection(categories=3, bits=4, width=8, input_drop=0.0, drop=0.0)
        >>> projection(torch.ones(2, 3), torch.zeros(2, 4)).shape
        torch.Size([2, 8])
    """

    def __init__(self, categories: int, bits: int, width: int, input_drop: float, drop: float) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm1d(categories, affine=False)
        self.project = nn.Linear(categories + bits, width)
        self.input_drop = nn.Dropout(input_drop)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)
        nn.init.normal_(self.project.weight, std=width**-0.5)

    def forward(self, categories: Tensor, fragments: Tensor) -> Tensor:
        """Project the counts of n molecules."""
        dtype = self.project.weight.dtype
        standard = self.standardise(categories.to(dtype).log1p()).clamp(-4, 4)
        standard = standard * CATEGORY_SCALE
        rows = self.input_drop(torch.cat([standard, fragments.to(dtype).log1p() * FRAGMENT_SCALE], dim=1))
        return self.drop(self.norm(self.project(rows)))
