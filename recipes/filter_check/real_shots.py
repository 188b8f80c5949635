"""A corpus that real noisy shots spoil: tiles of photographs that no setting was chosen on, and their references.

Of PolyU's crops and SIDD's samples only the scenes take part on which no setting was chosen.  Each
fourth tile of the corpus becomes a reference, the mean of many shots, whose spoilt copy is one noisy shot of it; the
others stay photographs of BSDS, and their spoilt copies are noisy shots of other places.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from contamination import Bytes, Corpus, reduced

from synthpipe.files.image_files import read_image

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen

__all__ = ["make_real_corpus"]

_SETS = {"polyu_crop": "polyu", "sidd": "sidd"}
_REFERENCES_EACH = 4
#: Of which shot replaces which tile.
_SEED = 20_261_127


def make_real_corpus(data: Path, corpus: Corpus, side: int, scale: int) -> Corpus:
    """``corpus`` with references among its clean tiles, and noisy shots for its spoilt ones.

    Args:
        data: folder with ``pairs.csv``.
        corpus: of clean tiles.
        side: of a tile, pixels.
        scale: of the reductions.
    """
    noisy, clean, family = _tiles(data, side)
    rng = np.random.default_rng(_SEED)
    chosen = rng.permutation(np.arange(len(corpus)) % len(noisy))
    tiles = corpus.clean.copy()
    references = np.arange(len(corpus)) % _REFERENCES_EACH == 0
    tiles[references] = clean[chosen[references]]
    spoilt = noisy[chosen]
    return replace(
        corpus,
        clean=tiles,
        corrupted=spoilt,
        clean_lq=reduced(tiles, scale),
        corrupted_lq=reduced(spoilt, scale),
        family=family[chosen],
        kinds=tuple(_SETS.values()),
    )


def _tiles(data: Path, side: int) -> tuple[Bytes, Bytes, np.ndarray]:
    """Noisy tiles and their references, ``(M, 3, side, side)``, side by side over each picture, and their set."""
    noisy, clean, family = [], [], []
    with (data / "pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["set"] not in _SETS or is_chosen(row["noisy"]):
                continue
            shots = [read_image(data / row[name]) for name in ("noisy", "clean")]
            for top in range(0, shots[0].shape[0] - side + 1, side):
                for left in range(0, shots[0].shape[1] - side + 1, side):
                    parts = [shot[top : top + side, left : left + side].transpose(2, 0, 1) for shot in shots]
                    noisy.append(parts[0])
                    clean.append(parts[1])
                    family.append([*_SETS].index(row["set"]))
    return np.stack(noisy), np.stack(clean), np.array(family, np.int64)
