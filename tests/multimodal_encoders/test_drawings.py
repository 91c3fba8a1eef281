"""Processors draw their values for reports: molecules, and graphs whose nodes have places."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.core.errors import Unreadable
from multimodal.core.registry import create
from multimodal.media.outline import contour_graph, graph_svg


def points_of(svg: str) -> list[tuple[float, float]]:
    path = ET.fromstring(svg)[0].attrib["d"]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) (\S+?)(?=[MLh]|$)", path)]


def graph_processor(**settings: Any) -> Any:
    return create("graph", "gnn", width=8, layers=1, **settings).processor


def test_an_outline_is_drawn_upright_and_in_one_shape() -> None:
    corners = np.array([[0, 0], [2, 0], [2, 1]], np.float32)  # y upwards
    drawing = graph_processor().drawing(contour_graph(corners, np.array([3, 1, 1], np.uint8)))
    found = points_of(drawing)
    (left, bottom), (right, _), (_, top) = found[0], found[1], found[-1]
    assert set(found) == {(left, bottom), (right, bottom), (right, top)}
    assert (right - left) == 2 * (bottom - top)
    assert bottom > top


def test_graphs_whose_features_are_not_places_have_no_drawing() -> None:
    rng = np.random.default_rng(0)
    graph = {
        "x": rng.normal(size=(5, 4)),
        "edge_index": rng.integers(0, 5, (2, 6)),
        "edge_attr": rng.normal(size=(6, 3)),
    }
    assert graph_processor().drawing(graph) is None
    assert graph_processor(node_features=4, edge_features=0, conv="gin").drawing(graph) is None


def test_positions_of_nodes_are_drawn() -> None:
    from torch_geometric.data import Data

    positions = torch.tensor([[0.0, 0.0, 9.0], [1.0, 1.0, 9.0]])
    data = Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[0], [1]]), pos=positions)
    drawing = graph_processor(node_features=1, edge_features=0, conv="gin").drawing(data)
    assert points_of(drawing) == [(8, 88), (88, 8)]


def test_each_edge_is_drawn_once_and_lone_points_are_dots() -> None:
    svg = graph_svg(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 1, 2], [1, 0, 2, 1]]))
    assert svg.count("L") == 2
    assert svg.count("h0") == 1
    assert len(points_of(graph_svg(np.zeros((1, 2)), np.zeros((2, 0), np.int64)))) == 1  # all in one place


@pytest.mark.parametrize("encoder", [("graph", "molecule"), ("image", "drawing")])
def test_molecules_are_drawn_by_rdkit(encoder: tuple[str, str]) -> None:
    pytest.importorskip("rdkit", reason="the extra molecules is not installed")
    processor: Any = create(*encoder).processor
    root = ET.fromstring(processor.drawing("CC(=O)O"))
    assert root.attrib["width"] == "160px"
    lines = [element for element in root.iter() if element.tag.endswith("path")]
    assert len(lines) >= 4  # three bonds, one of them double
    assert len(processor.drawing("CC(=O)Oc1ccccc1C(=O)O")) < 6000
    with pytest.raises(Unreadable):
        processor.drawing("C(")
