"""The measures of classes are those of their functions, for the vectors whose class is known."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.class_measures import ClassMeasures, Labelled
from multimodal.evaluation.clusters import measure_clusters
from multimodal.evaluation.probes import few_shot, knn, linear_probe
from multimodal.evaluation.zero_shot import zero_shot

NAMES = ["cup", "hat", "mug"]


def labelled(n: int, seed: int) -> Labelled:
    """Rows of three classes, in two modalities; every seventh has no class, every fifth no image."""
    torch.manual_seed(seed)
    numbers = torch.arange(n) % 3
    rows = {"text": torch.arange(n), "image": torch.tensor([i for i in range(n) if i % 5])}
    vectors = {
        m: functional.normalize(torch.eye(6)[numbers[r]] + 0.4 * torch.randn(len(r), 6), dim=1) for m, r in rows.items()
    }
    labels = [None if i % 7 == 0 else NAMES[i % 3] for i in range(n)]
    return Labelled(Embeddings(vectors, rows, groups=torch.arange(n)), labels)


def test_vectors_without_a_class_do_not_count() -> None:
    vectors, labels = labelled(20, 0).of("image")
    kept = [i for i in range(20) if i % 5 and i % 7]
    assert labels.tolist() == [NAMES[i % 3] for i in kept]
    assert len(vectors) == len(kept)


def test_each_modality_has_its_measures() -> None:
    measured, train = labelled(60, 0), labelled(90, 1)
    prompts = "text", np.eye(6, dtype=np.float32)[:3], NAMES
    found = ClassMeasures.of("kind", measured, train, prompts)
    for modality in ("text", "image"):
        vectors, labels = measured.of(modality)
        fitted = train.of(modality)
        assert found.clusters[modality] == measure_clusters(vectors, labels)
        assert found.knn[modality] == knn(*fitted, vectors, labels)
        assert found.linear[modality] == linear_probe(*fitted, vectors, labels)
        assert found.few_shot[modality] == few_shot(*fitted, vectors, labels)
    vectors, labels = measured.of("image")
    expected = zero_shot(vectors, list(labels), prompts[1], NAMES)
    assert set(found.zero_shot) == {"image"}  # the prompts' own modality is left out
    assert found.zero_shot["image"].accuracy == expected.accuracy
    assert not found.notes
    accuracies, examples, clusters = found.grids()
    assert [row[0] for row in accuracies.rows] == ["text", "image"]
    assert accuracies.rows[0][3] == "-"  # no zero-shot
    assert accuracies.rows[1][3] == f"{100 * expected.accuracy:.1f}"
    assert examples.columns[1:] == ["1", "2", "4", "8", "16"]
    assert len(clusters.rows) == 2


def test_what_cannot_be_measured_is_noted() -> None:
    measured = labelled(12, 0)
    one = Labelled(measured.embeddings, ["cup"] * 12)
    found = ClassMeasures.of("kind", one, one)
    assert found.grids() == []
    assert {note.partition(":")[0] for note in found.notes} == {
        f"{modality}, {name}" for modality in ("text", "image") for name in ("clusters", "knn", "linear", "few_shot")
    }
