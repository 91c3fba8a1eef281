"""Word vectors: the files they come from, the words of a text, and their means by the formulas."""

from __future__ import annotations

import gzip
import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.text.transformer import TextTransformer
from multimodal_encoders.text.word_vector_files import read_word_table
from multimodal_encoders.text.word_vectors import WordVectors

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError

TABLE = {"the": [1.0, 0.5, 2.0], "fox": [0.0, -1.0, 0.25], "Paris": [3.0, 0.0, -1.0], "हिन्दी": [0.5, 0.5, 0.5]}
TABLE |= {"café": [-1.0, 2.0, 0.0], "dog": [2.0, 1.0, 1.0], ". .": [9.0, 9.0, 9.0]}
TEXTS = ["the fox", "The dog and the fox", "Paris", "the the dog!", "a fox, a dog, PARIS", "café  dog", "nothing here"]


def lines(table: dict[str, list[float]] = TABLE) -> list[str]:
    return [f"{word} {' '.join(map(str, numbers))}" for word, numbers in table.items()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("\n".join(lines()) + "\n", encoding="utf-8")
    return tmp_path / "words.txt"


def features(encoder: Any, *texts: str) -> np.ndarray:
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(text) for text in texts])).numpy()


def known_words(text: str) -> list[str]:
    """Of texts without marks: as the table has them, else in lower case."""
    found = (word if word in TABLE else word.lower() for word in re.findall(r"\w+", text))
    return [word for word in found if word in TABLE]


# -- files


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("ends", ["\n", " \r\n"])
def test_a_table_is_read_in_either_format(header: bool, zipped: bool, ends: str, tmp_path: Path) -> None:
    text = ends.join([*([f"{len(TABLE)} 3"] if header else []), *lines(), ""]).encode()
    path = tmp_path / ("v.txt.gz" if zipped else "v.vec")
    path.write_bytes(gzip.compress(text) if zipped else text)
    table = read_word_table(path, 100)
    assert table.words == list(TABLE)
    assert np.array_equal(table.vectors, np.array(list(TABLE.values()), dtype=np.float32))
    head = read_word_table(path, 2)
    assert head.words == list(TABLE)[:2]
    assert head.vectors.shape == (2, 3)


def test_of_equal_words_the_first_counts_and_broken_characters_are_read(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"a 1 2\n\nb\t3  4\na 5 6\n\xc3 7 8\n")
    table = read_word_table(tmp_path / "v.txt", 100)
    assert table.words == ["a", "b", "\ufffd"]
    assert table.vectors.tolist() == [[1, 2], [3, 4], [7, 8]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds 0 word vectors"),
        (b"\n\n", "holds 0 word vectors"),
        (b"5 2\na 1 2\n", "holds 1 word vectors, not 5 as its first line says"),
        (b"a 1 2\nb 1\n", r"line 2 is not a word and 2 numbers: 'b 1'"),
        (b"a 1 2\nb 1 x\n", r"line 2 is not a word"),
        (b"a 1 2\nb 1 nan\n", r"line 2 is not a word"),
        (b"a 1 2\n1 2\n", r"line 2 is not a word"),
        (b"a 1 1e999\n", r"line 1 is not a word"),
        (b"a\n", r"line 1 is not a word and 0 numbers"),
        (b"2 2\na \x00\x00\x80\x3f\x00\x00\n", r"line 2 is not a line of text.*binary=False"),
        (b"a " + b"1 " * 2**20, r"line 1 is not a line of text"),
    ],
)
def test_a_bad_line_is_reported_by_its_number(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(MultimodalError, match=said):
        read_word_table(tmp_path / "v.txt", 100)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a 1 2\n" * 999)[:-20]], ids=["no gzip", "cut off"])
def test_a_damaged_archive_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.txt.gz").write_bytes(content)
    with pytest.raises(MultimodalError, match=r"v\.txt\.gz cannot be read"):
        read_word_table(tmp_path / "v.txt.gz", 5000)


# -- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The fox's Paris", ["the", "fox", "Paris"]),
        ("PARIS paris FOX", ["fox"]),
        ("x हिन्दी-fox", ["हिन्दी", "fox"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("the_fox unknown", []),
        ("⇨ ...", []),
    ],
)
def test_words_are_looked_up_unchanged_or_in_lower_case(text: str, words: list[str], path: Path) -> None:
    rows, weights = WordVectors(str(path)).processor(text)
    assert rows.tolist() == ([1 + list(TABLE).index(word) for word in words] or [0])
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("value", "reason"), [(3, "wrong type"), (None, "wrong type"), (" ", "empty text"), ("\ud800 a", "invalid Unicode")]
)
def test_what_is_not_a_text_is_refused(value: Any, reason: str, path: Path) -> None:
    with pytest.raises(Unreadable) as refusal:
        WordVectors(str(path)).processor(value)
    assert refusal.value.reason == reason


# -- features


@given(texts=st.lists(st.lists(st.sampled_from([*TABLE, "other", "THE", ","]), min_size=1).map(" ".join), min_size=1))
@settings(max_examples=30, deadline=None)
def test_a_text_is_the_mean_of_its_words(texts: list[str]) -> None:
    encoder = WordVectors(width=3, vocab_size=len(TABLE))
    encoder.processor.load_state({"words": list(TABLE)})
    vectors = np.array(list(TABLE.values()))
    with torch.no_grad():
        encoder.table.weight[1:] = torch.from_numpy(vectors)
    unknown = encoder.table.weight[0].tolist()
    split = re.compile(r"[\w\u093f\u094d\u0940]+")
    for text, made in zip(texts, features(encoder, *texts), strict=True):
        words = [word if word in TABLE else word.lower() for word in split.findall(text)]
        mean = np.mean([TABLE[word] for word in words if word in TABLE] or [unknown], axis=0)
        np.testing.assert_allclose(made, mean, atol=1e-5)


def test_a_text_without_a_known_word_is_at_first_the_mean_of_the_table(path: Path) -> None:
    made = features(WordVectors(str(path)), "nothing here")[0]
    np.testing.assert_allclose(made, np.mean(list(TABLE.values()), axis=0), atol=1e-6)


def test_sif_is_the_formula_of_the_paper(path: Path) -> None:
    encoder = WordVectors(str(path), pooling="sif", smoothing=0.1)
    with pytest.raises(UsageError, match="words have not been counted"):
        encoder.processor("the fox")
    encoder.fit([*TEXTS, 7, ""])
    counts = Counter(word for text in TEXTS for word in known_words(text))
    total = sum(counts.values())
    unknown = np.mean(list(TABLE.values()), axis=0)

    def mean(text: str) -> np.ndarray:
        words = known_words(text)
        weighted = [0.1 / (0.1 + counts[word] / total) * np.array(TABLE[word]) for word in words]
        return np.mean(weighted, axis=0) if words else unknown

    matrix = np.stack([mean(text) for text in TEXTS]).astype(np.float64)
    u = np.linalg.svd(matrix)[2][0]
    assert encoder.component is not None
    assert abs(encoder.component.numpy() @ u) == pytest.approx(1, abs=1e-6)
    for text in (*TEXTS, "dog dog café हिन्दी"):
        words = mean(text) if "हिन्दी" not in text else np.mean(
            [0.1 / (0.1 + counts[w] / total) * np.array(TABLE[w]) for w in ("dog", "dog", "café", "हिन्दी")], axis=0
        )  # fmt: skip
        np.testing.assert_allclose(features(encoder, text)[0], words - u * (u @ words), atol=1e-5)
    common = encoder.component.clone()
    encoder.fit(TEXTS)
    torch.testing.assert_close(encoder.component.abs(), common.abs())


@pytest.mark.parametrize("pooling", ["mean", "sif"])
def test_a_saved_model_needs_no_file(pooling: Any, path: Path, tmp_path: Path) -> None:
    embedder = Embedder({"text": WordVectors(str(path), pooling=pooling, vocab_size=5)}, 4)
    assert embedder.encoder("text").width == 3
    if pooling == "sif":
        assert not embedder.processors["text"].state()  # so that training fits it
        embedder.fit_processors({"text": TEXTS})
    embedder.save_pretrained(tmp_path / "model")
    path.unlink()
    again = Embedder.from_pretrained(tmp_path / "model")
    assert again.fingerprint == embedder.fingerprint
    assert np.array_equal(again.encode(text=TEXTS), embedder.encode(text=TEXTS))
    copied = pickle.loads(pickle.dumps(again.processors["text"]))
    assert all(
        np.array_equal(a, b) for a, b in zip(copied("the dog"), again.processors["text"]("the dog"), strict=True)
    )


@pytest.mark.parametrize("pooling", ["mean", "sif"])
def test_vectors_of_a_model_of_ours_are_those_of_its_tokens(pooling: Any, tmp_path: Path) -> None:
    text = TextTransformer(60, 8, layers=1, heads=2)
    teacher = Embedder({"name": text}, 8, {"name": "none"})
    teacher.fit_processors({"name": TEXTS})
    teacher.save_pretrained(tmp_path / "model")
    encoder: Any = WordVectors(str(tmp_path / "model"), pooling=pooling, smoothing=1e12)  # all weigh the same
    encoder.fit(TEXTS)
    for sample in TEXTS:
        tokens = text.processor.collate([text.processor(sample)])["tokens"][0]
        mean = text.tokens.weight[tokens[tokens > 1]].mean(dim=0).detach()
        if pooling == "sif":
            mean = mean - encoder.component * (encoder.component @ mean)
        np.testing.assert_allclose(features(encoder, sample)[0], mean, atol=1e-6)
    student = Embedder({"text": encoder}, 3)
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "model").rename(tmp_path / "gone")
    again = Embedder.from_pretrained(tmp_path / "student")
    assert np.array_equal(again.encode(text=TEXTS), student.encode(text=TEXTS))


def test_the_vectors_learn(path: Path) -> None:
    encoder = WordVectors(str(path))
    encoder(**encoder.processor.collate([encoder.processor("the fox")])).sum().backward()
    assert encoder.table.weight.grad is not None
    moved = encoder.table.weight.grad.abs().sum(dim=1)
    assert (moved > 0).nonzero().flatten().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "set weights, a file of word vectors or the folder"),
        ({"weights": "no/such.txt"}, "there is no file or folder no/such.txt; put word vectors"),
        ({"width": 3, "pooling": "max"}, "pooling 'max' is not one of mean, sif"),
        ({"width": 3, "vocab_size": 0}, "vocab_size 0 and smoothing 0.001 must be above 0"),
        ({"width": 3, "smoothing": float("inf")}, "smoothing inf must be above 0 and finite"),
        ({"width": 3, "smoothing": 0.0}, "smoothing 0.0 must be above 0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.create("text", "word_vectors", **wrong)


def test_a_width_that_the_file_has_not_and_a_model_without_tokens_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"words\.txt have 3 numbers, not width 4"):
        WordVectors(str(path), width=4)
    Embedder({"text": WordVectors(str(path))}, 4).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="has 0 text encoders with a table of tokens"):
        WordVectors(str(tmp_path / "model"))
    with pytest.raises(UsageError, match="no table of words; set `weights`"):
        WordVectors(width=3).fit(TEXTS)
    with pytest.raises(UsageError, match="no word of the training texts is in the table"):
        WordVectors(str(path), pooling="sif").fit(["nothing", "here"])


def test_means_are_those_of_sentence_transformers(path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    words = WordEmbeddings.from_text_file(str(path), tokenizer=WhitespaceTokenizer(stop_words=[]))
    theirs, pooling = words.eval(), Pooling(3, "mean")
    texts = ["the fox", "dog the dog Paris", "café and fox", "fox"]
    tokens = theirs.preprocess(texts)
    with torch.no_grad():
        expected = pooling(theirs(tokens))["sentence_embedding"].numpy()
    np.testing.assert_allclose(features(WordVectors(str(path)), *texts), expected, atol=1e-5)
