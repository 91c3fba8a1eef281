"""Two small tables and a model, and the commands that write folders from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COLUMNS = {"text": "name", "words": "words"}
WORDS = ("red", "green", "blue", "small", "large", "old", "new", "tall", "cup", "jug", "pot", "bowl")


@dataclass(frozen=True)
class Material:
    """What the commands read.

    Attributes:
        folder: the folder of all of it.
        tables: two tables of different length.
        model: a model of two encoders of texts.
        embeddings: those of both tables.
        config: a configuration of a short training.
    """

    folder: Path
    tables: tuple[Path, Path]
    model: Path
    embeddings: tuple[Path, Path]
    config: Path


def arguments_of(command: str, material: Material, out: Path) -> list[object]:
    columns = [f"--columns.{modality}={column}" for modality, column in COLUMNS.items()]
    return {
        "embed": ["embed", material.model, material.tables[0], "--out", out, *columns],
        "index": ["index", material.embeddings[0], "--out", out],
        "prepare": ["prepare", material.tables[0], "--out", out, *columns],
        "export": ["export", material.model, "--to", "torch-export", "--out", out],
        "fit": ["fit", "--config", material.config, "--run", out],
    }[command]


def write_table(path: Path, rows: int) -> Path:
    lines = ["name,words,split"]
    for row in range(rows):
        words = [WORDS[row // 12**place % 12] for place in range(4)]
        lines.append(
            f"{' '.join(words)} {row},{' '.join(reversed(words))},{'validation' if row % 20 == 0 else 'train'}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path
