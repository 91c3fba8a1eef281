"""Real recordings, pictures and texts are read, every one, and linear features recognize some of them."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
from multimodal_encoders.audio.spectrogram import SpectrogramProcessor
from multimodal_encoders.image.image_processor import ImageProcessor
from multimodal_encoders.text.transformer import SubwordProcessor
from shared_data import SHARED
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def rows_of(table: str) -> list[dict[str, str]]:
    path = SHARED / table
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_spoken_digit_is_read_and_linear_features_recognize_it() -> None:
    rows = rows_of("spoken_digits/digits.csv")[::3]
    reader = SpectrogramProcessor(8000, 40, 0.025, 0.010, 10.0)
    files = [SHARED / "spoken_digits" / row["audio"] for row in rows]
    for file in files:
        item = reader(file)
        assert item.isfinite().all()
        assert 5 < len(item) < 240  # frames of 10 ms
        assert item.max() == pytest.approx(3)
    digits = np.array([row["digit"] for row in rows])
    training = np.array([row["split"] == "train" for row in rows])
    linear: Any = make_pipeline(reader.linear_features(), LogisticRegression(max_iter=500))
    linear.fit([f for f, t in zip(files, training, strict=True) if t], digits[training])
    assert linear.score([f for f, t in zip(files, training, strict=True) if not t], digits[~training]) > 0.6


def test_every_emoji_is_read_on_its_ground_and_its_words_are_text() -> None:
    rows = rows_of("emoji/emoji.csv")[::4]
    reader, words = ImageProcessor(32, 3, background="#4080c0"), SubwordProcessor(500, 32, 0.0)
    words.fit(row["name"] for row in rows)
    for row in rows:
        item = reader(SHARED / "emoji" / row["image"])
        assert item.shape == (32, 32, 3)
        assert item.float().std() > 5
        assert words(row["name"])
    found = words.linear_features().fit_transform([row["name"] for row in rows])
    assert found.shape[0] == len(rows)
