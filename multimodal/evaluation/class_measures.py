"""How well classes can be read from vectors: by clusters, neighbours, linear classifiers, few examples, and zero-shot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.class_retrieval import ClassRetrieval
from multimodal.evaluation.clusters import Clusters, measure_clusters
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.probes import Accuracy, Shots, few_shot, knn, linear_probe
from multimodal.evaluation.zero_shot import ZeroShot, zero_shot


@dataclass(frozen=True)
class Labelled:
    """Embeddings with a class for each row.

    Args:
        embeddings: the vectors.
        labels: the class of each row; None: unknown, the row does not count.

    Examples:
        >>> import torch
        >>> rows = torch.arange(2)
        >>> measured = Labelled(Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows), ["cup", None])
        >>> vectors, classes = measured.of("text")
        >>> vectors.tolist(), classes.tolist()
        ([[1.0, 0.0]], ['cup'])
    """

    embeddings: Embeddings
    labels: Sequence[str | None]

    def of(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the finite vectors of a modality whose class is known, ``(n, dim)``, and their classes, ``(n,)``."""
        rows = self.embeddings.rows[modality].tolist()
        vectors = self.embeddings.vectors[modality].float().cpu().numpy()
        finite = np.flatnonzero(np.isfinite(vectors).all(axis=1)).tolist()
        known = [i for i in finite if self.labels[rows[i]] is not None]
        return vectors[known], np.array([self.labels[rows[i]] for i in known], dtype=str)


@dataclass(frozen=True)
class ClassMeasures:
    """How well the classes of a column can be read from vectors.

    Attributes:
        label: the column.
        clusters: modality -> agreement of k-means clusters with the classes.
        knn, linear: modality -> accuracy of 20 nearest neighbours and of a linear classifier, of the training rows.
        few_shot: modality -> accuracy of a linear classifier by the number of examples of each class.
        zero_shot: modality -> zero-shot classification by prompts.
        retrieval: "text->image" -> retrieval where all candidates of the query's class are right.
        notes: what could not be measured, and why.

    Examples:
        >>> import torch
        >>> rows = torch.arange(4)
        >>> vectors = {"text": torch.eye(2)[[0, 0, 1, 1]]}
        >>> measured = Labelled(Embeddings(vectors, {"text": rows}, groups=rows), ["cup", "cup", "hat", "hat"])
        >>> ClassMeasures.of("kind", measured).clusters["text"].nmi
        1.0
    """

    label: str
    clusters: Mapping[str, Clusters] = field(default_factory=dict)
    knn: Mapping[str, Accuracy] = field(default_factory=dict)
    linear: Mapping[str, Accuracy] = field(default_factory=dict)
    few_shot: Mapping[str, list[Shots]] = field(default_factory=dict)
    zero_shot: Mapping[str, ZeroShot] = field(default_factory=dict)
    retrieval: Mapping[str, ClassRetrieval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        label: str,
        measured: Labelled,
        train: Labelled | None = None,
        prompts: tuple[str, np.ndarray, Sequence[str]] | None = None,
        retrieval: Mapping[str, ClassRetrieval] | None = None,
        seed: int = 0,
    ) -> ClassMeasures:
        """Measure all that the data allow.

        Args:
            label: name of the column of classes.
            measured: the rows to measure.
            train: rows of the training split, to fit classifiers on. None: there are none.
            prompts: modality of the class descriptions, their vectors ``(c, dim)``, and the classes. None: there are none.
            retrieval: retrieval by classes, which has a pool of its own. None: it is not measured.
            seed: seed of clusters and of drawn examples.
        """
        notes: list[str] = []
        found: dict[str, dict] = {name: {} for name in ("clusters", "knn", "linear", "few_shot", "zero_shot")}

        def add(name: str, modality: str, measure: Callable[[], object]) -> None:
            try:
                with warnings.catch_warnings():  # many classes of few rows each are reported by the numbers themselves
                    warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
                    found[name][modality] = measure()
            except UsageError as error:
                notes.append(f"{modality}, {name}: {error}")

        for modality in measured.embeddings.modalities:
            vectors, labels = measured.of(modality)
            add("clusters", modality, lambda v=vectors, y=labels: measure_clusters(v, y, seed))
            if train is not None and modality in train.embeddings.modalities:
                fitted = train.of(modality)
                names = set(labels.tolist())
                if unseen := names - set(fitted[1].tolist()):
                    notes.append(
                        f"{modality}: {len(unseen):,} of {len(names):,} classes of {label} are not in the training rows, so"
                        " that no classifier of these finds them."
                    )
                add("knn", modality, lambda f=fitted, v=vectors, y=labels: knn(*f, v, y))
                add("linear", modality, lambda f=fitted, v=vectors, y=labels: linear_probe(*f, v, y, seed))
                add("few_shot", modality, lambda f=fitted, v=vectors, y=labels: few_shot(*f, v, y, seed))
            if prompts is not None and modality != prompts[0]:
                add("zero_shot", modality, lambda v=vectors, y=labels: zero_shot(v, list(y), *prompts[1:]))
        return cls(label, **found, retrieval=retrieval or {}, notes=tuple(notes))

    def grids(self) -> list[Grid]:
        """Return the tables of a report; those without a row are left out."""
        rows = []
        for modality in dict.fromkeys([*self.knn, *self.linear, *self.zero_shot]):
            accuracies = [self.knn.get(modality), self.linear.get(modality), self.zero_shot.get(modality)]
            known = self.knn.get(modality) or self.linear.get(modality)
            rows.append(
                [
                    modality,
                    *("-" if a is None else f"{100 * a.accuracy:.1f}" for a in accuracies),
                    "-" if known is None else f"{100 * known.majority:.1f}",
                ]
            )
        clusters = [
            [m, number(c.nmi), number(c.ari), number(c.silhouette), f"{c.classes:,}", f"{c.vectors:,}"]
            for m, c in self.clusters.items()
        ]
        shots = sorted({s.shots for curve in self.few_shot.values() for s in curve})
        curves = [
            [m, *(next((f"{100 * s.mean:.1f}" for s in curve if s.shots == n), "-") for n in shots)]
            for m, curve in self.few_shot.items()
        ]
        by_class = [
            [
                pair.replace("->", " -> "),
                *map(number, (r.precision_at_10, r.map, r.graded_ndcg_at_10)),
                f"{r.queries:,}",
            ]
            for pair, r in self.retrieval.items()
        ]
        grids = [
            Grid(
                f"Classes of {self.label}, accuracy in per cent",
                ["modality", "20 neighbours", "linear", "zero-shot", "most frequent class"],
                rows,
            ),
            Grid("A few examples of each class", ["modality", *(f"{n}" for n in shots)], curves),
            Grid(
                f"Clusters against {self.label}",
                ["modality", "NMI", "ARI", "silhouette", "classes", "vectors"],
                clusters,
            ),
            Grid(
                f"Retrieval of the same {self.label}; graded: same item 2, same {self.label} 1",
                ["query -> found", "P@10", "mAP", "graded NDCG@10", "queries"],
                by_class,
            ),
        ]
        return [grid for grid in grids if grid.rows]
