"""What the encoders of graphs share: message-passing layers and the readout over the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError

if TYPE_CHECKING:
    from torch_geometric.nn import MessagePassing

Conv = Literal["gin", "gine", "gat", "gcn", "sage"]
EdgeConv = Literal["gine", "gat"]
Pooling = Literal["sum", "mean", "max", "attention"]
GAT_HEADS = 4


class GraphNetwork(Encoder):
    """The base of encoders of graphs: residual pre-norm layers of torch-geometric, then a readout.

    A subclass embeds the nodes and edges of its graphs, calls ``_set_layers`` in its constructor and ``_readout`` in
    ``forward``.
    """

    def _set_layers(
        self,
        conv: Conv,
        pooling: Pooling,
        width: int,
        layers: int,
        drop: float,
        edge_width: int | None,
        virtual_node: bool = False,
    ) -> None:
        """Make the layers.

        Args:
            conv: one of ``Conv``; pooling: one of ``Pooling``.
            width: width of the nodes; layers: how many; drop: dropout after each.
            edge_width: width of the edges' features; None: edges have none.
            virtual_node: one more node a graph, which hears and tells all others between the layers (Gilmer et al. 2017).

        Raises:
            UsageError: an unknown name, or a width that does not divide among the heads.
        """
        kind = type(self).__name__
        for what, chosen, known in (("conv", conv, get_args(Conv)), ("pooling", pooling, get_args(Pooling))):
            if chosen not in known:
                raise UsageError(f"{kind}: {what} {chosen!r} is none of {', '.join(known)}.")
        if conv == "gat" and width % GAT_HEADS:
            raise UsageError(f"{kind}: gat needs a width that is a multiple of its {GAT_HEADS} heads, got {width}.")
        self.convs = nn.ModuleList(_conv(conv, width, edge_width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.virtual = nn.ModuleList(_virtual_node(width) for _ in range(layers - 1 if virtual_node else 0))
        self.drop = nn.Dropout(drop)
        self.pool = _pool(pooling, width)
        self.norm = nn.LayerNorm(width)

    def _readout(self, nodes: Tensor, edge_index: Tensor, sizes: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """``nodes`` ``(nodes, width)`` of the disjoint union of n graphs, ``sizes`` ``(n,)`` their numbers of nodes.

        Returns:
            ``(n, width)``, one normalised row a graph.
        """
        graph = node_graphs(sizes, nodes.shape[0])  # len() would be a constant in an exported program
        edges = {} if edge_attr is None else {"edge_attr": edge_attr}
        everywhere = torch.zeros(sizes.shape[0], nodes.shape[1], dtype=nodes.dtype, device=nodes.device)
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if 0 < layer <= len(self.virtual):
                mean = torch.zeros_like(everywhere).index_add(0, graph, nodes) / sizes[:, None]
                everywhere = everywhere + self.drop(self.virtual[layer - 1](mean))
                nodes = nodes + everywhere[graph]
            nodes = nodes + self.drop(nn.functional.gelu(conv(norm(nodes), edge_index, **edges)))
        return self.norm(self.pool(nodes, graph, dim_size=sizes.shape[0]))


def node_graphs(sizes: Tensor, nodes: int) -> Tensor:
    """Sizes of n graphs, ``(n,)`` int64, and their sum -> the number of each node's graph, ``(nodes,)`` int64."""
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
        return geometric.GATv2Conv(width, width // GAT_HEADS, heads=GAT_HEADS, edge_dim=edge_width)
    if name == "gcn":
        return geometric.GCNConv(width, width)
    return geometric.SAGEConv(width, width)


def _pool(name: Pooling, width: int) -> nn.Module:
    from torch_geometric.nn import aggr

    if name == "attention":
        return aggr.AttentionalAggregation(nn.Linear(width, 1))
    return {"sum": aggr.SumAggregation, "mean": aggr.MeanAggregation, "max": aggr.MaxAggregation}[name]()
