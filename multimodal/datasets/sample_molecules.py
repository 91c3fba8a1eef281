"""A sample of real molecules with generated descriptions: RDKit's copy of the NCI's open database, described by RDKit.

A row is one molecule. Its columns:

- ``id``: its number in RDKit's file;
- ``SMILES``: ``"OC1=C(Cl)C=C(C=C1[N+]([O-])=O)[N+]([O-])=O"``;
- ``description``: ``"The molecule has one benzene ring, one phenol and two nitro groups. Its rings are one of six atoms.
  Its atoms are six carbon, one chlorine, two nitrogen and five oxygen."``; no two molecules have the same.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from multimodal.core.errors import UsageError
from multimodal.datasets.in_memory import InMemoryTable

ROWS = 3300  # as in the table of real descriptions
# function of rdkit.Chem.Fragments that counts a group -> its name in the singular and in the plural
GROUPS = {
    "fr_benzene": ("benzene ring", "benzene rings"),
    "fr_pyridine": ("pyridine ring", "pyridine rings"),
    "fr_furan": ("furan ring", "furan rings"),
    "fr_thiophene": ("thiophene ring", "thiophene rings"),
    "fr_thiazole": ("thiazole ring", "thiazole rings"),
    "fr_imidazole": ("imidazole ring", "imidazole rings"),
    "fr_piperdine": ("piperidine ring", "piperidine rings"),
    "fr_morpholine": ("morpholine ring", "morpholine rings"),
    "fr_epoxide": ("epoxide", "epoxides"),
    "fr_lactone": ("lactone", "lactones"),
    "fr_Al_COO": ("aliphatic carboxylic acid", "aliphatic carboxylic acids"),
    "fr_Ar_COO": ("aromatic carboxylic acid", "aromatic carboxylic acids"),
    "fr_ester": ("ester", "esters"),
    "fr_amide": ("amide", "amides"),
    "fr_imide": ("imide", "imides"),
    "fr_urea": ("urea group", "urea groups"),
    "fr_ketone": ("ketone", "ketones"),
    "fr_aldehyde": ("aldehyde", "aldehydes"),
    "fr_phenol": ("phenol", "phenols"),
    "fr_Al_OH": ("aliphatic hydroxyl group", "aliphatic hydroxyl groups"),
    "fr_methoxy": ("methoxy group", "methoxy groups"),
    "fr_ether": ("ether", "ethers"),
    "fr_NH2": ("NH2 group", "NH2 groups"),
    "fr_NH1": ("NH group", "NH groups"),
    "fr_aniline": ("aniline", "anilines"),
    "fr_quatN": ("quaternary nitrogen", "quaternary nitrogens"),
    "fr_Imine": ("imine", "imines"),
    "fr_oxime": ("oxime", "oximes"),
    "fr_hdrzine": ("hydrazine group", "hydrazine groups"),
    "fr_hdrzone": ("hydrazone", "hydrazones"),
    "fr_azo": ("azo group", "azo groups"),
    "fr_nitro": ("nitro group", "nitro groups"),
    "fr_nitrile": ("nitrile", "nitriles"),
    "fr_SH": ("thiol", "thiols"),
    "fr_sulfide": ("thioether", "thioethers"),
    "fr_C_S": ("thiocarbonyl group", "thiocarbonyl groups"),
    "fr_sulfone": ("sulfone", "sulfones"),
    "fr_sulfonamd": ("sulfonamide", "sulfonamides"),
    "fr_alkyl_halide": ("alkyl halide", "alkyl halides"),
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def sample_molecules() -> InMemoryTable:
    """Generate the table of 3,300 molecules.

    Raises:
        UsageError: RDKit is not installed.
    """
    try:
        from rdkit import RDConfig, rdBase
        from rdkit.Chem import MolFromSmiles
    except ImportError as error:
        raise UsageError(
            "The table sample:molecules comes with RDKit, which is not installed; install it with:"
            " pip install 'multimodal[molecules]'."
        ) from error

    rows: dict[str, dict[str, Any]] = {}  # by description
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text(encoding="ascii").splitlines()
    with rdBase.BlockLogs():  # RDKit cannot parse a few lines of the file
        for smiles, number in (line.split("\t") for line in lines):
            if len(rows) < ROWS and (molecule := MolFromSmiles(smiles)) is not None:
                description = describe_molecule(molecule)
                rows.setdefault(description, {"id": number, "SMILES": smiles, "description": description})
    return InMemoryTable("sample:molecules", list(rows.values()), ("SMILES", "description"))


def describe_molecule(molecule: Any) -> str:
    """Describe the groups, rings and atoms of an RDKit molecule in two or three sentences.

    Examples:
        >>> from rdkit.Chem import MolFromSmiles
        >>> describe_molecule(MolFromSmiles("C1CC1"))
        'Its rings are one of three atoms. Its atoms are three carbon.'
    """
    from rdkit.Chem import Fragments

    counts = [(getattr(Fragments, group)(molecule), *words) for group, words in GROUPS.items()]
    groups = [f"{in_words(count)} {one if count == 1 else several}" for count, one, several in counts if count]
    atoms = Counter(_element(atom.GetAtomicNum()) for atom in molecule.GetAtoms())
    elements = [f"{in_words(count)} {element}" for element, count in sorted(atoms.items())]
    rings = sorted(len(ring) for ring in molecule.GetRingInfo().AtomRings())
    sizes = [f"{in_words(count)} of {in_words(size)} atoms" for size, count in sorted(Counter(rings).items())]
    sentences = [
        f"The molecule has {_listed(groups)}." if groups else "",
        f"Its rings are {_listed(sizes)}." if sizes else "It has no rings.",
        f"Its atoms are {_listed(elements)}.",
    ]
    return " ".join(filter(None, sentences))


def in_words(number: int) -> str:
    """Spell a number: ``3`` -> ``"three"``; numbers from 13 on are digits."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def _element(number: int) -> str:
    from rdkit.Chem import GetPeriodicTable

    return GetPeriodicTable().GetElementName(number).lower() if number else "unknown"


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
