"""Files of pictures of all kinds: modes, sizes, transparency, orientation, 16 bits, JPEGs that are decoded smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def photo(width: int, height: int, contrast: float = 1.0) -> Image.Image:
    """Make a picture of waves with noise; with a large contrast, its colours are clipped."""
    y, x = np.mgrid[:height, :width]
    waves = [
        100 * np.sin(x / 17 + c) + 60 * np.cos(y / 11 * (c + 1)) + RNG.normal(0, 8, (height, width)) for c in range(3)
    ]
    return Image.fromarray((128 + contrast * np.stack(waves, -1)).clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path) -> list[Path]:
    """Write the files to a folder and return their paths."""

    def save(name: str, picture: Image.Image, **options: object) -> None:
        picture.save(folder / name, **options)  # pyright: ignore[reportArgumentType]

    alpha = Image.fromarray(RNG.integers(0, 256, (60, 50), dtype=np.uint8))
    see_through = photo(50, 60)
    see_through.putalpha(alpha)
    save("small.png", photo(7, 5))
    save("square.png", photo(24, 24))
    save("line.png", photo(300, 1))
    save("column.png", photo(2, 90).convert("L"))
    save("rgba.png", see_through)
    save("la.png", see_through.convert("LA"))
    save("palette.png", photo(50, 40).quantize(16))
    save("palette_transparent.png", photo(50, 40).quantize(16), transparency=3)
    save("grey_transparent.png", photo(50, 40).convert("L"), transparency=128)
    save("black_white.png", photo(50, 40).convert("1"))
    save("grey_16.png", Image.fromarray(RNG.integers(0, 65536, (30, 40), dtype=np.uint16)))
    save("lossless.webp", see_through, lossless=True)
    save("lossy.webp", photo(90, 70))
    save("still.gif", photo(50, 40).quantize(32))
    save("plain.tiff", photo(50, 40))
    save("small.jpg", photo(37, 21), quality=90)
    save("odd.jpg", photo(317, 211), quality=80)
    save("clipped.jpg", photo(200, 333, 2.0), quality=85, progressive=True)
    save("full_chroma.jpg", photo(641, 403), subsampling=0, quality=95)
    save("grey.jpg", photo(301, 207).convert("L"))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"turned_{orientation}.jpg", photo(130, 90), exif=exif, quality=95)
        save(f"turned_{orientation}.png", photo(13, 9), exif=exif)
    save("line.jpg", photo(4000, 1))  # its shorter edge is less than a pixel where it is decoded small
    return sorted(folder.iterdir())
