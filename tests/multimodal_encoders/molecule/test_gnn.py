"""Molecules: graphs of atoms and bonds, fragments, drawings; against RDKit's own calls and torch-geometric."""

from __future__ import annotations

import csv
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.molecule.drawing import DrawingCNN, draw
from multimodal_encoders.molecule.gnn import ATOM_COLUMNS, BOND_COLUMNS, MoleculeGNN, MoleculeProcessor
from multimodal_encoders.molecule.smiles import MAX_ATOMS, morgan_counts
from shared_data import SHARED
from torch import Tensor
from torch_geometric.utils import from_smiles

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import Unreadable, UsageError

Chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")
TABLE = SHARED / "chebi20" / "molecules.tsv"
SOME = [
    "C",
    "CCO",
    "c1ccncc1",
    "C[C@H](N)C(=O)[O-]",
    "C[C@@H](N)C(=O)O",
    "F/C=C/F",
    r"F/C=C\F",
    "FC=CF",
    "[NH4+].[Cl-]",
    "[13CH4]",
    "[2H]O[2H]",
    "C#N",
    "[Na+].CC(=O)[O-]",
    "*CC",
    "OC1CC(O)C1",
    "C1CC2CCC1C2",
    "O=S(=O)(O)O",
    "[Pt](Cl)(Cl)(N)N",
    "N->[Fe]",
    "[Fe+3]",
    "C[Si@H](F)Cl",
]


def features(encoder: MoleculeGNN, *smiles: str) -> Tensor:
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(s) for s in smiles]))


def as_rdkit_reads(smiles: str) -> tuple[list[dict[str, int]], dict[tuple[int, int], tuple[float, str]]]:
    """Each atom's columns, and each bond's order and side, asked for one by one."""
    molecule = Chem.MolFromSmiles(smiles)
    atoms = []
    for atom in molecule.GetAtoms():
        usual = Chem.GetPeriodicTable().GetAtomicWeight(atom.GetAtomicNum())
        centre = str(atom.GetChiralTag()) in ("CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW")
        label = {"R": 1, "S": 2}.get(atom.GetPropsAsDict().get("_CIPCode", ""), 3)
        atoms.append(
            {
                "element": atom.GetAtomicNum(),
                "neighbours": min(atom.GetTotalDegree(), 7),
                "hydrogens": min(atom.GetTotalNumHs(includeNeighbors=True), 5),
                "charge": int(np.clip(atom.GetFormalCharge(), -4, 4)) + 4,
                "isotope": int(abs(atom.GetMass() - usual) >= 1),
                "ring": next((k - 2 for k in range(3, 8) if atom.IsInRingSize(k)), 6 if atom.IsInRing() else 0),
                "aromatic": int(atom.GetIsAromatic()),
                "stereo": label if centre else 0,
            }
        )
    bonds = {}
    for bond in molecule.GetBonds():
        ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        bonds[ends] = bonds[ends[::-1]] = (bond.GetBondTypeAsDouble(), str(bond.GetStereo()))
    return atoms, bonds


def check(processor: MoleculeProcessor, smiles: str) -> None:
    item = processor(smiles)
    atoms, bonds = as_rdkit_reads(smiles)
    assert [dict(zip(ATOM_COLUMNS, row, strict=True)) for row in item.atoms.tolist()] == atoms, smiles
    found = {}
    for a, b, (order, stereo) in zip(*item.ends.tolist(), item.bonds.tolist(), strict=True):
        found[a, b] = (order, stereo)
    orders, sides = (
        [1.0, 2.0, 3.0, 1.5],
        {"STEREONONE": 0, "STEREOE": 1, "STEREOZ": 2, "STEREOTRANS": 1, "STEREOCIS": 2},
    )
    assert found == {ends: (orders.index(order), sides.get(side, 0)) for ends, (order, side) in bonds.items()}, smiles


def test_atoms_and_bonds_are_those_that_rdkit_gives_each() -> None:
    processor = MoleculeProcessor(0, 2)
    for smiles in SOME:
        check(processor, smiles)


@pytest.mark.skipif(not TABLE.exists(), reason=f"{TABLE} is not there")
def test_atoms_and_bonds_of_real_molecules() -> None:
    processor = MoleculeProcessor(0, 2)
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    for _, smiles, _ in rows[::10]:
        check(processor, smiles.replace("\\\\", "\\"))


def test_nodes_and_edges_are_those_of_torch_geometric() -> None:
    for smiles in SOME:
        item, theirs = MoleculeProcessor(0, 2)(smiles), from_smiles(smiles)
        assert theirs.x is not None
        assert theirs.edge_index is not None
        assert item.atoms[:, 0].tolist() == theirs.x[:, 0].tolist()
        assert {*zip(*item.ends.tolist(), strict=True)} == {*zip(*theirs.edge_index.tolist(), strict=True)}


def test_columns_stay_within_their_categories() -> None:
    processor = MoleculeProcessor(0, 2)
    for smiles in [*SOME, "[CH4+6]", "[Og]", "[C-9]", "F[U](F)(F)(F)(F)(F)(F)(F)F"]:
        item = processor(smiles)
        assert (item.atoms < np.array([*ATOM_COLUMNS.values()])).all()
        assert (item.bonds < np.array([*BOND_COLUMNS.values()])).all()


def test_a_batch_is_a_disjoint_union() -> None:
    processor = MoleculeProcessor(64, 2)
    items = [processor(smiles) for smiles in SOME]
    inputs = processor.collate(items)
    assert inputs["sizes"].tolist() == [len(item.atoms) for item in items]
    assert inputs["counts"].shape == (len(SOME), 64)
    assert inputs["edge_index"].shape[1] == len(inputs["bonds"])
    graph = torch.repeat_interleave(torch.arange(len(SOME)), inputs["sizes"])
    assert torch.equal(graph[inputs["edge_index"][0]], graph[inputs["edge_index"][1]])
    first = torch.tensor([0, *inputs["sizes"][:-1].cumsum(0)])
    for number, item in enumerate(items):
        mine = graph[inputs["edge_index"][0]] == number
        assert torch.equal(inputs["edge_index"][:, mine] - first[number], torch.from_numpy(item.ends))
    assert "counts" not in MoleculeProcessor(0, 2).collate([MoleculeProcessor(0, 2)("C")])


def test_fragments_are_rdkits_morgan_counts() -> None:
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    wanted = GetMorganGenerator(radius=3, fpSize=128).GetCountFingerprintAsNumPy(Chem.MolFromSmiles("CCCCCCCC(=O)O"))
    assert MoleculeProcessor(128, 3)("CCCCCCCC(=O)O").counts.tolist() == wanted.tolist()
    rows = morgan_counts(128, 3).fit_transform(["CCCCCCCC(=O)O", "C"])
    assert rows.shape == (2, 128)
    np.testing.assert_allclose(np.expm1(rows[0]), wanted, atol=1e-5)
    assert MoleculeProcessor(0, 2).linear_features().fit_transform(["CO"]).shape == (1, 2048)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("CC(", "invalid SMILES"),
        ("c1ccc", "invalid SMILES"),
        ("C(C)(C)(C)(C)C", "invalid SMILES"),
        ("not a molecule", "invalid SMILES"),
        ("C\ud800", "invalid SMILES"),
        ("", "empty SMILES"),
        (" ", "empty SMILES"),
        (3, "not a SMILES string"),
        (None, "not a SMILES string"),
        ("C" * (MAX_ATOMS + 1), "molecule too large"),
        ("C" * 20_000, "molecule too large"),
    ],
)
def test_what_is_not_a_molecule_is_refused_in_silence(
    value: Any, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for read in (MoleculeProcessor(0, 2), lambda v: draw(v, 32)):
        with pytest.raises(Unreadable) as refusal:
            read(value)
        assert refusal.value.reason == reason
    assert capfd.readouterr() == ("", "")


def test_rdkit_still_speaks_to_others() -> None:
    from rdkit import rdBase

    before = rdBase.LogStatus()
    MoleculeProcessor(0, 2)("CCO")
    with pytest.raises(Unreadable):
        draw("CC(", 32)
    assert rdBase.LogStatus() == before


@pytest.mark.parametrize("settings", [{}, {"conv": "gat"}, {"virtual_node": True}, {"bits": 0}, {"layers": 0}])
def test_a_molecule_has_the_same_features_in_any_company(settings: dict[str, Any]) -> None:
    small: dict[str, Any] = {"width": 8, "layers": 2, "bits": 32, "count_width": 12}
    encoder = MoleculeGNN(**small | settings).eval()
    together = features(encoder, *SOME)
    assert together.shape == (len(SOME), encoder.width)
    alone = torch.cat([features(encoder, smiles) for smiles in SOME])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conv", ["gine", "gat"])
def test_the_order_of_the_atoms_does_not_count_but_bonds_and_stereo_do(conv: Any) -> None:
    torch.manual_seed(0)
    encoder = MoleculeGNN(conv, width=16, layers=2, bits=0, virtual_node=True).eval()
    base, same, *others = features(
        encoder, "C[C@H](N)C(=O)O", "OC(=O)[C@@H](N)C", "C[C@@H](N)C(=O)O", "C[C@H](N)C(O)O", "C[C@H](N)C(=O)[O-]"
    )
    torch.testing.assert_close(base, same, atol=1e-5, rtol=1e-4)
    assert all(float((base - other).abs().max()) > 1e-4 for other in others)
    e, z = features(encoder, "F/C=C/F", r"F/C=C\F")
    assert float((e - z).abs().max()) > 1e-5


def test_the_virtual_node_reaches_every_atom() -> None:
    torch.manual_seed(0)
    pair = ("CCCCCCCCO.C", "CCCCCCCCO.N")  # the last fragment touches no other
    for virtual_node in (False, True):
        encoder = MoleculeGNN(width=8, layers=2, bits=0, virtual_node=virtual_node, pooling="max").eval()
        seen: list[Tensor] = []
        take: Any = lambda _, args, seen=seen: seen.append(args[0][0])  # noqa: E731
        encoder.pool.register_forward_pre_hook(take)
        features(encoder, pair[0])
        features(encoder, pair[1])
        assert torch.allclose(seen[0], seen[1], atol=1e-6) is not virtual_node


def test_category_counts_make_up_the_formula() -> None:
    encoder = MoleculeGNN(width=8, layers=0, bits=8).eval()
    inputs = encoder.processor.collate([encoder.processor(s) for s in ("CCO", "C[N+](C)(C)C")])
    graph = torch.repeat_interleave(torch.arange(2), inputs["sizes"])
    counts = encoder.atoms.counts(inputs["atoms"], graph, 2)
    assert counts[:, [6, 7, 8]].tolist() == [[2, 0, 1], [4, 1, 0]]
    assert counts.sum(dim=1).tolist() == [3 * len(ATOM_COLUMNS), 5 * len(ATOM_COLUMNS)]


def test_the_processor_goes_to_workers() -> None:
    processor = MoleculeProcessor(64, 2)
    before = processor("C[C@H](N)C(=O)O")
    after = pickle.loads(pickle.dumps(processor))("C[C@H](N)C(=O)O")
    for name, array in vars(before).items():
        np.testing.assert_array_equal(array, getattr(after, name))


def test_a_drawing_is_a_picture_of_the_molecule(tmp_path: Path) -> None:
    encoder = DrawingCNN(size=48, arch="resnet18").eval()
    one, again, other = (encoder.processor(smiles) for smiles in ("c1ccccc1O", "c1ccccc1O", "CCO"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.float().mean() > 128  # black on white
    assert draw("CCO", 64).size == (64, 64)
    with torch.no_grad():
        assert encoder(**encoder.processor.collate([one, other])).shape == (2, encoder.width)
    assert encoder.settings == {"size": 48, "arch": "resnet18"}
    embedder = Embedder({"image": encoder}, dim=4).eval()
    embedder.save_pretrained(tmp_path / "model")
    read = Embedder.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(read.encode(image=["CCO"]), embedder.encode(image=["CCO"]), atol=1e-6)


def test_a_missing_rdkit_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    for modality, name in (("graph", "molecule"), ("image", "drawing")):
        with pytest.raises(UsageError, match=r"pip install 'multimodal\[molecules\]'"):
            registry.create(modality, name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"conv": "gin"}, "conv 'gin' is not one of gine, gat"),
        ({"pooling": "average"}, "pooling 'average' is not one of"),
        ({"conv": "gat", "width": 10}, "multiple of its 4 heads"),
        ({"bits": -1}, "bits -1, radius 2 and walks 0 must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.create("graph", "molecule", **wrong)
