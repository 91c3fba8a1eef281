"""Every classification model of torchvision is an encoder: its classifier makes torchvision's logits of our features."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.image.torchvision import AUXILIARY, Torchvision, _classifier
from PIL import Image
from safetensors.torch import save_file
from small_clips import odd_pictures, plain_pictures
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from multimodal.core import layers
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.media.image import read_picture

EVERY = models.list_models(module=models)
# one of each family, its arguments and the edge of its pictures
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "alexnet": ({}, 64),
    "convnext_tiny": ({}, 32),
    "densenet121": ({}, 32),
    "efficientnet_b0": ({}, 32),
    "efficientnet_v2_s": ({}, 32),
    "googlenet": ({}, 32),
    "inception_v3": ({}, 75),
    "maxvit_t": ({}, 224),
    "mnasnet0_5": ({}, 32),
    "mobilenet_v2": ({}, 32),
    "mobilenet_v3_small": ({}, 32),
    "regnet_x_400mf": ({}, 32),
    "regnet_y_400mf": ({}, 32),
    "resnet18": ({}, 32),
    "shufflenet_v2_x0_5": ({}, 32),
    "squeezenet1_1": ({}, 32),
    "swin_t": ({}, 32),
    "swin_v2_t": ({}, 32),
    "vgg11": ({}, 32),
    "vit_b_32": ({"image_size": 64}, 64),
}


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights are not drawn: that takes seconds for some models, and ``model`` draws its own."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *settings, **more: tensor)


def small(edge: int) -> dict[str, Any]:
    return {"resize_size": edge + 5, "crop_size": edge}


def model(arch: str, **config: Any) -> Any:
    """A model in which all parts matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = models.get_model(arch, weights=None, **config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()


def preset(encoder: Torchvision) -> ImageClassification:
    own = encoder.settings["preprocess"]
    return ImageClassification(**own | {"interpolation": InterpolationMode(own["interpolation"])})


@torch.no_grad()
def ours(encoder: Torchvision, pictures: list[Any]) -> Tensor:
    processor = encoder.processor
    return encoder.eval()(**processor.collate([processor(picture) for picture in pictures]))


@pytest.mark.parametrize("arch", FAMILIES)
def test_the_classifier_makes_the_logits_of_our_features(arch: str, tmp_path: Path) -> None:
    config, edge = FAMILIES[arch]
    made, file = model(arch, num_classes=11, **config), tmp_path / "weights.safetensors"
    save_file({name: t.contiguous() for name, t in made.state_dict().items()}, file)
    if arch in ("googlenet", "inception_v3"):
        config = config | {"transform_input": False}  # as the model was made
    encoder = Torchvision(arch, str(file), config=config, preprocess=small(edge))
    pictures = plain_pictures()[2:5]
    encoder.double()  # random networks multiply what the layouts of memory differ by
    made.double()
    features = ours(encoder, pictures)
    assert features.shape == (3, encoder.width)
    fed: list[Tensor] = []
    last = made.get_submodule(_classifier(made))
    hook = last.register_forward_hook(lambda module, given, made: fed.append(given[0]))
    with torch.no_grad():
        logits = made(torch.stack([preset(encoder)(picture.convert("RGB")) for picture in pictures]).double())
        hook.remove()
        if isinstance(last, nn.Linear):
            torch.testing.assert_close(last(features), logits, atol=1e-4, rtol=1e-4)
            close(features, fed[0])
        else:  # SqueezeNet classifies every place before it pools
            close(features, fed[0].mean((2, 3)))
            torch.testing.assert_close(last(fed[0]).relu().mean((2, 3)), logits, atol=1e-4, rtol=1e-4)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=1e-5)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("arch", EVERY)
def test_what_is_taken_off_of_any_model_is_its_classifier(arch: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = models.get_model(arch, weights=None, num_classes=17)
    last: Any = net.get_submodule(_classifier(net))
    assert (last.out_features if isinstance(last, nn.Linear) else last.out_channels) == 17
    own = {name: t for name, t in net.named_parameters() if not name.startswith(AUXILIARY)}
    assert sum(17 in tensor.shape for tensor in own.values()) <= 2  # its weight and bias alone


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "inception_v3"])
def test_in_training_there_is_one_vector_a_picture_as_well(arch: str) -> None:
    config, edge = FAMILIES[arch]
    encoder = Torchvision(arch, config=config, preprocess=small(edge))
    processor = encoder.processor
    pixels = processor.collate([processor(picture) for picture in plain_pictures()[2:4]])["pixels"]
    assert encoder.train()(pixels).shape == (2, encoder.width)
    assert not any(name.startswith("net.Aux") for name, _ in encoder.named_parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"interpolation": "bicubic", "antialias": True, "resize_size": 70, "crop_size": 64},
        {"mean": [0.5] * 3, "std": [0.2] * 3, "crop_size": [40, 56], "resize_size": [50, 60]},
        {"resize_size": 30, "crop_size": 64},
    ],
)
def test_pictures_are_preprocessed_as_torchvision_does(settings: dict[str, Any]) -> None:
    encoder = Torchvision("resnet18", preprocess=settings)
    own = encoder.settings["preprocess"]
    sizes = {key: own[key] for key in ("crop_size", "resize_size")}
    theirs = preset(encoder)
    theirs.crop_size, theirs.resize_size = ([v] if isinstance(v, int) else v for v in sizes.values())
    pictures: list[Image.Image] = plain_pictures()
    odd = list(odd_pictures().values())
    read = [read_picture(picture, "RGB", None, "white") for picture in odd]
    for found, expected in ((pictures, pictures), (odd, read)):
        pixels = encoder.processor.collate([encoder.processor(picture) for picture in found])["pixels"]
        wanted = torch.stack([theirs(picture.convert("RGB")) for picture in expected])
        torch.testing.assert_close(encoder.normalised(pixels, torch.float32), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("arch", ["resnet50", "efficientnet_b3", "vit_b_16", "convnext_tiny"])
@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_published_weights_bring_their_preprocessing(arch: str, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal_encoders.image import torchvision

    monkeypatch.setattr(torchvision, "_created", lambda arch, config: model("resnet18"))
    monkeypatch.setattr(Torchvision, "_load", lambda *rest: None)
    monkeypatch.setattr(torchvision, "_load_state", lambda *rest: ({}, ""))
    encoder = Torchvision(arch, weights)
    theirs = models.get_model_weights(arch)[weights].transforms()  # pyright: ignore[reportIndexIssue]
    assert repr(preset(encoder)) == repr(theirs)


@pytest.mark.parametrize("arch", ["mnasnet0_5", "densenet121", "googlenet"])
def test_a_model_comes_back_without_its_source(arch: str, tmp_path: Path) -> None:
    config, edge = FAMILIES[arch]
    file = tmp_path / "weights.pth"
    torch.save({name.replace("norm1", "norm.1"): t for name, t in model(arch).state_dict().items()}, file)
    encoder = Torchvision(arch, str(file), config=config, preprocess=small(edge))
    embedder = Embedder({"image": encoder}, 4).eval()
    embedder.save_pretrained(tmp_path / "model")
    file.unlink()
    back = Embedder.from_pretrained(tmp_path / "model")
    assert back.fingerprint == embedder.fingerprint
    pictures = plain_pictures()
    np.testing.assert_array_equal(back.encode(image=pictures), embedder.encode(image=pictures))
    net: Any = back.encoder("image").get_submodule("net")
    assert getattr(net, "transform_input", True) is True


def test_older_names_in_published_files_are_known(tmp_path: Path) -> None:
    made = model("vit_b_32", image_size=64)
    file = tmp_path / "vit_b_32-d86f8d99.pth"
    torch.save({n.replace("mlp.0.", "mlp.linear_1."): t for n, t in made.state_dict().items()}, file)
    encoder = Torchvision("vit_b_32", str(file), config={"image_size": 64})
    assert encoder.settings["preprocess"]["crop_size"] == 64
    theirs = made.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in encoder.net.state_dict().items())
    assert len(layers.parameter_names_by_depth(encoder)) == 13


def test_the_file_of_published_weights_is_known_by_its_name(tmp_path: Path) -> None:
    made = model("resnet50")
    for name, resize in (("resnet50-0676ba61.pth", 256), ("resnet50-11ad3fa6.pth", 232), ("mine.pth", 232)):
        torch.save(made.state_dict(), tmp_path / name)
        encoder = Torchvision("resnet50", str(tmp_path / name))
        assert encoder.settings["preprocess"]["resize_size"] == resize
        (tmp_path / name).unlink()


def test_what_cannot_be_downloaded_is_said_with_its_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*args: Any, **settings: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url, file = (
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        tmp_path / "hub/checkpoints/resnet18-f37072fd.pth",
    )
    with pytest.raises(
        MultimodalError, match=rf"weights IMAGENET1K_V1 of resnet18 are not .*Download {url} to {file}, or"
    ):
        Torchvision("resnet18", "DEFAULT")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arch": "resnt50"}, r"no classification model 'resnt50'. Did you mean 'resnet50'"),
        ({"arch": "fasterrcnn_resnet50_fpn"}, "no classification model 'fasterrcnn_resnet50_fpn'"),
        (
            {"arch": "resnet18", "weights": "V9"},
            "'V9' is neither a file here nor one of resnet18's: IMAGENET1K_V1, DEFAULT",
        ),
        ({"arch": "resnet18", "config": {"depth": 3}}, "torchvision cannot build resnet18 .*depth"),
        ({"arch": "resnet18", "preprocess": {"size": 3}}, "preprocess has no setting 'size'; it has resize_size"),
        (
            {"arch": "resnet18", "preprocess": {"interpolation": "cubical"}},
            "preprocess.interpolation is one of nearest",
        ),
        ({"arch": "resnet18", "background": "wight"}, "torchvision: background 'wight' is not an opaque colour"),
    ],
)
def test_settings_that_name_no_model_are_refused(settings: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Torchvision(**settings)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(model("resnet18").state_dict(), file)
    with pytest.raises(
        MultimodalError, match=r"weights.safetensors does not fit resnet34: \d+ weights are lacking and 0"
    ):
        Torchvision("resnet34", str(file))
    with pytest.raises(MultimodalError, match=r"weights.safetensors does not fit resnet50: .*size mismatch"):
        Torchvision("resnet50", str(file))
