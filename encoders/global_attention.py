"""Layers in which every node of a graph sees its neighbours and all other nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch_geometric.nn import MessagePassing

Attention = Literal["multihead", "performer"]
HEADS = 4
EPSILON = 1e-3  # of the performer's kernel


class GlobalLayer(nn.Module):
    r"""torch-geometric's ``GPSConv`` (Rampášek et al. 2022, "Recipe for a General, Powerful, Scalable Graph Transformer").

    .. math:: X' = N(M(X) + \mathrm{MLP}(M(X))), \qquad M(X) = N(X + \mathrm{Conv}(X, E)) + N(X + \mathrm{Attention}(X))

    with layer normalisation N. The numbers are those of ``GPSConv``; the nodes are laid out by graph once for all layers,
    which also lets programs be exported. The performer's attention leaves out what only fills the room of short graphs,
    so that a graph's features do not depend on those beside it.

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
        self, nodes: Tensor, edge_index: Tensor, places: Tensor, room: Tensor, place: Tensor, **edges: Tensor
    ) -> Tensor:
        """``nodes`` ``(nodes, width)`` of n graphs, ``room`` and ``place`` as ``layout`` makes them -> the same shape."""
        gps, drop = self.gps, nn.functional.dropout
        conv, mlp = gps.get_submodule("conv"), gps.mlp
        first, second, last = (gps.get_submodule(name) for name in ("norm1", "norm2", "norm3"))
        near = drop(conv(nodes, edge_index, **edges), gps.dropout, self.training)
        dense = nodes[places]
        if isinstance(gps.attn, nn.MultiheadAttention):
            seen, _ = gps.attn(dense, dense, dense, key_padding_mask=~room, need_weights=False)
        else:
            seen = _performer(gps.attn, dense, room)
        far = drop(seen.flatten(0, 1)[place], gps.dropout, self.training)
        both = first(near + nodes) + second(far + nodes)
        return last(both + mlp(both))


def layout(places: Tensor, sizes: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
    """Where the nodes of n graphs lie in ``(n, longest)``.

    Args:
        places: ``(n, longest)`` int64, the numbers of the nodes.
        sizes: ``(n,)`` int64, the graphs' numbers of nodes.
        graph: ``(nodes,)`` int64, the number of each node's graph.

    Returns:
        ``(n, longest)`` bool, where there is a node; ``(nodes,)`` int64, the place of each in the flattened room.
    """
    longest = places.shape[1]
    room = torch.arange(longest, device=places.device) < sizes[:, None]
    start = sizes.cumsum(0) - sizes
    return room, graph * longest + torch.arange(graph.shape[0], device=places.device) - start[graph]


def _performer(attention: nn.Module, dense: Tensor, room: Tensor) -> Tensor:
    """PyG's ``PerformerAttention``, whose keys that are no nodes do not count."""
    from torch_geometric.nn.attention.performer import linear_attention

    of: dict[str, Any] = dict(attention.named_children())
    kernel, projection = of["fast_attn"].kernel, of["fast_attn"].projection_matrix
    n, longest, _ = dense.shape
    q, k, v = (of[name](dense).reshape(n, longest, HEADS, -1).transpose(1, 2) for name in "qkv")
    q, k = (kernel(part @ projection.t()) + EPSILON for part in (q, k))
    seen = linear_attention(q, k * room[:, None, :, None], v)
    return of["attn_out"](seen.transpose(1, 2).reshape(n, longest, -1))
