"""Encoders of graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError, shown
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.corruptions.graph import GRAPH_CORRUPTIONS, Corrupt
from multimodal.media.outline import graph_svg, is_outline
from multimodal.media.parts.graph import GraphParts, strokes_of
from multimodal_encoders.graph.graph_files import from_node_link, is_xml, read_graph
from multimodal_encoders.graph.message_passing import Conv, GraphNetwork, Pooling
from multimodal_encoders.graph.structure import StructureProcessor

TYPICAL_NODES = 32  # of an ordinary graph


class GraphProcessor(Processor):
    """Turns graphs with numeric features into one disjoint union.

    Raw values: a PyG ``Data``, a mapping, or the path or the bytes of a file. A mapping, and a JSON file, hold ``x`` (node
    features), ``edge_index`` (two lists) and ``edge_attr`` (edge features, if the encoder uses them), or are networkx's
    node-link form. A file whose name ends in ``.graphml``, and bytes that begin with ``<``, are GraphML. In these two
    forms the features of a node or edge are its attributes that are numbers, in the alphabetical order of their names; a
    list of numbers (in GraphML, which has no lists, a text like ``"[1, 2]"``) is several features. All nodes, and all
    edges, must have the same; GraphML's defaults are theirs too. Undirected edges count in both directions.

    A file whose name ends in ``.svg``, and bytes or a text whose root element is ``svg``, are a drawing: points along its
    strokes, with the 4 features of nodes and 3 of edges that outlines of ``glyphs`` have, see ``svg_files``.

    Args:
        node_features: columns of ``x``.
        edge_features: columns of ``edge_attr``; 0: edges have none.

    Examples:
        >>> triangle = {"x": [[1.0], [2.0], [3.0]], "edge_index": [[0, 1, 2], [1, 2, 0]]}
        >>> processor = GraphProcessor(node_features=1, edge_features=0)
        >>> processor.collate([processor(triangle)] * 2)["sizes"]
        tensor([3, 3])
    """

    reads_files = True

    def __init__(self, node_features: int, edge_features: int) -> None:
        self.node_features, self.edge_features = node_features, edge_features

    def __call__(self, value: Any) -> dict[str, Tensor]:
        return self._item(self._read(value))

    def _read(self, value: Any) -> Any:
        """Return a graph as a mapping, or as the object that it is, which has ``x`` and ``edge_index``."""
        if isinstance(value, str | Path | bytes):
            value = read_graph(Path(value) if isinstance(value, str) and not is_xml(value) else value)
        if isinstance(value, Mapping) and "nodes" in value and "x" not in value:
            value = from_node_link(value, with_edges=self.edge_features > 0)
        return value

    def _item(self, value: Any) -> dict[str, Tensor]:
        x = _read_tensor(value, "x", torch.float32)
        edge_index = _read_tensor(value, "edge_index", torch.int64)
        if x.ndim != 2 or x.shape[1] != self.node_features or not len(x):
            raise malformed_graph(
                f"the graph's x has shape {tuple(x.shape)}{_origin(value, 'x')}, not (nodes >= 1, {self.node_features})."
            )
        if edge_index.numel() == 0:
            edge_index = edge_index.reshape(2, 0)
        if edge_index.ndim != 2 or len(edge_index) != 2:
            raise malformed_graph(f"the graph's edge_index has shape {tuple(edge_index.shape)}, not (2, edges).")
        if edge_index.numel() and not (int(edge_index.min()) >= 0 and int(edge_index.max()) < len(x)):
            raise malformed_graph(f"the graph's edge_index names nodes outside 0 to {len(x) - 1}.")
        item = {"x": x, "edge_index": edge_index}
        if self.edge_features:
            wanted = (edge_index.shape[1], self.edge_features)
            edge_attr = _read_tensor(value, "edge_attr", torch.float32)
            if tuple(edge_attr.shape) != wanted and (edge_attr.numel() or wanted[0]):
                raise malformed_graph(
                    f"the graph's edge_attr has shape {tuple(edge_attr.shape)}{_origin(value, 'edge_attr')}, not {wanted}."
                )
            item["edge_attr"] = edge_attr.reshape(wanted)
        return item

    def parts(self, value: Any) -> Parts:
        """Return the nodes (one is removed with its edges), the edges, and of an outline the strokes.

        A graph is drawn if its nodes have places: those of an outline, ``pos`` of a PyG ``Data``, or the attributes ``x`` and
        ``y`` of the node-link form.
        """
        graph = self._read(value)
        item = self._item(graph)
        x, ends = item["x"].numpy(), item["edge_index"].numpy()
        outline = is_outline(x)

        def without(nodes: np.ndarray, edges: np.ndarray) -> dict[str, Tensor]:
            number = torch.from_numpy(np.cumsum(nodes) - 1)
            kept = {"x": item["x"][nodes], "edge_index": number[item["edge_index"][:, edges]]}
            return kept | ({"edge_attr": item["edge_attr"][edges]} if self.edge_features else {})

        strokes = strokes_of(ends, len(x)) if outline else None
        points = x[:, :2] if outline else _places(graph, x)
        ids = graph.get("ids") if isinstance(graph, Mapping) else None
        names = [shown(name) for name in ids] if isinstance(ids, list) and len(ids) == len(x) else None
        return GraphParts(ends, len(x), without, node_names=names, strokes=strokes, points=points).parts()

    def corruptions(self) -> Mapping[str, Corruption]:
        def of(corrupt: Corrupt) -> Corruption:
            return lambda value, rng: self._corrupted(value, corrupt, rng)

        return {name: of(corrupt) for name, corrupt in GRAPH_CORRUPTIONS.items()}

    def _corrupted(self, value: Any, corrupt: Corrupt, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return corrupt({name: tensor.numpy() for name, tensor in self(value).items()}, rng)

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [
            {
                "x": rng.normal(size=(nodes, self.node_features)),
                "edge_index": rng.integers(0, nodes, (2, 2 * nodes + 1)),
                "edge_attr": rng.normal(size=(2 * nodes + 1, self.edge_features)),
            }
            for nodes in (4, 7)
        ]

    def drawing(self, value: Any) -> str | None:
        """Return the drawing of a graph whose nodes have places: an outline, or one with ``pos``, the first two coordinates."""
        item = self(value)
        ends = item["edge_index"].numpy()
        if (places := getattr(value, "pos", None)) is not None:
            points = np.asarray(places, dtype=np.float64)[:, :2]
            return graph_svg(points, ends) if points.shape == (len(item["x"]), 2) else None
        points = item["x"][:, :2].double().numpy()
        steps = item["edge_attr"].double().numpy() if "edge_attr" in item else np.zeros((0, 0))
        if steps.shape[1] < 2 or not len(steps) or points.shape[1] < 2:
            return None
        are_places = np.allclose(points[ends[1]] - points[ends[0]], steps[:, :2], atol=1e-4)  # else other features
        return graph_svg(points, ends) if are_places else None

    def cost(self, item: dict[str, Tensor]) -> float:
        """In ordinary graphs, by the number of nodes."""
        return max(len(item["x"]), 1) / TYPICAL_NODES

    def collate(self, items: Sequence[dict[str, Tensor]]) -> Inputs:
        """``x`` ``(nodes, node_features)``, ``edge_index`` ``(2, edges)``, ``sizes`` ``(n,)``, perhaps ``edge_attr``."""
        sizes = torch.tensor([len(item["x"]) for item in items])
        edges = torch.tensor([item["edge_index"].shape[1] for item in items])
        offsets = torch.repeat_interleave(sizes.cumsum(0) - sizes, edges)
        inputs = {
            "x": torch.cat([item["x"] for item in items]),
            "edge_index": torch.cat([item["edge_index"] for item in items], dim=1) + offsets,
            "sizes": sizes,
        }
        if self.edge_features:
            inputs["edge_attr"] = torch.cat([item["edge_attr"] for item in items])
        return inputs


def malformed_graph(message: str) -> Unreadable:
    """Make the error for a graph that cannot be read."""
    return Unreadable("malformed graph", message)


def _places(graph: Any, x: np.ndarray) -> np.ndarray | None:
    """Return where the nodes of a graph are ``(nodes, 2)``, y upwards; None: nowhere."""
    names = graph.get("names") if isinstance(graph, Mapping) else None
    columns = names.get("x") if isinstance(names, Mapping) else None
    if (
        isinstance(columns, list) and "x" in columns and "y" in columns and len(columns) == x.shape[1]
    ):  # each attribute is one number
        return x[:, [columns.index("x"), columns.index("y")]]
    given = graph.get("pos") if isinstance(graph, Mapping) else getattr(graph, "pos", None)
    if given is None:
        return None
    places = _read_tensor(graph, "pos", torch.float32).numpy()
    return places[:, :2] if places.ndim == 2 and len(places) == len(x) and places.shape[1] >= 2 else None


def _origin(graph: Any, name: str) -> str:
    """Say which attributes the features of a node-link graph come from."""
    names = graph.get("names") if isinstance(graph, Mapping) else None
    found = names.get(name) if isinstance(names, Mapping) else None
    return f" (from {', '.join(map(repr, found))})" if found else ""


def _read_tensor(graph: Any, name: str, dtype: torch.dtype) -> Tensor:
    values = graph.get(name) if isinstance(graph, Mapping) else getattr(graph, name, None)
    if values is None:
        raise malformed_graph(f"the graph ({type(graph).__name__}) has no {name!r}; give a PyG Data or its entries.")
    try:
        given = torch.as_tensor(values)
        tensor = given.to(dtype)
        if given.is_complex():
            raise TypeError("complex numbers")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise malformed_graph(f"the graph's {name} is not an array of numbers: {error}.") from error
    # a check costs microseconds a graph, which is much in all
    distinct = [tensor] if tensor is given else [given, tensor]
    if not all(t.isfinite().all() for t in distinct if t.is_floating_point()):
        raise malformed_graph(f"the graph's {name} holds NaN or infinite values, or some too large.")
    if given.is_floating_point() and not dtype.is_floating_point and not bool((tensor == given).all()):
        raise malformed_graph(f"the graph's {name} holds fractions; its entries are the numbers of nodes.")
    return tensor


@register("graph", "gnn")
class GNN(GraphNetwork):
    """A message-passing network of torch-geometric, with residual layers and a readout over the nodes.

    A cell holds a graph with at least one node: the path of a JSON or GraphML file; in Python also its bytes, a mapping or a
    PyG ``Data``. JSON and mappings have one of two forms:

    - ``x``: for each node the list of its features; ``edge_index``: two lists, the numbers of the nodes from and to which
      the edges go; ``edge_attr``: for each edge the list of its features, if the encoder uses them. So is a PyG ``Data``.
    - networkx's node-link form: ``nodes`` with an ``id``, and ``links`` or ``edges`` with ``source`` and ``target``.

    In this second form and in GraphML, the features of a node or edge are its attributes that are numbers, in the
    alphabetical order of their names, whatever the names: ``x`` and ``y`` are two features. A list of numbers (in GraphML, a
    text like ``"[1, 2]"``) is several features; other attributes are ignored. All nodes must have the same, and all edges; in
    GraphML, the defaults of the keys apply. Undirected edges count in both directions.

    Args:
        conv: "gin" (Xu et al. 2019), "gine" (with edge features; Hu et al. 2020), "gat" (GATv2, Brody et al. 2022), "gcn"
            (Kipf and Welling 2017), "sage" (Hamilton et al. 2017) or "pna" (Corso et al. 2020), which learns the degrees of
            the training graphs. gat and pna use edge features if there are any.
        pooling: "sum", "mean", "max" or "attention" (Li et al. 2016): how nodes are reduced to one vector.
        node_features: columns of the graph's ``x``.
        edge_features: columns of its ``edge_attr``; 0: none. Only gine, gat and pna see them.
        width: width of the nodes and of the features.
        layers: the number of message-passing layers.
        drop: dropout after each layer.

    Examples:
        >>> import torch
        >>> triangle = {"x": [[1.0], [2.0], [3.0]], "edge_index": [[0, 1, 2], [1, 2, 0]]}
        >>> encoder = GNN(conv="gin", node_features=1, edge_features=0, width=8, layers=2)
        >>> encoder(**encoder.processor.collate([encoder.processor(triangle)])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        conv: Conv = "gine",
        pooling: Pooling = "attention",
        node_features: int = 4,
        edge_features: int = 3,
        width: int = 256,
        layers: int = 4,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        if conv not in get_args(Conv):
            raise UsageError(f"GNN: conv {conv!r} is not one of {', '.join(get_args(Conv))}.")
        if conv == "gine" and edge_features < 1:
            raise UsageError(f"GNN: gine needs edge_features, got {edge_features}; for edges without features use gin.")
        self.width = width
        uses_edges = conv in ("gine", "gat", "pna") and edge_features > 0
        graphs = GraphProcessor(node_features, edge_features if uses_edges else 0)
        self.processor = StructureProcessor(graphs, degrees=True) if conv == "pna" else graphs
        self.nodes = nn.Sequential(nn.Linear(node_features, width), nn.GELU(), nn.Linear(width, width))
        self._set_layers(conv, pooling, width, layers, drop, edge_features if uses_edges else None)

    def forward(self, x: Tensor, edge_index: Tensor, sizes: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """Encode the disjoint union of n graphs, with ``sizes`` ``(n,)`` nodes each, as ``(n, width)``."""
        return self._readout(self.nodes(x), edge_index, sizes, edge_attr)
