"""Graphs become one disjoint union, and each of them one row of features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.graph.gnn import GNN, GraphProcessor
from torch import Tensor
from torch_geometric.data import Batch, Data

from multimodal.core import registry
from multimodal.core.errors import MultimodalError, UsageError

Conv = Literal["gin", "gine", "gat", "gcn", "sage", "pna"]
Pooling = Literal["sum", "mean", "max", "attention"]
NODE, EDGE = 3, 2
Graph = dict[str, Any]
every_conv = pytest.mark.parametrize("conv", get_args(Conv))
every_pooling = pytest.mark.parametrize("pooling", get_args(Pooling))


def gnn(conv: Conv = "gine", pooling: Pooling = "attention") -> GNN:
    encoder = GNN(conv, pooling, NODE, EDGE, width=8, layers=2).eval()
    encoder.fit([small()])
    return encoder


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """One to five nodes, none to eight edges, in any direction, loops and repeats among them."""
    nodes, edges = draw(st.integers(1, 5)), draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    return {
        "x": torch.from_numpy(rng.normal(size=(nodes, NODE))).float(),
        "edge_index": torch.from_numpy(rng.integers(0, nodes, (2, edges))),
        "edge_attr": torch.from_numpy(rng.normal(size=(edges, EDGE))).float(),
    }


def features(encoder: GNN, *some: Any) -> Tensor:
    with torch.no_grad():
        return encoder(**encoder.processor.collate([encoder.processor(graph) for graph in some]))


def small(**changes: Any) -> Graph:
    return {
        "x": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        "edge_index": [[0, 1, 1], [1, 0, 1]],
        "edge_attr": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    } | changes


# what a graph may be


def test_a_graph_is_the_same_in_whatever_form_it_comes(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(small()))
    tensors = {name: torch.tensor(values) for name, values in small().items()}
    processor = GraphProcessor(NODE, EDGE)
    forms: list[Any] = [small(), tensors, {name: t.numpy() for name, t in tensors.items()}, Data(**tensors)]
    for value in (*forms, tmp_path / "graph.json", str(tmp_path / "graph.json")):
        item = processor(value)
        assert set(item) == set(tensors)
        for name, tensor in tensors.items():
            assert item[name].dtype == tensor.dtype
            assert torch.equal(item[name], tensor)


@pytest.mark.parametrize("edges", [[], [[], []], torch.zeros(2, 0, dtype=torch.int64)])
def test_a_graph_may_have_no_edges(edges: Any) -> None:
    item = GraphProcessor(NODE, EDGE)(small(edge_index=edges, edge_attr=[]))
    assert {name: tuple(t.shape) for name, t in item.items()} == {
        "x": (2, NODE),
        "edge_index": (2, 0),
        "edge_attr": (0, EDGE),
    }


def test_edge_features_are_read_only_where_they_are_used() -> None:
    graph = small()
    del graph["edge_attr"]
    for conv in ("gin", "gcn", "sage"):
        assert set(gnn(conv).processor(graph)) == {"x", "edge_index"}
    for conv in ("gine", "gat", "pna"):
        with pytest.raises(MultimodalError, match="has no 'edge_attr'"):
            gnn(conv).processor(graph)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        pytest.param(3, "the graph (int) has no 'x'; give a PyG Data or its entries", id="a number"),
        pytest.param({}, "the graph (dict) has no 'x'", id="empty"),
        pytest.param(Data(), "the graph (Data) has no 'x'", id="empty Data"),
        pytest.param(small(x=None), "has no 'x'", id="x missing"),
        pytest.param(small(edge_index=None), "has no 'edge_index'", id="edges missing"),
        pytest.param(small(edge_attr=None), "has no 'edge_attr'", id="edge features missing"),
        pytest.param(small(x=[]), "x has shape (0,), not (nodes >= 1, 3)", id="no nodes"),
        pytest.param(small(x=torch.zeros(0, 3)), "x has shape (0, 3)", id="no nodes, right width"),
        pytest.param(small(x=[1.0, 2.0, 3.0]), "x has shape (3,)", id="x flat"),
        pytest.param(small(x=[[1.0], [2.0]]), "x has shape (2, 1), not (nodes >= 1, 3)", id="x narrow"),
        pytest.param(small(x=[[1.0, 2.0, 3.0], [4.0]]), "x is not an array of numbers", id="x ragged"),
        pytest.param(small(x="abc"), "x is not an array of numbers", id="x a word"),
        pytest.param(small(x=[[1.0, float("nan"), 3.0]] * 2), "x holds NaN or infinite values", id="x NaN"),
        pytest.param(small(x=[[1.0, 1e300, 3.0]] * 2), "x holds NaN or infinite values", id="x beyond float32"),
        pytest.param(small(edge_index=[[0, 2, 0], [1, 0, 0]]), "names nodes outside 0 to 1", id="missing node"),
        pytest.param(small(edge_index=[[0, -1, 0], [1, 0, 0]]), "names nodes outside 0 to 1", id="negative node"),
        pytest.param(small(edge_index=[[0, 1], [1, 0], [0, 0]]), "shape (3, 2), not (2, edges)", id="transposed"),
        pytest.param(small(edge_index=[0, 1]), "shape (2,), not (2, edges)", id="edges flat"),
        pytest.param(small(edge_index=[["a"], ["b"]]), "edge_index is not an array of numbers", id="edges words"),
        pytest.param(small(edge_attr=[[1.0, 2.0]]), "edge_attr has shape (1, 2), not (3, 2)", id="too few features"),
        pytest.param(small(edge_attr=[[1.0, float("inf")]] * 3), "edge_attr holds NaN or infinite", id="infinite"),
        pytest.param(small(edge_index=[[0.5, 1, 1], [1.9, 0, 1]]), "edge_index holds fractions", id="half nodes"),
        pytest.param(small(edge_index=[[1e30, 1, 1], [1, 0, 1]]), "the graph's edge_index", id="node beyond int64"),
        pytest.param(
            small(edge_index=[[2**70, 1, 1], [1, 0, 1]]), "edge_index is not an array", id="whole node beyond"
        ),
        pytest.param(
            small(edge_attr=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
            "edge_attr has shape (2, 3), not (3, 2)",
            id="edge features transposed",
        ),
        pytest.param(small(edge_attr=[[1.0]] * 3), "edge_attr has shape (3, 1), not (3, 2)", id="edge features narrow"),
        pytest.param(small(edge_attr=[1.0] * 6), "edge_attr has shape (6,), not (3, 2)", id="edge features flat"),
        pytest.param(small(x=[[10**400, 1, 2]] * 2), "x is not an array of numbers", id="x beyond any float"),
    ],
)
def test_a_malformed_graph_is_refused(graph: Any, said: str) -> None:
    with pytest.raises(MultimodalError) as refusal:
        GraphProcessor(NODE, EDGE)(graph)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(
            small(edge_attr=[]),
            id="edge features of no edge for three",
        ),
        pytest.param(
            small(edge_attr=np.full((3, 2), 1e300)),
            id="edge features in float64 beyond float32",
        ),
        pytest.param(
            small(x=np.full((2, 3), 1e300)),
            id="x in float64 beyond float32",
        ),
        pytest.param(
            small(x=np.full((2, 3), 1j)),
            marks=[
                pytest.mark.filterwarnings("ignore:Casting complex values"),
            ],
            id="x complex",
        ),
    ],
)
def test_what_float32_cannot_hold_and_missing_edge_features_are_refused(graph: Any) -> None:
    with pytest.raises(MultimodalError, match=r"the graph's (x|edge_attr)"):
        GraphProcessor(NODE, EDGE)(graph)


@pytest.mark.parametrize(
    "dtype",
    [
        *("uint8", "int8", "int16", "int32", "int64", "float32", "float64"),
        *(pytest.param(name) for name in ("uint16", "uint32", "uint64")),
    ],
)
def test_nodes_may_be_numbered_in_any_type_of_whole_numbers(dtype: str) -> None:
    item = GraphProcessor(NODE, EDGE)(small(edge_index=np.array(small()["edge_index"], dtype=dtype)))
    assert item["edge_index"].dtype == torch.int64
    assert item["edge_index"].tolist() == small()["edge_index"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1, 2]", "the graph (list) has no 'x'"),
        (b'{"x": [[NaN, 1, 2]], "edge_index": []}', "x holds NaN"),
        pytest.param(b"[" * 100_000, "is not JSON", id="deep"),
    ],
)
def test_a_file_that_holds_no_graph_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "graph.json").write_bytes(content)
    with pytest.raises(MultimodalError) as refusal:
        GraphProcessor(NODE, EDGE)(tmp_path / "graph.json")
    assert said in str(refusal.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = GraphProcessor(NODE, EDGE)
    with pytest.raises(MultimodalError, match=r"none\.json does not exist"):
        processor(tmp_path / "none.json")
    (tmp_path / "large.json").write_text(json.dumps(small()))
    monkeypatch.setattr("multimodal_encoders.graph.graph_files.MAX_FILE_BYTES", 10)
    with pytest.raises(MultimodalError, match=r"large\.json is larger than"):
        processor(tmp_path / "large.json")


# the union


@given(some=st.lists(graphs(), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_the_union_is_that_of_torch_geometric(some: list[Graph]) -> None:
    processor = GraphProcessor(NODE, EDGE)
    ours = processor.collate([processor(graph) for graph in some])
    theirs: Any = Batch.from_data_list([Data(**graph) for graph in some])
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(ours[name], theirs[name])
    assert torch.equal(ours["sizes"], theirs.ptr.diff())


# the network


@every_conv
@every_pooling
def test_the_features_of_a_union_are_those_of_its_graphs(conv: Conv, pooling: Pooling) -> None:
    encoder = gnn(conv, pooling)

    @given(some=st.lists(graphs(), min_size=1, max_size=5))
    @settings(max_examples=6, deadline=None)
    def check(some: list[Graph]) -> None:
        together = features(encoder, *some)
        assert together.shape == (len(some), encoder.width)
        alone = torch.cat([features(encoder, graph) for graph in some])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    check()


@every_conv
def test_a_graph_without_edges_among_others_keeps_its_features(conv: Conv) -> None:
    encoder = gnn(conv)
    bare = small(edge_index=[], edge_attr=[])
    together = features(encoder, small(), bare, small())
    torch.testing.assert_close(together[1:2], features(encoder, bare), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features(encoder, bare, bare)[0], together[1], atol=1e-5, rtol=1e-5)
    assert (together[1] - together[0]).abs().max() > 1e-4


@every_conv
@every_pooling
def test_the_numbers_of_the_nodes_do_not_matter(conv: Conv, pooling: Pooling) -> None:
    encoder = gnn(conv, pooling)

    @given(graph=graphs(), data=st.data())
    @settings(max_examples=6, deadline=None)
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


@every_conv
def test_nodes_edges_and_the_edge_features_in_use_all_matter(conv: Conv) -> None:
    encoder = gnn(conv)
    x = torch.randn(4, NODE)
    path = {"x": x, "edge_index": torch.tensor([[0, 1, 2], [1, 2, 3]]), "edge_attr": torch.randn(3, EDGE)}
    variants = {
        "x": path | {"x": x + 1.0 * torch.randn(4, NODE)},
        "edge_index": path | {"edge_index": torch.tensor([[0, 0, 0], [1, 2, 3]])},
        "edge_attr": path | {"edge_attr": torch.randn(3, EDGE)},
    }
    moved = {name: float((features(encoder, v) - features(encoder, path)).abs().max()) for name, v in variants.items()}
    assert moved["x"] > 1e-3
    assert moved["edge_index"] > 1e-4
    assert moved["edge_attr"] > 1e-5 if conv in ("gine", "gat", "pna") else moved["edge_attr"] == 0


@pytest.mark.parametrize(("pooling", "reduce"), [("sum", np.sum), ("mean", np.mean), ("max", np.max)])
def test_without_layers_the_features_are_the_pooled_nodes(pooling: Pooling, reduce: Any) -> None:
    encoder = GNN("gin", pooling, NODE, width=8, layers=0).eval()
    seen = [small(), small(x=[[1.0, 0.0, -1.0]], edge_index=[])]
    with torch.no_grad():
        nodes = [encoder.nodes(torch.tensor(graph["x"])).numpy() for graph in seen]
        pooled = torch.from_numpy(np.stack([reduce(n, axis=0) for n in nodes]))
        torch.testing.assert_close(features(encoder, *seen), encoder.norm(pooled), atol=1e-5, rtol=1e-5)


def test_edge_features_are_optional_for_attention() -> None:
    encoder = GNN("gat", node_features=NODE, edge_features=0, width=8, layers=1).eval()
    assert features(encoder, {"x": [[1, 2, 3]], "edge_index": []}).shape == (1, 8)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        pytest.param({"conv": "ginn"}, r"conv 'ginn' is not one of gin, gine, gat, gcn, sage, pna", id="conv unknown"),
        pytest.param({"pooling": "average"}, r"pooling 'average' is not one of .*mean", id="pooling unknown"),
        pytest.param({"edge_features": 0}, r"gine needs edge_features, got 0", id="gine without edge features"),
        pytest.param({"edge_features": -1}, r"gine needs edge_features, got -1", id="edge features negative"),
        pytest.param({"conv": "gat", "width": 10}, r"multiple of its 4 heads, got 10", id="width no multiple of heads"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.create("graph", "gnn", **{"width": 8, "layers": 1} | wrong)
