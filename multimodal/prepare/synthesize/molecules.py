"""Sentences about molecules, from what RDKit computes: groups, rings, classes of properties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.errors import Unreadable
from multimodal.core.extras import require
from multimodal.datasets.sample_molecules import GROUPS, in_words
from multimodal.prepare.near_texts import fold
from multimodal.prepare.synthesize.recipe import Made, Recipe

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MAX_SMILES = 2000  # characters
MAX_ATOMS = 300
MOST_GROUPS = 4  # in one sentence
SENTENCES = 3  # of a description, at most

# class of compounds, in the words of ChEBI -> the pattern (SMARTS) that its molecules contain
CLASSES = {
    "a carboxylic acid": "[CX3](=O)[OX2H1]",
    "a carboxylate, the anion of a carboxylic acid": "[CX3](=O)[O-]",
    "a carboxylic ester": "[CX3](=O)[OX2][CX4,c]",
    "a carboxamide": "[CX3](=O)[NX3]",
    "a primary alcohol": "[CX4H2][OX2H]",
    "a secondary alcohol": "[CX4H1]([#6])([#6])[OX2H]",
    "a tertiary alcohol": "[CX4]([#6])([#6])([#6])[OX2H]",
    "a member of phenols": "c[OX2H]",
    "an aldehyde": "[CX3H1]=O",
    "a ketone": "[#6][CX3](=O)[#6]",
    "an ether": "[#6;!$(C=O)][OX2][#6;!$(C=O)]",
    "an aromatic ether": "c[OX2][#6;!$(C=O)]",
    "a primary amino compound": "[NX3H2;!$(NC=O)][#6]",
    "a tertiary amino compound": "[NX3;!$(N[C,S]=[O,N,S])]([CX4])([CX4])[CX4]",
    "a quaternary ammonium ion": "[NX4+;H0]",
    "an alpha-amino acid": "[NX3,NX4+][CX4][CX3](=O)[OX2H,O-]",
    "a nitrile": "C#N",
    "a nitro compound": "[NX3+](=O)[O-]",
    "a sulfonamide": "S(=O)(=O)[NX3]",
    "a thiol": "[#6][SX2H]",
    "an organic sulfide": "[#6][SX2][#6]",
    "a phosphate or phosphoric ester": "P(=O)([O,O-])([O,O-])[O,O-]",
    "an organofluorine compound": "[#6]F",
    "an organochlorine compound": "[#6]Cl",
    "an organobromine compound": "[#6]Br",
    "an organoiodine compound": "[#6]I",
    "a steroid": "[#6]1~[#6]~[#6]~[#6]2~[#6](~[#6]~1)~[#6]~[#6]~[#6]1~[#6]~2~[#6]~[#6]~[#6]2~[#6]~1~[#6]~[#6]~[#6]~2",
    "a glycoside or a sugar": "[CX4]1[OX2][CX4]([OX2])[CX4]([OX2H])[CX4]([OX2H])[CX4]1",
    "a member of pyrimidines": "c1ncccn1",
    "a member of pyridines": "c1ccncc1",
    "a member of indoles": "c1ccc2[nH,n]ccc2c1",
    "a member of imidazoles": "c1cnc[nH,n]1",
    "a purine, a nucleobase or a nucleoside of one": "c1ncnc2c1nc[nH,n]2",
    "a flavonoid or another chromenone": "O=c1ccoc2ccccc12",
}


class MoleculeSentences(Recipe):
    """Describes molecules in up to three sentences: classes of compounds, groups and rings, properties.

    Which of the sentences that are true of a molecule are written, and in which words, is drawn at random.

    Args:
        molecules: the column of SMILES.
        column: the column of texts that descriptions are written to.
        count: descriptions of each molecule, at least 1.

    Raises:
        UsageError: RDKit is not installed.

    Examples:
        >>> sentences = MoleculeSentences("SMILES", "description")
        >>> sentences.make({"SMILES": "OC(=O)c1ccccc1"}, np.random.default_rng(3))[0].value
        'The molecule contains one aromatic carboxylic acid. It has one ring of six atoms, which is aromatic. It is small.'
    """

    name = "molecules"

    def __init__(self, molecules: str, column: str, count: int = 1) -> None:
        require("molecules", "Describing molecules", "rdkit")
        self.molecules, self.column, self.count = molecules, column, count
        self._patterns: dict[str, Any] | None = None

    def make(self, values: Mapping[str, Any], rng: np.random.Generator) -> list[Made]:
        smiles = values.get(self.molecules)
        if not isinstance(smiles, str):
            return []
        molecule = parse_smiles(smiles)
        kinds = self._kinds(molecule)
        own = values.get(self.column)
        made: dict[str, Made] = {}
        for _ in range(2 * self.count):
            if len(made) == self.count:
                break
            description = describe(kinds, rng)
            if description and (not isinstance(own, str) or fold(description) != fold(own)):
                made.setdefault(description, Made(self.column, description, "molecule: sentences by RDKit"))
        return list(made.values())

    def _kinds(self, molecule: Mol) -> list[list[str]]:
        if self._patterns is None:
            from rdkit.Chem import MolFromSmarts

            self._patterns = {name: MolFromSmarts(pattern) for name, pattern in CLASSES.items()}
        found = [name for name, pattern in self._patterns.items() if molecule.HasSubstructMatch(pattern)]
        return [found, group_counts(molecule), ring_facts(molecule), properties(molecule)]


def parse_smiles(smiles: str) -> Mol:
    """Parse a molecule.

    Raises:
        Unreadable: the text is not SMILES, or the molecule is too large.
    """
    from rdkit import rdBase
    from rdkit.Chem import MolFromSmiles

    if len(smiles) > MAX_SMILES:
        raise Unreadable("too large", f"the SMILES has more than {MAX_SMILES:,} characters.")
    with rdBase.BlockLogs():
        molecule = MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise Unreadable("not SMILES", f"{smiles[:100]!r} is not a molecule that RDKit can read.")
    if molecule.GetNumAtoms() > MAX_ATOMS:
        raise Unreadable("too large", f"the molecule has more than {MAX_ATOMS} atoms.")
    return molecule


def describe(kinds: Sequence[Sequence[str]], rng: np.random.Generator) -> str:
    """Return up to three sentences.

    Args:
        kinds: what is true of the molecule: its classes, its groups, its rings, its properties.
        rng: random numbers; they choose the facts and the words.

    Examples:
        >>> describe([["an ether"], [], [], ["small"]], np.random.default_rng(0))
        'The molecule is an ether. It is small.'
    """
    shuffled: list[list[str]] = [[kind[int(n)] for n in rng.permutation(len(kind))] for kind in kinds]
    classes, groups, rings, others = shuffled
    sentences = []
    if classes:
        sentences.append(f"is {listed(classes[: 1 + int(rng.integers(3))])}")
    if groups:
        verb = "contains" if rng.random() < 0.5 else "has"
        sentences.append(f"{verb} {listed(groups[: 1 + int(rng.integers(MOST_GROUPS))])}")
    if rings:
        sentences.append(rings[0])
    if others:
        sentences.append(f"is {listed(others[: 1 + int(rng.integers(2))])}")
    kept = sorted(rng.permutation(len(sentences))[:SENTENCES].tolist())
    subjects = ["The molecule"] + ["It"] * SENTENCES
    return " ".join(f"{subject} {sentences[n]}." for subject, n in zip(subjects, kept, strict=False))


def group_counts(molecule: Mol) -> list[str]:
    """Return the groups of a molecule with their numbers: "two nitro groups"."""
    from rdkit.Chem import Fragments

    counts = [(getattr(Fragments, group)(molecule), *words) for group, words in GROUPS.items()]
    return [f"{in_words(count)} {one if count == 1 else several}" for count, one, several in counts if count]


def ring_facts(molecule: Mol) -> list[str]:
    """Return what is true of a molecule's rings: their number, kinds and sizes."""
    from rdkit.Chem import rdMolDescriptors

    sizes = sorted(len(ring) for ring in molecule.GetRingInfo().AtomRings())
    if not sizes:
        return ["has no rings", "is acyclic"]
    aromatic = rdMolDescriptors.CalcNumAromaticRings(molecule)
    if len(sizes) == 1:
        kind = "aromatic" if aromatic else "not aromatic"
        return [f"has one ring of {in_words(sizes[0])} atoms, which is {kind}"]
    counted = [
        (aromatic, "aromatic"),
        (rdMolDescriptors.CalcNumAliphaticRings(molecule), "aliphatic"),
    ]
    kinds = listed([f"{in_words(count)} {kind}" for count, kind in counted if count])
    facts = [f"has {in_words(len(sizes))} rings", f"has {in_words(len(sizes))} rings, {kinds}"]
    if hetero := rdMolDescriptors.CalcNumHeterocycles(molecule):
        facts.append(f"has {in_words(hetero)} {'ring' if hetero == 1 else 'rings'} with atoms other than carbon")
    if max(sizes) >= 12:
        facts.append("is macrocyclic")
    return facts


def properties(molecule: Mol) -> list[str]:
    """Return the classes of a molecule's properties, as words that follow "is"."""
    from rdkit.Chem import Crippen, Descriptors, GetFormalCharge, rdMolDescriptors

    charge = GetFormalCharge(molecule)
    ions = [atom.GetFormalCharge() for atom in molecule.GetAtoms()]
    zwitterion = charge == 0 and any(ions) and _has_far_charges(molecule)
    weight = Descriptors.MolWt(molecule)  # pyright: ignore[reportAttributeAccessIssue]
    log_p = Crippen.MolLogP(molecule)  # pyright: ignore[reportAttributeAccessIssue]
    true: list[tuple[bool, str]] = [
        (charge < 0, f"an anion of charge {charge}"),
        (charge > 0, f"a cation of charge +{charge}"),
        (zwitterion, "a zwitterion"),
        (weight < 200, "small"),
        (weight > 600, "large"),
        (log_p > 5, "lipophilic"),
        (log_p < -1, "very soluble in water"),
        (rdMolDescriptors.CalcFractionCSP3(molecule) == 1 and _has_carbon(molecule), "saturated"),
        (rdMolDescriptors.CalcNumRotatableBonds(molecule) >= 10, "flexible, with a long chain or many of them"),
        (rdMolDescriptors.CalcNumAtomStereoCenters(molecule) >= 3, "chiral, with several stereocentres"),
    ]
    return [words for holds, words in true if holds]


def _has_carbon(molecule: Mol) -> bool:
    return any(atom.GetAtomicNum() == 6 for atom in molecule.GetAtoms())


def _has_far_charges(molecule: Mol) -> bool:
    """Return whether charged atoms are not all next to one of the opposite charge, as in a nitro group."""

    def alone(atom: Any) -> bool:
        charge = atom.GetFormalCharge()
        return charge != 0 and all(other.GetFormalCharge() * charge >= 0 for other in atom.GetNeighbors())

    return any(alone(atom) for atom in molecule.GetAtoms())


def listed(words: Sequence[str]) -> str:
    """Join words to a list: "a, b and c"."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
