"""Sentences about molecules say what is true of them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rdkit", reason="rdkit is not installed")
from rdkit.Chem import MolFromSmarts, MolFromSmiles
from shared_data import SHARED

from multimodal.core.errors import Unreadable
from multimodal.prepare.synthesize.molecules import (
    CLASSES,
    MoleculeSentences,
    group_counts,
    parse_smiles,
    properties,
    ring_facts,
)

# class -> a molecule that belongs to it
EXAMPLES = {
    "a carboxylic acid": "CC(=O)O",
    "a carboxylate, the anion of a carboxylic acid": "CC(=O)[O-]",
    "a carboxylic ester": "CC(=O)OCC",
    "a carboxamide": "CC(=O)N",
    "a primary alcohol": "CCO",
    "a secondary alcohol": "CC(O)C",
    "a tertiary alcohol": "CC(C)(C)O",
    "a member of phenols": "Oc1ccccc1",
    "an aldehyde": "CC=O",
    "a ketone": "CC(=O)C",
    "an ether": "CCOCC",
    "an aromatic ether": "COc1ccccc1",
    "a primary amino compound": "CCN",
    "a tertiary amino compound": "CN(C)C",
    "a quaternary ammonium ion": "C[N+](C)(C)C",
    "an alpha-amino acid": "NCC(=O)O",
    "a nitrile": "CC#N",
    "a nitro compound": "C[N+](=O)[O-]",
    "a sulfonamide": "CS(=O)(=O)N",
    "a thiol": "CCS",
    "an organic sulfide": "CSC",
    "a phosphate or phosphoric ester": "COP(=O)(O)O",
    "an organofluorine compound": "CF",
    "an organochlorine compound": "CCl",
    "an organobromine compound": "CBr",
    "an organoiodine compound": "CI",
    "a steroid": "C1CCC2C(C1)CCC1C2CCC2CCCC12",
    "a glycoside or a sugar": "OCC1OC(O)C(O)C(O)C1O",
    "a member of pyrimidines": "c1cncnc1",
    "a member of pyridines": "c1ccncc1",
    "a member of indoles": "c1ccc2[nH]ccc2c1",
    "a member of imidazoles": "c1c[nH]cn1",
    "a purine, a nucleobase or a nucleoside of one": "c1ncc2[nH]cnc2n1",
    "a flavonoid or another chromenone": "O=c1cc(-c2ccccc2)oc2ccccc12",
}
# molecule -> classes that it does not belong to
OTHERS = {
    "CC(=O)OCC": ["a carboxylic acid", "a ketone", "an ether", "a primary alcohol"],
    "CC(=O)O": ["a primary alcohol", "a ketone", "a carboxylic ester", "an aldehyde"],
    "CC(=O)N": ["a primary amino compound", "a ketone"],
    "CCO": ["an ether", "a carboxylic acid", "a member of phenols"],
    "c1ccccc1": [*CLASSES],
    "CC(N)=O": ["an alpha-amino acid"],
    "C[N+](=O)[O-]": ["a quaternary ammonium ion"],
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_knows_its_example(name: str) -> None:
    assert MolFromSmiles(EXAMPLES[name]).HasSubstructMatch(MolFromSmarts(CLASSES[name]))


@pytest.mark.parametrize("smiles", OTHERS)
def test_molecules_are_not_in_the_classes_of_others(smiles: str) -> None:
    molecule = MolFromSmiles(smiles)
    assert [n for n in OTHERS[smiles] if molecule.HasSubstructMatch(MolFromSmarts(CLASSES[n]))] == []


def test_rings_and_groups_are_counted() -> None:
    assert ring_facts(parse_smiles("CCO")) == ["has no rings", "is acyclic"]
    assert ring_facts(parse_smiles("c1ccccc1")) == ["has one ring of six atoms, which is aromatic"]
    assert ring_facts(parse_smiles("C1CCCCC1c1ccncc1")) == [
        "has two rings",
        "has two rings, one aromatic and one aliphatic",
        "has one ring with atoms other than carbon",
    ]
    assert group_counts(parse_smiles("O=[N+]([O-])c1ccccc1")) == ["one benzene ring", "one nitro group"]


def test_properties_are_those_of_the_molecule() -> None:
    assert "an anion of charge -1" in properties(parse_smiles("CC(=O)[O-]"))
    assert "a cation of charge +1" in properties(parse_smiles("C[N+](C)(C)C"))
    assert "a zwitterion" in properties(parse_smiles("[NH3+]CC(=O)[O-]"))
    assert "a zwitterion" not in properties(parse_smiles("C[N+](=O)[O-]"))
    assert "saturated" in properties(parse_smiles("CCCC"))
    assert "saturated" not in properties(parse_smiles("C=C"))
    assert "saturated" not in properties(parse_smiles("O"))
    assert "lipophilic" in properties(parse_smiles("C" * 20))


def test_descriptions_differ_by_the_seed_and_are_equal_for_one() -> None:
    sentences = MoleculeSentences("SMILES", "text", count=3)
    row = {"SMILES": "CC(=O)Oc1ccccc1C(=O)O"}
    made = sentences.make(row, np.random.default_rng(1))
    assert made == sentences.make(row, np.random.default_rng(1))
    assert len({one.value for one in made}) == 3
    for one in made:
        assert one.value.startswith("The molecule ")
        assert 1 <= one.value.count(". ") + 1 <= 3


@pytest.mark.parametrize("smiles", ["not SMILES", "C1CC", "", "C" * 3000, "C" * 400])
def test_what_is_not_a_molecule_is_not_described(smiles: str) -> None:
    with pytest.raises(Unreadable):
        parse_smiles(smiles)


def test_real_molecules_are_described() -> None:
    path = SHARED / "chebi20" / "molecules.tsv"
    if not path.is_file():
        pytest.skip(f"there are no molecules in {SHARED}")
    lines = [line.split("\t")[1].replace("\\\\", "\\") for line in path.read_text(encoding="utf-8").splitlines()[1:200]]
    sentences = MoleculeSentences("SMILES", "text")
    made = [sentences.make({"SMILES": smiles}, np.random.default_rng(n)) for n, smiles in enumerate(lines)]
    assert all(len(several) == 1 for several in made)
    assert len({several[0].value for several in made}) > 150
