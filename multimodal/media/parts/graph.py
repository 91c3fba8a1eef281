"""The nodes and edges of a graph, and the strokes of an outline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multimodal.core.parts import Changes, Parts, nothing_left
from multimodal.media.parts.draw_graph import draw_graph

MANY_NODES = 500  # of an outline of more, the strokes alone are the parts

Without = Callable[[np.ndarray, np.ndarray], Any]


@dataclass(frozen=True)
class GraphParts:
    """A graph whose nodes, edges and strokes can be removed.

    Args:
        ends: ``(2, edges)`` whole numbers, the nodes that each edge joins; the edges between the same two nodes, in either
            direction, are one part.
        nodes: the number of nodes, at least 1.
        without: from which nodes are kept ``(nodes,)`` bool, and which edges ``(edges,)`` bool, to an item.
        node, edge: what a node and an edge are called: "atom", "bond".
        node_names: of each node; None: their numbers, from 1.
        strokes: ``(nodes,)`` the number of the stroke of each node, from 0; None: there are none.
        draw: from the worth of each node, edge and stroke to a drawing; the edges are those of ``pairs``. None: as points,
            if there are any.
        points: ``(nodes, 2)``, where the nodes are drawn, y upwards; None: nowhere.

    Examples:
        >>> graph = GraphParts(np.array([[0, 1], [1, 0]]), 2, lambda nodes, edges: (int(nodes.sum()), int(edges.sum())))
        >>> parts = graph.parts()
        >>> parts.names, [parts.without(number) for number in range(3)]
        (['node 1', 'node 2', 'edge 1-2'], [(1, 0), (1, 0), (2, 0)])
    """

    ends: np.ndarray
    nodes: int
    without: Without
    node: str = "node"
    edge: str = "edge"
    node_names: Sequence[str] | None = None
    strokes: np.ndarray | None = None
    points: np.ndarray | None = None
    draw: Callable[[Changes, Changes], str] | None = None

    @property
    def pairs(self) -> np.ndarray:
        """The two nodes of each edge that is a part ``(e, 2)``, the smaller number first; a loop has one node twice."""
        return np.unique(np.sort(self.ends.T, axis=1), axis=0) if self.ends.size else np.zeros((0, 2), dtype=np.int64)

    def parts(self) -> Parts:
        """Return the parts: the nodes, each with its edges; the edges; and the strokes, if there are several."""
        pairs = self.pairs
        strokes = 0 if self.strokes is None or self.strokes.max() == 0 else int(self.strokes.max()) + 1
        small = not (strokes and self.nodes > MANY_NODES)  # whether nodes and edges are parts
        labels = self.node_names or [str(number + 1) for number in range(self.nodes)]
        nodes = [f"{self.node} {label}" for label in labels] if small else []
        edges = [f"{self.edge} {labels[a]}-{labels[b]}" for a, b in pairs.tolist()] if small else []
        names = [*nodes, *edges, *(f"stroke {number + 1}" for number in range(strokes))]
        kinds = [self.node] * len(nodes) + [self.edge] * len(edges) + ["stroke"] * strokes

        def without(number: int) -> Any:
            kept_nodes, kept_edges = np.ones(self.nodes, dtype=bool), np.ones(self.ends.shape[1], dtype=bool)
            if number < len(nodes):
                kept_nodes[number] = False
            elif number < len(nodes) + len(edges):
                kept_edges = (np.sort(self.ends.T, axis=1) != pairs[number - len(nodes)]).any(axis=1)
            else:
                kept_nodes = self.strokes != number - len(nodes) - len(edges)
            if not kept_nodes.any():
                raise nothing_left(names[number])
            return self.without(kept_nodes, kept_edges & kept_nodes[self.ends].all(axis=0))

        def draw(changes: Changes) -> str:
            of_nodes, of_edges, of_strokes = (
                changes[: len(nodes)],
                changes[len(nodes) : len(nodes) + len(edges)],
                changes[len(nodes) + len(edges) :],
            )
            if self.draw is not None:
                return self.draw(of_nodes, of_edges)
            assert self.points is not None
            stroke_of = self.strokes if strokes else None
            return draw_graph(self.points, pairs, names, of_nodes, of_edges, of_strokes, stroke_of)

        drawn = self.draw is not None or self.points is not None
        return Parts(names, without, kinds, draw if drawn else None)


def strokes_of(ends: np.ndarray, nodes: int) -> np.ndarray:
    """Return the number of each node's connected component, from 0, ``(nodes,)``; of an outline, a component is a stroke.

    Args:
        ends: ``(2, edges)``, the nodes that each edge joins.
        nodes: the number of nodes.

    Examples:
        >>> strokes_of(np.array([[0, 2], [1, 3]]), 5).tolist()
        [0, 0, 1, 1, 2]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(nodes, nodes))
    return np.asarray(connected_components(joined, directed=False)[1])
