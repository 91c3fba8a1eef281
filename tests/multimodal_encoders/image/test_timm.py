"""Picture encoders of timm make timm's features, by its preprocessing, and come back without their source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from multimodal_encoders.image.timm import Timm
from PIL import Image
from safetensors.torch import save_file
from small_clips import colours, odd_pictures, plain_pictures
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.models import get_model_args, save_for_hf

from multimodal.core import layers
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.media.image import read_picture

ARCHS = ["test_vit", "test_resnet", "test_convnext", "test_efficientnet_ln", "mobilenetv3_small_050"]
CROPS: list[dict[str, Any]] = [
    {},
    {"crop_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"crop_mode": "border", "crop_pct": 1.0},
    {"input_size": [3, 64, 96], "crop_pct": 0.7},
]


def model(arch: str, **settings: Any) -> Any:
    """A model with a classifier in which all parts matter."""
    torch.manual_seed(3)
    made: Any = timm.create_model(arch, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()


@torch.no_grad()
def library(made: Any, pictures: list[Image.Image], **settings: Any) -> np.ndarray:
    """What timm makes of pictures, by its own evaluation transform, before the classifier."""
    described = resolve_model_data_config(made) | settings
    transform: Any = create_transform(**described, is_training=False)
    pixels = torch.stack([transform(picture.convert("RGB")) for picture in pictures])
    return made.forward_head(made.forward_features(pixels), pre_logits=True).numpy()


@torch.no_grad()
def ours(encoder: Timm, pictures: list[Any]) -> np.ndarray:
    processor = encoder.processor
    return encoder.eval()(**processor.collate([processor(picture) for picture in pictures])).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))
    assert np.abs(found[2] - found[3]).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("arch", ARCHS)
def test_features_of_a_file_are_the_library_s(arch: str, tmp_path: Path) -> None:
    made, file = model(arch, num_classes=7), tmp_path / "weights.safetensors"
    save_file(made.state_dict(), file)
    encoder = Timm(arch, str(file))
    found = ours(encoder, plain_pictures())
    assert found.shape[1] == encoder.width
    close(found, library(made, plain_pictures()))
    with torch.no_grad():  # and the classifier makes its logits of them
        transform: Any = create_transform(**resolve_model_data_config(made), is_training=False)
        logits = made(torch.stack([transform(p.convert("RGB")) for p in plain_pictures()]))
        classified = made.get_classifier()(torch.from_numpy(found))
    torch.testing.assert_close(classified, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", CROPS)
def test_pictures_are_preprocessed_as_timm_evaluates(settings: dict[str, Any], tmp_path: Path) -> None:
    made, file = model("test_resnet", num_classes=0), tmp_path / "weights.pth"
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": t for name, t in made.state_dict().items()}}, file)
    encoder = Timm("test_resnet", str(file), preprocess=settings)
    close(ours(encoder, plain_pictures()), library(made, plain_pictures(), **settings))
    odd = list(odd_pictures().values())
    read = [read_picture(picture, "RGB", None, "white") for picture in odd]
    close(ours(encoder, odd), library(made, read, **settings))
    described = resolve_model_data_config(made) | settings
    assert encoder.settings["preprocess"] == {
        key: list(value) if isinstance(value, tuple) else value for key, value in described.items()
    }


def test_a_folder_that_timm_saved_brings_its_architecture_and_preprocessing(tmp_path: Path) -> None:
    made = model("test_vit", num_classes=5, img_size=64, global_pool="avg")
    made.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "crop_pct": 0.8, "interpolation": "bilinear"}
    save_for_hf(
        made,
        str(tmp_path / "saved"),
        model_config={"num_classes": 5},
        model_args={"img_size": 64, "global_pool": "avg"},
    )
    encoder = Timm(weights=str(tmp_path / "saved"))
    assert encoder.settings["preprocess"]["mean"] == [0.1, 0.2, 0.3]
    assert encoder.settings["preprocess"]["input_size"] == [3, 64, 64]
    close(ours(encoder, plain_pictures()), library(made, plain_pictures(), input_size=(3, 64, 64)))


@pytest.mark.parametrize("arch", ["test_vit.r160_in1k", "test_efficientnet"])
def test_a_model_comes_back_without_its_source(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, file = model(arch, num_classes=3, img_size=64 if "vit" in arch else None), tmp_path / "weights.safetensors"
    save_file(made.state_dict(), file)
    more: dict[str, Any] = {"img_size": 64} if "vit" in arch else {}
    encoder = Timm(arch, str(file), config=more | {"drop_path_rate": 0.2}, preprocess={"crop_pct": 0.9})
    embedder = Embedder({"image": encoder}, 4).eval()
    embedder.save_pretrained(tmp_path / "model")
    file.unlink()
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *a, **k: pytest.fail("loads weights"))
    back = Embedder.from_pretrained(tmp_path / "model")
    assert back.fingerprint == embedder.fingerprint
    np.testing.assert_array_equal(back.encode(image=plain_pictures()), embedder.encode(image=plain_pictures()))
    again: Any = back.encoder("image")
    assert again.settings["config"]["drop_path_rate"] == 0.2


def test_a_published_tag_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("test_resnet")
    asked: list[str] = []

    def downloaded(repository: str, **settings: Any) -> dict[str, torch.Tensor]:
        asked.append(repository)
        return made.state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", downloaded)
    for arch, weights in (
        ("test_resnet", "r160_in1k"),
        ("test_resnet", "default"),
        ("test_resnet.r160_in1k", "default"),
    ):
        close(ours(Timm(arch, weights), plain_pictures()), library(made, plain_pictures()))
    assert asked == ["timm/test_resnet.r160_in1k"] * 3


def test_what_cannot_be_downloaded_is_said_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **settings: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refused)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", refused)
    address = "https://huggingface.co/timm/resnet18.a1_in1k to a folder, and set weights to it, without arch"
    with pytest.raises(MultimodalError, match=rf"weights a1_in1k of resnet18 are not .*no route.*files of {address}"):
        Timm("resnet18", "a1_in1k")
    with pytest.raises(MultimodalError, match=rf"weights default of resnet18 are not .*files of {address}"):
        Timm("resnet18", "default")
    with pytest.raises(
        MultimodalError, match=r"files of owner/name are not .*There is no folder of that name either. Dow"
    ):
        Timm(weights="owner/name")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"no model is named; give arch \(resnet50\) and weights"),
        ({"arch": "resnt50"}, r"no arch 'resnt50'. Did you mean 'resnet50'"),
        ({"arch": "resnet18", "weights": "a9"}, r"'a9' is neither a file here nor .* resnet18 \(.*a1_in1k"),
        ({"arch": "resnet18", "weights": "x/y.pth"}, r"'x/y.pth' is neither a file here"),
        ({"arch": "resnet18", "weights": "."}, "the folder '.' names its architecture; leave out arch"),
        ({"weights": "some/where/else"}, "there is no folder 'some/where/else'; give a folder with config.json"),
        ({"arch": "test_resnet", "config": {"depth": 3}}, "timm cannot build test_resnet .*depth"),
        ({"arch": "test_resnet", "preprocess": {"size": 3}}, "preprocess has no setting 'size'; it has input_size"),
        ({"arch": "test_resnet", "preprocess": {"input_size": [1, 9, 9]}}, r"input_size must be \[3, height, width\]"),
        ({"arch": "test_resnet", "config": {"in_chans": 1}}, "so in_chans is 3; config has 1"),
        ({"arch": "test_resnet", "preprocess": {"interpolation": "cubical"}}, "timm cannot preprocess"),
        ({"arch": "test_resnet", "background": "wight"}, "timm: background 'wight' is not an opaque colour"),
    ],
)
def test_settings_that_name_no_model_are_refused(settings: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Timm(**settings)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(model("test_resnet").state_dict(), file)
    with pytest.raises(MultimodalError, match=r"weights.safetensors does not fit timm's test_vit: .*Set arch to"):
        Timm("test_vit", str(file))
    with pytest.raises(MultimodalError, match="is not a timm model; give a folder with config"):
        Timm(weights=str(tmp_path))
    shutil.copy(file, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MultimodalError, match=r"config.json cannot be read as timm's"):
        Timm(weights=str(tmp_path))


def test_maps_in_place_of_a_vector_are_refused() -> None:
    encoder = Timm("test_resnet", config={"global_pool": ""}, preprocess={"input_size": [3, 32, 32]})
    with pytest.raises(
        UsageError,
        match=r"test_resnet gives features of shape \(\d+, \d+, \d+\) per picture, not a vector; .* global_pool",
    ):
        ours(encoder, [colours(9, 9)])


def test_their_layers_are_found() -> None:
    assert len(layers.parameter_names_by_depth(Timm("test_vit"))) == len(Timm("test_vit").net.blocks) + 1
    assert [names[0].rpartition(".conv")[0] for names in layers.parameter_names_by_depth(Timm("resnet18"))] == [
        "net",
        *(f"net.layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_a_model_of_every_kind_has_the_width_that_is_said_and_is_rebuilt_from_its_settings(module: str) -> None:
    (arch, *_) = [*timm.list_models(module=module), ""]
    if arch in ("", "gemma4_vit_570m_enc", "mobilenetv5_300m_enc"):  # these make maps, no vectors
        return
    with torch.device("meta"):
        net: Any = timm.create_model(arch, num_classes=0).eval()
        kept = {name: value for name, value in get_model_args(net).items() if name != "num_classes"}
        again: Any = timm.create_model(arch, num_classes=0, **kept)
        made = net(torch.zeros(2, *resolve_model_data_config(net)["input_size"]))
    assert made.shape == (2, getattr(net, "head_hidden_size", net.num_features))
    theirs = {name: tensor.shape for name, tensor in again.state_dict().items()}
    assert {name: tensor.shape for name, tensor in net.state_dict().items()} == theirs
