"""Layers in which every node of a graph sees its neighbours and all other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch_geometric.nn import MessagePassing

Attention = Literal["multihead", "performer"]
HEADS = 4
SMALL_GRAPH_NODES = 32  # graphs of up to this many nodes are padded together
EPSILON = 1e-3  # of the performer's kernel


class GlobalLayer(nn.Module):
    r"""A layer of message passing and attention: torch-geometric's ``GPSConv``.

    From Rampášek et al. 2022, "Recipe for a General, Powerful, Scalable Graph Transformer".

    .. math:: X' = N(M(X) + \mathrm{MLP}(M(X))), \qquad M(X) = N(X + \mathrm{Conv}(X, E)) + N(X + \mathrm{Attention}(X))

    with layer normalisation N. The numbers are those of ``GPSConv``; nodes are padded by graph once for all layers,
    small graphs apart from large ones, and programs can be exported. The performer's attention ignores padding, so that a
    graph's features do not depend on the other graphs in the batch.

    Args:
        width: of the nodes, a multiple of 4 (heads).
        conv: among neighbours.
        attention: "multihead", or "performer" (Choromanski et al. 2021) whose cost is linear in the nodes.
        drop: dropout.

    Examples:
        >>> from torch_geometric.nn import GINConv
        >>> layer = GlobalLayer(8, GINConv(nn.Linear(8, 8)), "multihead", drop=0.0)
        >>> sizes, edges = torch.tensor([3]), torch.tensor([[0, 1], [1, 2]])
        >>> padded, position = pad_graphs(torch.arange(3)[None], sizes, torch.zeros(3, dtype=torch.long))
        >>> layer(torch.ones(3, 8), edges, padded, position).shape
        torch.Size([3, 8])
    """

    def __init__(self, width: int, conv: MessagePassing, attention: Attention, drop: float) -> None:
        super().__init__()
        from torch_geometric.nn import GPSConv

        self.gps = GPSConv(
            width, conv, HEADS, drop, act="gelu", norm="layer_norm", norm_kwargs={"mode": "node"}, attn_type=attention
        )

    def forward(
        self, nodes: Tensor, edge_index: Tensor, rooms: Sequence[PaddedGraphs], place: Tensor, **edges: Tensor
    ) -> Tensor:
        """Compute the next features of the nodes of n graphs, of the same shape.

        Args:
            nodes: ``(nodes, width)``.
            edge_index: ``(2, edges)`` int64.
            rooms: the graphs by size, from ``pad_graphs``.
            place: ``(nodes,)`` int64, from ``pad_graphs``.
            **edges: perhaps ``edge_attr`` ``(edges, edge_width)``.
        """
        gps, drop = self.gps, nn.functional.dropout
        conv, mlp = gps.get_submodule("conv"), gps.mlp
        first, second, last = (gps.get_submodule(name) for name in ("norm1", "norm2", "norm3"))
        near = drop(conv(nodes, edge_index, **edges), gps.dropout, self.training)
        seen = torch.cat([self._attend(nodes[room.places], room.there).flatten(0, 1) for room in rooms])
        far = drop(seen[place], gps.dropout, self.training)
        both = first(near + nodes) + second(far + nodes)
        return last(both + mlp(both))

    def _attend(self, dense: Tensor, there: Tensor) -> Tensor:
        attention = self.gps.get_submodule("attn")
        if self.gps.attn_type == "multihead":  # perhaps with adapters
            return attention(dense, dense, dense, key_padding_mask=~there, need_weights=False)[0]
        return _performer(attention, dense, there)


@dataclass(frozen=True)
class PaddedGraphs:
    """Graphs of similar size: ``places`` ``(m, longest)`` int64, the numbers of their nodes; ``there``, which are nodes."""

    places: Tensor
    there: Tensor


def pad_graphs(places: Tensor, sizes: Tensor, graph: Tensor) -> tuple[list[PaddedGraphs], Tensor]:
    """Pad n graphs by size: those of up to 32 nodes, of up to 64, and so on.

    Args:
        places: ``(n, longest)`` int64, the numbers of the nodes.
        sizes: ``(n,)`` int64, the graphs' numbers of nodes.
        graph: ``(nodes,)`` int64, the number of each node's graph.

    Returns:
        The padded graphs; ``(nodes,)`` int64, the position of each node in all of them, flattened one after the other.
    """
    longest = places.shape[1]
    steps = torch.arange(longest, device=places.device)
    if torch.compiler.is_exporting():  # a program cannot look at numbers: all graphs are padded together
        rooms = [PaddedGraphs(places, steps < sizes[:, None])]
        begins = longest * torch.arange(sizes.shape[0], device=places.device)
    else:
        rooms, begins, begun = [], torch.empty_like(sizes), 0
        low, high = 0, SMALL_GRAPH_NODES
        while low < longest:
            longest_here = min(high, longest)
            here = ((sizes > low) & (sizes <= high)).nonzero().flatten()
            if len(here):
                rooms.append(PaddedGraphs(places[here, :longest_here], steps[:longest_here] < sizes[here, None]))
                begins[here] = begun + longest_here * torch.arange(len(here), device=places.device)
                begun += longest_here * len(here)
            low, high = high, 2 * high
    start = sizes.cumsum(0) - sizes
    return rooms, begins[graph] + torch.arange(graph.shape[0], device=places.device) - start[graph]


def _performer(attention: nn.Module, dense: Tensor, there: Tensor) -> Tensor:
    """PyG's ``PerformerAttention``, without the keys that are padding."""
    from torch_geometric.nn.attention.performer import linear_attention

    of: dict[str, Any] = dict(attention.named_children())
    kernel, projection = of["fast_attn"].kernel, of["fast_attn"].projection_matrix
    n, longest, _ = dense.shape
    q, k, v = (of[name](dense).reshape(n, longest, HEADS, -1).transpose(1, 2) for name in "qkv")
    q, k = (kernel(part @ projection.t()) + EPSILON for part in (q, k))
    seen = linear_attention(q, k * there[:, None, :, None], v)
    return of["attn_out"](seen.transpose(1, 2).reshape(n, longest, -1))
