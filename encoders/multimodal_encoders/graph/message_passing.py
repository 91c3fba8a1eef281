"""What the encoders of graphs share: message-passing layers and the readout over the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.layers import check_layers
from multimodal_encoders.graph.global_attention import HEADS, Attention, GlobalLayer, pad_graphs
from multimodal_encoders.graph.structure import StructureProcessor

if TYPE_CHECKING:
    from torch_geometric.nn import MessagePassing

Conv = Literal["gin", "gine", "gat", "gcn", "sage", "pna"]
EdgeConv = Literal["gine", "gat", "pna", "gps"]
Pooling = Literal["sum", "mean", "max", "attention"]
PNA_AGGREGATORS = ["mean", "min", "max", "std"]
PNA_SCALERS = ["identity", "amplification", "attenuation"]


class GraphNetwork(Encoder):
    """Base of encoders of graphs: residual pre-norm layers of torch-geometric, then a readout.

    A subclass embeds the nodes and edges of its graphs, calls ``_set_layers`` in its constructor and ``_readout`` in
    ``forward``.

    Examples:
        >>> class Ones(GraphNetwork):
        ...     def __init__(self, width: int = 8) -> None:
        ...         super().__init__()
        ...         self.width = width
        ...         self._set_layers("gin", "sum", width, layers=1, drop=0.0, edge_width=None)
        ...     def forward(self, edge_index, sizes):
        ...         return self._readout(torch.ones(int(sizes.sum()), self.width), edge_index, sizes)
        >>> Ones()(torch.tensor([[0], [1]]), torch.tensor([2])).shape
        torch.Size([1, 8])
    """

    def _set_layers(
        self,
        conv: Conv | EdgeConv,
        pooling: Pooling,
        width: int,
        layers: int,
        drop: float,
        edge_width: int | None,
        virtual_node: bool = False,
        walks: int = 0,
        attention: Attention = "multihead",
    ) -> None:
        """Make the layers.

        Args:
            conv: the kind of layers; "gps" needs ``places``. pooling: one of ``Pooling``.
            width: width of the nodes; layers: how many; drop: dropout after each.
            edge_width: width of the edges' features; None: edges have none.
            virtual_node: an extra node in each graph, connected to all others between the layers (Gilmer et al. 2017).
            walks: steps of the random walks that encode the nodes' positions.
            attention: of "gps".

        Raises:
            UsageError: an unknown pooling, or a width that does not divide among the heads.
        """
        kind = type(self).__name__
        check_layers(kind, "layers", layers)
        if pooling not in get_args(Pooling):
            raise UsageError(f"{kind}: pooling {pooling!r} is not one of {', '.join(get_args(Pooling))}.")
        if conv in ("gat", "gps") and width % HEADS:
            raise UsageError(f"{kind}: {conv} needs a width that is a multiple of its {HEADS} heads, got {width}.")
        self.walks = nn.Linear(walks, width) if walks else None
        if conv == "gps":
            near: Conv = "gine" if edge_width else "gin"
            convs = [GlobalLayer(width, _conv(near, width, edge_width), attention, drop) for _ in range(layers)]
        else:
            convs = [_conv(conv, width, edge_width) for _ in range(layers)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers if conv != "gps" else 0))
        self.virtual = nn.ModuleList(_virtual_node(width) for _ in range(layers - 1 if virtual_node else 0))
        self.drop = nn.Dropout(drop)
        self.pool = make_pooling(pooling, width)
        self.norm = nn.LayerNorm(width)

    def fit(self, values: Iterable[Any]) -> None:
        super().fit(values)
        if isinstance(self.processor, StructureProcessor) and self.processor.degrees:
            set_pna_degrees(self, self.processor.degrees)

    def _readout(
        self,
        nodes: Tensor,
        edge_index: Tensor,
        sizes: Tensor,
        edge_attr: Tensor | None = None,
        walks: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """``nodes`` ``(nodes, width)`` of the disjoint union of n graphs, ``sizes`` ``(n,)`` their numbers of nodes.

        ``walks`` and ``places`` are those of ``StructureProcessor``.

        Returns:
            ``(n, width)``, one normalised row a graph.
        """
        graph = graph_of_node(sizes, nodes.shape[0])  # len() would be a constant in an exported program
        edges = {} if edge_attr is None else {"edge_attr": edge_attr}
        if self.walks is not None and walks is not None:
            nodes = nodes + self.walks(walks)
        room = None if places is None else pad_graphs(places, sizes, graph)
        everywhere = torch.zeros(sizes.shape[0], nodes.shape[1], dtype=nodes.dtype, device=nodes.device)
        for layer, conv in enumerate(self.convs):
            if 0 < layer <= len(self.virtual):
                mean = torch.zeros_like(everywhere).index_add(0, graph, nodes) / sizes[:, None]
                everywhere = everywhere + self.drop(self.virtual[layer - 1](mean))
                nodes = nodes + everywhere[graph]
            if room is not None:
                nodes = conv(nodes, edge_index, *room, **edges)
            else:
                norm = self.norms[layer]
                nodes = nodes + self.drop(nn.functional.gelu(conv(norm(nodes), edge_index, **edges)))
        return self.norm(self.pool(nodes, graph, dim_size=sizes.shape[0]))


def graph_of_node(sizes: Tensor, nodes: int) -> Tensor:
    """Return the number of each node's graph, ``(nodes,)`` int64, from the sizes of n graphs, ``(n,)`` int64, and their sum."""
    # a count of the graphs that have ended: unlike repeat_interleave, all formats of exported programs have it
    ended = torch.zeros(nodes + 1, dtype=torch.int64, device=sizes.device)
    return ended.scatter_add_(0, sizes.cumsum(0), torch.ones_like(sizes)).cumsum(0)[:-1]


def _virtual_node(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))


def _conv(name: Conv, width: int, edge_width: int | None) -> MessagePassing:
    from torch_geometric import nn as geometric

    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    if name == "gin":
        return geometric.GINConv(mlp())
    if name == "gine":
        return geometric.GINEConv(mlp(), edge_dim=edge_width)
    if name == "gat":
        return geometric.GATv2Conv(width, width // HEADS, heads=HEADS, edge_dim=edge_width)
    if name == "gcn":
        return geometric.GCNConv(width, width)
    if name == "pna":
        one = torch.tensor([0, 1])  # until the degrees are known
        return geometric.PNAConv(width, width, PNA_AGGREGATORS, PNA_SCALERS, one, edge_dim=edge_width)
    return geometric.SAGEConv(width, width)


def set_pna_degrees(network: nn.Module, degrees: Sequence[int]) -> None:
    """Scale the messages of PNA (Corso et al. 2020, equation 5) by the degrees of the training graphs.

    Args:
        network: its layers of torch-geometric are changed in place.
        degrees: the number of nodes with 0, 1, 2, ... incoming edges.
    """
    from torch_geometric.nn.aggr import DegreeScalerAggregation

    fitted = [module for module in network.modules() if isinstance(module, DegreeScalerAggregation)]
    for scaler in fitted:
        known = DegreeScalerAggregation("sum", "identity", torch.tensor(degrees))
        scaler.avg_deg_lin.data.fill_(known.init_avg_deg_lin)
        scaler.avg_deg_log.data.fill_(known.init_avg_deg_log)


def make_pooling(name: Pooling, width: int) -> nn.Module:
    """Make the readout: from nodes ``(nodes, width)`` and the number of each one's graph to ``(n, width)``."""
    from torch_geometric.nn import aggr

    if name == "attention":
        return aggr.AttentionalAggregation(nn.Linear(width, 1))
    return {"sum": aggr.SumAggregation, "mean": aggr.MeanAggregation, "max": aggr.MaxAggregation}[name]()
