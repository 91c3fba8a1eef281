"""The shipped configurations: all run unchanged, and reach the figures in the documentation."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import open_clip
import pytest
import small_transformers
import yaml
from fontTools.ttLib import TTFont
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from multimodal.cli.main import main
from multimodal.datasets import TABLES
from multimodal.datasets.glyphs import Glyphs, draw
from multimodal.evaluation.run_evaluation import evaluate
from multimodal.media.image import png_file

SHARED = Path(os.environ.get("MULTIMODAL_SHARED_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo")
SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}
LARGER = ("glyphs_full", "glyphs_pretrained")  # larger variants of another one
PRETRAINING = ("mlm", "word2vec")  # for `multimodal pretrain`
FREEFONT = Path("/usr/share/fonts/truetype/freefont")  # Debian's package fonts-freefont-ttf
CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    "config",
    [pytest.param(c, marks=[pytest.mark.slow] if c.stem in LARGER else []) for c in CONFIGS],
    ids=lambda path: path.stem,
)
def test_every_configuration_trains_a_step_unchanged(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    assert settings["data"]["table"] in TABLES  # a built-in table needs neither a download nor the user's files
    config = with_a_small_clip(config, settings, tmp_path)
    config = with_a_small_bert(config, settings, tmp_path)
    command = "pretrain" if config.stem in PRETRAINING else "fit"
    short = ["--trainer.max_steps", "1", "--trainer.val_check_interval", "1", "--trainer.enable_progress_bar", "false"]
    assert main([command, "--config", str(config), "--run", str(tmp_path / "run"), *short]) == 0


def with_a_small_clip(config: Path, settings: Any, folder: Path) -> Path:
    """The configuration, with a small new model of open_clip instead of a published one."""
    encoders = (encoder.get("init_args", {}) for encoder in settings["model"].get("encoders", {}).values())
    published = [arguments for arguments in encoders if str(arguments.get("weights")).startswith("hf-hub:")]
    if not published:
        return config
    clip = folder / "clip"
    clip.mkdir()
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL_CLIP}))
    save_file(open_clip.CLIP(**SMALL_CLIP).state_dict(), clip / "open_clip_model.safetensors")
    for arguments in published:
        arguments["weights"] = str(clip)
    settings["model"]["dim"] = SMALL_CLIP["embed_dim"]
    (folder / config.name).write_text(yaml.safe_dump(settings))
    return folder / config.name


def with_a_small_bert(config: Path, settings: Any, folder: Path) -> Path:
    """The configuration, with a small new model of Hugging Face instead of a published one."""
    encoders = settings["model"].get("encoders", {}).values()
    names = ("huggingface", "sentence_transformers")
    published = [encoder for encoder in encoders if encoder["class_path"].rpartition(".")[2] in names]
    if not published:
        return config
    bert = folder / "bert"
    small_transformers.model(bert, "bert")
    small_transformers.tokenizer(bert)
    for encoder in published:
        if encoder["class_path"].endswith("sentence_transformers"):
            SentenceTransformer(str(bert), device="cpu", local_files_only=True).save(str(folder / "sentences"))
            encoder["init_args"]["weights"] = str(folder / "sentences")
        else:
            encoder["init_args"] |= {"weights": str(bert), "max_length": 24}
    (folder / config.name).write_text(yaml.safe_dump(settings))
    return folder / config.name


def real(table: str) -> tuple[str, str]:
    """The option that replaces a sample by a table of real data; skips the test if the file is missing."""
    path = SHARED / table
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    return "--data.table", str(path)


def measured(capsys: pytest.CaptureFixture[str], run: Path, *options: str) -> Any:
    capsys.readouterr()
    assert main(["evaluate", str(run), *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def trained(name: str, run: Path, *options: str) -> Path:
    (config,) = [path for path in CONFIGS if path.stem == name]
    assert main(["fit", "--config", str(config), "--run", str(run), *options]) == 0
    return run


def trained_once(name: str, folder: pytest.TempPathFactory, *options: str) -> Path:
    """The run of a configuration, which several tests measure."""
    run = folder.getbasetemp() / name
    return run if run.exists() else trained(name, run, *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unseen_characters", "unseen_font"),
    [("glyphs", (0.60, 0.78), (0.64, 0.90)), ("glyphs_full", (0.64, 0.80), (0.70, 0.93))],
)
def test_characters_and_their_names_find_each_other(
    name: str,
    unseen_characters: tuple[float, float],
    unseen_font: tuple[float, float],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = trained_once(name, tmp_path_factory)
    new = measured(capsys, run, "--split", "unseen_characters")["pairs"]["text->image"]
    assert new["recall@1"] >= unseen_characters[0]
    assert new["recall@5"] >= unseen_characters[1]
    trained_on = measured(capsys, run, "--split", "unseen_font")["pairs"]["image->text"]
    assert trained_on["recall@1"] >= unseen_font[0]
    assert trained_on["recall@5"] >= unseen_font[1]


@pytest.mark.slow
@pytest.mark.parametrize(("font", "at_5"), [("FreeSerif", 0.60), ("FreeSansBold", 0.80)])
def test_characters_in_fonts_of_another_maker_find_their_names(
    font: str, at_5: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = FREEFONT / f"{font}.ttf"
    if not path.is_file():
        pytest.skip(f"{path} does not exist: apt-get install fonts-freefont-ttf")
    run = trained_once("glyphs", tmp_path_factory)
    glyphs = Glyphs()
    train = {glyphs.value(row, "character") for row in range(len(glyphs)) if glyphs.value(row, "split") == "train"}
    known = sorted(train & set(map(chr, TTFont(path).getBestCmap() or {})))
    table = [{"image": draw(path, character), "name": unicodedata.name(character)} for character in known]
    pictures = [row | {"image": png_file(Image.fromarray(row["image"]))} for row in table if row["image"].min() <= 127]
    found = evaluate(run, pictures, columns={"image": "image", "text": "name"}, key=None, group=None, split="all")
    assert found.pairs["image->text"].recall_at_5 >= at_5


@pytest.mark.slow
def test_emoji_are_retrieved_by_their_names_five_times_as_often_as_by_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(capsys, trained("emoji", tmp_path, *real("emoji/emoji.csv")))["pairs"]["text->image"]
    assert found["recall@10"] >= 5 * 10 / found["pool"]


@pytest.mark.slow
def test_a_published_encoder_of_names_finds_more_emoji_together_with_the_bag(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "--model.encoders.text.init_args.weights", str(minilm)
    table = real("emoji/emoji.csv")
    trained("emoji", tmp_path / "bag", *table)
    trained("emoji_pretrained", tmp_path / "published", *table, *weights)
    assert (
        main(["ensemble", *(str(tmp_path / run) for run in ("bag", "published")), "--out", str(tmp_path / "both")]) == 0
    )
    recalls = [
        measured(capsys, tmp_path / run)["pairs"]["text->image"]["recall@10"] for run in ("bag", "published", "both")
    ]
    assert recalls[2] > max(recalls[:2])
    assert recalls[2] >= 0.60


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["test", "all"])
def test_molecules_are_retrieved_25_percent_better_than_by_the_linear_baseline(
    pool: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = real("chebi20/molecules.tsv")
    options = "--data.key", "CID", "--data.options.escapechar", "\\"
    run = trained_once("molecules", tmp_path_factory, *table, *options)
    found = measured(capsys, run, "--pool", pool, "--baseline", "linear")
    linear = found["baselines"]["linear"]["text->graph"]
    assert found["pairs"]["text->graph"]["mrr"] >= 1.25 * linear["mrr"]


@pytest.mark.slow
def test_digits_of_unseen_speakers_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = []
    table = real("spoken_digits/digits.csv")
    for held_out in SPEAKERS:
        others = ", ".join(speaker for speaker in SPEAKERS if speaker != held_out)
        split = ["--data.train", f"[{others}]", "--data.validation", held_out, "--data.test", held_out]
        run = trained("spoken_digits", tmp_path / held_out, *table, *split)
        accuracy.append(measured(capsys, run)["pairs"]["audio->text"]["recall@1"])
    assert sum(accuracy) / len(accuracy) >= 0.85
