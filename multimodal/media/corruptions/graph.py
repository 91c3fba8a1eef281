"""Corruptions of graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

DROPPED, MASKED, NOISE = 0.2, 0.2, 0.1

# A graph is ``x`` (nodes, features), ``edge_index`` (2, edges), and perhaps ``edge_attr`` (edges, features).
Corrupt = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]


def drop_edges(graph: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a graph in which each pair of joined nodes is separated with probability 0.2, in both directions."""
    ends = graph["edge_index"]
    if not ends.shape[1]:
        return graph
    _, pair = np.unique(np.sort(ends, axis=0), axis=1, return_inverse=True)
    pair = pair.reshape(-1)
    kept = (rng.random(int(pair.max()) + 1) >= DROPPED)[pair]
    return graph | _edges(graph, kept)


def mask_nodes(graph: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a graph in which each node's features are 0 with probability 0.2; one node keeps its own."""
    masked = rng.random(len(graph["x"])) < MASKED
    if masked.all():
        masked[rng.integers(len(masked))] = False
    return graph | {"x": np.where(masked[:, None], np.zeros_like(graph["x"]), graph["x"])}


def drop_nodes(graph: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a graph without some nodes and their edges, each with probability 0.2; one node is kept.

    Examples:
        >>> triangle = {"x": np.ones((3, 1)), "edge_index": np.array([[0, 1, 2], [1, 2, 0]])}
        >>> found = drop_nodes(triangle, np.random.default_rng(3))
        >>> found["x"].shape, found["edge_index"].tolist()
        ((2, 1), [[0], [1]])
    """
    kept = rng.random(len(graph["x"])) >= DROPPED
    if not kept.any():
        kept[rng.integers(len(kept))] = True
    edges = _edges(graph, np.asarray(kept[graph["edge_index"]].all(axis=0)))
    number = np.cumsum(kept) - 1
    return graph | edges | {"x": graph["x"][kept], "edge_index": number[edges["edge_index"]]}


def add_noise(graph: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a graph with normal noise in its nodes' features, of 0.1 of each feature's deviation in the graph."""
    x = graph["x"]
    noise = NOISE * x.std(axis=0, keepdims=True) * rng.normal(size=x.shape)
    return graph | {"x": (x + noise).astype(x.dtype)}


def _edges(graph: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    of_edges = {"edge_attr": graph["edge_attr"][kept]} if "edge_attr" in graph else {}
    return {"edge_index": graph["edge_index"][:, kept]} | of_edges


GRAPH_CORRUPTIONS: dict[str, Corrupt] = {
    "dropped edges": drop_edges,
    "dropped nodes": drop_nodes,
    "masked nodes": mask_nodes,
    "noise in the nodes": add_noise,
}
