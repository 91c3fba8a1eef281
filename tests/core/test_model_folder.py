"""A model on disk is the model in memory, and a folder that is no model is told apart."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from multimodal.core import model_folder, registry
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import MultimodalError, UsageError

Make = Callable[..., Embedder]
Values = dict[str, list[Any]]
Change = Callable[[dict[str, Any]], Any]
SETTINGS, WEIGHTS = "embedder.json", "model.safetensors"


def fingerprint_of(embedder: Embedder) -> str:
    """The embedder's own, whatever it adopted."""
    return model_folder.fingerprint(embedder.describe(), embedder.state_dict())


class Numbers(Processor):
    def __call__(self, value: Any) -> Any:
        return float(value)

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.tensor(items)[:, None]}


class Scalar(Encoder):
    """An encoder of a user's own."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.width, self.processor, self.linear = width, Numbers(), nn.Linear(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Tied(Scalar):
    """Two names for one weight, as in a model whose output table is its input table."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.linear


@pytest.fixture(scope="session")
def saved(make_embedder: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of graphs and texts on disk; copy it to change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_embedder("graph", "text").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(folder: Path, change: Change) -> None:
    description = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    change(description)
    (folder / SETTINGS).write_text(json.dumps(description), encoding="utf-8")


def refusal_of(folder: Path) -> str:
    with pytest.raises(MultimodalError) as refusal:
        Embedder.from_pretrained(folder)
    return str(refusal.value)


def test_a_loaded_model_embeds_as_the_saved_one(make_embedder: Make, values: Values, tmp_path: Path) -> None:
    embedder = make_embedder()
    processor = embedder.encoder("image").processor
    embedder.train()
    embedder.encoder("image")(**processor.collate([processor(v) for v in values["image"]]))  # moves the running means
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(str(tmp_path / "model"))
    assert (loaded.modalities, loaded.dim) == (["image", "graph", "text"], 6)
    for modality, raw in values.items():
        expected = embedder.encode(256, "float32", **{modality: raw})
        np.testing.assert_allclose(loaded.encode(256, "float32", **{modality: raw}), expected, atol=1e-6)
        assert loaded.encoder(modality).settings == embedder.encoder(modality).settings
    assert not any(module.training for module in loaded.modules())
    assert loaded.fingerprint == embedder.fingerprint == fingerprint_of(loaded)


def test_a_folder_holds_json_and_safetensors_and_nothing_else(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [SETTINGS, WEIGHTS]
    json.loads((saved / SETTINGS).read_text(encoding="utf-8"))
    raw = (saved / WEIGHTS).read_bytes()  # 8 bytes of length, a header in JSON, and the numbers it tells of
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    sizes = [stop - start for start, stop in (entry["data_offsets"] for entry in header.values())]
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    assert len(raw) == end + sum(sizes)


def test_the_files_are_for_whom_the_umask_says(make_embedder: Make, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        make_embedder("graph").save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {
        SETTINGS: 0o640,
        WEIGHTS: 0o640,
    }


def test_a_run_folder_stands_for_its_model(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").touch()
    assert Embedder.from_pretrained(tmp_path / "run").fingerprint == Embedder.from_pretrained(saved).fingerprint


def test_an_encoder_of_the_user_s_own_is_saved_by_its_class_path(tmp_path: Path) -> None:
    embedder = Embedder({"number": Scalar(3)}, dim=2)
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    assert isinstance(loaded.encoder("number"), Scalar)
    np.testing.assert_array_equal(loaded.encode(number=[1, 2]), embedder.encode(number=[1, 2]))


def test_an_encoder_that_was_registered_when_saved_is_found_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as here:
        here.setattr(registry, "_registered", dict(registry._registered))
        registry.register("number", "scalar")(Scalar)
        Embedder({"number": Scalar(3)}, dim=2).save_pretrained(tmp_path / "model")
    assert registry.registrations("number") == []
    assert isinstance(Embedder.from_pretrained(tmp_path / "model").encoder("number"), Scalar)


@pytest.mark.parametrize("shared", ["inside an encoder", "between modalities"])
def test_weights_may_be_shared(tmp_path: Path, shared: str) -> None:
    both = Scalar()
    encoders = {"number": Tied()} if shared == "inside an encoder" else {"number": both, "count": both}
    embedder = Embedder(encoders, dim=2)
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(loaded.encode(number=[1, 2]), embedder.encode(number=[1, 2]))


# a part of a model


def test_only_the_asked_modalities_are_loaded_under_the_fingerprint_of_the_whole(
    copied: Path, values: Values, make_embedder: Make
) -> None:
    whole = make_embedder("graph", "text")
    edit(copied, lambda d: d["encoders"]["graph"].update({"name": "no_such.Graph", "class": "no_such.Graph"}))
    part = Embedder.from_pretrained(copied, modalities=["text"])
    assert part.modalities == ["text"]
    assert not [name for name in part.state_dict() if "graph" in name]
    np.testing.assert_allclose(part.encode(text=values["text"]), whole.encode(text=values["text"]), atol=1e-6)
    assert part.fingerprint == whole.fingerprint
    assert fingerprint_of(part) != whole.fingerprint


def test_a_modality_that_the_model_lacks_is_refused(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"no modality 'grap'\. Did you mean 'graph'\? Known: graph, text"):
        Embedder.from_pretrained(saved, modalities=["grap"])


# fingerprints


def test_every_weight_counts_in_the_fingerprint(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    seen = {embedder.fingerprint}
    for weight in embedder.state_dict().values():
        with torch.no_grad():
            weight.reshape(-1)[-1] += 1
        seen.add(embedder.fingerprint)
    assert len(seen) == 1 + len(embedder.state_dict())


def test_equal_models_have_equal_fingerprints_and_others_do_not(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    fingerprint = embedder.fingerprint
    assert len(fingerprint) == 64
    assert int(fingerprint, 16)
    assert make_embedder("graph", "text").fingerprint == fingerprint
    assert make_embedder("text").fingerprint != fingerprint
    embedder.fit_processors({"text": ["other words"]})
    assert embedder.fingerprint != fingerprint
    settings = make_embedder("graph", "text")
    settings.encoder("graph").settings["drop"] = 0.3
    assert settings.fingerprint != fingerprint


def _train(embedder: Embedder) -> None:
    optimizer = torch.optim.SGD(embedder.parameters(), lr=0.1)
    inputs = embedder.processors["text"].collate([embedder.processors["text"]("fox")])
    embedder.heads["text"](embedder.encoder("text")(**inputs)).sum().backward()
    optimizer.step()


def _in_place(embedder: Embedder) -> None:
    with torch.no_grad():
        embedder.heads["text"].bias[0] += 1  # pyright: ignore[reportIndexIssue, reportArgumentType, reportOperatorIssue]


def _through_data(embedder: Embedder) -> None:
    next(embedder.parameters()).data.mul_(2)


def _load(embedder: Embedder) -> None:
    embedder.load_state_dict({name: t + 1 for name, t in embedder.state_dict().items()})


def _half(embedder: Embedder) -> None:
    embedder.half()


def _fit(embedder: Embedder) -> None:
    embedder.fit_processors({"text": ["other words"]})


@pytest.mark.parametrize("change", [_train, _in_place, _load, _fit, _through_data, _half])
@pytest.mark.parametrize("modalities", [["text"], None], ids=["a part", "the whole"])
def test_a_change_after_loading_changes_the_fingerprint(
    saved: Path, modalities: list[str] | None, change: Callable[[Embedder], None]
) -> None:
    loaded = Embedder.from_pretrained(saved, modalities)
    before = loaded.fingerprint
    change(loaded)
    assert loaded.fingerprint == fingerprint_of(loaded) != before


def test_a_part_stands_for_the_whole_it_is_told_of_while_it_is_unchanged(make_embedder: Make) -> None:
    embedder = make_embedder("text")
    own, bias = embedder.fingerprint, embedder.heads["text"].bias
    embedder.adopt_fingerprint("f" * 64)
    assert embedder.fingerprint == "f" * 64
    assert isinstance(bias, Tensor)
    was = bias.detach().clone()
    with torch.no_grad():
        bias.add_(1)
        assert embedder.fingerprint not in (own, "f" * 64)
        bias.copy_(was)
    assert embedder.fingerprint == "f" * 64


def test_reading_the_model_changes_no_fingerprint(saved: Path, values: Values) -> None:
    loaded = Embedder.from_pretrained(saved, ["text"])
    before = loaded.fingerprint
    loaded.encode(text=values["text"])
    loaded.train().eval().requires_grad_(False)
    loaded.state_dict()
    assert loaded.fingerprint == before != fingerprint_of(loaded)


# saving over a folder


def test_saving_over_a_folder_replaces_it_whole(make_embedder: Make, copied: Path) -> None:
    (copied / "notes.txt").write_text("of the old model")
    embedder = make_embedder("text")
    embedder.save_pretrained(str(copied))
    assert sorted(p.name for p in copied.iterdir()) == [SETTINGS, WEIGHTS]
    assert [p.name for p in copied.parent.iterdir()] == ["model"]
    assert Embedder.from_pretrained(copied).fingerprint == embedder.fingerprint


def test_a_save_that_fails_leaves_the_old_model(
    make_embedder: Make, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in copied.iterdir()}

    def fail(weights: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half of the")
        raise OSError("no space left on device")

    monkeypatch.setattr(model_folder, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        make_embedder("text").save_pretrained(copied)
    assert {p.name: p.read_bytes() for p in copied.iterdir()} == before
    assert [p.name for p in copied.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("place", ["run", "run/checkpoints", "run/config.yaml"])
def test_saving_onto_what_is_no_model_is_refused_and_nothing_is_lost(
    make_embedder: Make, saved: Path, tmp_path: Path, place: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run / "model")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"weeks of work")
    (run / "config.yaml").write_text("seed: 1")

    def everything() -> dict[Path, bytes | None]:
        return {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}

    before = everything()
    with pytest.raises(MultimodalError, match=rf"{tmp_path / place} is (a file|not empty and holds no {SETTINGS})"):
        make_embedder("text").save_pretrained(tmp_path / place)
    assert everything() == before
    make_embedder("text").save_pretrained(run / "model")  # the run's model itself can be replaced
    assert Embedder.from_pretrained(run).modalities == ["text"]


# folders that are not a model


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "nowhere") == (
        f"{tmp_path / 'nowhere'} does not exist; give a run folder or an exported model folder."
    )


def test_a_folder_or_file_without_a_model_is_told(tmp_path: Path) -> None:
    assert f"{tmp_path} holds no model: neither {SETTINGS} nor model/{SETTINGS}" in refusal_of(tmp_path)
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} holds no model" in refusal_of(tmp_path / "file")


def test_a_run_without_a_model_is_told_from_other_folders(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    said = refusal_of(tmp_path)
    assert f"{tmp_path} is a run without a model" in said
    assert "--ckpt_path last" in said


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"null", b"[]", b'"a"', b"{}", b"\xff\xfe", b'{"encoders": 3}'),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_settings_that_are_not_ours_are_told(copied: Path, text: bytes) -> None:
    (copied / SETTINGS).write_bytes(text)
    said = refusal_of(copied)
    assert f"{copied / SETTINGS} is damaged" in said
    assert "export the model again" in said


def test_half_a_settings_file_is_told(copied: Path) -> None:
    whole = (copied / SETTINGS).read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        (copied / SETTINGS).write_bytes(whole[:length])
        assert f"{copied / SETTINGS} is damaged" in refusal_of(copied)


def test_settings_of_another_format_are_told(copied: Path) -> None:
    edit(copied, lambda d: d.update(format=2))
    assert "has format 2; this version of multimodal reads format 1" in refusal_of(copied)


def test_settings_of_a_format_with_other_contents_are_told(copied: Path) -> None:
    (copied / SETTINGS).write_text('{"format": 2, "towers": {}}')
    assert "has format 2; this version of multimodal reads format 1" in refusal_of(copied)


def test_settings_too_large_to_be_ours_are_not_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "MAX_SETTINGS_BYTES", (copied / SETTINGS).stat().st_size - 1)
    assert "is larger than" in refusal_of(copied)


def _text(**changes: Any) -> Change:
    return lambda d: d["encoders"]["text"].update(changes)


def _text_settings(**changes: Any) -> Change:
    return lambda d: d["encoders"]["text"]["settings"].update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda d: d.pop("encoders"), "is damaged (KeyError('encoders'))", id="no encoders"),
        pytest.param(lambda d: d.pop("fingerprint"), "is damaged (KeyError('fingerprint'))", id="no fingerprint"),
        pytest.param(lambda d: d.update(encoders={}), "at least one modality", id="empty encoders"),
        pytest.param(lambda d: d.update(dim="wide"), "is damaged", id="dim a word"),
        pytest.param(lambda d: d.update(dim=7), "4 weights differ, the first is heads.graph.weight", id="dim other"),
        pytest.param(_text_settings(width=16), "weights differ", id="other width"),
        pytest.param(_text_settings(layers=2), "weights differ, the first is encoders.text.layers", id="a layer more"),
        pytest.param(_text_settings(widht=16), "no parameter 'widht'. Did you mean 'width'", id="unknown setting"),
        pytest.param(_text(processor=3), "is damaged", id="processor a number"),
        pytest.param(_text_settings(width="wide"), "The text encoder of", id="width a word"),
        pytest.param(
            _text_settings(heads=3), "width 8 must be a multiple of heads 3", id="heads that do not divide the width"
        ),
        pytest.param(_text_settings(modality="text"), "no parameter 'modality'", id="setting called modality"),
        pytest.param(_text(settings=[]), "The text encoder of", id="settings a list"),
        pytest.param(_text(processor={"tokenizer": "junk"}), "The text encoder of", id="tokenizer junk"),
        pytest.param(_text(processor={"words": []}), "The text encoder of", id="processor of another kind"),
        pytest.param(
            lambda d: d["encoders"]["graph"].update(processor={"a": 1}), "graph encoder of", id="state for no processor"
        ),
        pytest.param(lambda d: d.update(dim=-1), "is damaged (ValueError('dim", id="dim negative"),
        pytest.param(lambda d: d.update(dim=0), "is damaged (ValueError('dim", id="dim zero"),
        pytest.param(lambda d: d.update(fingerprint=7), "is damaged (ValueError('", id="fingerprint a number"),
    ],
)
def test_settings_that_rebuild_no_model_are_told(copied: Path, change: Change, said: str) -> None:
    edit(copied, change)
    assert said in refusal_of(copied)


@pytest.mark.parametrize(
    "path",
    ["pathlib.Path", "os.system", "subprocess.Popen", "multimodal_encoders.text.transformer.PAD", "torch.nn.Linear"],
)
def test_a_class_path_that_names_no_encoder_is_refused(copied: Path, path: str) -> None:
    edit(copied, _text(**{"name": path, "class": path, "settings": {}}))
    assert f"{path!r}, named as the text encoder, is not a subclass of multimodal.Encoder" in refusal_of(copied)


def test_an_encoder_that_is_not_installed_is_named(copied: Path) -> None:
    edit(copied, _text(**{"name": "whisper", "class": "not_installed.text.Whisper"}))
    said = refusal_of(copied)
    assert "Cannot import the text encoder 'not_installed.text.Whisper': No module named 'not_installed'" in said


def test_missing_weights_are_told(copied: Path) -> None:
    (copied / WEIGHTS).unlink()
    assert f"The weights {copied / WEIGHTS} are missing or damaged" in refusal_of(copied)


def test_a_weights_file_cut_anywhere_is_told(copied: Path) -> None:
    whole = (copied / WEIGHTS).read_bytes()
    for length in (0, 4, 8, 9, 100, *range(1000, len(whole), len(whole) // 20), len(whole) - 1):
        (copied / WEIGHTS).write_bytes(whole[:length])
        assert f"The weights {copied / WEIGHTS} are missing or damaged" in refusal_of(copied)


def test_weights_of_another_shape_or_without_one_are_named(copied: Path) -> None:
    weights = load_file(copied / WEIGHTS)
    save_file(weights | {"heads.text.bias": np.zeros(7, dtype=np.float32)}, copied / WEIGHTS)
    assert "does not fit its embedder.json: 1 weights differ, the first is heads.text.bias" in refusal_of(copied)
    del weights["encoders.text.positions"]
    save_file(weights, copied / WEIGHTS)
    assert "1 weights differ, the first is encoders.text.positions" in refusal_of(copied)


@pytest.mark.parametrize(
    ("given", "brought", "root", "path"),
    [
        pytest.param("nice", "nice", "nice", "brought.Text", id="model folder is a place of modules"),
        pytest.param("nice", "nice", ".", "nice.brought.Text", id="folder without __init__"),
        pytest.param("nice", "nice/inner", ".", "nice.inner.brought.Text", id="deeper"),
        pytest.param("got/nice/model", "got/nice", ".", "got.nice.brought.Text", id="beside the model, in its run"),
        pytest.param("nice", "nice", ".", "link.brought.Text", id="by a link"),
    ],
)
def test_code_that_comes_with_a_model_is_not_run(
    given: str, brought: str, root: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / given
    Embedder(
        {"text": registry.create("text", "transformer", vocab_size=60, width=8, layers=1, heads=2)}, 4
    ).save_pretrained(folder)
    description = json.loads((folder / "embedder.json").read_text())
    description["encoders"]["text"] |= {"name": path, "class": path}
    (folder / "embedder.json").write_text(json.dumps(description))
    (tmp_path / "link").symlink_to(tmp_path / brought)
    (tmp_path / brought).mkdir(exist_ok=True)
    (tmp_path / brought / "brought.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path / root))
    with pytest.raises(UsageError, match=rf"brings code of its own \({re.escape(path)}\), which is not run"):
        Embedder.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()
