"""Mixtures: labels say what was done, the same seed gives the same copy, and clean copies are untouched."""

from __future__ import annotations

from collections import Counter

import torch

from synthpipe.density.kinds import KINDS
from synthpipe.images import quantize_8bit
from synthpipe.training.kinds.mixtures import UNKNOWN, Mixture, draw_mixture

SEEDS = range(250)
NOISE, BLUR, COMPRESSION, ENLARGEMENT, PATTERN, GRAPHICS = range(len(KINDS))


def photo() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 20, 26, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(160, 208), mode="bicubic", align_corners=False)
    return quantize_8bit((smooth + 0.02 * torch.randn(1, 1, 160, 208, generator=generator)).clamp(0, 1))[0]


IMAGE = photo()
COPIES = [draw_mixture(IMAGE, seed, 1.5, ()) for seed in SEEDS]


def words_of(copy: Mixture) -> set[str]:
    return {part.split()[0] for part in copy.words.split(", ")}


def test_copies_are_files_of_their_own() -> None:
    for copy in COPIES:
        assert copy.image.shape[:2] == (1, 3)
        assert min(copy.image.shape[2:]) >= 80
        assert torch.equal(quantize_8bit(copy.image), copy.image)
        assert copy.labels.shape == (len(KINDS),)
        assert set(copy.labels.tolist()) <= {0, 1, UNKNOWN}


def test_a_seed_is_a_copy() -> None:
    for seed in (3, 17):
        again = draw_mixture(IMAGE, seed, 1.5, ())
        assert torch.equal(again.image, COPIES[seed].image)
        assert torch.equal(again.labels, COPIES[seed].labels)
        assert again.words == COPIES[seed].words


def test_labels_are_what_the_words_say() -> None:
    done = {
        COMPRESSION: {"webp", "jpeg"},
        ENLARGEMENT: {"enlarged"},
        PATTERN: {"combed", "striped", "screened"},
        GRAPHICS: {"drawn"},
        BLUR: {"blur", "motion", "defocus"},
        NOISE: {"noise", "learned"},
    }
    for copy in COPIES:
        for kind, words in done.items():
            if copy.labels[kind] == 1:
                assert words & words_of(copy), (copy.words, KINDS[kind])
    for copy in COPIES:
        strong = [part for part in copy.words.split(", ") if part.startswith("jpeg") and int(part.split()[1]) <= 50]
        if strong:
            assert copy.labels[COMPRESSION] == 1


def test_every_kind_is_drawn_alone_with_others_and_not_at_all() -> None:
    for kind in range(len(KINDS)):
        there = [copy for copy in COPIES if copy.labels[kind] == 1]
        assert len(there) >= 10, KINDS[kind]
        assert any(int((copy.labels == 1).sum()) > 1 for copy in there), KINDS[kind]
        assert sum(int(copy.labels[kind] == 0) for copy in COPIES) >= 80
    assert Counter(copy.words for copy in COPIES)["clean"] >= 20


def test_most_clean_copies_are_the_picture_and_some_grey_or_of_another_tone() -> None:
    copies = [draw_mixture(IMAGE, seed, 1.0, ()).image[0] for seed in SEEDS if COPIES[seed].words == "clean"]
    assert len(copies) >= 20
    same = grey = 0
    for copy in copies:
        height, width = copy.shape[1:]
        same += torch.equal(copy, IMAGE[:, -height:, -width:])  # cut at the top and the left alone
        grey += bool((copy[0] == copy[1]).all())
    assert same > len(copies) / 2
    assert same + grey < len(copies)
    assert grey >= 1
