"""The samples are as documented, the same each time, and learnable by their configurations."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from multimodal.core.errors import UsageError
from multimodal.core.table import Table
from multimodal.datasets import TABLES, load, sample_molecules
from multimodal.datasets.sample_emoji import GROUNDS, INKS
from multimodal.datasets.sample_spoken_digits import RATE, VOICES, WORDS, speak

SAMPLES = [name for name in TABLES if name.startswith("sample:")]


@pytest.fixture(scope="module")
def emoji() -> Table:
    return load("sample:emoji")


@pytest.fixture(scope="module")
def molecules() -> Table:
    return load("sample:molecules")


@pytest.fixture(scope="module")
def digits() -> Table:
    return load("sample:spoken_digits")


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [{column: table.value(row, column) for column in table.columns} for row in range(len(table))]


def test_a_sample_is_the_same_in_another_process(emoji: Table, molecules: Table, digits: Table) -> None:
    again = "from multimodal.datasets import load\n" + "".join(f"print(load({n!r}).fingerprint)\n" for n in SAMPLES)
    shown = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True, check=True).stdout
    assert sorted(shown.splitlines()) == sorted(table.fingerprint for table in (emoji, molecules, digits))


def test_ids_are_unique(emoji: Table, molecules: Table, digits: Table) -> None:
    for table in (emoji, molecules, digits):
        assert len(set(table.column("id"))) == len(table)


# -- emoji


def test_a_drawing_has_the_colours_of_its_name(emoji: Table) -> None:
    for row in rows_of(emoji)[::7]:
        name, ink, ground = re.fullmatch(r"(.*) in (\w+) on (\w+)", row["name"]).groups()  # pyright: ignore[reportOptionalMemberAccess]
        code_point, _ = row["id"][2:].split("-")
        assert unicodedata.lookup(name) == chr(int(code_point, 16))
        assert {ink, f"{ground} ground"} <= set(row["keywords"].split(", "))
        picture = np.asarray(Image.open(io.BytesIO(row["image"])))
        assert picture.shape == (72, 72, 3)
        edge = np.concatenate([picture[[0, -1]].reshape(-1, 3), picture[:, [0, -1]].reshape(-1, 3)])
        assert (edge == GROUNDS[ground]).all()  # nothing is cut off
        distance = np.abs(picture.astype(int) - INKS[ink]).sum(axis=2)
        assert (distance < 10).sum() > 30, row["name"]


def test_held_out_symbols_are_drawn_once_and_never_trained_on(emoji: Table) -> None:
    symbols: dict[str, list[str]] = {"train": [], "validation": []}
    for row in rows_of(emoji):
        symbols[row["split"]].append(row["id"].split("-")[0])
    assert set(Counter(symbols["train"]).values()) == {4}
    assert set(Counter(symbols["validation"]).values()) == {1}
    assert not set(symbols["train"]) & set(symbols["validation"])
    assert len(symbols["validation"]) == pytest.approx(590 / 10, abs=3)


def test_no_two_drawings_have_the_same_name(emoji: Table) -> None:
    assert len(set(emoji.column("name"))) == len(emoji)


# -- molecules


def test_a_description_has_the_atoms_of_the_formula(molecules: Table) -> None:
    table = Chem.GetPeriodicTable()
    symbols = {table.GetElementName(n).lower(): table.GetElementSymbol(n) for n in range(1, 119)}
    for row in rows_of(molecules)[::11]:
        described = row["description"].rpartition("Its atoms are ")[2].rstrip(".")
        counted = {}
        for part in re.split(", | and ", described):
            number, element = part.split()
            counted[symbols[element]] = in_digits(number)
        formula = re.sub(r"[+-]\d*$", "", CalcMolFormula(Chem.MolFromSmiles(row["SMILES"])))
        expected = {e: int(n or 1) for e, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula) if e != "H"}
        assert counted == expected, row


def in_digits(word: str) -> int:
    return int(word) if word.isdigit() else sample_molecules.NUMBERS.index(word)


@pytest.mark.parametrize(
    ("smiles", "described"),
    [
        (
            "CCO",
            "The molecule has one aliphatic hydroxyl group. It has no rings. Its atoms are two carbon and one oxygen.",
        ),
        (
            "Oc1ccc(cc1)[N+](=O)[O-]",
            "The molecule has one benzene ring, one phenol and one nitro group. Its rings are one of six atoms."
            " Its atoms are six carbon, one nitrogen and three oxygen.",
        ),
        ("C1CCCCCCCCCCCC1", "Its rings are one of 13 atoms. Its atoms are 13 carbon."),
    ],
)
def test_groups_rings_and_atoms_are_described(smiles: str, described: str) -> None:
    assert sample_molecules.describe_molecule(Chem.MolFromSmiles(smiles)) == described


def test_all_molecules_can_be_read_and_no_two_descriptions_are_the_same(molecules: Table) -> None:
    assert len(molecules) == len(set(molecules.column("description"))) == sample_molecules.ROWS
    assert all(Chem.MolFromSmiles(smiles) for smiles in molecules.column("SMILES"))


def test_the_molecules_report_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(UsageError, match=r"pip install 'multimodal\[molecules\]'"):
        load("sample:molecules")


# -- spoken digits


def test_every_voice_says_every_word_thirty_times(digits: Table) -> None:
    rows = rows_of(digits)
    assert set(Counter((row["digit"], row["speaker"]) for row in rows).values()) == {30}
    assert {row["digit"] for row in rows} == set(WORDS)
    for row in rows:
        samples = samples_of(row["audio"])
        assert 0.14 < len(samples) / RATE < 0.85
        assert 9_999 <= np.abs(samples).max() <= 30_000


@pytest.mark.parametrize(("voice", "pitch"), [(name, pitch) for name, (pitch, _) in VOICES.items()])
def test_a_voice_has_its_pitch(voice: str, pitch: float) -> None:
    """The autocorrelation of a vowel shows its period."""
    wave = speak("four", *VOICES[voice], np.random.default_rng(3))
    vowel = wave[int(0.4 * len(wave)) :][:800].astype(float)
    correlation = np.correlate(vowel, vowel, "full")[len(vowel) :]  # from a lag of 1 on
    shortest = int(RATE / pitch / 1.4)
    lag = 1 + shortest + int(correlation[shortest : int(RATE / pitch * 1.4)].argmax())
    assert RATE / lag == pytest.approx(pitch, rel=0.25)


def test_words_of_an_unseen_voice_are_recognised_by_the_nearest_mean(digits: Table) -> None:
    """Log spectra of eight segments recognise most words: the words differ in the same way for all speakers."""
    rows = rows_of(digits)
    features = np.stack([log_spectra(samples_of(row["audio"])) for row in rows])
    words = np.array([row["digit"] for row in rows])
    is_training = np.array([row["speaker"] != "alto" for row in rows])
    means = np.stack([features[is_training & (words == word)].mean(axis=0) for word in WORDS])
    nearest = ((features[~is_training][:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    accuracy = (np.array(list(WORDS))[nearest] == words[~is_training]).mean()
    assert 0.6 < accuracy < 0.99  # chance is 0.1; an encoder can still improve on it


def samples_of(recording: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(recording), dtype="int16")
    assert (rate, samples.ndim) == (8000, 1)
    return samples


def log_spectra(wave: np.ndarray) -> np.ndarray:
    """``(8 * 16,)``: energy in 16 bands of 250 Hz in eight segments of the recording, relative to the loudest."""
    parts = [np.abs(np.fft.rfft(part / 2**15, 512))[1:] ** 2 for part in np.array_split(wave, 8)]
    bands = np.log10(np.stack(parts).reshape(8, 16, 16).sum(axis=2) + 1e-6)
    return (bands - bands.max()).clip(-6).ravel()
