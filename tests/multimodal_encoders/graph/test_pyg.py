"""Networks that were trained in torch-geometric give the same features here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.graph.pyg import PyG
from safetensors.torch import save_file
from torch_geometric.data import Batch, Data
from torch_geometric.nn import PNAConv, global_add_pool, global_max_pool, global_mean_pool, models

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError

NODE, EDGE = 3, 2
SIZES = {"in_channels": NODE, "hidden_channels": 8, "num_layers": 3}
PNA = {"aggregators": ["mean", "max"], "scalers": ["identity", "linear"]}
POOLS = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("GCN", {}),
    ("GCN", {"norm": "graph_norm", "act": "elu", "out_channels": 5}),
    ("GraphSAGE", {"jk": "cat", "project": True}),
    ("GIN", {"norm": "batch_norm", "jk": "max", "dropout": 0.5}),
    ("GAT", {"heads": 2, "v2": True, "edge_dim": EDGE, "norm": "layer_norm"}),
    ("GAT", {"num_layers": 1}),
    ("PNA", {"edge_dim": EDGE, **PNA}),
    ("EdgeCNN", {"jk": "lstm"}),
]


def graphs() -> list[dict[str, Any]]:
    """The third one has no edges."""
    rng = np.random.default_rng(0)
    return [
        {
            "x": torch.from_numpy(rng.normal(size=(nodes, NODE))).float(),
            "edge_index": torch.from_numpy(rng.integers(0, nodes, (2, edges))),
            "edge_attr": torch.from_numpy(rng.normal(size=(edges, EDGE))).float(),
        }
        for nodes, edges in ((5, 9), (2, 3), (3, 0), (8, 20))
    ]


def trained(arch: str, config: dict[str, Any]) -> Any:
    """A network of theirs whose statistics and weights are not those of a new one."""
    given = SIZES | config | ({"deg": torch.tensor([1, 2, 5, 3])} if arch == "PNA" else {})
    network = getattr(models, arch)(**given)
    batch: Any = Batch.from_data_list([Data(**graph) for graph in graphs()])
    for _ in range(3):
        theirs(network.train(), batch)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def theirs(network: Any, batch: Any) -> torch.Tensor:
    edges = {"edge_attr": batch.edge_attr} if getattr(network.convs[0], "edge_dim", None) else {}
    with torch.no_grad():
        return network(batch.x, batch.edge_index, batch=batch.batch, batch_size=batch.num_graphs, **edges)


@pytest.mark.parametrize(("arch", "config"), CASES)
def test_features_are_those_of_torch_geometric_from_its_weights(arch: Any, config: Any, tmp_path: Path) -> None:
    network = trained(arch, config)
    save_file(network.state_dict(), tmp_path / "gnn.safetensors")
    torch.save(network.state_dict(), tmp_path / "gnn.pt")
    batch: Any = Batch.from_data_list([Data(**graph) for graph in graphs()])
    nodes = theirs(network, batch)
    for pooling, pool in POOLS.items():
        for name in ("gnn.safetensors", "gnn.pt"):
            encoder = PyG(arch, SIZES | config, str(tmp_path / name), pooling).eval()  # pyright: ignore[reportArgumentType]
            items = [encoder.processor(graph) for graph in graphs()]
            with torch.no_grad():
                made = encoder(**encoder.processor.collate(items))
            assert made.shape == (4, encoder.width)
            torch.testing.assert_close(made, pool(nodes, batch.batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("arch", "config"), CASES)
def test_a_saved_model_needs_no_file(arch: Any, config: Any, tmp_path: Path) -> None:
    save_file(trained(arch, config).state_dict(), tmp_path / "gnn.safetensors")
    encoder = PyG(arch, SIZES | config, str(tmp_path / "gnn.safetensors"), "attention")
    embedder = Embedder({"graph": encoder}, 4).eval()
    embedder.save_pretrained(tmp_path / "model")
    (tmp_path / "gnn.safetensors").unlink()
    again = Embedder.from_pretrained(tmp_path / "model")
    assert again.fingerprint == embedder.fingerprint
    assert np.array_equal(again.encode(graph=graphs()), embedder.encode(graph=graphs()))


def test_an_untrained_pna_learns_the_degrees(tmp_path: Path) -> None:
    encoder = PyG("PNA", SIZES | PNA)
    with pytest.raises(UsageError, match="degrees of nodes have not been counted"):
        encoder.processor(graphs()[0])
    encoder.fit(graphs())
    data: Any = [Data(**graph) for graph in graphs()]
    own = models.PNA(**SIZES, **PNA, deg=PNAConv.get_degree_histogram(data))  # pyright: ignore
    for name, value in own.named_buffers():
        torch.testing.assert_close(encoder.model.get_buffer(name), value)
    embedder = Embedder({"graph": encoder}, 4).eval()
    embedder.save_pretrained(tmp_path / "model")
    again = Embedder.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.encode(graph=graphs()), embedder.encode(graph=graphs()))
    given = PyG("PNA", SIZES | PNA | {"deg": [1, 2]})
    assert given.processor(graphs()[0])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arch": "GINE"}, "arch 'GINE' is not one of GCN, GraphSAGE, GIN, GAT, PNA, EdgeCNN"),
        ({"pooling": "last"}, "pooling 'last' is not one of sum"),
        ({"config": {}}, "config must set in_channels to a number of at least 1; got None"),
        ({"config": SIZES | {"in_channels": -1}}, "config must set in_channels to a number of at least 1; got -1"),
        ({"config": SIZES | {"hiden": 3}}, "models.GIN does not take this config: .*hiden"),
        ({"config": SIZES | {"norm": "no_norm"}}, "models.GIN does not take this config: .*no_norm"),
        ({"arch": "GAT", "config": SIZES | {"heads": 3}}, "models.GAT does not take this config: .*heads"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.create("graph", "pyg", **{"arch": "GIN", "config": SIZES} | wrong)


def test_weights_of_another_network_are_reported_by_name(tmp_path: Path) -> None:
    save_file(trained("GIN", {}).state_dict(), tmp_path / "gin.safetensors")
    with pytest.raises(MultimodalError, match=r"gin\.safetensors does not fit the GCN .* missing .*unexpected"):
        PyG("GCN", SIZES, str(tmp_path / "gin.safetensors"))
    with pytest.raises(MultimodalError, match=r"of another shape .*\(8, 3\) instead of \(16, 3\)"):
        PyG("GIN", SIZES | {"hidden_channels": 16}, str(tmp_path / "gin.safetensors"))
    with pytest.raises(MultimodalError, match=r"no file of weights at .*none"):
        PyG("GIN", SIZES, str(tmp_path / "none.safetensors"))
