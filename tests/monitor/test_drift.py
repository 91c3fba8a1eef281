"""Drift: what is found, what is not, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from multimodal import create
from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor.drift import compare_vector_sets, drift
from multimodal.monitor.drift_page import drift_page
from multimodal.monitor.drift_result import Drift
from multimodal.monitor.vector_sets import Vectors, VectorSet, chosen_vectors
from multimodal.search.embed import embed_table
from multimodal.search.index import Index

DIM = 12


def made(
    x: np.ndarray,
    units: list[str] | None = None,
    model: str = "f",
    cells: list[dict[str, str]] | None = None,
    **more: Any,
) -> VectorSet:
    """A set of one or several modalities, of vectors that are scaled to unit length."""
    modalities = {}
    for modality, of in {"text": x, **more}.items():
        vectors = (of / np.linalg.norm(of, axis=1, keepdims=True)).astype(np.float32)
        names = [f"#{number}" for number in range(len(of))] if units is None else units
        metadata = np.array([json.dumps(c) for c in cells] if cells else ["{}"] * len(of), object)
        modalities[modality] = Vectors(vectors, np.array([f"k{n}" for n in range(len(of))]), np.array(names), metadata)
    return VectorSet("made", model * 64, modalities)


def normal(seed: int, count: int = 100, shift: float = 0.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, DIM)) + 1
    x[:, 0] += shift
    return x


def test_a_shift_of_one_modality_is_found() -> None:
    found = compare_vector_sets(made(normal(4), image=normal(5)), made(normal(6), image=normal(7, shift=1.5)))
    assert found.drifted
    assert found.modalities["image"].p_value < 0.01 < found.modalities["text"].p_value
    assert found.p_value == pytest.approx(2 * found.modalities["image"].p_value)  # Bonferroni's correction
    assert found.score == found.modalities["image"].score > 0.6
    assert repr(found).startswith(f"Drift: p = {found.p_value:.3g} (level 0.05), score ")


def test_without_a_shift_nothing_is_found() -> None:
    ps = [compare_vector_sets(made(normal(s)), made(normal(s + 1000)), permutations=99).p_value for s in range(40)]
    assert sum(p < 0.05 for p in ps) <= binom.ppf(0.9999, 40, 0.05)


def test_rows_of_one_group_are_not_independent() -> None:
    """Fonts of a character: as if they were independent rows, every draw alarms; one of each, hardly any does."""

    def draw(seed: int, grouped: bool) -> float:
        rng = np.random.default_rng(seed)
        sets = []
        for side in range(2):
            characters = np.repeat(rng.standard_normal((30, DIM)) + 1, 8, axis=0)
            units = [f"={side}.{row // 8}" if grouped else f"#{side}.{row}" for row in range(240)]
            of = made(characters + 0.1 * rng.standard_normal(characters.shape), units)
            sets.append(VectorSet("x", of.fingerprint, chosen_vectors("x", of.modalities.items(), 1000, 0)[0]))
        return compare_vector_sets(*sets, permutations=99).p_value

    assert sum(draw(seed, grouped=False) < 0.05 for seed in range(10)) >= 8
    assert sum(draw(seed, grouped=True) < 0.05 for seed in range(40)) <= binom.ppf(0.9999, 40, 0.05)


def test_the_same_things_are_compared_as_pairs() -> None:
    units = [f"=p{number}" for number in range(100)]
    x = 3 * normal(0)
    moved = x + np.random.default_rng(1).normal(0.15, 0.2, x.shape)
    found = compare_vector_sets(made(x, units), made(moved, units)).modalities["text"]
    assert found.units is None  # they are the same ones
    assert found.shared is not None
    assert found.shared.p_value < 0.01
    half = [f"=p{number}" if number < 50 else f"=q{number}" for number in range(100)]
    both = compare_vector_sets(made(x, units), made(moved, half)).modalities["text"]
    assert both.units is not None
    assert both.shared is not None
    assert both.shared.rows == (50, 50)
    assert both.p_value == pytest.approx(min(1, 2 * min(both.units.p_value, both.shared.p_value)))


def test_what_moved_most_and_what_fits_least_is_named() -> None:
    units = [f"=p{number}" for number in range(60)]
    x = np.abs(normal(0, 60)) + 1
    other = x.copy()
    other[7] = -other[7]
    found = compare_vector_sets(made(x, units), made(other, units)).modalities["text"]
    assert found.most_moved == [{"key": "k7", "cosine": pytest.approx(-1)}]
    assert found.least_fitting[0]["key"] == "k7"
    assert found.least_fitting[0]["distance"] > 2


def test_an_unmoved_set_has_not_drifted() -> None:
    units = [f"=p{number}" for number in range(100)]
    found = compare_vector_sets(made(normal(0), units), made(normal(0), units))
    assert found.p_value == 1
    assert found.modalities["text"].most_moved == []


def test_another_precision_is_not_drift() -> None:
    units = [f"=p{number}" for number in range(200)]
    x = normal(0, 200)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rounded = np.floor(x * 256) / 256  # always downwards, which a test could find
    found = compare_vector_sets(made(x, units), made(rounded, units))
    assert found.p_value == 1
    rounded[:30] = np.roll(rounded[:30], 1, axis=1)
    some = compare_vector_sets(made(x, units), made(rounded, units), permutations=9).modalities["text"]
    assert len(some.most_moved) == 20
    assert {row["key"] for row in some.most_moved} <= {f"k{number}" for number in range(30)}


def test_all_equal_vectors_have_not_drifted() -> None:
    x = np.ones((50, DIM))
    assert compare_vector_sets(made(x), made(x), permutations=99).score == 0.5


def test_inputs_outside_the_reference_are_counted() -> None:
    x = normal(1, 200)
    x[:40] *= -1
    found = compare_vector_sets(made(normal(0, 400)), made(x)).modalities["text"]
    assert 0.2 <= found.outside["95"] <= 0.3
    assert {row["key"] for row in found.least_fitting} <= {f"k{number}" for number in range(40)}


def test_a_slice_that_drifts_alone_is_found() -> None:
    cells = [{"shop": "a" if n < 300 else "b", "n": str(n)} for n in range(400)]
    x, y = normal(0, 400), normal(1, 400)
    y[300:, 0] += 1.2
    found = compare_vector_sets(made(x, cells=cells), made(y, cells=cells), where=["shop"], max_rows=300)
    slices = found.slices["shop"]
    assert slices["b"]["text"].p_value < 0.01 < slices["a"]["text"].p_value
    assert found.drifted
    assert found.p_value <= 2 * 2 * slices["b"]["text"].p_value  # half of the level is for two slices
    assert "shop=b, text: 100 and 100 units" in repr(found)
    with pytest.raises(UsageError, match=r"No row of made has 'shap'\. Did you mean 'shop'"):
        compare_vector_sets(made(x, cells=cells), made(y, cells=cells), where=["shap"])
    few = compare_vector_sets(made(x, cells=cells), made(y, cells=cells), where=["n"], permutations=9)
    assert few.left_out["text, n, 0"] == "1 and 1 units, at least 20 of each set are needed"


def test_the_number_of_rows_is_bounded() -> None:
    found = compare_vector_sets(made(normal(0, 400)), made(normal(1, 90)), max_rows=100, permutations=9)
    units = found.modalities["text"].units
    assert units is not None
    assert units.rows == (100, 90)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(MultimodalError, match="of different models"):
        compare_vector_sets(made(normal(0)), made(normal(1), model="e"))
    with pytest.raises(MultimodalError, match="different widths, 12 and 5"):
        compare_vector_sets(made(normal(0)), made(normal(1)[:, :5]))
    with pytest.raises(UsageError, match="Nothing can be compared: text: 100 and 1 units, at least 20"):
        compare_vector_sets(made(normal(0)), made(normal(1, 1)))
    other = made(normal(1))
    renamed = VectorSet("other", other.fingerprint, {"image": other.modalities["text"]})
    with pytest.raises(UsageError, match="text: only made has it; image: only other has it"):
        compare_vector_sets(made(normal(0)), renamed)
    wrong: tuple[dict[str, Any], ...] = ({"alpha": 0.0}, {"alpha": 1.5}, {"max_rows": 3}, {"where": "shop"})
    for given in wrong:
        with pytest.raises(UsageError, match=r"where|alpha"):
            drift(made(normal(0)), made(normal(1)), **given)


# -- folders, the page, and the command


WORDS = [
    f"{colour} {thing} {n}" for colour in ("red", "blue", "green") for thing in ("cup", "mug", "pot") for n in range(5)
]
OTHERS = [
    f"{metal} {tool} {n}" for metal in ("iron", "tin", "lead") for tool in ("saw", "axe", "nail") for n in range(5)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of texts, two tables of other things, and a third table of the first things again; all of them embedded."""
    folder = tmp_path_factory.mktemp("drift")
    embedder = Embedder({"text": create("text", "bag", vocab_size=500)}, dim=DIM)
    embedder.fit_processors({"text": [*WORDS, *OTHERS]})
    embedder.save_pretrained(folder / "run" / "model")
    (folder / "run" / "config.yaml").write_text("data:\n  table: shop\n  columns: {text: title}\n  key: sku\n")
    tables = {"reference": WORDS[::2], "same": WORDS[1::2], "tools": OTHERS}
    for name, titles in tables.items():
        rows = "".join(f"{name[0]}{n},{title},{title.split()[0]}\n" for n, title in enumerate(titles))
        (folder / f"{name}.csv").write_text(f"sku,title,kind\n{rows}")
        embed_table(folder / "run", folder / f"{name}.csv", out=folder / name)
    Index.build(folder / "reference", folder / "index", engine="exact").close()
    return {path.name: path for path in folder.iterdir()}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["drift", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_compares_folders_and_says_so_by_its_exit_code(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, folders["reference"], folders["same"], "--fail")
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "No drift was found")
    code, out, _ = run(capsys, folders["index"], folders["tools"])
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "Drift")
    code, out, err = run(capsys, folders["index"], folders["tools"], "--fail", "--json")
    assert code == 1
    assert re.search(r"^multimodal drift: .*tools has drifted \(p = 0\.001\)\.$", err, re.MULTILINE)
    found = json.loads(out)
    assert found["drifted"] is True
    assert (found["p_value"], found["alpha"]) == (0.001, 0.05)
    assert found["modalities"]["text"]["units"]["measures"]["classifier"]["value"] == found["score"] > 0.8
    assert found["modalities"]["text"]["units"]["current"] == 45


def test_wrong_usage_is_reported(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, folders["reference"], folders["reference.csv"])
    assert code == 2
    assert "--model RUN" in err
    assert run(capsys, folders["reference"], folders["same"], "--alpha", "7")[0] == 2
    assert run(capsys, folders["reference"], folders["same"], "--where", "shop")[0] == 2
    assert run(capsys, folders["reference"], folders["same"], "--max_rows", "5")[0] == 2


def test_tables_are_embedded_by_the_model(folders: dict[str, Path], tmp_path: Path) -> None:
    of_tables = drift(folders["reference.csv"], folders["tools.csv"], folders["run"], out=tmp_path / "d")
    of_folders = drift(folders["reference"], folders["tools"])
    assert of_tables.p_value == of_folders.p_value
    assert of_tables.score == pytest.approx(of_folders.score, abs=0.02)
    written = json.loads((tmp_path / "d" / "drift.json").read_text())
    assert written == json.loads(json.dumps(of_tables.to_json()))


def test_the_page_shows_the_values_that_fit_least(folders: dict[str, Path], tmp_path: Path) -> None:
    found = drift(folders["reference"], folders["tools"], folders["run"], where=["kind"], out=tmp_path / "d")
    page = (tmp_path / "d" / "drift.html").read_text()
    assert "<h1>Drift</h1>" in page
    assert 'class="value text"' in page
    titles = (folders["tools.csv"]).read_text().splitlines()[1:]
    key = found.modalities["text"].least_fitting[0]["key"]
    title = next(line.split(",")[1] for line in titles if line.startswith(f"{key},"))
    assert f">{title}<" in page
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page.replace("http-equiv", "")
    drift(folders["reference"], folders["same"], out=tmp_path / "d")  # replaces it; without the model, keys are shown
    page = (tmp_path / "d" / "drift.html").read_text()
    assert "<h1>No drift was found</h1>" in page
    assert 'class="value text"' not in page


def test_names_on_the_page_are_escaped() -> None:
    cells = [{"name": "<script>alert(1)</script>"}] * 40
    current = made(normal(1, 40), cells=cells)
    result = compare_vector_sets(made(normal(0, 40)), current, permutations=9)
    page = drift_page(Drift(**{**vars(result), "current": "<b>x</b>"}), current)
    assert "<script>alert" not in page
    assert "<b>x</b>" not in page


def test_the_level_is_the_bound_of_the_verdict() -> None:
    result = compare_vector_sets(made(normal(0)), made(normal(1)), permutations=9)
    assert Drift(**{**vars(result), "p_value": 0.049}).drifted
    assert not Drift(**{**vars(result), "p_value": 0.05}).drifted
