"""Structure of graphs that some layers need next to nodes and edges: random walks, degrees, positions of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.core.encoder import Corruption, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.parts import Parts

MAX_GRAPHS_FOR_DEGREES = 100_000  # of the training split, from which degrees are counted
MAX_DENSE_NODES = 300  # in larger graphs a walk visits few of the nodes


class StructureProcessor(Processor):
    """A processor of graphs that adds what layers need of their structure.

    Args:
        graphs: a processor that ``fit`` does not change, with ``edge_index`` ``(2, edges)`` and ``sizes`` ``(n,)`` among its
            inputs.
        walks: steps of the walks of ``random_walks``; 0: none.
        places: whether layers need all nodes of a graph at once.
        degrees: whether ``fit`` counts the degrees of the nodes.

    Examples:
        >>> from multimodal_encoders.graph.gnn import GraphProcessor
        >>> processor = StructureProcessor(GraphProcessor(node_features=1, edge_features=0), walks=2)
        >>> item = processor({"x": [[1.0], [2.0]], "edge_index": [[0, 1], [1, 0]]})
        >>> processor.collate([item])["walks"].tolist()  # back after two steps, never after one
        [[0.0, 1.0], [0.0, 1.0]]
    """

    def __init__(self, graphs: Processor, walks: int = 0, places: bool = False, degrees: bool = False) -> None:
        self.graphs, self.walks, self.places, self.counts_degrees = graphs, walks, places, degrees
        self.reads_files = graphs.reads_files
        self.degrees: list[int] = []

    def fit(self, values: Iterable[Any]) -> None:
        """Count ``degrees``: the number of nodes with 0, 1, 2, ... incoming edges, in the first 100,000 graphs."""
        if not self.counts_degrees:
            return
        counts = np.zeros(1, dtype=np.int64)
        for inputs in islice(self._readable(values), MAX_GRAPHS_FOR_DEGREES):
            of_nodes = np.bincount(inputs["edge_index"][1].numpy(), minlength=int(inputs["sizes"][0]))
            found = np.bincount(of_nodes, minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        if not counts.any():
            raise UsageError("the training split has no graph to learn the degrees of nodes from.")
        self.degrees = counts.tolist()

    def _readable(self, values: Iterable[Any]) -> Iterable[Inputs]:
        for value in values:
            with suppress(Unreadable):  # the reader skips this row
                yield self.graphs.collate([self.graphs(value)])

    def state(self) -> dict[str, Any]:
        return {"degrees": self.degrees} if self.degrees else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.degrees = list(state.get("degrees", []))

    def __call__(self, value: Any) -> tuple[Any, Tensor | None]:
        """Return the graph's item, and ``(nodes, walks)`` float32 of its walks."""
        if self.counts_degrees and not self.degrees:
            raise UsageError(
                "the degrees of nodes have not been counted; call fit_processors, train, or load a trained model."
            )
        return self._with_walks(self.graphs(value))

    def _with_walks(self, item: Any) -> tuple[Any, Tensor | None]:
        if not self.walks:
            return item, None
        inputs = self.graphs.collate([item])
        return item, random_walks(inputs["edge_index"].numpy(), int(inputs["sizes"][0]), self.walks)

    def parts(self, value: Any) -> Parts | None:
        """Return the parts of the graph; without a part, the structure is that of the rest."""
        parts = self.graphs.parts(value)
        return parts and replace(parts, without=lambda number: self._with_walks(parts.without(number)))

    def corruptions(self) -> Mapping[str, Corruption]:
        return self.graphs.corruptions()

    def augment(self, item: tuple[Any, Tensor | None], rng: np.random.Generator) -> tuple[Any, Tensor | None]:
        graph, walks = item
        return self.graphs.augment(graph, rng), walks

    def examples(self) -> list[Any]:
        return self.graphs.examples()

    def linear_features(self) -> Any:
        return self.graphs.linear_features()

    def drawing(self, value: Any) -> str | None:
        return self.graphs.drawing(value)

    def cost(self, item: tuple[Any, Tensor | None]) -> float:
        return self.graphs.cost(item[0])

    def collate(self, items: Sequence[tuple[Any, Tensor | None]]) -> Inputs:
        """Collate the graphs, perhaps with ``walks`` ``(nodes, walks)`` and ``places``.

        ``places`` ``(n, longest)`` int64: the numbers of each graph's nodes, the last of them repeated.
        """
        inputs = self.graphs.collate([graph for graph, _ in items])
        if self.walks:
            inputs["walks"] = torch.cat([walks for _, walks in items if walks is not None])
        if self.places:
            sizes = inputs["sizes"]
            within = torch.minimum(torch.arange(int(sizes.max())), sizes[:, None] - 1)
            inputs["places"] = (sizes.cumsum(0) - sizes)[:, None] + within
        return inputs


def random_walks(edge_index: np.ndarray, nodes: int, steps: int) -> Tensor:
    r"""Probability that a random walk returns to its start after 1, 2, ... steps (Dwivedi et al. 2022, equation 3).

    .. math:: p_i = (P_{ii}, (P^2)_{ii}, \dots), \qquad P = D^{-1} A

    Args:
        edge_index: ``(2, edges)``; a walk follows the edges' direction, repeated edges count each time.
        nodes: the number of nodes.
        steps: the longest walk.

    Returns:
        ``(nodes, steps)`` float32.
    """
    from scipy.sparse import csr_array

    source, target = edge_index
    share = 1 / np.maximum(np.bincount(source, minlength=nodes), 1)[source]
    matrix: Any = csr_array((share, (source, target)), shape=(nodes, nodes))
    if nodes <= MAX_DENSE_NODES:
        matrix = matrix.toarray()
    powers = [matrix]  # the diagonal of a product of two of them needs no product
    for _ in range((steps + 1) // 2 - 1):
        powers.append(powers[-1] @ matrix)
    found = [matrix.diagonal()]
    for step in range(2, steps + 1):
        a, b = powers[step // 2 - 1], powers[step - step // 2 - 1]
        found.append(np.asarray((a * b.T).sum(axis=1)))
    return torch.from_numpy(np.stack(found[:steps], axis=1).astype(np.float32))
