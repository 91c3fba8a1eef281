"""Values that training would reject are not prepared."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.core.errors import UsageError
from multimodal.prepare.pipeline import REJECTS, prepare
from multimodal.prepare.settings import Settings

RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=8000) * 0.1


def sound(samples: np.ndarray, form: str = "WAV", subtype: str | None = None) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format=form, subtype=subtype)
    return file.getvalue()


def reasons(out: Path) -> dict[int, str]:
    """Return row -> the reason why it was rejected."""
    lines = (out / REJECTS).read_text(encoding="utf-8").splitlines()
    return {line["row"]: line["reason"] for line in map(json.loads, lines)}


def test_sounds_are_read_as_training_reads_them(source: Any, tmp_path: Path) -> None:
    sounds = {
        "silent audio": [np.zeros(4000), np.array([0.5]), np.full(4000, 0.5)],
        "NaN audio": [np.full(4000, np.nan)],
    }
    rows = [(reason, sound(samples, subtype="FLOAT")) for reason, several in sounds.items() for samples in several]
    rows += [("truncated audio", sound(NOISE, form)[:5000]) for form in ("FLAC", "WAV")]
    rows += [("no audio file", b"RIFF nothing")]
    table = [{"clip": data} for _, data in rows] + [{"clip": sound(NOISE)}]
    out = tmp_path / "out"
    outcome = prepare(source(table), Settings({"audio": "clip"}, max_rejects=1), out)
    assert reasons(out) == {number: reason for number, (reason, _) in enumerate(rows)}
    assert outcome.rows_out == 1
    assert "0x" not in (out / REJECTS).read_text(encoding="utf-8")


def test_the_named_encoder_checks_the_values(source: Any, tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    smiles = ["CCO", "C1CC", "CCN", "xx", "C1CC"]
    table = [{"smiles": text, "title": f"the molecule of the {n} th row"} for n, text in enumerate(smiles)]
    settings: dict[str, Any] = {"columns": {"graph": "smiles", "text": "title"}, "max_rejects": 1}
    for encoders, rejected in (({}, {}), ({"graph": "molecule", "text": "transformer"}, {1, 3, 4})):
        out = tmp_path / "out"
        prepare(source(table), Settings(**settings, encoders=encoders), out)
        assert reasons(out) == dict.fromkeys(rejected, "invalid SMILES")


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({"grahp": "molecule"}, "Did you mean 'graph'"),
        ({"graph": "molecul"}, "Did you mean 'molecule'"),
        ({"graph": "pyg"}, "needs settings"),
    ],
)
def test_an_encoder_that_cannot_check_values_is_rejected(
    source: Any, tmp_path: Path, encoders: Any, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        prepare(source([{"s": "CCO"}]), Settings({"graph": "s"}, encoders=encoders), tmp_path / "out")
    assert message in str(caught.value)
