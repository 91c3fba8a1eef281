"""Whether the rows that `mine` would have people pair are worth more than rows drawn at random, at equal count.

Simulated on data whose pairs are known. Each modality has vectors of its own that know nothing of the pairs: counts of
fragments and words of molecules; pixels of glyphs, and the letters of their names. Some pairs are given at random, the others
are hidden; a linear map (ridge regression, both modalities to the other) is fitted to the given pairs. Then pairs are revealed
by each way of choosing, in rounds, and the maps are fitted again. Printed: the mean reciprocal rank of held-out rows, over both
directions, mean and standard deviation over the seeds; `better`, the number of seeds in which it is above that of random.

    python benchmarks/mine.py molecules chebi20/molecules.tsv [--given 100] [--rounds 4] [--each 50] [--seeds 0 1 2 3 4]
    python benchmarks/mine.py glyphs
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from multimodal.monitor.choose import By, choose, margins

WAYS: tuple[By, ...] = ("random", "uncertain", "diverse", "covered", "all")
WIDTH = 256


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)).astype(np.float32)


def words(texts: list[str], by: str) -> np.ndarray:
    """Return vectors of texts: tf-idf of words, or of runs of letters, reduced."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counted = TfidfVectorizer(analyzer=by, ngram_range=(1, 1) if by == "word" else (2, 4), sublinear_tf=True, min_df=2)
    return unit(TruncatedSVD(WIDTH, random_state=0).fit_transform(counted.fit_transform(texts)))


def reduced(features: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD

    return unit(TruncatedSVD(WIDTH, random_state=0).fit_transform(features - features.mean(axis=0)))


def molecules(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of molecules and of their descriptions."""
    from rdkit import rdBase
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=2, fpSize=2048)
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    prints, texts = [], []
    with rdBase.BlockLogs():
        for _, smiles, description in lines:
            if (molecule := MolFromSmiles(smiles.replace("\\\\", "\\"))) is not None:
                prints.append(np.log1p(generator.GetCountFingerprintAsNumPy(molecule).astype(np.float64)))
                texts.append(description)
    return reduced(np.array(prints)), words(texts, "word")


def glyphs() -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of one drawing of each character, and of its name."""
    from multimodal.datasets.glyphs import Glyphs

    table = Glyphs()
    fonts = np.array(table.column("font"))
    rows = np.flatnonzero(fonts == "DejaVuSans")
    pictures = np.array([table.value(int(row), "image").reshape(-1) / 255 for row in rows])
    return reduced(pictures), words([table.value(int(row), "name").lower() for row in rows], "word")


def fit(a: np.ndarray, b: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Return the matrix W with the least ``|a W - b|^2 + strength |W|^2``."""
    return np.linalg.solve(a.T @ a + strength * np.eye(a.shape[1]), a.T @ b)


def mrr(queries: np.ndarray, candidates: np.ndarray) -> float:
    scores = queries @ candidates.T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    return float((1 / ranks).mean())


def simulate(a: np.ndarray, b: np.ndarray, way: By, given: int, rounds: int, each: int, seed: int) -> list[float]:
    """Return the mean reciprocal rank of held-out rows before and after each round."""
    order = np.random.default_rng(seed).permutation(len(a))
    held_out, pool = order[: len(a) // 4], order[len(a) // 4 :]
    paired, hidden = pool[:given], pool[given:]
    found = []
    for round_number in range(rounds + 1):
        forth, back = fit(a[paired], b[paired]), fit(b[paired], a[paired])
        there, here = unit(a[held_out] @ forth), unit(b[held_out] @ back)
        found.append((mrr(there, b[held_out]) + mrr(here, a[held_out])) / 2)
        if round_number == rounds:
            break
        # a row of the first modality alone; its candidates are all values of the other one, paired or not
        uncertain = -margins(unit(a[hidden] @ forth), b[pool], np.arange(len(pool)))
        chosen = choose(a[hidden], a[paired], uncertain, each, way, seed * 100 + round_number).rows
        paired = np.concatenate([paired, hidden[chosen]])
        hidden = np.delete(hidden, chosen)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("molecules", "glyphs"))
    parser.add_argument("table", type=Path, nargs="?", help="of molecules: SMILES and description, separated by tabs")
    parser.add_argument("--given", type=int, default=100, help="pairs at the beginning")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--each", type=int, default=50, help="pairs revealed in a round")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    options = parser.parse_args()
    a, b = molecules(options.table) if options.data == "molecules" else glyphs()
    print(f"{options.data}: {len(a):,} rows; {options.given} pairs given, {options.each} revealed in each round")
    settings = options.given, options.rounds, options.each
    baseline: list[list[float]] = []
    for way in WAYS:
        found = [simulate(a, b, way, *settings, seed) for seed in options.seeds]
        baseline = baseline or found
        figures = np.array(found)
        better = (figures > np.array(baseline)).sum(axis=0)[-1]
        steps = "  ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(figures.mean(axis=0), figures.std(axis=0), strict=True))
        print(f"{way:<10} {steps}   better {better} of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
