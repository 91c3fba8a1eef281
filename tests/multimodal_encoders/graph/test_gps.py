"""GPS and PNA: equal to torch-geometric's own layers, blind to the order of nodes and to other graphs of a batch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.graph.global_attention import PaddedGraphs, pad_graphs
from multimodal_encoders.graph.gnn import GNN
from multimodal_encoders.graph.gps import GPS
from multimodal_encoders.graph.message_passing import GraphNetwork
from multimodal_encoders.graph.structure import MAX_DENSE_NODES, StructureProcessor, random_walks
from multimodal_encoders.molecule.gnn import MoleculeGNN
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GPSConv, PNAConv
from torch_geometric.utils import degree

from multimodal.core import registry
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.layers import parameter_names_by_depth
from multimodal.core.lora import LoRA
from multimodal.training.activation_checkpointing import recompute_activations

NODE, EDGE = 3, 2
SMILES = ["CC(=O)O", "c1ccccc1", "C", "C[C@H](N)C(=O)O.Cl", "CC(=O)Oc1ccccc1C(=O)O"]
Graph = dict[str, Any]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """One to six nodes, none to nine edges, in any direction, loops and repeats among them."""
    return graph(draw(st.integers(1, 6)), draw(st.integers(0, 9)), draw(st.integers(0, 9999)))


def graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    return {
        "x": torch.from_numpy(rng.normal(size=(nodes, NODE))).float(),
        "edge_index": torch.from_numpy(rng.integers(0, nodes, (2, edges))),
        "edge_attr": torch.from_numpy(rng.normal(size=(edges, EDGE))).float(),
    }


SEVERAL = [graph(4, 7, 1), graph(70, 90, 5), graph(1, 0, 2), graph(6, 9, 3), graph(3, 2, 4), graph(40, 60, 6)]


def gps(attention: Any = "multihead", edges: int = EDGE, **changes: Any) -> GPS:
    given: dict[str, Any] = {"width": 8, "layers": 2, "walks": 3, "pooling": "mean"} | changes
    return GPS(attention, node_features=NODE, edge_features=edges, **given).eval()


def pna() -> GNN:
    encoder = GNN("pna", "mean", NODE, EDGE, width=8, layers=2).eval()
    encoder.fit(SEVERAL)
    return encoder


def features(encoder: GraphNetwork, *some: Any) -> Tensor:
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(value) for value in some]))


every_encoder = pytest.mark.parametrize(
    "make", [gps, lambda: gps("performer"), lambda: gps(edges=0, walks=0, pooling="attention"), pna],
    ids=["multihead", "performer", "bare", "pna"],
)  # fmt: skip


# -- random walks


@given(graph=graphs(), steps=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_walks_come_back_by_the_powers_of_the_transition_matrix(graph: Graph, steps: int) -> None:
    nodes = len(graph["x"])
    transition = np.zeros((nodes, nodes))
    for a, b in graph["edge_index"].T.tolist():
        transition[a, b] += 1 / int((graph["edge_index"][0] == a).sum())
    expected = np.stack([np.linalg.matrix_power(transition, step).diagonal() for step in range(1, steps + 1)], axis=1)
    np.testing.assert_allclose(random_walks(graph["edge_index"].numpy(), nodes, steps), expected, atol=1e-6)


def test_walks_in_a_large_graph_are_those_of_its_parts() -> None:
    small = graph(6, 12)["edge_index"].numpy()
    copies = MAX_DENSE_NODES // 6 + 1
    large = np.concatenate([small + 6 * copy for copy in range(copies)], axis=1)
    alone = random_walks(small, 6, 5)
    torch.testing.assert_close(random_walks(large, 6 * copies, 5), alone.repeat(copies, 1))


@pytest.mark.filterwarnings("ignore:Sparse")
def test_walks_are_torch_geometrics() -> None:
    from torch_geometric.transforms import AddRandomWalkPE

    edges = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0, 2], [1, 0, 2, 1, 3, 2, 4, 3, 0, 4, 2, 0]])  # no edge twice
    theirs = AddRandomWalkPE(5)(Data(edge_index=edges, num_nodes=6)).random_walk_pe
    torch.testing.assert_close(random_walks(edges.numpy(), 6, 5), theirs)


# -- layers


@pytest.mark.parametrize("attention", ["multihead", "performer"])
@pytest.mark.parametrize("edges", [EDGE, 0])
def test_gps_is_torch_geometrics_gps(attention: Any, edges: int) -> None:
    encoder = gps(attention, edges)
    assert encoder.walks is not None
    for some in SEVERAL:
        nodes = encoder.nodes(some["x"]) + encoder.walks(random_walks(some["edge_index"].numpy(), len(some["x"]), 3))
        for layer in encoder.convs:
            own: Any = layer.gps
            assert isinstance(own, GPSConv)  # its own forward, of one graph
            given = {"edge_attr": some["edge_attr"]} if edges else {}
            nodes = own(nodes, some["edge_index"], torch.zeros(len(nodes), dtype=torch.int64), **given)
        expected = encoder.norm(nodes.mean(dim=0))
        torch.testing.assert_close(features(encoder, some)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_batch_of_multihead_layers_is_torch_geometrics_batch() -> None:
    encoder = gps()
    inputs = encoder.processor.collate([encoder.processor(some) for some in SEVERAL])
    batch = torch.repeat_interleave(torch.arange(len(SEVERAL)), inputs["sizes"])
    assert encoder.walks is not None
    with torch.no_grad():
        nodes = encoder.nodes(inputs["x"]) + encoder.walks(inputs["walks"])
        for layer in encoder.convs:
            nodes = layer.gps(nodes, inputs["edge_index"], batch, edge_attr=inputs["edge_attr"])  # pyright: ignore
        means = torch.stack([nodes[batch == n].mean(dim=0) for n in range(len(SEVERAL))])
        torch.testing.assert_close(encoder(**inputs), encoder.norm(means), atol=1e-5, rtol=1e-5)


def test_pna_is_torch_geometrics_pna() -> None:
    encoder = pna()
    data: Any = [Data(**some) for some in SEVERAL]
    histogram = PNAConv.get_degree_histogram(data)
    assert encoder.processor.state() == {"degrees": histogram.tolist()}
    scalers = ["identity", "amplification", "attenuation"]
    for some in SEVERAL:
        nodes = encoder.nodes(some["x"])
        for conv, norm in zip(encoder.convs, encoder.norms, strict=True):
            theirs = PNAConv(8, 8, ["mean", "min", "max", "std"], scalers, histogram, edge_dim=EDGE).eval()
            own = {name: value for name, value in conv.state_dict().items() if "avg_deg" not in name}
            assert not theirs.load_state_dict(own, strict=False).unexpected_keys
            nodes = nodes + torch.nn.functional.gelu(theirs(norm(nodes), some["edge_index"], some["edge_attr"]))
        torch.testing.assert_close(features(encoder, some)[0], encoder.norm(nodes.mean(dim=0)), atol=1e-5, rtol=1e-5)


@given(many=st.lists(graphs(), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_degrees_are_counted_over_all_nodes(many: list[Graph]) -> None:
    encoder = GNN("pna", "mean", NODE, EDGE, width=4, layers=1)
    encoder.fit([*many, "no graph", {"x": []}])
    ends = torch.cat([degree(some["edge_index"][1], len(some["x"])) for some in many])
    assert isinstance(encoder.processor, StructureProcessor)
    assert encoder.processor.degrees == ends.long().bincount().tolist()
    scaler: Any = encoder.convs[0].aggr_module
    torch.testing.assert_close(scaler.avg_deg_log, (ends + 1).log().mean().reshape(1))
    torch.testing.assert_close(scaler.avg_deg_lin, ends.mean().reshape(1))


# -- graphs


@every_encoder
def test_the_features_of_a_union_are_those_of_its_graphs(make: Any) -> None:
    encoder = make()

    @given(some=st.lists(graphs(), min_size=1, max_size=5))
    @settings(max_examples=8, deadline=None)
    def check(some: list[Graph]) -> None:
        together = features(encoder, *some)
        assert together.shape == (len(some), encoder.width)
        alone = torch.cat([features(encoder, one) for one in some])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    check()


@every_encoder
def test_the_numbers_of_the_nodes_do_not_matter(make: Any) -> None:
    encoder = make()

    @given(graph=graphs(), data=st.data())
    @settings(max_examples=8, deadline=None)
    def check(graph: Graph, data: st.DataObject) -> None:
        number = torch.tensor(data.draw(st.permutations(range(len(graph["x"])))))  # old node -> new
        order = torch.tensor(data.draw(st.permutations(range(graph["edge_index"].shape[1]))), dtype=torch.int64)
        renumbered = {
            "x": graph["x"][number.argsort()],
            "edge_index": number[graph["edge_index"]][:, order],
            "edge_attr": graph["edge_attr"][order],
        }
        torch.testing.assert_close(features(encoder, renumbered), features(encoder, graph), atol=1e-5, rtol=1e-5)

    check()


@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_every_node_has_its_position_among_those_of_its_graph(sizes: list[int]) -> None:
    counts = torch.tensor(sizes)
    graph = torch.repeat_interleave(torch.arange(len(sizes)), counts)
    within = torch.minimum(torch.arange(max(sizes)), counts[:, None] - 1)
    rooms, place = pad_graphs((counts.cumsum(0) - counts)[:, None] + within, counts, graph)
    flat = torch.cat([room.places.flatten() for room in rooms])
    assert torch.equal(flat[place], torch.arange(sum(sizes)))
    assert torch.equal(torch.cat([room.there.flatten() for room in rooms]).nonzero().flatten(), place.sort().values)
    for room in rooms:
        numbers = torch.where(room.there, graph[room.places], graph[room.places[:, :1]])
        assert (numbers == numbers[:, :1]).all()  # a row is a graph
        assert room.places.shape[1] <= max(32, 2 * int(room.there.sum(dim=1).min()))


def test_far_nodes_are_seen_and_walks_distinguish_rings_from_lines() -> None:
    apart = {"x": torch.zeros(4, NODE), "edge_index": torch.tensor([[0], [1]]), "edge_attr": torch.zeros(1, EDGE)}
    moved = apart | {"x": torch.cat([torch.zeros(3, NODE), torch.ones(1, NODE)])}
    encoder = gps(layers=1, walks=0)
    inputs = [encoder.processor.collate([encoder.processor(some)]) for some in (apart, moved)]
    room, place = PaddedGraphs(torch.arange(4)[None], torch.ones(1, 4, dtype=torch.bool)), torch.arange(4)
    before, after = (
        encoder.convs[0](encoder.nodes(i["x"]), i["edge_index"], [room], place, edge_attr=i["edge_attr"])
        for i in inputs
    )
    assert (before[0] - after[0]).abs().max() > 1e-3
    ring = {"x": torch.zeros(6, NODE), "edge_index": torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])}
    longer = ring | {"edge_index": torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])}
    blind, sees = gps(edges=0, walks=0), gps(edges=0, walks=3)
    assert (features(blind, ring) - features(blind, longer)).abs().max() < 1e-6
    assert (features(sees, ring) - features(sees, longer)).abs().max() > 1e-4


@every_encoder
def test_gradients_come_to_every_weight(make: Any) -> None:
    encoder = make().train()
    inputs = encoder.processor.collate([encoder.processor(some) for some in SEVERAL])
    (encoder(**inputs) * torch.randn(len(SEVERAL), encoder.width)).sum().backward()
    without_gradient = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without_gradient


@every_encoder
def test_a_saved_model_is_the_same(make: Any, tmp_path: Path) -> None:
    embedder = Embedder({"graph": make()}, 5).eval()
    embedder.save_pretrained(tmp_path / "model")
    again = Embedder.from_pretrained(tmp_path / "model")
    assert again.fingerprint == embedder.fingerprint
    assert np.array_equal(again.encode(graph=SEVERAL), embedder.encode(graph=SEVERAL))
    copied = pickle.loads(pickle.dumps(again.processors["graph"]))
    assert set(copied.collate([copied(SEVERAL[0])])) == set(
        again.processors["graph"].collate([again.processors["graph"](SEVERAL[0])])
    )


def test_layers_are_found_from_the_input_to_the_output() -> None:
    tops = [{".".join(name.split(".")[:2]) for name in names} for names in parameter_names_by_depth(gps())]
    assert tops[0] == {"nodes.0", "nodes.2", "walks.weight", "walks.bias"}
    assert tops[1] == {"convs.0"}
    assert "convs.1" in tops[2]
    assert len(tops) == 3


@pytest.mark.parametrize("attention", ["multihead", "performer"])
def test_adapters_and_recomputing_go_with_it(attention: Any) -> None:
    torch.manual_seed(3)
    encoder = gps(attention)
    inputs = encoder.processor.collate([encoder.processor(some) for some in SEVERAL])
    target = torch.randn(len(SEVERAL), 8)
    gradients = []
    for recompute in (False, True):
        if recompute:
            recompute_activations([encoder])
        encoder.train().zero_grad()
        (encoder(**inputs) * target).sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])
    embedder = Embedder({"graph": encoder}, 4, lora={"graph": LoRA(targets="convs.*", rank=2)})
    (embedder.features("graph", inputs) * target).sum().backward()
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert any("attn" in name for name in trained)


# -- molecules


@pytest.mark.parametrize("settings", [{"conv": "gps"}, {"conv": "gps", "walks": 4}, {"conv": "pna"}, {"walks": 4}])
def test_molecules_are_read_in_the_same_ways(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    given: dict[str, Any] = {"width": 8, "layers": 2, "bits": 16, "count_width": 4} | settings
    encoder = MoleculeGNN(**given).eval()
    encoder.fit([*SMILES, "no molecule"])
    together = features(encoder, *SMILES)
    torch.testing.assert_close(together, torch.cat([features(encoder, s) for s in SMILES]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features(encoder, "OC(C)=O"), features(encoder, "CC(=O)O"), atol=1e-5, rtol=1e-5)
    embedder = Embedder({"graph": encoder}, 5).eval()
    embedder.save_pretrained(tmp_path / "model")
    again = Embedder.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.encode(graph=SMILES), embedder.encode(graph=SMILES))


# -- settings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"attention": "full"}, "attention 'full' is not one of multihead, performer"),
        ({"width": 10}, "gps needs a width that is a multiple of its 4 heads, got 10"),
        ({"walks": -1}, "walks -1 and edge_features 3 must be at least 0"),
        ({"pooling": "last"}, "GPS: pooling 'last' is not one of sum"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.create("graph", "gps", **{"width": 8, "layers": 1} | wrong)


def test_layers_that_need_degrees_or_positions_are_reported() -> None:
    with pytest.raises(MultimodalError, match="degrees of nodes have not been counted"):
        GNN("pna", width=8, layers=1).processor(SEVERAL[0])
    with pytest.raises(UsageError, match="no graph to learn the degrees"):
        GNN("pna", width=8, layers=1).fit([])
    with pytest.raises(UsageError, match="conv 'gps' is not one of gin"):
        GNN("gps", width=8, layers=1)  # pyright: ignore[reportArgumentType]
