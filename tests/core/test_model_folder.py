"""Models are saved and loaded unchanged; folders that are not a model are rejected with a message."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from multimodal.cli.main import main
from multimodal.core import model_folder, registry
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import MultimodalError, UsageError

Make = Callable[..., Embedder]
Values = dict[str, list[Any]]
Change = Callable[[dict[str, Any]], Any]
SETTINGS, WEIGHTS = "embedder.json", "model.safetensors"


def fingerprint_of(embedder: Embedder) -> str:
    """The embedder's computed fingerprint, not an adopted one."""
    return model_folder.fingerprint(embedder.describe(), embedder.state_dict())


class Numbers(Processor):
    def __call__(self, value: Any) -> Any:
        return float(value)

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.tensor(items)[:, None]}


class Scalar(Encoder):
    """An encoder that a user wrote."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.width, self.processor, self.linear = width, Numbers(), nn.Linear(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Tied(Scalar):
    """An encoder with two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = self.linear


def edit(folder: Path, change: Change) -> None:
    description = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    change(description)
    description.pop("digest", None)  # as one must who edits it
    (folder / SETTINGS).write_text(json.dumps(description), encoding="utf-8")


def load_error(folder: Path) -> str:
    with pytest.raises(MultimodalError) as error:
        Embedder.from_pretrained(folder)
    return str(error.value)


def test_a_loaded_model_embeds_as_the_saved_one(make_embedder: Make, values: Values, tmp_path: Path) -> None:
    embedder = make_embedder()
    processor = embedder.encoder("image").processor
    embedder.train()
    embedder.encoder("image")(**processor.collate([processor(v) for v in values["image"]]))  # moves the running means
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(str(tmp_path / "model"))
    assert (loaded.modalities, loaded.dim) == (["image", "graph", "text"], 6)
    for modality, raw in values.items():
        expected = embedder.encode(batch_size=256, precision="float32", **{modality: raw})
        np.testing.assert_allclose(
            loaded.encode(batch_size=256, precision="float32", **{modality: raw}), expected, atol=1e-6
        )
        assert loaded.encoder(modality).settings == embedder.encoder(modality).settings
    assert not any(module.training for module in loaded.modules())
    assert loaded.fingerprint == embedder.fingerprint == fingerprint_of(loaded)


def test_a_model_folder_contains_only_json_and_safetensors(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [SETTINGS, WEIGHTS]
    json.loads((saved / SETTINGS).read_text(encoding="utf-8"))
    raw = (saved / WEIGHTS).read_bytes()  # 8 bytes of length, a header in JSON, and the numbers that it describes
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    sizes = [stop - start for start, stop in (entry["data_offsets"] for entry in header.values())]
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    assert len(raw) == end + sum(sizes)


def test_the_umask_determines_the_permissions_of_the_files(make_embedder: Make, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        make_embedder("graph").save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {
        SETTINGS: 0o640,
        WEIGHTS: 0o640,
    }


def test_a_run_folder_loads_as_its_model(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").touch()
    assert Embedder.from_pretrained(tmp_path / "run").fingerprint == Embedder.from_pretrained(saved).fingerprint


def test_an_unregistered_encoder_is_saved_by_its_class_path(tmp_path: Path) -> None:
    embedder = Embedder({"number": Scalar(3)}, dim=2)
    embedder.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    assert isinstance(loaded.encoder("number"), Scalar)
    np.testing.assert_array_equal(loaded.encode(number=[1, 2]), embedder.encode(number=[1, 2]))


def test_an_encoder_that_is_no_longer_registered_is_loaded_by_its_class_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(registry, "_registered", dict(registry._registered))
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


# some modalities of a model


def test_only_the_given_modalities_are_loaded_with_the_fingerprint_of_the_full_model(
    copied: Path, values: Values, make_embedder: Make
) -> None:
    full = make_embedder("graph", "text")
    edit(copied, lambda d: d["encoders"]["graph"].update({"name": "no_such.Graph", "class": "no_such.Graph"}))
    part = Embedder.from_pretrained(copied, modalities=["text"])
    assert part.modalities == ["text"]
    assert not [name for name in part.state_dict() if "graph" in name]
    np.testing.assert_allclose(part.encode(text=values["text"]), full.encode(text=values["text"]), atol=1e-6)
    assert part.fingerprint == full.fingerprint
    assert fingerprint_of(part) != full.fingerprint


def test_a_modality_that_the_model_does_not_have_is_rejected(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"no modality 'grap'\. Did you mean 'graph'\? Known: graph, text"):
        Embedder.from_pretrained(saved, modalities=["grap"])


# saving over a folder


def test_saving_over_a_model_replaces_the_complete_folder(make_embedder: Make, copied: Path) -> None:
    (copied / "notes.txt").write_text("of the old model")
    embedder = make_embedder("text")
    embedder.save_pretrained(str(copied))
    assert sorted(p.name for p in copied.iterdir()) == [SETTINGS, WEIGHTS]
    assert [p.name for p in copied.parent.iterdir()] == ["model"]
    assert Embedder.from_pretrained(copied).fingerprint == embedder.fingerprint


def test_a_failed_save_keeps_the_old_model(make_embedder: Make, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in copied.iterdir()}

    def fail(weights: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half of the")
        raise OSError("no space left on device")

    monkeypatch.setattr(model_folder, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        make_embedder("text").save_pretrained(copied)
    assert {p.name: p.read_bytes() for p in copied.iterdir()} == before
    assert [p.name for p in copied.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("path", ["run", "run/checkpoints", "run/config.yaml"])
def test_saving_over_a_folder_without_a_model_is_rejected(
    make_embedder: Make, saved: Path, tmp_path: Path, path: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run / "model")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"weeks of work")
    (run / "config.yaml").write_text("seed: 1")

    def everything() -> dict[Path, bytes | None]:
        return {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}

    before = everything()
    with pytest.raises(MultimodalError, match=rf"{tmp_path / path} is (a file|not empty and holds no {SETTINGS})"):
        make_embedder("text").save_pretrained(tmp_path / path)
    assert everything() == before
    make_embedder("text").save_pretrained(run / "model")  # the run's model itself can be replaced
    assert Embedder.from_pretrained(run).modalities == ["text"]


# folders that are not a model


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    assert load_error(tmp_path / "nowhere") == (
        f"{tmp_path / 'nowhere'} does not exist; give a run folder or an exported model folder."
    )


def test_a_folder_or_file_without_a_model_is_reported(tmp_path: Path) -> None:
    assert f"{tmp_path} contains no model: neither {SETTINGS} nor model/{SETTINGS}" in load_error(tmp_path)
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} contains no model" in load_error(tmp_path / "file")


def test_a_run_without_a_model_is_distinguished_from_other_folders(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    message = load_error(tmp_path)
    assert f"{tmp_path} is a run without a model" in message
    assert "--ckpt_path last" in message


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"null", b"[]", b'"a"', b"{}", b"\xff\xfe", b'{"encoders": 3}'),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_settings_of_another_program_are_reported(copied: Path, text: bytes) -> None:
    (copied / SETTINGS).write_bytes(text)
    message = load_error(copied)
    assert f"{copied / SETTINGS} is damaged" in message
    assert "export the model again" in message


def test_a_truncated_settings_file_is_reported(copied: Path) -> None:
    content = (copied / SETTINGS).read_bytes()
    for length in range(0, len(content), len(content) // 20):
        (copied / SETTINGS).write_bytes(content[:length])
        assert f"{copied / SETTINGS} is damaged" in load_error(copied)


def test_settings_of_another_format_are_reported(copied: Path) -> None:
    edit(copied, lambda d: d.update(format=2))
    assert "has format 2; this version of multimodal reads format 1" in load_error(copied)


def test_settings_of_a_format_with_other_contents_are_reported(copied: Path) -> None:
    (copied / SETTINGS).write_text('{"format": 2, "towers": {}}')
    assert "has format 2; this version of multimodal reads format 1" in load_error(copied)


def test_too_large_a_settings_file_is_not_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, weights = ((copied / name).stat().st_size for name in (SETTINGS, WEIGHTS))
    monkeypatch.setattr(model_folder, "MAX_SETTINGS_BYTES", settings - weights - 1)
    assert "is larger than" in load_error(copied)


def _text(**changes: Any) -> Change:
    return lambda d: d["encoders"]["text"].update(changes)


def _text_settings(**changes: Any) -> Change:
    return lambda d: d["encoders"]["text"]["settings"].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda d: d.pop("encoders"), "is damaged (KeyError('encoders'))", id="no encoders"),
        pytest.param(lambda d: d.pop("fingerprint"), "is damaged (KeyError('fingerprint'))", id="no fingerprint"),
        pytest.param(lambda d: d.update(encoders={}), "at least one modality", id="empty encoders"),
        pytest.param(lambda d: d.update(dim="wide"), "is damaged", id="dim a word"),
        pytest.param(
            lambda d: d.update(dim=7),
            "4 weights are missing or of another shape, the first is heads.graph.weight",
            id="dim other",
        ),
        pytest.param(_text_settings(width=16), "weights are missing or of another shape", id="other width"),
        pytest.param(
            _text_settings(layers=2),
            "weights are missing or of another shape, the first is encoders.text.layers",
            id="one more layer",
        ),
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
def test_settings_that_cannot_be_rebuilt_are_reported(copied: Path, change: Change, message: str) -> None:
    edit(copied, change)
    assert message in load_error(copied)


@pytest.mark.parametrize(
    "path",
    ["pathlib.Path", "os.system", "subprocess.Popen", "multimodal_encoders.text.transformer.PAD", "torch.nn.Linear"],
)
def test_a_class_path_that_does_not_name_an_encoder_is_rejected(copied: Path, path: str) -> None:
    edit(copied, _text(**{"name": path, "class": path, "settings": {}}))
    assert f"{path!r}, named as the text encoder, is not a subclass of multimodal.Encoder" in load_error(copied)


def test_an_encoder_that_is_not_installed_is_named(copied: Path) -> None:
    edit(copied, _text(**{"name": "whisper", "class": "not_installed.text.Whisper"}))
    message = load_error(copied)
    assert "names the encoder not_installed.text.Whisper, which is not registered" in message
    assert "--trust_module not_installed.text" in message


def test_missing_weights_are_reported(copied: Path) -> None:
    (copied / WEIGHTS).unlink()
    assert load_error(copied).startswith(f"{copied / WEIGHTS} is missing.")
    edit(copied, lambda description: description.pop("files"))  # as in a model of an earlier version
    assert f"The weights {copied / WEIGHTS} are missing or damaged" in load_error(copied)


def test_a_weights_file_cut_anywhere_is_reported(copied: Path) -> None:
    content = (copied / WEIGHTS).read_bytes()
    for length in (0, 4, 8, 9, 100, *range(1000, len(content), len(content) // 20), len(content) - 1):
        (copied / WEIGHTS).write_bytes(content[:length])
        assert load_error(copied).startswith(f"{copied / WEIGHTS} is damaged: it has {length:,} bytes instead of")
    edit(copied, lambda description: description.pop("files"))
    for length in (0, 4, 8, 9, 100, *range(1000, len(content), len(content) // 20), len(content) - 1):
        (copied / WEIGHTS).write_bytes(content[:length])
        assert f"The weights {copied / WEIGHTS} are missing or damaged" in load_error(copied)


def test_a_flipped_bit_of_a_model_is_reported(copied: Path) -> None:
    for name in (WEIGHTS, SETTINGS):
        content = bytearray((copied / name).read_bytes())
        at = content.index(b'"dim": ') + 7 if name == SETTINGS else len(content) // 2
        content[at] ^= 1
        (copied / name).write_bytes(content)
        assert load_error(copied).startswith(
            f"{copied / name} is damaged: its contents are not those that were written."
        )
        content[at] ^= 1
        (copied / name).write_bytes(content)
    assert Embedder.from_pretrained(copied).modalities


def test_a_model_of_an_earlier_version_is_compared_with_its_fingerprint(copied: Path, tmp_path: Path) -> None:
    edit(copied, lambda description: description.pop("files"))
    assert Embedder.from_pretrained(copied).fingerprint
    content = bytearray((copied / WEIGHTS).read_bytes())
    content[-1] ^= 64
    (copied / WEIGHTS).write_bytes(content)
    with pytest.warns(UserWarning, match="does not have the fingerprint of its contents"):
        Embedder.from_pretrained(copied)


def test_a_part_of_a_model_is_saved_with_digests_of_its_own(copied: Path, tmp_path: Path) -> None:
    part = Embedder.from_pretrained(copied, modalities=["text"])
    part.save_pretrained(tmp_path / "part")
    assert Embedder.from_pretrained(tmp_path / "part").fingerprint == part.fingerprint


def test_weights_of_another_shape_and_missing_weights_are_named(copied: Path) -> None:
    edit(copied, lambda description: description.pop("files"))
    weights = load_file(copied / WEIGHTS)
    save_file(weights | {"heads.text.bias": np.zeros(7, dtype=np.float32)}, copied / WEIGHTS)
    assert (
        "does not fit its embedder.json: 1 weights are missing or of another shape, the first is heads.text.bias"
        in load_error(copied)
    )
    del weights["encoders.text.positions"]
    save_file(weights, copied / WEIGHTS)
    assert "1 weights are missing or of another shape, the first is encoders.text.positions" in load_error(copied)


@pytest.mark.parametrize(
    ("model", "code_folder", "import_root", "path"),
    [
        pytest.param("nice", "nice", "nice", "brought.Text", id="the model folder is on the path"),
        pytest.param("nice", "nice", ".", "nice.brought.Text", id="a namespace package"),
        pytest.param("nice", "nice/inner", ".", "nice.inner.brought.Text", id="nested"),
        pytest.param("got/nice/model", "got/nice", ".", "got.nice.brought.Text", id="next to the model, in its run"),
        pytest.param("run/model", "run", "run", "brought.Text", id="in a run that is on the path"),
        pytest.param("dl/weights", "dl", ".", "dl.brought.Text", id="next to the model, in its parent"),
        pytest.param("nice", "nice", ".", "link.brought.Text", id="through a link"),
        pytest.param("nice", "elsewhere", ".", "elsewhere.brought.Text", id="anywhere else"),
    ],
)
def test_code_that_a_model_names_is_not_run(
    model: str, code_folder: str, import_root: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model_that_names(path, tmp_path / model)
    (tmp_path / "link").symlink_to(tmp_path / code_folder)
    (tmp_path / code_folder).mkdir(exist_ok=True)
    (tmp_path / code_folder / "brought.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path / import_root))
    with pytest.raises(UsageError, match=rf"names the encoder {re.escape(path)}, which .* its code is not run"):
        Embedder.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_a_module_that_the_user_names_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model_that_names("towers_of_mine.Text", tmp_path / "model")
    (tmp_path / "towers_of_mine.py").write_text(
        "from multimodal_encoders.text.transformer import TextTransformer\n\n\nclass Text(TextTransformer): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "texts.csv").write_text("text\na red cup\n")
    command = ["evaluate", str(folder), "--data", str(tmp_path / "texts.csv")]

    def error(*options: str) -> str:
        assert main([*command, *options]) != 0
        return capsys.readouterr().err

    assert "add --trust_module towers_of_mine" in error()
    assert "--trust_module no_such_module: cannot be imported" in error("--trust_module", "no_such_module")
    assert "--trust_module needs the name" in error("--trust_module")
    try:
        assert "names the encoder" not in error("--trust_module=towers_of_mine")
        assert type(Embedder.from_pretrained(folder).encoder("text")).__name__ == "Text"
    finally:
        sys.modules.pop("towers_of_mine", None)


def save_model_that_names(path: str, folder: Path) -> Path:
    encoder = registry.create("text", "transformer", vocab_size=60, width=8, layers=1, heads=2)
    Embedder({"text": encoder}, 4).save_pretrained(folder)
    edit(folder, _text(**{"name": path, "class": path}))
    return folder


def test_the_device_is_not_an_argument_of_loading(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no argument 'device'\. .*Embedder\.from_pretrained\(\.\.\.\)\.to\('cuda'\)"):
        Embedder.from_pretrained(tmp_path, device="cuda")
    with pytest.raises(UsageError, match=r"no argument 'modality'\. Did you mean 'modalities'\?"):
        Embedder.from_pretrained(tmp_path, modality="text")
