"""How often ``multimodal drift`` alarms: without drift (at most 5 % of the draws), and for shifts injected into glyphs.

The characters of the split "unseen_font" are embedded once by a model that never saw that font (DejaVuSerif), and resampled.

1. Null draws: independent characters; characters in three fonts, all of a character's fonts in one set; rows at random, so that
   most characters are in both sets. The second is repeated as if the rows were independent, which they are not.
2. Shifts: a fraction of the current rows is in the unseen font, blurred, of other scripts, or with renamed words.

Printed is the fraction of draws that alarm, with its 95 % interval (Wilson); with --chart, the power curves are drawn.

    python benchmarks/drift.py runs/glyphs [--draws 200] [--trials 50] [--chart docs/images/drift_power.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from device import add_options, record
from PIL import ImageFilter

import multimodal as mm
from multimodal.core.progress import progress
from multimodal.datasets.glyphs import Glyphs
from multimodal.media.image import png_file, read_picture
from multimodal.monitor.drift import compare_vector_sets
from multimodal.monitor.vector_sets import Vectors, VectorSet, chosen_vectors

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif")  # the last is the unseen one
SCRIPTS = ("GREEK", "CYRILLIC")
RENAMED = {"LETTER": "GLYPH", "SMALL": "LITTLE", "CAPITAL": "BIG", "WITH": "AND", "SIGN": "MARK"}
BLUR = 1.5  # pixels, of pictures of 48
SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
SIZES = (50, 100, 200, 400)
ROWS, SHARE = 300, 0.2  # of the curves over the other one
ALPHA = 0.05
PERMUTATIONS = 199  # a fifth of the default, for speed: it lowers the power a little, and not the level
MODALITIES = ("image", "graph", "text")
KINDS = {  # -> the modalities that change; only these are compared, at their fraction of the level, for speed
    "font": ("image", "graph"),
    "font, same characters": ("image", "graph"),
    "blur": ("image",),
    "script": MODALITIES,
    "words": ("text",),
}

Encoded = dict[str, np.ndarray]  # modality -> (characters, dim)


def embed(run: str, cache: Path | None) -> tuple[dict[str, Encoded], list[str]]:
    """Embed the characters in each font and with each alteration; also return their names."""
    table = Glyphs()
    split, font, character = (table.column(name) for name in ("split", "font", "character"))
    row_of = {(font[row], character[row]): row for row in range(len(table))}
    unseen = dict.fromkeys(character[row] for row in range(len(table)) if split[row] == "unseen_font")
    characters = [c for c in unseen if all((name, c) in row_of for name in FONTS)]
    names = [str(table.value(row_of[FONTS[0], c], "name")) for c in characters]
    if cache is not None and cache.exists():
        stored: Any = np.load(cache)
        kinds = {name.split("|")[0] for name in stored.files}
        return {
            kind: {n.split("|")[1]: stored[n] for n in stored.files if n.startswith(f"{kind}|")} for kind in kinds
        }, names
    embedder = mm.Embedder.from_pretrained(run)
    found: dict[str, Encoded] = {}
    with progress("Embedding", (2 * len(FONTS) + 3) * len(characters)) as advance:

        def encode(modality: str, values: list[Any]) -> np.ndarray:
            vectors = embedder.encode(precision="float32", batch_size=None, **{modality: values})
            advance(len(values))
            return vectors

        text = encode("text", names)
        for name in FONTS:
            rows = [row_of[name, c] for c in characters]
            of_font = {
                m: encode(m, [table.value(row, c) for row in rows])
                for m, c in (("image", "image"), ("graph", "outline"))
            }
            found[name] = of_font | {"text": text}
        base = found[FONTS[0]]
        pictures = [blurred(table.value(row_of[FONTS[0], c], "image")) for c in characters]
        found["blur"] = base | {"image": encode("image", pictures)}
        renamed = [" ".join(RENAMED.get(word, word) for word in name.split()) for name in names]
        found["words"] = base | {"text": encode("text", renamed)}
    if cache is not None:
        named: dict[str, Any] = {f"{kind}|{m}": vectors for kind, of in found.items() for m, vectors in of.items()}
        np.savez(cache, **named)
    return found, names


def blurred(picture: Any) -> bytes:
    """Return a picture out of focus."""
    return png_file(read_picture(picture, "L", 1024, "white").filter(ImageFilter.GaussianBlur(BLUR)))


def vector_set(
    rows: list[tuple[Encoded, np.ndarray, str]],
    units: np.ndarray | None = None,
    modalities: tuple[str, ...] = MODALITIES,
) -> VectorSet:
    """Return a set of rows: encoded characters, which of them, and their font or alteration; by default each is a unit."""
    count = sum(len(chosen) for _, chosen, _ in rows)
    keys = np.array([f"{kind}/{row}" for _, chosen, kind in rows for row in chosen])
    names = np.array([f"#{key}" for key in keys]) if units is None else units
    parts = [
        (
            m,
            Vectors(
                np.concatenate([of[m][chosen] for of, chosen, _ in rows]), keys, names, np.full(count, "{}", object)
            ),
        )
        for m in modalities
    ]
    return VectorSet("drawn", "glyphs", chosen_vectors("drawn", parts, 1000, 0)[0])


def p_values(draw: Callable[[np.random.Generator], tuple[VectorSet, VectorSet]], trials: int, what: str) -> list[float]:
    """Return the p-value of each draw."""
    found = []
    with progress(what, trials, "draws") as advance:
        for seed in range(trials):
            sets = draw(np.random.default_rng(seed))
            found.append(compare_vector_sets(*sets, alpha=ALPHA, seed=seed, permutations=PERMUTATIONS).p_value)
            advance(1)
    return found


def nulls(found: dict[str, Encoded], draws: int) -> dict[str, list[float]]:
    """Return the p-values of draws without drift."""
    base = found[FONTS[0]]
    count = len(base["text"])

    def independent(rng: np.random.Generator) -> tuple[VectorSet, VectorSet]:
        chosen = rng.permutation(count)[: 2 * ROWS]
        return vector_set([(base, chosen[:ROWS], "a")]), vector_set([(base, chosen[ROWS:], "b")])

    def in_fonts(rng: np.random.Generator, known: bool = True) -> tuple[VectorSet, VectorSet]:
        chosen = rng.permutation(count)[: 2 * ROWS // 3]
        halves = (chosen[: ROWS // 3], chosen[ROWS // 3 :])
        units = [np.array([f"={row}" for _ in FONTS for row in half]) if known else None for half in halves]
        first, second = (
            vector_set([(found[font], half, font) for font in FONTS], of)
            for half, of in zip(halves, units, strict=True)
        )
        return first, second

    def at_random(rng: np.random.Generator) -> tuple[VectorSet, VectorSet]:
        chosen = rng.permutation(count)[: 2 * ROWS // 3]
        side = rng.random((len(FONTS), len(chosen))) < 0.5
        sets = []
        for wanted in (True, False):
            rows = [(found[font], chosen[side[n] == wanted], font) for n, font in enumerate(FONTS)]
            sets.append(vector_set(rows, np.array([f"={row}" for _, of, _ in rows for row in of])))
        return sets[0], sets[1]

    return {
        "independent characters": p_values(independent, draws, "Independent characters"),
        "characters in three fonts": p_values(in_fonts, draws, "Characters in three fonts"),
        "rows at random, characters in both sets": p_values(at_random, draws, "Rows at random"),
        "three fonts, as if rows were independent": p_values(
            lambda rng: in_fonts(rng, False), draws, "As if independent"
        ),
    }


def shifted(found: dict[str, Encoded], names: list[str], kind: str, rows: int, share: float) -> Any:
    """Return a draw of two sets of other characters, of which a fraction of the second is altered."""
    base = found[FONTS[0]]
    of_script = np.array([name.split()[0] in SCRIPTS for name in names])

    def draw(rng: np.random.Generator) -> tuple[VectorSet, VectorSet]:
        chosen = rng.permutation(np.flatnonzero(~of_script) if kind == "script" else len(names))[: 2 * rows]
        reference, current = chosen[:rows], chosen[rows:]
        if kind == "font, same characters":
            return same_characters(reference, rng)
        altered = round(share * rows)
        replaced = rng.permutation(np.flatnonzero(of_script))[:altered] if kind == "script" else current[:altered]
        changed = base if kind == "script" else found[FONTS[-1] if kind == "font" else kind]
        second = [(base, current[len(replaced) :], "base"), (changed, replaced, kind)]
        sets = ([(base, reference, "base")], second)
        return vector_set(sets[0], None, KINDS[kind]), vector_set(sets[1], None, KINDS[kind])

    def same_characters(chosen: np.ndarray, rng: np.random.Generator) -> tuple[VectorSet, VectorSet]:
        moved = rng.permutation(len(chosen)) < round(share * len(chosen))
        order = np.concatenate([chosen[~moved], chosen[moved]])
        second = [(base, chosen[~moved], "base"), (found[FONTS[-1]], chosen[moved], "font")]
        units = [np.array([f"={row}" for row in of]) for of in (chosen, order)]
        return (
            vector_set([(base, chosen, "base")], units[0], KINDS[kind]),
            vector_set(second, units[1], KINDS[kind]),
        )

    return draw


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction of a number of draws."""
    z = 1.96
    middle, half = share + z * z / (2 * count), z * (share * (1 - share) / count + z * z / (4 * count**2)) ** 0.5
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def draw_chart(path: Path, curves: dict[str, dict[str, dict[float, float]]]) -> None:
    """Draw the power curves, one line for each kind of shift."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = {
        "share": f"fraction of rows that changed ({ROWS} rows)",
        "rows": f"rows of each set ({SHARE:.0%} changed)",
    }
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for kind, points in curves[name].items():
            axis.plot(list(points), list(points.values()), marker="o", markersize=4, label=kind)
        axis.axhline(ALPHA, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xlabel=title, xscale="log", ylim=(-0.03, 1.03))
        axis.set_xticks(list(next(iter(curves[name].values()))), [f"{x:g}" for x in next(iter(curves[name].values()))])
        axis.minorticks_off()
    axes[0].set_ylabel("fraction of draws that alarm")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS), frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", help="a run of configs/glyphs.yaml")
    p.add_argument("--draws", type=int, default=200, help="null draws of each kind (default: 200)")
    p.add_argument("--trials", type=int, default=50, help="draws of each point of a curve (default: 50)")
    p.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS, help="of shifts (default: all)")
    p.add_argument("--cache", type=Path, help="file in which the vectors are kept (.npz)")
    p.add_argument("--chart", type=Path, help="picture of the power curves")
    add_options(p)
    options = p.parse_args()
    found, names = embed(options.run, options.cache)
    print(f"{len(names):,} characters")
    figures: dict[str, Any] = {"null": {}, "share": {}, "rows": {}}
    for name, ps in nulls(found, options.draws).items() if options.draws else ():
        share = float(np.mean(np.array(ps) < ALPHA))
        low, high = wilson(share, options.draws)
        figures["null"][name] = {"alarms": share, "interval": [low, high]}
        print(f"no drift, {name}: {share:.3f} [{low:.3f}, {high:.3f}] of {options.draws} draws", flush=True)
    for kind in options.kinds if options.trials else ():
        points = {"share": [(ROWS, share) for share in SHARES], "rows": [(rows, SHARE) for rows in SIZES]}
        for name, settings in points.items():
            curve = {}
            for rows, share in settings:
                ps = p_values(
                    shifted(found, names, kind, rows, share), options.trials, f"{kind}, {rows} rows, {share:.0%}"
                )
                level = ALPHA * len(KINDS[kind]) / len(MODALITIES)
                curve[share if name == "share" else rows] = float(np.mean(np.array(ps) < level))
            figures[name][kind] = curve
            print(f"{kind} by {name}:", ", ".join(f"{x:g} {power:.2f}" for x, power in curve.items()), flush=True)
    if options.chart is not None and options.trials:
        draw_chart(options.chart, figures)
    record(options, figures)


if __name__ == "__main__":
    main()
