"""Long texts are cut before they are tokenized, with the same result where the text has ordinary words."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multimodal_encoders.text.bag_of_words import BagProcessor
from multimodal_encoders.text.raw_text import MAX_TEXT_CHARACTERS, characters_read, cut_text, read_text
from multimodal_encoders.text.transformer import SubwordProcessor
from multimodal_encoders.text.word_vectors import WordVectors

from multimodal import create
from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable, UsageError

WORDS = "the quick brown fox jumps over a lazy dog, 12 times: naïve 漢字 "


@given(text=st.text("ab \t\n", max_size=40), characters=st.integers(1, 12), side=st.sampled_from(["left", "right"]))
def test_a_text_is_cut_between_words_or_within_the_only_one(text: str, characters: int, side: Any) -> None:
    cut = cut_text(text, characters, side)
    if len(text) <= characters:
        assert cut == text
        return
    assert len(cut) <= characters
    words, kept = text.split(), cut.split()
    whole = words[: len(kept)] if side == "right" else words[len(words) - len(kept) :]
    if len(kept) > 1:
        assert kept == whole
    assert bool(kept) == bool(words)
    if len(text := text.strip()) > characters and side == "right":  # as many words as fit
        ends = [i for i in range(1, characters + 1) if text[i].isspace() and not text[i - 1].isspace()]
        assert cut == text[: max(ends, default=characters)]
    elif len(text) > characters:
        assert cut == cut_text(text[::-1], characters)[::-1]


def test_a_long_text_is_cut_at_the_characters_that_are_read() -> None:
    assert characters_read(8) == 1024
    assert characters_read(64) == 4096
    with pytest.raises(UsageError, match="must not be above 131,072"):
        characters_read(10**9)
    with pytest.raises(Unreadable, match="is empty"):
        read_text(" " * 10_000, 100)


def fitted(kind: str) -> Processor:
    if kind == "bag":
        processor: Processor = BagProcessor(vocab_size=100, shortest=2, longest=3, word_drop=0.0)
    else:
        processor = SubwordProcessor(vocab_size=200, max_length=16, word_drop=0.0)
    processor.fit([WORDS] * 4)
    return processor


@pytest.mark.parametrize("kind", ["transformer", "huggingface", "open_clip"])
def test_the_tokens_of_a_cut_text_are_those_of_the_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "transformer":
        processor: Any = fitted(kind)
    elif kind == "huggingface":
        import small_transformers

        small_transformers.tokenizer(tmp_path)
        small_transformers.model(tmp_path, "bert")
        processor = create("text", "huggingface", weights=str(tmp_path), max_length=16).processor
    else:
        vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}
        text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        processor = create("text", "open_clip", config=config).processor
    long = WORDS * 200
    cut = processor.collate([processor(long)])
    monkeypatch.setattr("multimodal_encoders.text.raw_text.cut_text", lambda text, *_: text)
    whole = processor.collate([processor(long)])
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_a_tokenizer_that_cuts_on_the_left_keeps_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import small_transformers

    small_transformers.tokenizer(tmp_path, truncation_side="left")
    small_transformers.model(tmp_path, "bert")
    processor = create("text", "huggingface", weights=str(tmp_path), max_length=16).processor
    long = WORDS * 200 + "the end"
    cut = processor(long)
    monkeypatch.setattr("multimodal_encoders.text.raw_text.cut_text", lambda text, *_: text)
    np.testing.assert_array_equal(cut, processor(long))


@pytest.mark.parametrize("kind", ["bag", "transformer", "word_vectors"])
def test_a_text_of_200_megabytes_costs_little_more_than_itself(kind: str, tmp_path: Path) -> None:
    if kind == "word_vectors":
        (tmp_path / "vectors.txt").write_text("quick 1 0\nfox 0 1\n")
        processor: Any = WordVectors(str(tmp_path / "vectors.txt")).processor
    else:
        processor = fitted(kind)
    text = WORDS * (200 * 2**20 // len(WORDS))
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    processor.collate([processor(text)])
    assert time.process_time() - start < 10
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 700 * 1024
    )  # kB; white space is removed in a copy


def test_a_bag_reads_the_first_million_characters() -> None:
    processor = fitted("bag")
    head = "quick fox " * (MAX_TEXT_CHARACTERS // 10 + 1)
    one, other = (processor.collate([processor(text)]) for text in (head, head + "lazy dog " * 1000))
    assert torch.equal(one["terms"], other["terms"])
