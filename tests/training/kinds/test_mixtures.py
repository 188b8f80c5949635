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


def test_strengths_are_those_of_noise_that_nothing_has_changed_since() -> None:
    known = 0
    for copy in COPIES:
        assert not copy.strengths[[BLUR, COMPRESSION, ENLARGEMENT, PATTERN, GRAPHICS]].any()
        parts = [part.split() for part in copy.words.split(", ")]
        noise = [place for place, part in enumerate(parts) if "noise" in part]
        if not noise:
            assert not copy.strengths[NOISE], copy.words
            continue
        sigma = float(parts[noise[-1]][parts[noise[-1]].index("noise") + 1])
        later = {part[0] for part in parts[noise[-1] :]}
        if copy.labels[COMPRESSION] == 1 or later & {"enlarged", "webp"}:
            assert not copy.strengths[NOISE], copy.words
        elif not later & {"jpeg", "screened"}:
            known += 1
            # 1.3 of 255 must just be seen.
            assert abs(float(copy.strengths[NOISE]) - sigma / 1.3) < 1e-4, copy.words
    assert known >= 20


def test_noise_of_grey_copies_is_grey() -> None:
    noisy = [copy for copy in COPIES if copy.labels[NOISE] == 1 and not words_of(copy) & {"drawn", "webp", "jpeg"}]
    grey = [copy for copy in noisy if bool((copy.image == copy.image[:, :1]).all())]
    assert 0.04 < len(grey) / len(noisy) < 0.3
    # Some are left without colour noise: the strength of what is left is what the words say.
    for copy in grey:
        if not words_of(copy) & {"enlarged", "blur", "motion", "defocus", "sharpened", "combed", "striped"}:
            assert copy.strengths[NOISE] > 0


def test_what_one_colour_hides_is_asked_of_nobody() -> None:
    plain = [copy for copy in COPIES if float(copy.image[0].flatten(1).std(1).max()) == 0]
    assert len(plain) >= 3
    for copy in plain:
        assert copy.labels[GRAPHICS] == 1
        assert not (copy.labels[[BLUR, COMPRESSION, ENLARGEMENT]] == 1).any(), copy.words
