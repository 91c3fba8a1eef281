"""The plain networks of torch-geometric, with weights that were trained there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.registry import register
from multimodal_encoders.graph.gnn import GraphProcessor
from multimodal_encoders.graph.message_passing import (
    PNA_AGGREGATORS,
    PNA_SCALERS,
    Pooling,
    graph_of_node,
    make_pooling,
    set_pna_degrees,
)
from multimodal_encoders.graph.structure import StructureProcessor
from multimodal_encoders.hub.weights import load_weights, read_weights

Arch = Literal["GCN", "GraphSAGE", "GIN", "GAT", "PNA", "EdgeCNN"]
REQUIRED = ("in_channels", "hidden_channels", "num_layers")


@register("graph", "pyg")
class PyG(Encoder):
    """A network of ``torch_geometric.nn.models`` with a readout over its nodes; its features are the library's.

    A cell holds a graph in one of the forms that ``gnn`` reads.

    Args:
        arch: the class: GCN, GraphSAGE, GIN, GAT, PNA or EdgeCNN.
        config: its arguments: ``in_channels`` (columns of the graph's ``x``), ``hidden_channels``, ``num_layers``,
            and as there ``out_channels``, ``norm``, ``jk``, ... With ``edge_dim``, GAT and PNA see the columns of
            ``edge_attr``. The ``deg`` of PNA is counted in the training graphs, unless it or ``weights`` are given; its
            aggregators and scalers default to the paper's.
        weights: a safetensors file of the network's ``state_dict()``, or one of ``torch.save``; null: untrained.
        pooling: "sum", "mean", "max" or "attention" (Li et al. 2016, which is trained here): how nodes are reduced to
            one vector.

    Examples:
        >>> import torch
        >>> triangle = {"x": [[1.0], [2.0], [3.0]], "edge_index": [[0, 1, 2], [1, 2, 0]]}
        >>> encoder = PyG("GIN", {"in_channels": 1, "hidden_channels": 8, "num_layers": 2})
        >>> encoder(**encoder.processor.collate([encoder.processor(triangle)])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        arch: Arch,
        config: dict[str, Any],
        weights: str | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        for what, chosen, known in (("arch", arch, get_args(Arch)), ("pooling", pooling, get_args(Pooling))):
            if chosen not in known:
                raise UsageError(f"PyG: {what} {chosen!r} is not one of {', '.join(known)}.")
        for name in REQUIRED:
            if not isinstance(config.get(name), int) or config[name] < 1:
                raise UsageError(f"PyG: config must set {name} to a number of at least 1; got {config.get(name)!r}.")
        counted = arch == "PNA" and "deg" not in config
        if counted:
            config = config | {"deg": [0, 1]}  # until the degrees are known, from the weights or the data
        self.model = _network(arch, config)
        if weights is not None:
            load_weights(self.model, read_weights(Path(weights)), weights)
            self.settings |= {"weights": None, "config": config}
        graphs = GraphProcessor(config["in_channels"], config.get("edge_dim") or 0)
        self.processor = StructureProcessor(graphs, degrees=True) if counted and weights is None else graphs
        self.width = self.model.out_channels
        self.pool = make_pooling(pooling, self.width)

    def fit(self, values: Iterable[Any]) -> None:
        super().fit(values)
        if isinstance(self.processor, StructureProcessor):
            set_pna_degrees(self, self.processor.degrees)

    def forward(self, x: Tensor, edge_index: Tensor, sizes: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """Encode the disjoint union of n graphs, with ``sizes`` ``(n,)`` nodes each, as ``(n, width)``."""
        graph, n = graph_of_node(sizes, x.shape[0]), sizes.shape[0]
        nodes = self.model(x, edge_index, edge_attr=edge_attr, batch=graph, batch_size=n)
        return self.pool(nodes, graph, dim_size=n)


def _network(arch: Arch, config: dict[str, Any]) -> Any:
    from torch_geometric.nn import models

    given = config | ({"deg": torch.tensor(config["deg"])} if "deg" in config else {})
    if arch == "PNA":
        given = {"aggregators": PNA_AGGREGATORS, "scalers": PNA_SCALERS} | given
    try:
        return getattr(models, arch)(**given)
    except Exception as error:  # classes, norms and activations of that library raise different errors
        reason = str(error) or "a setting that it does not take"
        raise UsageError(f"PyG: torch_geometric.nn.models.{arch} does not take this config: {reason}") from error
