"""A graph transformer for graphs with numeric features."""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from multimodal.core.errors import UsageError
from multimodal.core.registry import register
from multimodal_encoders.graph.global_attention import Attention
from multimodal_encoders.graph.gnn import GraphProcessor
from multimodal_encoders.graph.message_passing import GraphNetwork, Pooling
from multimodal_encoders.graph.structure import StructureProcessor


@register("graph", "gps")
class GPS(GraphNetwork):
    """A graph transformer: message passing and attention over all nodes side by side (Rampášek et al. 2022).

    The position of a node is encoded by random walks (Dwivedi et al. 2022): the probability of returning after 1, 2, ... steps.
    Messages are passed by GINE (Hu et al. 2020), or without edge features by GIN (Xu et al. 2019). A cell holds a graph in one
    of the forms that ``gnn`` reads.

    Args:
        attention: "multihead", with 4 heads, or "performer" (Choromanski et al. 2021), for graphs of thousands of nodes.
        pooling: "sum", "mean", "max" or "attention" (Li et al. 2016): how nodes are reduced to one vector.
        node_features: columns of the graph's ``x``.
        edge_features: columns of its ``edge_attr``; 0: none.
        walks: steps of the longest walk; 0: no position encoding.
        width: width of the nodes and of the features.
        layers: the number of layers.
        drop: dropout.

    Examples:
        >>> import torch
        >>> triangle = {"x": [[1.0], [2.0], [3.0]], "edge_index": [[0, 1, 2], [1, 2, 0]]}
        >>> encoder = GPS(node_features=1, edge_features=0, width=8, layers=1, walks=4)
        >>> encoder(**encoder.processor.collate([encoder.processor(triangle)])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        attention: Attention = "multihead",
        pooling: Pooling = "mean",
        node_features: int = 4,
        edge_features: int = 3,
        walks: int = 16,
        width: int = 256,
        layers: int = 4,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        if attention not in get_args(Attention):
            raise UsageError(f"GPS: attention {attention!r} is not one of {', '.join(get_args(Attention))}.")
        if walks < 0 or edge_features < 0:
            raise UsageError(f"GPS: walks {walks} and edge_features {edge_features} must be at least 0.")
        self.width = width
        self.processor = StructureProcessor(GraphProcessor(node_features, edge_features), walks, places=True)
        self.nodes = nn.Sequential(nn.Linear(node_features, width), nn.GELU(), nn.Linear(width, width))
        self._set_layers("gps", pooling, width, layers, drop, edge_features or None, walks=walks, attention=attention)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        sizes: Tensor,
        places: Tensor,
        edge_attr: Tensor | None = None,
        walks: Tensor | None = None,
    ) -> Tensor:
        """Encode the disjoint union of n graphs, from ``StructureProcessor.collate``, as ``(n, width)``."""
        return self._readout(self.nodes(x), edge_index, sizes, edge_attr, walks, places)
