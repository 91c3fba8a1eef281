"""Towers of open_clip make open_clip's vectors, come back without their source, and say what is missing."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from multimodal_encoders.open_clip.models import build, resolve_model
from multimodal_encoders.open_clip.towers import OpenClipImages, OpenClipTexts
from PIL import Image
from safetensors.torch import load_file, save_file
from small_clips import (
    PREPROCESS,
    VISION,
    VIT,
    WORDS,
    colours,
    configs,
    odd_pictures,
    plain_pictures,
    save_bert,
    save_clip,
    save_tokenizer,
)
from torch import nn

from multimodal.core import checkpoint_cache, layers
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.export.folder import export
from multimodal.media.image import read_picture

KINDS = ["vit", "resnet", "oblong", "eos", "siglip", "bert", "coca"]
TEXTS = [
    "fox",
    "A black heart, with an arrow!",
    " ".join([WORDS] * 9),
    "  Star &amp; HEART　star…  ",
    "ÅÄÖ 黒い心臓 🦊",
    "?!",
    "one fox that has none",
]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind -> its folder, made when it is asked for."""
    base = tmp_path_factory.mktemp("clips")
    known = configs(save_tokenizer(base / "tokenizer"), save_bert(base / "bert"))
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = base / kind
            torch.manual_seed(1)
            save_clip(made[kind], known[kind], PREPROCESS.get(kind, {}))
            if "hf_tokenizer_name" in known[kind]["text_cfg"]:  # open_clip looks for it there
                save_tokenizer(made[kind])
        return made[kind]

    return folder


def pair(image: Any, text: Any) -> Embedder:
    return Embedder({"image": image, "text": text}, image.width, {"image": "none", "text": "none"}).eval()


def of_folder(folder: Path) -> Embedder:
    return pair(OpenClipImages(weights=str(folder)), OpenClipTexts(weights=str(folder)))


def library(folder: Path) -> tuple[Any, Any, Any]:
    name = f"local-dir:{folder}"
    made: Any = open_clip.create_model_from_pretrained(name)
    return made[0].eval(), made[1], open_clip.get_tokenizer(name)


@torch.no_grad()
def of_pictures(folder: Path, pictures: list[Image.Image]) -> np.ndarray:
    model, preprocess, _ = library(folder)
    return np.concatenate([model.encode_image(preprocess(p)[None], normalize=True).numpy() for p in pictures])


@torch.no_grad()
def of_texts(folder: Path, texts: list[str]) -> np.ndarray:
    model, _, tokenize = library(folder)
    return model.encode_text(tokenize(texts), normalize=True).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_library_s(kind: str, clips: Any) -> None:
    embedder = of_folder(clips(kind))
    pictures = plain_pictures()
    found = embedder.encode(image=pictures)
    np.testing.assert_allclose(found, of_pictures(clips(kind), pictures), atol=1e-5)
    assert np.abs(found[2] - found[3]).max() > 1e-3
    found = embedder.encode(text=TEXTS)
    np.testing.assert_allclose(found, of_texts(clips(kind), TEXTS), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    for text, vector in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(embedder.encode(text=[text])[0], vector, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "eos", "siglip"])
def test_other_pictures_are_read_with_care_and_then_as_the_library_does(kind: str, clips: Any) -> None:
    pictures = odd_pictures()
    read = [read_picture(picture, "RGB", None, "white") for picture in pictures.values()]
    found = of_folder(clips(kind)).encode(image=list(pictures.values()))
    np.testing.assert_allclose(found, of_pictures(clips(kind), read), atol=1e-5)
    assert read[list(pictures).index("turned")].size == (60, 45)
    deep = np.asarray(read[list(pictures).index("sixteen bits")])
    np.testing.assert_array_equal(deep[..., 0], colours(45, 60)[..., 0])


def test_a_line_of_a_thousand_pixels_is_its_middle(clips: Any) -> None:
    embedder = of_folder(clips("vit"))
    line = np.zeros((1, 5000, 3), dtype=np.uint8)
    line[:, 2490:2510] = 255
    np.testing.assert_array_equal(embedder.encode(image=[line]), embedder.encode(image=[line[:, 2450:2550]]))


@pytest.mark.parametrize(
    ("kind", "longest"), [("vit", 9), ("eos", 9), ("bert", 7), ("resnet", 9), ("siglip", 16), ("coca", 24)]
)
def test_texts_are_as_long_as_the_longest_where_that_changes_nothing(kind: str, longest: int, clips: Any) -> None:
    processor = OpenClipTexts(weights=str(clips(kind))).processor
    items = [processor(text) for text in ("fox", "a black heart, with an arrow")]
    assert processor.collate(items)["tokens"].shape == (2, longest)


@pytest.mark.parametrize("kind", ["vit", "siglip", "bert", "coca"])
def test_a_model_comes_back_without_its_source(
    kind: str, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(clips(kind), source)
    embedder = of_folder(source)
    embedder.save_pretrained(tmp_path / "model")
    shutil.rmtree(source)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", _local_only("transformers.AutoConfig"))
    back = Embedder.from_pretrained(tmp_path / "model")
    assert back.fingerprint == embedder.fingerprint
    pictures = plain_pictures()
    np.testing.assert_array_equal(back.encode(image=pictures), embedder.encode(image=pictures))
    np.testing.assert_array_equal(back.encode(text=TEXTS), embedder.encode(text=TEXTS))
    back.save_pretrained(tmp_path / "again")
    assert Embedder.from_pretrained(tmp_path / "again").fingerprint == embedder.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_goes_back_to_the_library(kind: str, clips: Any, tmp_path: Path) -> None:
    embedder = of_folder(clips(kind))
    exported = export(embedder, "open_clip", tmp_path / "out")
    assert max(exported.differences.values()) < 1e-5
    np.testing.assert_allclose(embedder.encode(text=TEXTS), of_texts(tmp_path / "out", TEXTS), atol=1e-5)
    pictures = plain_pictures()
    np.testing.assert_allclose(embedder.encode(image=pictures), of_pictures(tmp_path / "out", pictures), atol=1e-5)


def _local_only(name: str) -> Any:
    """A from_pretrained that refuses what is not a folder written for it."""
    from transformers import AutoConfig

    theirs = AutoConfig.from_pretrained

    def from_pretrained(source: Any, *args: Any, **kwargs: Any) -> Any:
        assert Path(source).is_dir(), source
        assert "clips" not in str(source), source
        return theirs(source, *args, **kwargs)

    return from_pretrained


def test_processors_travel_to_workers(clips: Any) -> None:
    for kind in ("vit", "siglip"):
        embedder = of_folder(clips(kind))
        for modality, value in (("image", colours(20, 30)), ("text", TEXTS[1])):
            processor = embedder.processors[modality]
            there = pickle.loads(pickle.dumps(processor))
            assert torch.equal(there(value), processor(value))


def test_files_of_a_saved_tokenizer_stay_where_they_are_put(clips: Any, tmp_path: Path) -> None:
    processor = OpenClipTexts(weights=str(clips("siglip"))).processor
    state = processor.state()
    state["files"]["../elsewhere"] = "{}"
    with pytest.raises(ValueError, match="which lie in other folders"):
        processor.load_state(state)


# what names a model


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """An architecture that open_clip has."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", VIT)  # pyright: ignore[reportAttributeAccessIssue]
    return "tiny"


@pytest.mark.parametrize("form", ["safetensors", "pt", "training"])
def test_a_checkpoint_is_read_for_its_architecture(form: str, tiny: str, clips: Any, tmp_path: Path) -> None:
    weights = load_file(clips("vit") / "open_clip_model.safetensors")
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(weights, path)
    elif form == "pt":
        torch.save(weights, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in weights.items()}}, path)
    embedder = pair(OpenClipImages(tiny, str(path)), OpenClipTexts(tiny, str(path)))
    expected = of_folder(clips("vit"))
    np.testing.assert_array_equal(embedder.encode(text=TEXTS), expected.encode(text=TEXTS))
    np.testing.assert_array_equal(embedder.encode(image=plain_pictures()), expected.encode(image=plain_pictures()))


def test_a_published_tag_is_read_with_what_it_was_trained_with(
    tiny: str, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: Any = open_clip.pretrained._PRETRAINED  # pyright: ignore[reportAttributeAccessIssue]
    file = str(clips("vit") / "open_clip_model.safetensors")
    tag = {"file": file, "mean": [0.1] * 3, "std": [0.9] * 3, "resize_mode": "squash", "quick_gelu": False}
    monkeypatch.setitem(published, tiny, {"mine": tag})
    image = OpenClipImages(tiny, "mine")
    assert (image.settings["preprocess"]["mean"], image.settings["preprocess"]["resize_mode"]) == ([0.1] * 3, "squash")
    assert image.settings["config"]["quick_gelu"] is False
    by_hand = OpenClipImages(tiny, file)  # all that is published shares this preprocessing
    assert by_hand.settings["preprocess"] == image.settings["preprocess"]
    changed = OpenClipImages(tiny, "mine", preprocess={"mean": [0.2] * 3})
    assert changed.settings["preprocess"] == image.settings["preprocess"] | {"mean": [0.2] * 3}


def test_a_configuration_of_one_s_own_has_random_weights(clips: Any) -> None:
    torch.manual_seed(0)
    image = OpenClipImages(config=VIT)
    assert image.width == 12
    assert torch.isfinite(image(**image.processor.collate([image.processor(colours(9, 9))]))).all()
    read = OpenClipImages(config=str(clips("vit")))
    assert read.settings["config"] == VIT
    assert read.settings["preprocess"]["resize_mode"] == "shortest"


def test_a_checkpoint_is_read_once_for_both_towers(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal_encoders.open_clip import models as open_clip_models

    reads: list[Path] = []
    read = open_clip_models.read_weights
    monkeypatch.setattr(open_clip_models, "read_weights", lambda path: reads.append(path) or read(path))
    checkpoint_cache.clear()
    folder = str(clips("vit"))
    monkeypatch.chdir(Path(folder).parent)
    one, _, two = (
        OpenClipImages(weights=folder),
        OpenClipTexts(weights=Path(folder).name),
        OpenClipImages(weights=folder),
    )
    assert len(reads) == 2  # a second encoder of the same tower is another one
    assert one.visual is not two.visual
    checkpoint_cache.clear()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"no model is named; give arch \(ViT-B-32\) and weights"),
        ({"arch": "ViT-B32"}, r"no arch 'ViT-B32'. Did you mean .*'ViT-B-32'"),
        ({"arch": "ViT-B-32", "config": VIT}, "arch and config both name an architecture"),
        ({"arch": "ViT-B-32", "weights": "laion"}, r"'laion' is neither a file .* published for ViT-B-32 \(openai, "),
        ({"weights": "nowhere/else/clip.pt"}, "no file or folder 'nowhere/else/clip.pt'; give a folder with"),
        ({"config": VIT, "weights": "nowhere.pt"}, "'nowhere.pt' is not a file"),
        ({"config": {"embed_dim": 3}}, "config does not describe a model; vision_cfg, text_cfg is missing"),
        ({"config": VIT | {"vision_cfg": VISION | {"depth": 3}}}, "cannot build the visual tower .*depth"),
        ({"config": VIT, "preprocess": {"crop": 3}}, "preprocess has no setting 'crop'; it has size, mean"),
        ({"config": VIT, "preprocess": {"size": 48}}, "takes pictures of 32 x 32; set preprocess.size to that"),
        ({"config": VIT, "preprocess": {"resize_mode": "fit"}}, "resize_mode shortest, longest or squash; got .*'fit'"),
        ({"config": VIT, "background": "wight"}, "open_clip: background 'wight' is not an opaque colour"),
        ({"config": VIT, "augment": [{"Resize": {"size": 7}}]}, "open_clip: augment makes"),
    ],
)
def test_settings_that_name_no_model_are_refused(settings: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        OpenClipImages(**settings)


def test_what_cannot_be_downloaded_is_said_with_its_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: Any, **request: Any) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", refused)  # pyright: ignore[reportAttributeAccessIssue]
    put = r"Download open_clip_config.json, .* from https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K to a folder"
    with pytest.raises(MultimodalError, match=rf"weights laion2b_s34b_b79k of ViT-B-32 are not .*{put}"):
        OpenClipImages("ViT-B-32", "laion2b_s34b_b79k")
    monkeypatch.setattr(open_clip, "download_pretrained", refused)
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda *_: {"url": "https://x/y.pt", "quick_gelu": True, "mean": (0.5,) * 3}
    )
    put = (
        r"Download https://x/y.pt, and set weights to the file's path, arch to RN50-quickgelu, and preprocess to .*0\.5"
    )
    with pytest.raises(MultimodalError, match=put):
        OpenClipImages("RN50", "yfcc15m")
    with pytest.raises(
        MultimodalError, match=r"no route to host.*no file or folder of that name either. Download the fil"
    ):
        OpenClipTexts(weights="owner/name")
    with pytest.raises(MultimodalError, match=r"files of https://huggingface.co/owner/name to a folder"):
        OpenClipTexts(weights="hf-hub:owner/name")
    missing = {"hf_model_name": str(tmp_path / "bert"), "hf_tokenizer_name": str(tmp_path / "bert")}
    with pytest.raises(MultimodalError, match=r"settings of the text tower .*bert are not on this machine"):
        OpenClipTexts(config=VIT | {"text_cfg": missing})


def test_folders_and_weights_that_do_not_fit_are_refused(clips: Any, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=r"open_clip_config.json cannot be read"):
        OpenClipImages(weights=str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": VIT}))
    with pytest.raises(MultimodalError, match="has no weights next to its open_clip_config"):
        OpenClipImages(weights=str(tmp_path))
    with pytest.raises(UsageError, match="names its architecture; leave out arch"):
        OpenClipImages("ViT-B-32", str(clips("vit")))
    checkpoint = str(clips("vit") / "open_clip_model.safetensors")
    with pytest.raises(MultimodalError, match=r"open_clip_model.safetensors does not fit .* unexpected"):
        OpenClipImages(weights=checkpoint, config=VIT | {"vision_cfg": VISION | {"layers": 1}})


@pytest.mark.parametrize(
    ("value", "reason"), [(3, "wrong type"), (" \n", "empty text"), ("", "empty text"), ("a\ud800", "invalid Unicode")]
)
@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_what_is_not_a_text_is_refused(kind: str, value: Any, reason: str, clips: Any) -> None:
    with pytest.raises(Unreadable) as caught:
        OpenClipTexts(weights=str(clips(kind))).processor(value)
    assert caught.value.reason == reason


def test_their_layers_are_found_from_the_input_to_the_projection(clips: Any) -> None:
    for encoder in (OpenClipImages(weights=str(clips("vit"))), OpenClipTexts(weights=str(clips("vit")))):
        found = layers.parameter_names_by_depth(encoder)
        assert len(found) == 3
        assert any("positional_embedding" in name for name in found[0])
        assert "proj" in found[-1][-1]


@pytest.mark.slow
def test_every_architecture_has_the_weights_that_open_clip_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *settings, **more: tensor)
    compared = 0
    for arch in open_clip.list_models():
        config: Any = open_clip.get_model_config(arch)
        if "hf_model_name" in config["text_cfg"]:  # described on the hub
            continue
        custom, coca = config.pop("custom_text", False), "multimodal_cfg" in config
        cls: Any = (open_clip.CoCa if coca else open_clip.CustomTextCLIP) if custom else open_clip.CLIP
        with torch.device("meta"):
            theirs = {name: tensor.shape for name, tensor in cls(**config).state_dict().items()}
            model = resolve_model(arch, None, None)
            ours = {
                f"{side}.{name}": tensor.shape
                for side in ("visual", "text")
                for name, tensor in build(model.config, side).state_dict().items()
            }
        kept = [name for name in theirs if not name.startswith(("logit_", "text_decoder."))]
        prefixed = {name if custom or name.startswith("visual.") else f"text.{name}": theirs[name] for name in kept}
        assert ours == prefixed, arch
        compared += 1
    assert compared > 100
