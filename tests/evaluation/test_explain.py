"""An explanation names the planted cause first, and equals scores that are computed without the part one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import PRESENT, planted
from torch import Tensor

import multimodal as mm
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import create
from multimodal.evaluation import explain as explain_module
from multimodal.evaluation.explain import explain
from multimodal.media.outline import ENDS_OPEN, ON_CURVE, STARTS, contour_graph
from multimodal.media.parts.words import word_parts


class Letters(Processor):
    """A third-party processor: the item of a text is its letters as numbers."""

    def __call__(self, value: Any) -> Tensor:
        if not isinstance(value, str) or not value:
            raise Unreadable("no text", f"{value!r} is not a text with letters.")
        return torch.tensor([ord(letter) for letter in value])

    def collate(self, items: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"letters": torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True)}


class LettersWithParts(Letters):
    """Its parts are the letters themselves, and it draws nothing."""

    def parts(self, value: Any) -> Parts:
        def without(number: int) -> Tensor:
            return self(value[:number] + value[number + 1 :])

        return Parts(list(value), without, ["letter"] * len(value))


class LettersInWords(Letters):
    def parts(self, value: Any) -> Parts:
        return word_parts(value, self)


def has_letter(letter: str) -> Any:
    return lambda inputs: (inputs["letters"] == ord(letter)).any(dim=1)


def check_first(embedder: Embedder, query: dict[str, Any], expected: str, kind: str) -> None:
    """The part is first, alone with the worth of 1, as a query and as a match."""
    as_query = explain(embedder, query, PRESENT).query
    as_match = explain(embedder, PRESENT, query).match
    assert as_query.parts == as_match.parts
    first, *others = as_query.parts
    assert (first.name, first.kind, first.change) == (expected, kind, pytest.approx(1.0))
    assert all(part.change == 0 or math.isnan(part.change) for part in others), others


def test_a_word() -> None:
    embedder = planted("text", LettersInWords(), has_letter("x"))
    check_first(embedder, {"text": "one fox and another dog"}, "fox", "word")


def test_a_part_of_a_third_party_processor() -> None:
    check_first(planted("text", LettersWithParts(), has_letter("c")), {"text": "abcd"}, "c", "letter")


def test_a_patch() -> None:
    processor = create("image", "small_cnn", size=32).processor
    embedder = planted(
        "image", processor, lambda inputs: (inputs["pixels"][:, :, 8:12, 20:24] < 128).all(dim=(1, 2, 3))
    )
    picture = np.full((32, 32), 255, np.uint8)
    picture[8:12, 20:24] = picture[0:5, 0:5] = 0
    check_first(embedder, {"image": picture}, "row 3, column 6", "patch")


def test_a_node() -> None:
    processor = create("graph", "gnn", node_features=1, conv="gin", edge_features=0).processor
    embedder = planted("graph", processor, lambda inputs: _any_in_graph(inputs["x"][:, 0] == 7, inputs["sizes"]))
    graph = {"nodes": [{"id": f"n{n}", "size": n} for n in (5, 6, 7, 8)], "links": [{"source": "n5", "target": "n6"}]}
    check_first(embedder, {"graph": graph}, "node n7", "node")


def test_an_edge() -> None:
    processor = create("graph", "gnn", node_features=1, edge_features=1).processor

    def heavy(inputs: dict[str, Tensor]) -> Tensor:
        graph = torch.repeat_interleave(torch.arange(len(inputs["sizes"])), inputs["sizes"])
        return _any(inputs["edge_attr"][:, 0] == 9, graph[inputs["edge_index"][0]], len(inputs["sizes"]))

    embedder = planted("graph", processor, heavy)
    graph = {
        "x": [[0.0]] * 4,
        "edge_index": [[0, 1, 1, 2, 3], [1, 0, 2, 1, 3]],
        "edge_attr": [[1.0], [1.0], [9.0], [9.0], [2.0]],
    }
    found = explain(embedder, {"graph": graph}, PRESENT).query.parts
    assert {part.name for part in found if part.change == pytest.approx(1.0)} == {"node 2", "node 3", "edge 2-3"}
    assert [part.name for part in found[:3]] == ["node 2", "node 3", "edge 2-3"]  # equal: small ones first
    assert [part.name for part in found if part.kind == "edge"] == ["edge 2-3", "edge 1-2", "edge 4-4"]


def test_a_group_of_atoms() -> None:
    """The nitro group of nitrobenzene: only its nitrogen has a charge of +1, and only its atoms are N or charged."""
    pytest.importorskip("rdkit")
    processor = create("graph", "molecule", width=8, layers=1, bits=64, count_width=4).processor
    nitrogen, charge = 7, 3

    def nitro(inputs: dict[str, Tensor]) -> Tensor:
        atoms, graph = inputs["atoms"], torch.repeat_interleave(torch.arange(len(inputs["sizes"])), inputs["sizes"])
        n = len(inputs["sizes"])
        positive = _any((atoms[:, 0] == nitrogen) & (atoms[:, charge] == 5), graph, n)
        oxygens = torch.zeros(n).index_add(0, graph, (atoms[:, 0] == 8).float()) == 2
        return positive & oxygens

    found = explain(planted("graph", processor, nitro), {"graph": "Cc1ccccc1[N+](=O)[O-]"}, PRESENT).query
    assert {part.name for part in found.parts[:3]} == {"atom N8", "atom O9", "atom O10"}
    assert [part.change for part in found.parts] == [pytest.approx(1.0)] * 3 + [0.0] * (len(found.parts) - 3)
    assert "<svg" in found.drawing


def test_a_stroke() -> None:
    """All points of the second stroke lie right of 2, so that no point decides alone."""
    processor = create("graph", "gnn").processor
    points = np.array([[0, 0], [1, 0], [1, 1], [3, 0], [4, 0], [4, 1], [0, 5], [1, 5]], np.float32)
    flags = np.array([3, 1, 1, 3, 1, 1, STARTS | ON_CURVE, ENDS_OPEN | ON_CURVE], np.uint8)
    embedder = planted("outline", processor, lambda inputs: _any_in_graph(inputs["x"][:, 0] > 2, inputs["sizes"]))
    check_first(embedder, {"outline": contour_graph(points, flags)}, "stroke 2", "stroke")


def test_a_second() -> None:
    pytest.importorskip("soxr")
    processor = create("audio", "spectrogram", rate=8000, mels=20).processor
    seconds = np.arange(8 * 8000) / 8000
    wave = np.sin(2 * np.pi * 300 * seconds) + (abs(seconds - 5.5) < 0.4) * np.sin(2 * np.pi * 3500 * seconds)
    embedder = planted("audio", processor, lambda inputs: (inputs["spectrogram"][:, :, 17:] > 2.5).any(dim=(1, 2)))
    found = explain(embedder, {"audio": (wave, 8000)}, PRESENT).query
    assert [part.name for part in found.parts if part.change == pytest.approx(1.0)] == ["5.00 to 6.00 s"]


def test_a_column_and_a_component() -> None:
    encoder = create("tabular", "mlp", width=8)
    encoder.fit([{"price": 1.0, "colour": "red", "size": 2.0}, {"price": 3.0, "colour": "blue", "size": 5.0}])
    colour = encoder.processor({"colour": "red"})["categories"][0]
    embedder = planted("tabular", encoder.processor, lambda inputs: inputs["categories"][:, 0] == colour)
    check_first(embedder, {"tabular": '{"price": 2.0, "colour": "red", "size": null}'}, "colour = red", "column")
    vectors = explain(embedder, {"tabular": {"colour": "blue", "price": 1.0}}, {"vector": [0.6, 0.8]}).match
    assert [(part.name, round(part.change, 6)) for part in vectors.parts] == [
        ("component 2", 0.8),
        ("component 1", -0.2),
    ]


@pytest.fixture(scope="module")
def trained() -> Embedder:
    """Random weights, of real encoders."""
    torch.manual_seed(0)
    encoders = {"text": create("text", "bag", width=16), "image": create("image", "small_cnn", size=16)}
    embedder = Embedder(encoders, dim=8)
    embedder.fit_processors({"text": ["a red cup", "a blue cup", "a red jug"]})
    return embedder


def test_the_worth_is_the_score_minus_the_score_without_the_part(trained: Embedder) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    found = explain(trained, {"text": "a red cup"}, {"image": picture})
    image = trained.encode(image=picture)
    score = float(trained.encode(text="a red cup") @ image)
    assert found.score == pytest.approx(score, abs=1e-6)
    expected = {
        "a": score - float(trained.encode(text="red cup") @ image),
        "red": score - float(trained.encode(text="a cup") @ image),
        "cup": score - float(trained.encode(text="a red") @ image),
    }
    assert {part.name: part.change for part in found.query.parts} == pytest.approx(expected, abs=1e-6)
    assert [part.name for part in found.query.parts] == sorted(expected, key=lambda name: -expected[name])
    changes = [part.change for part in found.match.parts]
    assert len(changes) == 64
    assert np.diff(changes).max() < 1e-6  # the largest first; those that rounding alone distinguishes in any order
    filled = picture.copy()
    filled[:2, 2:4] = round(float(np.median(picture)))
    by_name = {part.name: part.change for part in found.match.parts}
    without = float(trained.encode(text="a red cup") @ trained.encode(image=filled))
    assert by_name["row 1, column 2"] == pytest.approx(score - without, abs=1e-6)


def test_blocks_of_parts_do_not_change_the_result(trained: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    values: tuple[dict[str, Any], dict[str, Any]] = ({"text": "a red cup, a blue jug"}, {"text": "a blue cup"})
    at_once = explain(trained, *values)
    monkeypatch.setattr(explain_module, "BLOCK", 2)
    parts = explain(trained, *values).query.parts
    assert {p.number: p.change for p in parts} == pytest.approx(
        {p.number: p.change for p in at_once.query.parts}, abs=1e-6
    )


def test_a_saved_run_loads_the_modalities_of_the_values_alone(trained: Embedder, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path / "model")
    values: tuple[dict[str, Any], dict[str, Any]] = ({"text": "a red cup"}, {"text": "a blue jug"})
    assert str(mm.explain(tmp_path / "model", *values)) == str(mm.explain(trained, *values))


# -- what cannot be explained


def test_one_part_alone_has_no_known_worth(trained: Embedder) -> None:
    found = explain(trained, {"text": "cup"}, {"text": "a red cup"})
    (part,) = found.query.parts
    assert math.isnan(part.change)
    assert part.note == "nothing is left without 'cup'."
    assert found.query.note == "No part can be left out, so none has a known worth."
    assert found.to_json()["query"]["parts"][0]["change"] is None
    assert "No part can be left out" in str(found)
    assert "nothing is left without &#x27;cup&#x27;" in found._repr_html_()


def test_a_single_node_cannot_be_left_out() -> None:
    processor = create("graph", "gnn", node_features=1, conv="gin", edge_features=0).processor
    embedder = planted("graph", processor, lambda inputs: inputs["sizes"] > 0)
    (part,) = explain(embedder, {"graph": {"x": [[1.0]], "edge_index": [[], []]}}, PRESENT).query.parts
    assert (part.name, part.note) == ("node 1", "nothing is left without node 1.")


def test_a_processor_without_parts_is_named() -> None:
    embedder = planted("text", Letters(), has_letter("x"))
    found = explain(embedder, {"text": "fox"}, PRESENT)
    assert found.query.parts == ()
    assert found.query.note.startswith("The text does not come apart: Letters has no method parts")
    assert len(found.match.parts) == 2
    with pytest.raises(UsageError, match=r"^The text does not come apart: Letters has no method parts \(see"):
        explain(embedder, {"text": "fox"}, {"text": "ox"})


def test_equal_vectors_are_said_to_be_worth_nothing() -> None:
    embedder = planted("text", LettersInWords(), lambda inputs: torch.ones(len(inputs["letters"]), dtype=torch.bool))
    found = explain(embedder, {"text": "a red fox"}, PRESENT)
    assert [part.change for part in found.query.parts] == [0.0] * 3
    assert [part.name for part in found.query.parts] == ["a", "red", "fox"]
    assert found.query.note == "No part alone changes the score."


class Fragile(Encoder):
    """Its vectors are NaN for texts without an x."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 2, LettersInWords()

    def forward(self, letters: Tensor) -> Tensor:
        seen = (letters == ord("x")).any(dim=1)
        return torch.stack([seen / seen, seen / seen], dim=1)


def test_vectors_that_are_not_finite() -> None:
    embedder = Embedder({"text": Fragile()}, dim=2, heads={"text": "none"})
    with pytest.raises(MultimodalError, match="match: the vector of the text is not finite, so it has no score"):
        explain(embedder, {"text": "fox"}, {"text": "dog"})
    found = explain(embedder, {"text": "red fox"}, {"text": "fox"})
    assert [(p.name, p.note) for p in found.query.parts] == [("red", ""), ("fox", "its vector is not finite.")]
    assert math.isnan(found.query.parts[1].change)


@pytest.mark.parametrize(
    ("query", "match", "message"),
    [
        ({}, {"text": "a"}, "one modality and its value as query, like .* got 0 of them"),
        ({"text": "a", "image": "b"}, {"text": "a"}, "as query.* got 2 of them"),
        ({"text": "a"}, "cup", "as match.* got a str"),
        ({"sound": "a"}, {"text": "a"}, "query: the model has no modality 'sound'.* Known: image, text"),
        ({"text": ""}, {"text": "a"}, "query: text : the text is empty"),
        ({"text": "a"}, {"image": "no.png"}, "match: image no.png: the picture no.png does not exist"),
    ],
)
def test_wrong_values_are_refused(trained: Embedder, query: Any, match: Any, message: str) -> None:
    with pytest.raises(MultimodalError, match=message):
        explain(trained, query, match)


def test_too_many_parts_are_refused(trained: Embedder) -> None:
    with pytest.raises(MultimodalError, match="comes apart into 4,001 parts, but at most 4,000 are explained"):
        explain(trained, {"text": "cup " * 4001}, {"text": "a"})


# -- how it is shown


def test_texts_are_escaped_everywhere(trained: Embedder, tmp_path: Path) -> None:
    found = explain(
        trained, {"text": "<script>alert(1)</script> [bold]red[/bold] \"cup\" & 'jug'"}, {"text": "a </svg> cup"}
    )
    found.save(tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    for shown in (page, found._repr_html_()):
        assert "<script" not in shown
        assert "</svg>" not in shown
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
        assert "http" not in shown  # nothing is loaded from elsewhere
    assert "[bold]red[/bold]" in str(found)


def test_a_page_and_a_document_are_written(trained: Embedder, tmp_path: Path) -> None:
    picture = np.zeros((16, 16), np.uint8)
    found = explain(trained, {"text": "a red cup"}, {"image": picture})
    found.save(tmp_path / "new" / "found.json")
    document = json.loads((tmp_path / "new" / "found.json").read_text())
    assert document == json.loads(json.dumps(found.to_json()))
    assert document["score"] == found.score
    assert [part["name"] for part in document["query"]["parts"]] == [part.name for part in found.query.parts]
    found.save(tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text()
    assert page.count("<rect") == 64
    assert "prefers-color-scheme: dark" in page
    with pytest.raises(UsageError, match=r"found.txt does not end in .html or .json"):
        found.save(tmp_path / "found.txt")
    (tmp_path / "a.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        found.save(tmp_path / "a.html")


def test_tables_show_the_strongest_parts_and_count_the_rest(trained: Embedder) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    value = explain(trained, {"text": "a red cup"}, {"image": picture}).match
    shown = value.grid("", 10).rows
    assert len(shown) == 10
    assert shown[0][0] == value.parts[0].name
    sizes = sorted((abs(part.change) for part in value.parts), reverse=True)
    hidden = [part for part in value.parts if part.name not in [row[0] for row in shown]]
    assert len(hidden) == 54
    assert max(abs(part.change) for part in hidden) <= sizes[8] + 1e-6
    assert value.notes()[0].startswith("And 54 more, worth ")


def _any(chosen: Tensor, graph: Tensor, n: int) -> Tensor:
    return torch.zeros(n).index_add(0, graph, chosen.float()) > 0


def _any_in_graph(chosen: Tensor, sizes: Tensor) -> Tensor:
    return _any(chosen, torch.repeat_interleave(torch.arange(len(sizes)), sizes), len(sizes))
