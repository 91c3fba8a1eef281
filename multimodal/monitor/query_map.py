"""A map from one model's vectors to another's space, so that queries of a new model can search what the old one has stored.

1. ``orthogonal``, ``linear`` and ``mlp`` fit a map to pairs of vectors of the same values.
2. A ``QueryMap`` has a map for each modality of queries; it is stored in a folder, as JSON and safetensors.
3. ``map_queries`` lets an embedder return mapped vectors, for an index of the old model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.digests import DIGEST, FILES, check_document, check_file, describe_files, with_digest
from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder
from multimodal.core.json_file import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from multimodal.core.embedder import Embedder

DOCUMENT, WEIGHTS = "map.json", "map.safetensors"
MAX_WIDTH = 65_536
STEPS, RATE, BATCH = 300, 2e-3, 512  # of the training of an MLP


@dataclass(frozen=True)
class VectorMap:
    r"""A map of vectors: :math:`f(x) = x W + \mathrm{gelu}(x A + a) B`, scaled to unit length.

    Attributes:
        kind: "orthogonal", "linear" or "mlp".
        weight: ``(d_new, d_old)`` float32, W.
        hidden: ``(d_new, h)`` float32, A. None: without the second term.
        bias: ``(h,)`` float32, a.
        out: ``(h, d_old)`` float32, B.

    Examples:
        >>> swap = VectorMap("orthogonal", np.float32([[0, 1], [1, 0]]))
        >>> swap(np.float32([[0.6, 0.8]])).round(3).tolist()
        [[0.800000011920929, 0.6000000238418579]]
    """

    kind: str
    weight: np.ndarray
    hidden: np.ndarray | None = None
    bias: np.ndarray | None = None
    out: np.ndarray | None = None

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Map vectors ``(n, d_new)`` to unit vectors ``(n, d_old)`` float32."""
        import torch

        return self.module()(torch.from_numpy(np.asarray(vectors, np.float32))).numpy()

    def module(self) -> Any:
        """Return the map as a torch module, without gradients."""
        import torch
        from torch import nn
        from torch.nn import functional

        tensors = {name: torch.from_numpy(array) for name, array in self.arrays().items()}

        class Map(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                for name, tensor in tensors.items():
                    self.register_buffer(name, tensor.clone())

            def forward(self, vectors: Tensor) -> Tensor:
                parts = dict(self.named_buffers())
                mapped = vectors @ parts["weight"]
                if "hidden" in parts:
                    mapped = mapped + functional.gelu(vectors @ parts["hidden"] + parts["bias"]) @ parts["out"]
                return functional.normalize(mapped, dim=-1)

        return Map()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return its arrays by name, float32 and contiguous."""
        named = {"weight": self.weight, "hidden": self.hidden, "bias": self.bias, "out": self.out}
        return {name: np.ascontiguousarray(a, np.float32) for name, a in named.items() if a is not None}


def orthogonal(new: np.ndarray, old: np.ndarray) -> VectorMap:
    r"""Fit an orthogonal map, which keeps all cosines among the mapped vectors.

    .. math:: W = U V^\top \text{ with } X^\top Y = U S V^\top, \quad \text{the least } \|X W - Y\|_F
              \text{ over } W^\top W = I

    Where the widths differ, the columns or the rows of W are orthonormal.

    Args:
        new: ``(n, d_new)`` vectors X.
        old: ``(n, d_old)`` vectors Y of the same values.

    Source: Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem".

    Examples:
        >>> old = np.eye(2)[[0, 1, 1]]
        >>> orthogonal(old[:, ::-1], old).weight.round(3).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    u, _, v = np.linalg.svd(np.asarray(new, np.float64).T @ np.asarray(old, np.float64), full_matrices=False)
    return VectorMap("orthogonal", (u @ v).astype(np.float32))


def linear(new: np.ndarray, old: np.ndarray, ridge: float = 1e-3) -> VectorMap:
    r"""Fit a linear map by ridge regression.

    .. math:: W = (X^\top X + n \lambda I)^{-1} X^\top Y

    Args:
        new: ``(n, d_new)`` vectors X.
        old: ``(n, d_old)`` vectors Y of the same values.
        ridge: :math:`\lambda`, above 0.

    Examples:
        >>> x = np.eye(2)
        >>> linear(x, x @ [[0.0, 2.0], [1.0, 0.0]], ridge=1e-9).weight.round(3).tolist()
        [[0.0, 2.0], [1.0, 0.0]]
    """
    x, y = np.asarray(new, np.float64), np.asarray(old, np.float64)
    gram = x.T @ x + len(x) * ridge * np.eye(x.shape[1])
    return VectorMap("linear", np.linalg.solve(gram, x.T @ y).astype(np.float32))


def mlp(new: np.ndarray, old: np.ndarray, ridge: float = 1e-3, seed: int = 0) -> VectorMap:
    """Fit a linear map and a small network of one hidden layer, which begins at 0, to the cosines of mapped and old vectors.

    Args:
        new: ``(n, d_new)`` vectors.
        old: ``(n, d_old)`` vectors of the same values.
        ridge: that of the linear map with which it begins.
        seed: of the first weights and the batches.

    Examples:
        >>> x = np.eye(4, 3)[:3]
        >>> mlp(x, x).hidden.shape
        (3, 6)
    """
    import torch
    from torch.nn import functional

    x, y = (torch.from_numpy(np.asarray(part, np.float32)) for part in (new, old))
    width = x.shape[1] + y.shape[1]
    start = torch.Generator().manual_seed(seed)
    weight = torch.from_numpy(linear(new, old, ridge).weight)
    hidden = torch.randn(x.shape[1], width, generator=start) / x.shape[1] ** 0.5
    parts = [weight, hidden, torch.zeros(width), torch.zeros(width, y.shape[1])]
    optimizer = torch.optim.AdamW([part.requires_grad_() for part in parts], lr=RATE, weight_decay=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=start)
        mapped = x[rows] @ parts[0] + functional.gelu(x[rows] @ parts[1] + parts[2]) @ parts[3]
        (1 - functional.cosine_similarity(mapped, y[rows])).mean().backward()
        optimizer.step()
    return VectorMap("mlp", *(part.detach().numpy() for part in parts))


@dataclass(frozen=True)
class QueryMap:
    """Maps from a new model's vectors to the space of an old one, for the queries of each modality.

    Attributes:
        maps: modality -> its map; one map may be that of several.
        old: fingerprint of the old model, whose space is mapped to.
        new: fingerprint of the new model.
        model: folder of the new model.

    Examples:
        >>> query_map = QueryMap({"text": VectorMap("orthogonal", np.eye(2, dtype=np.float32))}, "o" * 64, "n" * 64, "runs/b")
        >>> query_map.save(Path("map"))
        >>> QueryMap.load(Path("map")).maps["text"].weight.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    maps: Mapping[str, VectorMap]
    old: str
    new: str
    model: str

    def save(self, folder: Path) -> None:
        """Write it to a folder, replacing another one there.

        Args:
            folder: the folder.
        """
        from safetensors.numpy import save_file

        modalities = list(self.maps)
        arrays = {
            f"{number}.{name}": array
            for number, modality in enumerate(modalities)
            for name, array in self.maps[modality].arrays().items()
        }
        document: dict[str, Any] = {"old": self.old, "new": self.new, "model": self.model}
        document["modalities"] = [[modality, self.maps[modality].kind] for modality in modalities]
        with atomic_folder(folder, marker=DOCUMENT) as new:
            save_file(arrays, new / WEIGHTS)
            document[FILES] = describe_files(new, [WEIGHTS])
            (new / DOCUMENT).write_text(json.dumps(with_digest(document), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> QueryMap:
        """Read the maps in a folder.

        Args:
            folder: the folder.

        Raises:
            MultimodalError: there is none, or it is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            document = read_json(folder / DOCUMENT)
            check_document(document, folder / DOCUMENT)
            check_file(folder / WEIGHTS, document[FILES][WEIGHTS])
            arrays = load_file(folder / WEIGHTS)
            maps = {}
            for number, (modality, kind) in enumerate(document["modalities"]):
                own = {name.partition(".")[2]: a for name, a in arrays.items() if name.partition(".")[0] == str(number)}
                maps[str(modality)] = _checked(VectorMap(str(kind), **own))
            return cls(maps, str(document["old"]), str(document["new"]), str(document["model"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise MultimodalError(f"The query map {folder} is damaged ({error}); fit it again.") from error


def _checked(vector_map: VectorMap) -> VectorMap:
    arrays = vector_map.arrays()
    d_new, d_old = arrays["weight"].shape
    shapes = {"weight": (d_new, d_old)}
    if len(arrays) > 1:
        h = arrays["hidden"].shape[-1]
        shapes |= {"hidden": (d_new, h), "bias": (h,), "out": (h, d_old)}
    if {name: a.shape for name, a in arrays.items()} != shapes or not 1 <= max(d_new, d_old) <= MAX_WIDTH:
        raise ValueError("its arrays do not fit one another")
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise ValueError("its numbers are not finite")
    return vector_map


def stored_map(folder: Path) -> dict[str, Any] | None:
    """Return what a folder of maps says of them (``old``, ``new``, ``model``, ``digest``), without reading the maps.

    Args:
        folder: the folder.

    Returns:
        The description. None: there is no map.

    Raises:
        MultimodalError: it is damaged.
    """
    try:
        document = read_json(folder / DOCUMENT)
        check_document(document, folder / DOCUMENT)
        return {name: str(document[name]) for name in ("old", "new", "model", DIGEST)}
    except OSError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise MultimodalError(f"The query map {folder} is damaged ({error}); fit it again.") from error


def map_queries(embedder: Embedder, query_map: QueryMap) -> Embedder:
    """Let an embedder return mapped vectors, which can be compared with those of the old model.

    Args:
        embedder: the new model; it is changed.
        query_map: its map.

    Returns:
        The same embedder; it has the width of the old model, no calibration, and only the modalities that are mapped can be
        encoded to the old space.

    Raises:
        MultimodalError: the map is of another model.
    """
    from torch import nn

    if embedder.fingerprint != query_map.new:
        raise MultimodalError(
            f"The query map is of the model {query_map.new[:12]}, not of {embedder.fingerprint[:12]}; fit it again."
        )
    for modality, vector_map in query_map.maps.items():
        module = vector_map.module().to(embedder.device)
        if modality in embedder.centring:
            module = nn.Sequential(embedder.centring[modality], module)
        embedder.centring[modality] = module
    embedder.dim = next(iter(query_map.maps.values())).weight.shape[1]
    embedder.calibration = None  # it is of the new model's vectors
    return embedder
