"""Draw docs/images/search.png: what three names and a drawing find among characters that training never showed.

After ``make demo``: ``python scripts/readme_picture.py runs/glyphs docs/images/search.png``.
"""

from __future__ import annotations

import io
import sys

from PIL import Image, ImageDraw, ImageFont

import multimodal as mm

NAMES = ["rightwards arrow", "white star", "smiling face"]
HITS = 6
HEAD = 40  # pixels of the line above each row
INK = "#1f2328"


def main(run: str, out: str) -> None:
    embedder = mm.Embedder.from_pretrained(run)
    index = mm.Index.from_table(embedder, f"{run}/config.yaml", split="unseen_characters")
    rows: list[tuple[str, Image.Image | None, mm.Hits]] = []
    for name in NAMES:
        rows.append((f"“{name}” finds", None, index.search(text=name, k=HITS, target="image")))
    first = rows[0][2][0].picture
    assert first is not None
    drawing = Image.open(io.BytesIO(first)).convert("RGB")
    rows.append(("This drawing finds", drawing, index.search(image=drawing, k=HITS, target="text")))
    grids = [hits.grid(columns=HITS).draw() for _, _, hits in rows]
    picture = Image.new("RGB", (grids[0].width, sum(grid.height + HEAD for grid in grids)), "white")
    pen, font, top = ImageDraw.Draw(picture), ImageFont.load_default(18), 0
    for (title, query, _), grid in zip(rows, grids, strict=True):
        pen.text((12, top + HEAD // 2), title, fill=INK, font=font, anchor="lm")
        if query is not None:
            picture.paste(query.resize((HEAD - 8, HEAD - 8)), (round(24 + pen.textlength(title, font)), top + 4))
        picture.paste(grid, (0, top + HEAD))
        top += HEAD + grid.height
    picture.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
