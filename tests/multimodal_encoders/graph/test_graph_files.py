"""Graphs in files: node-link JSON and GraphML, as networkx writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multimodal_encoders.graph.gnn import GNN, GraphProcessor

from multimodal.core.errors import Unreadable

HEADER = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'


def graph(nodes: int, edges: int, directed: bool, seed: int = 0) -> Any:
    """A graph with two numbers a node and one an edge, the nodes named by letters in an order of their own."""
    rng = np.random.default_rng(seed)
    made = networkx.DiGraph() if directed else networkx.Graph()
    names = [chr(ord("a") + int(n)) for n in rng.permutation(nodes)]
    for name in names:
        made.add_node(name, weight=float(rng.normal()), charge=int(rng.integers(-2, 3)), colour="red")
    for _ in range(edges):
        made.add_edge(*rng.choice(names, 2).tolist(), length=float(rng.normal()), kind="bond")
    return made


def lengths(item: Any, nodes: int) -> np.ndarray:
    """The item as a matrix of its edges' features."""
    matrix = np.zeros((nodes, nodes))
    matrix[item["edge_index"][0], item["edge_index"][1]] = item["edge_attr"][:, 0]
    return matrix


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nodes=st.integers(1, 6), edges=st.integers(0, 9), directed=st.booleans(), seed=st.integers(0, 999))
def test_what_networkx_writes_is_read(tmp_path: Path, nodes: int, edges: int, directed: bool, seed: int) -> None:
    made = graph(nodes, edges, directed, seed)
    networkx.write_graphml(made, tmp_path / "graph.graphml")
    forms: list[Any] = [tmp_path / "graph.graphml", (tmp_path / "graph.graphml").read_bytes()]
    for key in ("links", "edges"):
        linked = networkx.node_link_data(made, edges=key)
        (tmp_path / f"{key}.json").write_text(json.dumps(linked))
        forms += [linked, str(tmp_path / f"{key}.json"), json.dumps(linked).encode()]
    wanted = networkx.to_numpy_array(made, weight="length")
    x = np.array([[d["charge"], d["weight"]] for _, d in made.nodes(data=True)])  # in the order of the names
    for form in forms:
        item = GraphProcessor(2, 1)(form)
        np.testing.assert_allclose(item["x"], x, rtol=1e-6)
        np.testing.assert_allclose(lengths(item, nodes), wanted, rtol=1e-6)
        assert item["edge_index"].shape[1] == np.count_nonzero(networkx.to_numpy_array(made, weight="none: 1"))


def test_lists_of_numbers_are_several_features(tmp_path: Path) -> None:
    made = networkx.DiGraph()
    made.add_node(0, x="[1, 2.5]", weight=7.0, label="[no list")
    made.add_node(1, x="[3, 4]", weight=8.0, label="[]x")
    made.add_edge(0, 1, edge_attr="[5]", length=9.0, kinds='["bond"]')
    networkx.write_graphml(made, tmp_path / "graph.graphml")
    linked = {
        "directed": True,
        "nodes": [{"id": 0, "x": [1, 2.5], "weight": 7}, {"id": 1, "x": np.array([3, 4.0]), "weight": np.int64(8)}],
        "links": [{"source": 0, "target": 1, "edge_attr": [5], "length": 9.0, "kinds": ["bond"]}],
    }
    for form in (tmp_path / "graph.graphml", linked):
        item = GraphProcessor(3, 2)(form)
        assert item["x"].tolist() == [[7, 1, 2.5], [8, 3, 4]]
        assert item["edge_attr"].tolist() == [[5, 9]]
        assert item["edge_index"].tolist() == [[0], [1]]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(st.sampled_from(["x", "y", "z", "edge_attr", "edge_index", "pos", "a"]), min_size=1),
    seed=st.integers(0, 999),
)
def test_no_name_of_an_attribute_is_special(tmp_path: Path, names: set[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = networkx.Graph()
    made.add_nodes_from((n, {name: float(rng.normal()) for name in names}) for n in range(3))
    made.add_edge(0, 1, **{name: float(rng.normal()) for name in names})
    networkx.write_graphml(made, tmp_path / "graph.graphml")
    for form in (tmp_path / "graph.graphml", networkx.node_link_data(made, edges="links")):
        item = GraphProcessor(len(names), len(names))(form)
        np.testing.assert_allclose(
            item["x"], [[d[n] for n in sorted(names)] for _, d in made.nodes(data=True)], rtol=1e-6
        )
        np.testing.assert_allclose(item["edge_attr"], [[made[0][1][n] for n in sorted(names)]] * 2, rtol=1e-6)


def graphml(keys: str, nodes: str, edges: str = "", header: str = HEADER) -> bytes:
    return f'{header}{keys}<graph edgedefault="directed">{nodes}{edges}</graph></graphml>'.encode()


@pytest.mark.parametrize("kind", ["node", "all", None])
@pytest.mark.parametrize("header", [HEADER, "<graphml>"])
def test_nodes_without_a_value_have_the_default(kind: str | None, header: str) -> None:
    said = "" if kind is None else f'for="{kind}"'
    key = f'<key id="k" {said} attr.name="weight" attr.type="double"><default>1.5</default></key>'
    item = GraphProcessor(1, 0)(graphml(key, '<node id="a"/><node id="b"><data key="k">2</data></node>', header=header))
    assert item["x"].tolist() == [[1.5], [2]]


@pytest.mark.parametrize(
    ("type_", "default", "value"),
    [("int", "3", 3), ("boolean", "true", 1), ("boolean", "false", 0), ("float", "-1e3", -1000), ("string", "[2]", 2)],
)
def test_edges_without_a_value_have_the_default_of_their_type(type_: str, default: str, value: float) -> None:
    keys = (
        '<key id="w" for="node" attr.name="w" attr.type="int"><default>1</default></key>'
        f'<key id="k" for="edge" attr.name="w" attr.type="{type_}"><default>{default}</default></key>'
    )
    edges = '<edge source="a" target="b"/><edge source="b" target="a"/>'
    item = GraphProcessor(1, 1)(graphml(keys, '<node id="a"/><node id="b"/>', edges))
    assert (item["x"].tolist(), item["edge_attr"].tolist()) == ([[1], [1]], [[value], [value]])


def test_a_default_that_is_not_a_number_is_refused() -> None:
    key = '<key id="k" for="node" attr.name="w" attr.type="int"><default>many</default></key>'
    with pytest.raises(Unreadable, match="is not GraphML that can be read"):
        GraphProcessor(1, 0)(graphml(key, '<node id="a"/>'))


def test_the_error_about_a_width_names_the_attributes() -> None:
    linked = {"nodes": [{"id": 0, "x": 1, "y": 2}], "links": [], "names": 3}
    with pytest.raises(Unreadable, match=r"x has shape \(1, 2\) \(from 'x', 'y'\), not \(nodes >= 1, 1\)"):
        GraphProcessor(1, 0)(linked)


def test_several_edges_between_two_nodes_and_loops_are_kept() -> None:
    made = networkx.MultiGraph()
    made.add_nodes_from([0, 1], weight=1.0)
    made.add_edges_from([(0, 1, {"length": 2.0}), (0, 1, {"length": 3.0}), (1, 1, {"length": 4.0})])
    item = GraphProcessor(1, 1)(networkx.node_link_data(made, edges="links"))
    edges = zip(*item["edge_index"].tolist(), item["edge_attr"][:, 0].tolist(), strict=True)
    assert sorted(edges) == [(0, 1, 2), (0, 1, 3), (1, 0, 2), (1, 0, 3), (1, 1, 4)]


def test_the_features_of_edges_are_not_asked_for_where_they_are_not_used() -> None:
    linked = {"nodes": [{"id": 0, "w": 1}, {"id": 1, "w": 2}], "links": [{"source": 0, "target": 1}]}
    encoder = GNN("gin", node_features=1, edge_features=0, width=8, layers=1).eval()
    assert encoder(**encoder.processor.collate([encoder.processor(linked)])).shape == (1, 8)


def test_strings_are_files() -> None:
    assert GraphProcessor.reads_files


NODES = [{"id": "a", "w": 1}, {"id": "b", "w": 2}]


@pytest.mark.parametrize(
    ("linked", "said"),
    [
        ({"nodes": 3, "links": []}, "'nodes' is not a list of mappings"),
        ({"nodes": [1], "links": []}, "'nodes' is not a list of mappings"),
        ({"nodes": NODES}, "'edges' is not a list of mappings"),
        ({"nodes": NODES, "links": "ab"}, "'links' is not a list of mappings"),
        ({"nodes": [{"w": 1}], "links": []}, "node 0 has no 'id'"),
        ({"nodes": [{"id": [1], "w": 1}], "links": []}, "node 0 has no 'id' that is a string or a number"),
        ({"nodes": [NODES[0], NODES[0]], "links": []}, "two nodes of the graph have the same id"),
        ({"nodes": NODES, "links": [{"source": "a"}]}, "edge 0 has no 'target'"),
        ({"nodes": NODES, "links": [{"source": "a", "target": "c", "l": 1}]}, "edge 0 names 'c', which is not a node"),
        ({"nodes": [NODES[0], {"id": "b"}], "links": []}, "node 1 has no number for 'w', as others have"),
        ({"nodes": [NODES[0], {"id": "b", "w": "2"}], "links": []}, "node 1 has no number for 'w'"),
        ({"nodes": [NODES[0], {"id": "b", "w": {"y": 1}}], "links": []}, "node 1 has no number for 'w'"),
        ({"nodes": [NODES[0], {"id": "b", "w": ["red"]}], "links": []}, "node 1 has no number for 'w'"),
        ({"nodes": [NODES[0], {"id": "b", "w": [1, 2]}], "links": []}, "node 1 has 2 numbers for 'w', node 0 has 1"),
        ({"nodes": [{"id": "a", "x": ["red"]}], "links": []}, "x has shape (1, 0), not (nodes >= 1, 1)"),
        ({"nodes": [{"id": "a", "x": [float("nan")]}], "links": []}, "x holds NaN"),
        ({"nodes": [{"id": "a"}], "links": []}, "x has shape (1, 0), not (nodes >= 1, 1)"),
        ({"nodes": [], "links": []}, "x has shape (0,)"),
        ({"nodes": NODES, "links": [{"source": "a", "target": "b"}]}, "edge_attr has shape (2, 0), not (2, 1)"),
    ],
)
def test_malformed_node_links_are_refused(linked: Any, said: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        GraphProcessor(1, 1)(linked)
    assert said in str(refusal.value)
    assert refusal.value.reason == "malformed graph"


BOMB = """<?xml version="1.0"?>
<!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"><node id="&b;"/></graph></graphml>"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not GraphML"),
        (b"<graphml", "is not GraphML"),
        (b"{}", "is not GraphML"),
        (b"<html></html>", "is not GraphML"),
        (BOMB.encode(), "declares a document type"),
        (BOMB.encode("utf-16"), "declares a document type"),
        (b"<!DOCTYPE graphml SYSTEM 'file:///etc/passwd'><graphml/>", "declares a document type"),
    ],
)
def test_what_is_not_a_graphml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "graph.graphml").write_bytes(content)
    with pytest.raises(Unreadable) as refusal:
        GraphProcessor(1, 1)(tmp_path / "graph.graphml")
    assert said in str(refusal.value)
    assert refusal.value.reason == "not GraphML"


def test_faults_have_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(path: Path | bytes) -> str:
        with pytest.raises(Unreadable) as refusal:
            GraphProcessor(1, 1)(path)
        return refusal.value.reason

    (tmp_path / "text.json").write_text("nothing")
    assert reason(tmp_path / "text.json") == "not JSON"
    assert reason(tmp_path / "none.json") == "missing file"
    assert reason(tmp_path) == "folder"
    assert reason(Path("https://host/graph.json")) == "address"
    assert reason(tmp_path / "null\0.json") == "unreadable file"
    assert reason(b"") == reason(b"\xff\xfe") == reason(b"[" * 100_000) == "not JSON"
    assert reason(b" <html/>") == reason("\ufeff".encode() + BOMB.encode()) == "not GraphML"
    monkeypatch.setattr("multimodal_encoders.graph.graph_files.MAX_FILE_BYTES", 3)
    assert reason(b"{   ") == "file too large"
    assert reason(tmp_path / "text.json") == "file too large"
