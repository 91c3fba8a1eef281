"""A modality that is added to a frozen space leaves every old vector as it was, bit for bit, and old indexes in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimodal import create
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.datamodule import DataModule
from multimodal.experiment.fit import fit
from multimodal.search.index import Index
from multimodal.search.query import search_index
from multimodal.training.module import EmbedderModule

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # Lightning's warning about frozen parts

COLOURS, THINGS = ("red", "green", "blue", "black"), ("cup", "jug", "pot", "bowl", "vase", "pan")
ROWS = [
    {"sku": f"{c}/{t}", "name": f"a {c} {t}", "words": f"{t} {c}", "more": f"{c} {t} for sale", "split": "train"}
    for c in COLOURS
    for t in THINGS
]
ROWS += [row | {"sku": f"v/{row['sku']}", "split": "validation"} for row in ROWS[::3]]
COLUMNS = {"text": "name", "words": "words", "more": "more"}
OLD = ["text", "words"]


def encoders_at_first() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "text": create("text", "transformer", vocab_size=60, width=8, layers=1, heads=2),
        "words": create("text", "bag", vocab_size=60, width=8),
        "more": create("text", "bag", vocab_size=60, width=8),
    }


def trained(modalities: list[str], run: Path, dim: int = 8, **settings: Any) -> Embedder:
    encoders = encoders_at_first()
    model = EmbedderModule({m: encoders[m] for m in modalities}, dim=dim, **settings)
    columns: Any = {m: COLUMNS[m] for m in modalities}
    data = DataModule(table=ROWS, columns=columns, key="sku", split="split", batch_size=8)
    return fit(
        model, data, run, max_steps=4, val_check_interval=2, check_val_every_n_epoch=None, enable_progress_bar=False
    )


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    trained(OLD, folder / "run")
    index = Index.from_table(
        Embedder.from_pretrained(folder / "run"), ROWS, columns={m: COLUMNS[m] for m in OLD}, key="sku"
    )
    index.save(folder / "index", engine="exact")
    return folder


def begun(old: Path) -> dict[str, str]:
    return {m: str(old / "run") for m in OLD}


def vectors(model: Embedder, modality: str) -> np.ndarray:
    values: dict[str, Any] = {modality: [row[COLUMNS[modality]] for row in ROWS]}
    return model.encode(**values)


def test_every_old_vector_is_bit_equal_and_the_old_index_is_searched(old: Path, tmp_path: Path) -> None:
    before = Embedder.from_pretrained(old / "run")
    freeze: Any = dict.fromkeys(OLD, "vectors")
    new = trained([*OLD, "more"], tmp_path / "run", begin_with=begun(old), freeze=freeze)
    for modality in OLD:
        assert np.array_equal(vectors(new, modality), vectors(before, modality))
    assert new.fingerprint != before.fingerprint
    assert new.has_vectors_of(before.fingerprint, OLD)
    assert new.has_vectors_of(before.fingerprint, ["text"])  # an index of some of the old modalities
    index = Index.open(old / "index", model=tmp_path / "run")
    hits = index.search(more="blue jug for sale", k=3)  # by the modality that the index was built without
    assert len(hits) == 3
    assert index.search(text="a blue jug", k=3) == Index.open(old / "index", model=before).search(
        text="a blue jug", k=3
    )
    assert search_index(tmp_path / "run", old / "index", more="blue jug for sale", k=3) == hits
    assert any(
        not torch.equal(value, encoders_at_first()["more"].state_dict()[name])
        for name, value in new.encoder("more").state_dict().items()
    )


def test_heads_that_are_trained_make_other_vectors_and_the_old_index_is_refused(old: Path, tmp_path: Path) -> None:
    before = Embedder.from_pretrained(old / "run")
    freeze: Any = dict.fromkeys(OLD, "all")
    new = trained([*OLD, "more"], tmp_path / "run", begin_with=begun(old), freeze=freeze)
    assert not np.array_equal(vectors(new, "text"), vectors(before, "text"))
    assert not new.has_vectors_of(before.fingerprint, OLD)
    for refused in (
        lambda: Index.open(old / "index", model=tmp_path / "run"),
        lambda: search_index(tmp_path / "run", old / "index", text="a blue jug"),
    ):
        with pytest.raises(MultimodalError, match="made with another model"):
            refused()


def test_another_width_or_head_is_refused(old: Path, tmp_path: Path) -> None:
    freeze: Any = dict.fromkeys(OLD, "vectors")
    with pytest.raises(UsageError, match=r"freeze.text: the vectors of .* are 8 wide.*these would be 12 wide"):
        trained([*OLD, "more"], tmp_path / "run", dim=12, begin_with=begun(old), freeze=freeze)
    heads: Any = {"text": "mlp"}
    with pytest.raises(UsageError, match=r"'linear' head; these would be 8 wide, of a 'mlp' head"):
        trained([*OLD, "more"], tmp_path / "run", heads=heads, begin_with=begun(old), freeze=freeze)
