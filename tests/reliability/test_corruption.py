"""Random damage to every file that is read back ends in one clear line, or in the right result; never in a wrong one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.vectors.vector_files import VectorFile

from multimodal import prepare_table
from multimodal.core.digests import record_sum
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError
from multimodal.core.model_folder import save_tensors
from multimodal.core.registry import create
from multimodal.core.rejects import Rejects
from multimodal.core.run_folder import PREDICTIONS
from multimodal.data.frozen_features import load_or_compute_features
from multimodal.data.samples import Samples
from multimodal.data.tables.open import open_table
from multimodal.experiment.checkpoints import check_readable
from multimodal.search.embed import embed_samples
from multimodal.search.index import Index

TITLES = [f"{color} {thing}" for thing in ("cup", "mug", "tea pot", "jug") for color in ("red", "blue", "old", "tall")]
ROWS = np.arange(len(TITLES))
QUERY = np.array([[0.3, -0.4, 0.5, 0.1, -0.7]])
IN_EACH_CASE, IN_EACH_CASE_SLOW = 3, 40


# -- damage


def flip_a_bit(content: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(content)
    changed[random.integers(len(content))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def zero_a_block(content: bytes, random: np.random.Generator) -> bytes:
    start, size = block(content, random)
    return content[:start] + bytes(size) + content[start + size :]


def write_garbage(content: bytes, random: np.random.Generator) -> bytes:
    start, size = block(content, random)
    return content[:start] + random.bytes(size) + content[start + size :]


def truncate(content: bytes, random: np.random.Generator) -> bytes:
    return content[: int(random.integers(1, len(content)))]


def empty(content: bytes, random: np.random.Generator) -> bytes:
    return b""


def block(content: bytes, random: np.random.Generator) -> tuple[int, int]:
    size = int(random.integers(1, max(2, min(4096, len(content) // 4))))
    return int(random.integers(len(content) - size + 1)), size


DAMAGES = [flip_a_bit, flip_a_bit, zero_a_block, write_garbage, truncate, empty]  # bits are the hardest to notice


# -- what is read back


@dataclass(frozen=True)
class Case:
    """Files, and what reads them.

    Attributes:
        files: the files that may be damaged.
        read: reads the files, and returns what is compared with the result of undamaged files.
    """

    files: Callable[[], Sequence[Path]]
    read: Callable[[], Any]


def below(folder: Path, *patterns: str) -> Callable[[], list[Path]]:
    return lambda: sorted(path for pattern in patterns or ("*",) for path in folder.rglob(pattern) if path.is_file())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def cases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIMODAL_CACHE", str(base / "cache"))
        yield make_cases(base, tmp_path_factory.mktemp("results"))


def make_cases(base: Path, results: Path) -> dict[str, Case]:
    torch.manual_seed(0)
    text = create("text", "transformer", vocab_size=60, width=8, layers=1, heads=2)
    embedder = Embedder({"text": text, "other": create("text", "bag", width=2, vocab_size=64)}, dim=5).eval()
    embedder.fit_processors({"text": TITLES, "other": TITLES})
    (base / "shop.csv").write_text("".join(f"{line}\n" for line in ["sku,title", *rows_of_csv()]))
    samples = Samples.of(open_table(str(base / "shop.csv")), {"text": "title"}, key="sku", group=None)

    embedder.save_pretrained(base / "model")
    embed_samples(embedder, samples, ROWS, base / "embeddings", part_rows=6)
    Index.build(base / "embeddings", base / "index", engine="exact")
    prepare_table(str(base / "shop.csv"), base / "prepared", columns={"text": "title"}, key="sku")
    torch.save({"state_dict": embedder.state_dict(), "step": 7, "loops": {"epoch": 1}}, base / "last.ckpt")
    (base / "run").mkdir()
    vectors = {"text.vectors": torch.eye(5), "text.rows": torch.arange(5)}
    save_tensors(vectors, base / "run" / PREDICTIONS, {"keys": '["a", "b", "c", "d", "e"]'})
    record_sum(base / "run", PREDICTIONS)

    def embed_again() -> dict[str, bytes]:
        embed_samples(embedder, samples, ROWS, base / "embeddings", part_rows=6)
        return {path.name: path.read_bytes() for path in (base / "embeddings").glob("part-*")}

    def index_again() -> Any:
        return contents_of(Index.build(base / "embeddings", results / "index", engine="exact"))

    def look_up(path: Path, keys: Sequence[str]) -> list[Any]:
        file = VectorFile(path, "text")
        return [None if (vector := file.find(key)) is None else vector.tobytes() for key in keys]

    def table(path: Path, fresh: bool = False) -> list[Any]:
        if fresh:
            shutil.rmtree(base / "cache" / "tables", ignore_errors=True)
        opened = open_table(str(path))
        return [(column, list(opened.column(column))) for column in opened.columns]

    def look_up_afresh() -> list[Any]:
        shutil.rmtree(copies, ignore_errors=True)
        return look_up(base / "embeddings", ["s-0", "s-5", "s-15", "none"])

    def features() -> list[bytes]:
        arguments: tuple[Any, ...] = (base / "features", nullcontext, Rejects(0.0, len(samples)), {})
        processor = load_or_compute_features(text, samples, "text", ROWS, *arguments)
        return [processor.item_of_row(int(row), "title").numpy().tobytes() for row in ROWS]

    def checkpoint() -> str:
        check_readable(base / "last.ckpt")
        loaded = torch.load(base / "last.ckpt", weights_only=True)
        weights = {name: tensor.numpy().tobytes() for name, tensor in loaded.pop("state_dict").items()}
        return repr((loaded, weights))

    def encoded(*modalities: str) -> list[bytes]:
        loaded = Embedder.from_pretrained(base / "model", modalities or None)
        values: list[dict[str, Any]] = [{modality: TITLES[:3]} for modality in loaded.modalities]
        return [loaded.encode(**value).tobytes() for value in values]

    embeddings, copies, predictions = base / "embeddings", base / "cache" / "vectors", base / "run" / PREDICTIONS
    shutil.copytree(embeddings, base / "vectors")
    return {
        "model": Case(below(base / "model"), encoded),
        "one modality of a model": Case(below(base / "model"), lambda: encoded("text")),
        "index": Case(below(base / "index"), lambda: contents_of(Index.open(base / "index"))),
        "embeddings, to index": Case(below(embeddings), index_again),
        "embeddings, to resume": Case(below(embeddings), embed_again),
        "embeddings, as a table": Case(below(embeddings), lambda: table(embeddings, fresh=True)),
        "embeddings, to look up": Case(below(embeddings), look_up_afresh),
        "prepared table": Case(
            below(base / "prepared", "*.parquet", "*.json"), lambda: table(base / "prepared", fresh=True)
        ),
        "copy of a table": Case(
            below(base / "cache" / "tables" / "csv", "*.arrow", "*.json"), lambda: table(base / "shop.csv")
        ),
        "copy of vectors": Case(
            below(copies, "*.npy", "*.arrow", "*.json"), lambda: look_up(base / "vectors", ["s-0", "s-5", "s-15", "no"])
        ),
        "features": Case(below(base / "features", "*.npy"), features),
        "predictions": Case(below(base / "run"), lambda: look_up(predictions, [*"abcf"])),
        "checkpoint": Case(below(base, "last.ckpt"), checkpoint),
    }


def rows_of_csv() -> list[str]:
    return [f"s-{row},{title}" for row, title in enumerate(TITLES)]


def contents_of(index: Index) -> Any:
    hits = index.search(QUERY, k=30)[0]
    return [hit.to_json() for hit in hits], index.vectors.tobytes(), index.items.to_pylist(), index.fingerprint


# -- the trial


CASES = [
    *("model", "one modality of a model", "index", "embeddings, to index", "embeddings, to resume"),
    *("embeddings, as a table", "embeddings, to look up", "prepared table", "copy of a table", "copy of vectors"),
    *("features", "predictions", "checkpoint"),
]


def try_damages(case: Case, count: int, seed: int) -> Counter[tuple[str, str]]:
    """Damage a file of the case ``count`` times; return how often each damage was reported, or had the right result."""
    random, outcomes = np.random.default_rng(seed), Counter[tuple[str, str]]()
    expected = case.read()
    for number in range(count):
        files = case.files()
        assert files
        path, damage = files[int(random.integers(len(files)))], DAMAGES[number % len(DAMAGES)]
        saved = {file: file.read_bytes() for file in files}
        damaged = damage(saved[path], random)
        path.write_bytes(damaged)
        try:
            result = case.read()
        except MultimodalError as error:
            message = str(error)
            assert message, damage
            assert "\n" not in message
            outcomes[damage.__name__, "reported"] += 1
        else:
            where = next(
                (i for i, (a, b) in enumerate(zip(damaged, saved[path], strict=False)) if a != b), len(damaged)
            )
            assert result == expected, f"{damage.__name__} at {where} of {path} gave a wrong result"
            outcomes[damage.__name__, "right"] += 1
        for file, content in saved.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    assert case.read() == expected
    return outcomes


def test_every_case_is_tried(cases: dict[str, Case]) -> None:
    assert list(cases) == CASES


@pytest.mark.parametrize("case", CASES)
def test_damage_is_reported_or_does_no_harm(cases: dict[str, Case], case: str) -> None:
    assert try_damages(cases[case], IN_EACH_CASE, seed=CASES.index(case)).total() == IN_EACH_CASE


@pytest.mark.slow
def test_hundreds_of_damages_are_reported_or_do_no_harm(
    cases: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {name: try_damages(case, IN_EACH_CASE_SLOW, seed=1000) for name, case in cases.items()}
    with capsys.disabled():
        for name, counted in outcomes.items():
            print(f"\n{name}: " + ", ".join(f"{damage} {end} {n}" for (damage, end), n in sorted(counted.items())))
        print(
            "\nin all:",
            dict(sum((Counter({end: n}) for c in outcomes.values() for (_, end), n in c.items()), Counter())),
        )
    assert sum(counted.total() for counted in outcomes.values()) >= 500
