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
SMALL_GRAPH_NODES = 32  # nodes of graphs that are taken together
EPSILON = 1e-3  # of the performer's kernel


class GlobalLayer(nn.Module):
    r"""torch-geometric's ``GPSConv`` (Rampášek et al. 2022, "Recipe for a General, Powerful, Scalable Graph Transformer").

    .. math:: X' = N(M(X) + \mathrm{MLP}(M(X))), \qquad M(X) = N(X + \mathrm{Conv}(X, E)) + N(X + \mathrm{Attention}(X))

    with layer normalisation N. The numbers are those of ``GPSConv``; the nodes are laid out by graph once for all layers,
    those of small graphs apart from those of large ones, and programs can be exported. The performer's attention leaves
    out what only fills the room of short graphs, so that a graph's features do not depend on those beside it.

    Args:
        width: of the nodes, a multiple of 4 (heads).
        conv: among neighbours.
        attention: "multihead", or "performer" (Choromanski et al. 2021) whose cost is linear in the nodes.
        drop: dropout.
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
        """``nodes`` ``(nodes, width)`` of n graphs, ``rooms`` and ``place`` as ``pad_graphs`` makes them -> the same shape."""
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
        if self.gps.attn_type == "multihead":  # perhaps with adapters around it
            return attention(dense, dense, dense, key_padding_mask=~there, need_weights=False)[0]
        return _performer(attention, dense, there)


@dataclass(frozen=True)
class PaddedGraphs:
    """Graphs of about one size: ``places`` ``(m, longest)`` int64, the numbers of their nodes; ``there``, where one is."""

    places: Tensor
    there: Tensor


def pad_graphs(places: Tensor, sizes: Tensor, graph: Tensor) -> tuple[list[PaddedGraphs], Tensor]:
    """Room for the nodes of n graphs: one for those up to 32, one for those up to 64, and so on.

    Args:
        places: ``(n, longest)`` int64, the numbers of the nodes.
        sizes: ``(n,)`` int64, the graphs' numbers of nodes.
        graph: ``(nodes,)`` int64, the number of each node's graph.

    Returns:
        The rooms; ``(nodes,)`` int64, the place of each node in all of them, flattened one after the other.
    """
    longest = places.shape[1]
    steps = torch.arange(longest, device=places.device)
    if torch.compiler.is_exporting():  # a program cannot look at numbers: all lie in one room
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
    """PyG's ``PerformerAttention``, whose keys that are no nodes do not count."""
    from torch_geometric.nn.attention.performer import linear_attention

    of: dict[str, Any] = dict(attention.named_children())
    kernel, projection = of["fast_attn"].kernel, of["fast_attn"].projection_matrix
    n, longest, _ = dense.shape
    q, k, v = (of[name](dense).reshape(n, longest, HEADS, -1).transpose(1, 2) for name in "qkv")
    q, k = (kernel(part @ projection.t()) + EPSILON for part in (q, k))
    seen = linear_attention(q, k * there[:, None, :, None], v)
    return of["attn_out"](seen.transpose(1, 2).reshape(n, longest, -1))
