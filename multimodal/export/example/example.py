"""Turns texts, pictures and lists of numbers into vectors with the ONNX files in this folder; needs no other program.

    pip install numpy onnxruntime pillow tokenizers
    python example.py --text "a red cup"

preprocessing.json says for each modality how a value becomes the inputs of its ONNX file.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")  # of Pillow
STRIP_PIXELS = 2**22  # converted at a time, as a copy of a large picture in 4 bytes a pixel takes much memory
Description = dict[str, Any]


def embed(modality: str, value: Any) -> np.ndarray:
    """Return the vector of a value, ``(dim,)`` float32 of unit length.

    Args:
        modality: a modality in preprocessing.json.
        value: a text, the path of a picture, or a list of numbers.

    Raises:
        ValueError: the modality is not in preprocessing.json, or the value cannot be read.
    """
    description, session = load(modality)
    inputs = prepare(description, value)
    return np.asarray(session.run(["vectors"], {i.name: inputs[i.name] for i in session.get_inputs()})[0])[0]


@cache
def load(modality: str) -> tuple[Description, Any]:
    """Return the description of a modality in preprocessing.json, and its ONNX file ready to run."""
    import onnxruntime

    found = json.loads((FOLDER / "preprocessing.json").read_text(encoding="utf-8"))
    if modality in found["not_covered"]:
        raise ValueError(f"this example cannot read {modality}: {found['not_covered'][modality]}")
    if modality not in found["modalities"]:
        raise ValueError(f"there is no modality {modality!r}; there is {', '.join(found['modalities']) or 'none'}")
    description = found["modalities"][modality]
    return description, onnxruntime.InferenceSession(FOLDER / description["file"], providers=["CPUExecutionProvider"])


def once(description: Description, make: Callable[[], Any]) -> Any:
    """Return what was made from a description before, or make it."""
    if "made" not in description:
        description["made"] = make()
    return description["made"]


def prepare(description: Description, value: Any) -> dict[str, np.ndarray]:
    """Return the inputs of the ONNX file for one value, in a batch of one."""
    return KINDS[description["kind"]](description, value)


# Pictures


def picture_inputs(description: Description, value: Any) -> dict[str, np.ndarray]:
    """``pixels``: ``(1, channels, height, width)`` uint8."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # a picture of more than 89 million pixels
        picture = read_picture(description, value)
    for step in description["steps"]:
        picture = STEPS[step["step"]](picture, step, description)
    pixels = np.array(picture)
    return {"pixels": pixels.reshape(1, *pixels.shape[:2], -1).transpose(0, 3, 1, 2)}


def read_picture(description: Description, value: Any) -> Any:
    """Return a picture upright, without transparency, in the mode of the description."""
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    mode, edge = description["mode"], description["jpeg_edge"]
    if hasattr(value, "__array__"):
        picture = Image.fromarray(np.asarray(value))
    else:
        try:
            picture = Image.open(io.BytesIO(Path(value).read_bytes()))
        except UnidentifiedImageError as error:
            raise ValueError(f"{value} is not a picture that can be read") from error
        scale = 1 if edge is None else 2 * edge / max(picture.size)
        if scale < 1:  # a JPEG is decoded at a half, quarter or eighth of its size
            size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))  # Pillow divides by both
            picture.draft("L" if mode == "L" else None, size)
    if picture.mode == "F" or (picture.mode == "I" and picture.format not in ("PPM", "PNG")):
        raise ValueError("the range of floating-point or 32-bit pixels is unknown; give 8 or 16 bits")
    picture.load()
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        picture = eight_bits(picture)
    if picture.has_transparency_data:
        picture = flatten(picture, tuple(description["background"]))
    return picture.convert(mode)


def eight_bits(picture: Any) -> Any:
    """Return a picture of 16 bits in 8 bits; a PNG may declare one grey as transparent."""
    from PIL import Image

    pixels = np.asarray(picture).clip(0, 65535)
    grey = Image.fromarray((pixels // 257).astype(np.uint8))
    if "transparency" in picture.info:
        opaque = np.where(pixels == picture.info["transparency"], 0, 255)
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8)))
    return grey


def flatten(picture: Any, background: tuple[int, ...]) -> Any:
    """Lay a picture with transparent parts on a background colour, in RGB."""
    from PIL import Image

    flat = Image.new("RGB", picture.size)
    rows = max(STRIP_PIXELS // picture.width, 1)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        strip = strip.convert("LA") if strip.mode == "La" else strip  # premultiplied
        laid = Image.new("RGBA", strip.size, background)
        laid.alpha_composite(strip.convert("RGBA"))
        flat.paste(laid.convert("RGB"), (0, top))
    return flat


def limit_aspect_ratio(picture: Any, step: Description, _: Description) -> Any:
    """Take the middle of a picture that is too long."""
    size = tuple(min(edge, step["ratio"] * min(picture.size)) for edge in picture.size)
    left, top = (picture.width - size[0]) // 2, (picture.height - size[1]) // 2
    return picture.crop((left, top, left + size[0], top + size[1]))


def resize_longer(picture: Any, step: Description, _: Description) -> Any:
    """Resize a picture by its longer edge."""
    scale = step["edge"] / max(picture.size)
    return resized(picture, [max(round(edge * scale), 1) for edge in picture.size], step)


def resize_shorter(picture: Any, step: Description, _: Description) -> Any:
    """Resize a picture by its shorter edge."""
    edge, (width, height) = step["edge"], picture.size
    larger = int(edge * max(width, height) / min(width, height))
    return resized(picture, [edge, larger] if width <= height else [larger, edge], step)


def resize(picture: Any, step: Description, _: Description) -> Any:
    """Resize a picture to a width and a height."""
    return resized(picture, [step["width"], step["height"]], step)


def resized(picture: Any, size: list[int], step: Description) -> Any:
    """Resize a picture with antialiasing.

    Args:
        picture: the picture.
        size: ``[width, height]``.
        step: with the name of the ``filter``.
    """
    from PIL import Image

    if step["filter"] not in FILTERS:
        raise ValueError(f"there is no filter {step['filter']!r}")
    return picture.resize(tuple(size), Image.Resampling[step["filter"].upper()])


def pad(picture: Any, step: Description, description: Description) -> Any:
    """Put a picture in the middle of a ground.

    Args:
        picture: the picture, not larger than the ground.
        step: with the ground's ``width`` and ``height``.
        description: with the ``background`` colour.
    """
    from PIL import Image

    background = Image.new("RGB", (1, 1), tuple(description["background"])).convert(picture.mode)
    ground = background.resize((step["width"], step["height"]), Image.Resampling.NEAREST)
    ground.paste(picture, ((step["width"] - picture.width) // 2, (step["height"] - picture.height) // 2))
    return ground


def crop(picture: Any, step: Description, _: Description) -> Any:
    """Take the middle of the picture; where it is smaller than that, the rest is black."""
    from PIL import ImageOps

    right, down = max(step["width"] - picture.width, 0), max(step["height"] - picture.height, 0)
    if right or down:
        picture = ImageOps.expand(picture, (right // 2, down // 2, (right + 1) // 2, (down + 1) // 2), 0)
    left, top = round((picture.width - step["width"]) / 2), round((picture.height - step["height"]) / 2)
    return picture.crop((left, top, left + step["width"], top + step["height"]))


# Texts


def read_text(value: Any, characters: int, side: str = "right") -> str:
    """Return a text, cut if it is long, between two words if possible.

    Args:
        value: the text.
        characters: how many to keep at most.
        side: the side on which it is cut, "left" or "right".

    Raises:
        ValueError: it is not a text, is empty, or is not valid Unicode.
    """
    if not isinstance(value, str):
        raise ValueError("give a text")
    text = value if len(value) <= characters else value.strip()
    if len(text) > characters:
        kept = text[:characters] if side == "right" else text[-characters:]
        at = characters - 1 if side == "right" else len(text) - characters - 1
        if any(character.isspace() for character in text[at : at + 2]):
            text = kept.strip()
        else:
            words = kept.rsplit(maxsplit=1) if side == "right" else kept.split(maxsplit=1)[::-1]
            text = words[0] if len(words) == 2 else kept
    if not text.strip():
        raise ValueError("the text is empty; give at least one word")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text is not valid Unicode") from error
    return text


def subword_inputs(description: Description, value: Any) -> dict[str, np.ndarray]:
    """``tokens``: ``(1, length)`` int64."""
    from tokenizers import Tokenizer

    tokenizer = once(description, lambda: Tokenizer.from_str(json.dumps(description["tokenizer"])))
    tokenizer.encode_special_tokens = True  # "[PAD]" in a text is text
    found = tokenizer.encode(read_text(value, description["characters"])).ids[: description["max_length"] or None]
    return {"tokens": np.array([found or [description["unknown"]]], dtype=np.int64)}


def token_inputs(description: Description, value: Any) -> dict[str, np.ndarray]:
    """``input_ids`` and ``attention_mask``: ``(1, length)`` int64."""
    from tokenizers import Tokenizer

    tokenizer = once(description, lambda: Tokenizer.from_str(json.dumps(description["tokenizer"])))
    tokenizer.encode_special_tokens = description["verbatim"]
    text = description["prompt"] + read_text(value, description["characters"], description["cut"])
    found = tokenizer.encode(text, add_special_tokens=False).ids
    room = description["max_length"] - len(description["before"]) - len(description["after"])
    found = found[:room] if description["cut"] == "right" else found[max(len(found) - room, 0) :]
    tokens = np.array([[*description["before"], *found, *description["after"]]], dtype=np.int64)
    if not tokens.size:
        raise ValueError("nothing of the text is left by the tokenizer; give at least one word")
    return {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}


def term_inputs(description: Description, value: Any) -> dict[str, np.ndarray]:
    """``terms`` ``(t,)`` int64, ``weights`` ``(t,)`` float32 and ``sizes`` ``(1,)`` int64."""
    number = once(description, lambda: {term: number for number, term in enumerate(description["terms"])})
    shortest, longest = description["shortest"], description["longest"]
    chunks = read_text(value, description["characters"]).lower().split()
    chunks = [chunk[: description["chunk_characters"]] for chunk in chunks]
    pairs = itertools.pairwise(chunks) if description["word_pairs"] else ()
    found = [number[pair] for pair in map("  {0[0]} {0[1]}".format, pairs) if pair in number]
    for chunk in chunks:
        padded = f" {chunk} "
        terms = [f"  {word}" for word in re.findall(r"\w\w+", chunk)]
        for size in range(shortest, longest + 1):
            terms += [padded[start : start + size] for start in range(max(len(padded) - size, 0) + 1)]
        found += [number[term] for term in terms if term in number]
    numbers, counts = np.unique(np.array(found, dtype=np.int64), return_counts=True)
    weights = (1 + np.log(counts)) * np.array(description["idf"], dtype=np.float64)[numbers]
    weights = (weights / max(np.linalg.norm(weights), 1e-12)).astype(np.float32)
    return {"terms": numbers, "weights": weights, "sizes": np.array([len(numbers)])}


def word_inputs(description: Description, value: Any) -> dict[str, np.ndarray]:
    """``words`` ``(t,)`` int64, ``weights`` ``(t,)`` float32 and ``sizes`` ``(1,)`` int64."""
    from tokenizers import Regex, pre_tokenizers

    row = once(description, lambda: {word: number for number, word in enumerate(description["words"], start=1)})
    text = unicodedata.normalize("NFC", read_text(value, description["characters"]))
    splitter = pre_tokenizers.Split(Regex(r"[\p{L}\p{M}\p{N}_]+"), "removed", invert=True)
    words = [word for word, _ in splitter.pre_tokenize_str(text)]
    found = [number for word in words if (number := row.get(word) or row.get(word.lower()))] or [0]
    factors = description["factors"]
    weights = [1 / len(found) * (factors[n] if factors and n < len(factors) else 1) for n in found]
    return {
        "words": np.array(found, dtype=np.int64),
        "weights": np.array(weights, dtype=np.float32),
        "sizes": np.array([len(found)]),
    }


# Numbers


def number_inputs(description: Description, value: Any) -> dict[str, np.ndarray]:
    """``numbers``: ``(1, width)`` float32."""
    vector = np.array(json.loads(value) if isinstance(value, str) else value, dtype=np.float32)
    if vector.shape != (description["width"],) or not np.isfinite(vector).all():
        raise ValueError(f"give a list of {description['width']} finite numbers")
    if description["scale"] == "standard":
        mean, deviation = (np.array(description[name], dtype=np.float32) for name in ("mean", "deviation"))
        vector = (vector - mean) / deviation
    elif description["scale"] == "length":
        length = np.linalg.norm(vector.astype(np.float64))
        if not length:
            raise ValueError("the vector is zero, so it has no direction")
        vector = (vector * (len(vector) ** 0.5 / length)).astype(np.float32)
    return {"numbers": vector[None]}


STEPS: dict[str, Callable[[Any, Description, Description], Any]] = {
    "limit_aspect_ratio": limit_aspect_ratio,
    "resize_longer": resize_longer,
    "resize_shorter": resize_shorter,
    "resize": resize,
    "pad": pad,
    "crop": crop,
}
KINDS: dict[str, Callable[[Description, Any], dict[str, np.ndarray]]] = {
    "picture": picture_inputs,
    "subwords": subword_inputs,
    "tokens": token_inputs,
    "terms": term_inputs,
    "words": word_inputs,
    "numbers": number_inputs,
}


def main(arguments: list[str]) -> None:
    """Print the vector of a value as JSON; ``arguments`` are ``--MODALITY`` and the value."""
    if len(arguments) != 2 or not arguments[0].startswith("--"):
        raise SystemExit('Usage: python example.py --MODALITY VALUE, such as --text "a red cup" or --image cup.png')
    try:
        print(json.dumps(embed(arguments[0][2:], arguments[1]).tolist()))
    except (ValueError, OSError, Warning) as error:
        raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
