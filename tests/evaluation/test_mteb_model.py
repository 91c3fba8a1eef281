"""An embedder in mteb's own evaluator, on small tasks made here: nothing is downloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from multimodal import create
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.evaluation.mteb_model import MTEBModel

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'multimodal[mteb]'")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
RATE = 8_000
WORDS = (("cup", "mug", "teapot"), ("nail", "hammer", "saw"))
COLOURS = ((220, 30, 30), (30, 30, 220))
TONES = (300.0, 1_500.0)  # Hz


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where mteb would ask the hub, instead of waiting for a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def text(kind: int, rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS[kind], 3))


def picture(kind: int, rng: np.random.Generator) -> Image.Image:
    pixels = np.array(COLOURS[kind]) + rng.integers(-25, 25, (16, 16, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def sound(kind: int, rng: np.random.Generator) -> dict[str, Any]:
    seconds = np.arange(round(RATE * rng.uniform(0.2, 0.4))) / RATE
    return {
        "array": np.sin(2 * np.pi * TONES[kind] * seconds) + rng.normal(0, 0.05, len(seconds)),
        "sampling_rate": RATE,
    }


def embedder_of(modality: str) -> Embedder:
    torch.manual_seed(0)
    encoders: dict[str, Callable[[], Any]] = {
        "text": lambda: create("text", "bag", width=32),
        "image": lambda: create("image", "timm", arch="test_resnet", preprocess={"input_size": [3, 32, 32]}),
        "audio": lambda: create("audio", "spectrogram", rate=RATE, mels=16, channels=16),
    }
    embedder = Embedder({modality: encoders[modality]()}, dim=16)
    embedder.fit_processors({modality: [" ".join(words) for words in WORDS] * 5} if modality == "text" else {})
    return embedder.eval()


def description(modality: str, kind: str, name: str, **others: Any) -> Any:
    return mteb.TaskMetadata(
        name=name,
        type=kind,
        modalities=others.pop("modalities", [modality]),
        description="a task of the tests",
        dataset={"path": "none", "revision": "none"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        **others,
    )


def classification(modality: str, made: Callable[[int, np.random.Generator], Any]) -> Any:
    """A task of two classes, 12 training values and 20 others of each."""
    kind = {"text": "Classification", "image": "ImageClassification", "audio": "AudioClassification"}[modality]

    class Kinds(mteb.abstasks.AbsTaskClassification):
        metadata = description(modality, kind, f"Kinds{modality.title()}", main_score="accuracy")
        input_column_name = modality

        def load_data(self, **_: Any) -> None:
            rng, labels = np.random.default_rng(0), {"train": [0, 1] * 12, "test": [0, 1] * 20}
            self.dataset = DatasetDict(
                {
                    split: Dataset.from_dict({modality: [made(k, rng) for k in kinds], "label": kinds})
                    for split, kinds in labels.items()
                }
            )
            self.data_loaded = True

    return Kinds()


@pytest.mark.parametrize(("modality", "made"), [("text", text), ("image", picture), ("audio", sound)])
def test_the_evaluator_classifies(modality: str, made: Callable[..., Any]) -> None:
    model = MTEBModel(embedder_of(modality), "tests/small")
    task = classification(modality, made)
    found = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    (result,) = found.task_results
    assert found.model_name == "tests/small"
    assert found.model_revision == model.embedder.fingerprint
    (scores,) = result.scores["test"]
    assert len(scores["scores_per_experiment"]) == 10
    assert scores["accuracy"] >= 0.95
    constant = MTEBModel(embedder_of(modality))
    for name, weights in constant.embedder.heads.named_parameters():
        weights.data.fill_(float(name.endswith("bias")))  # all vectors are equal
    found = mteb.evaluate(constant, task, cache=None, show_progress_bar=False, co2_tracker=False)
    assert found.task_results[0].scores["test"][0]["accuracy"] == 0.5


def test_the_evaluator_retrieves_pictures_by_texts_as_the_cosines_say() -> None:
    rng = np.random.default_rng(0)
    texts, pictures = [text(i % 2, rng) for i in range(6)], [picture(i % 2, rng) for i in range(12)]
    torch.manual_seed(0)
    embedder = Embedder({m: embedder_of(m).encoder(m) for m in ("text", "image")}, dim=16).eval()

    class Found(mteb.abstasks.AbsTaskRetrieval):
        metadata = description(
            "text",
            "Any2AnyRetrieval",
            "FoundPictures",
            main_score="ndcg_at_10",
            modalities=["text", "image"],
            category="t2i",
        )

        def load_data(self, **_: Any) -> None:
            queries = {"id": [f"q{i}" for i in range(6)], "text": texts}
            corpus = {"id": [f"d{i}" for i in range(12)], "image": pictures}
            right = {f"q{i}": {f"d{2 * i}": 1} for i in range(6)}
            split = mteb.abstasks.retrieval_dataset_loaders.RetrievalSplitData(
                queries=Dataset.from_dict(queries),
                corpus=Dataset.from_dict(corpus),
                relevant_docs=right,
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    found = mteb.evaluate(MTEBModel(embedder), Found(), cache=None, show_progress_bar=False, co2_tracker=False)
    (scores,) = found.task_results[0].scores["test"]
    cosines = embedder.encode(text=texts) @ embedder.encode(image=pictures).T
    ranks = 1 + (cosines > cosines[np.arange(6), 2 * np.arange(6)][:, None]).sum(axis=1)
    assert len(set(ranks)) > 1
    expected = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()
    assert scores["ndcg_at_10"] == pytest.approx(expected, abs=1e-5)


def test_the_model_satisfies_the_protocol_and_describes_itself() -> None:
    model = MTEBModel(embedder_of("text"), "tests/small", trained_on=["FSDD"])
    assert isinstance(model, mteb.models.EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.modalities) == ("tests/small", 16, ["text"])
    assert meta.training_datasets == {"FSDD"}
    assert repr(model) == "MTEBModel tests/small of text"


def test_the_vector_of_a_row_is_the_mean_of_its_modalities() -> None:
    rng = np.random.default_rng(0)
    texts, pictures = [text(0, rng), text(1, rng)], [picture(0, rng), None]
    embedder = Embedder({m: embedder_of(m).encoder(m) for m in ("text", "image")}, dim=16).eval()
    found = MTEBModel(embedder).encode([{"text": texts, "image": pictures}], batch_size=8)
    of_text, of_picture = embedder.encode(text=texts), embedder.encode(image=pictures[:1])
    both = of_text[0] + of_picture[0]
    np.testing.assert_allclose(found, [both / np.linalg.norm(both), of_text[1]], atol=1e-6)


def test_what_cannot_be_read_has_the_vector_0_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    model = MTEBModel(embedder_of("audio"))
    good = sound(0, np.random.default_rng(0))
    silent = {"array": np.zeros(800), "sampling_rate": RATE}
    with caplog.at_level(logging.WARNING):
        found = model.encode([{"audio": [silent, good]}])
    assert not found[0].any()
    np.testing.assert_allclose(found[1], model.embedder.encode(audio=[(good["array"], RATE)])[0], atol=1e-6)
    assert "1 of 2 rows cannot be read" in caplog.text
    assert model.similarity(found, found).tolist() == pytest.approx(np.array([[0, 0], [0, 1]]))
    assert model.encode([]).shape == (0, 16)


def test_similarities_are_cosines() -> None:
    model = MTEBModel(embedder_of("text"))
    a, b = np.random.default_rng(0).normal(size=(2, 3, 16))
    expected = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(model.similarity(a, torch.as_tensor(b)), expected, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(a, b), expected.diagonal(), atol=1e-6)
    assert model.similarity(a[0], b).shape == (1, 3)


def test_a_modality_of_another_name_is_used_where_it_is_named() -> None:
    embedder = Embedder({"title": embedder_of("text").encoder("text")}, dim=16).eval()
    with pytest.raises(UsageError, match="name which are the same"):
        MTEBModel(embedder)
    with pytest.raises(UsageError, match="no modality 'graph'"):
        MTEBModel(embedder, modalities={"graph": "title"})
    with pytest.raises(UsageError, match="no modality 'name'"):
        MTEBModel(embedder, modalities={"text": "name"})
    with pytest.raises(UsageError, match="organisation/name"):
        MTEBModel(embedder, "small", modalities={"text": "title"})
    model = MTEBModel(embedder, modalities={"text": "title"})
    np.testing.assert_array_equal(model.encode([{"text": ["a cup"]}]), embedder.encode(title=["a cup"]))
    with pytest.raises(UsageError, match="the model reads only text"):
        model.encode([{"video": ["a"]}])
