"""Recordings are decoded within bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from multimodal.core.errors import Unreadable
from multimodal.media import audio
from multimodal.media.audio import read_recording

RATE = 8000


def test_a_recording_that_decodes_to_too_many_samples_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = np.sin(np.arange(2 * RATE))
    soundfile.write(tmp_path / "a.flac", np.stack([wave, wave], axis=1), RATE)
    monkeypatch.setattr(audio, "MAX_SAMPLES", 2 * RATE)
    samples, _ = read_recording(tmp_path / "a.flac", RATE, 1.0)  # both channels of one second
    assert len(samples) == RATE
    with pytest.raises(
        Unreadable, match=r"24,000 samples in its first 1\.5 s, in all channels; at most 16,000"
    ) as error:
        read_recording(tmp_path / "a.flac", RATE, 1.5)
    assert error.value.reason == "audio too long"
