"""Are the probabilities of ``scorer_kinds`` true on pictures of other sources than those of the fit?

    python recipes/scorer_kinds/sources.py --data ../shared/data              # cameras, prints, drawings
    python recipes/scorer_kinds/sources.py --data ../shared/data --held-out   # BSDS: fits on three quarters, judges one
    python recipes/scorer_kinds/sources.py --data ../shared/data --judge      # clean_test by its sets; chooses nothing

Of each source clean pictures are degraded by mixtures of the fit's kind, with draws of their own.  A row says how much
too high the probability is on the mean at even odds, and in the worst bin of the reliability diagram; limits are 5 and
95 % of draws of other pictures of the source.  ``--held-out`` also draws as many pictures as ``clean_test`` has from
those held out, again and again: what chance makes of a scorer whose probabilities are true on the whole source.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.config.calibration import KindCalibrationOptions
from synthpipe.density.detection import auroc
from synthpipe.density.kinds import KINDS, KindScorer, probability_column
from synthpipe.density.reliability import largest_bias, reliability_bins
from synthpipe.files.image_files import read_image
from synthpipe.flat_noise import estimate_noise
from synthpipe.images import downscale_bicubic, quantize_8bit, to_float
from synthpipe.seeds import sample_seed
from synthpipe.training.kinds import draw_mixture, fit_kinds
from synthpipe.training.kinds.traces import jpeg, resized, sharpened
from synthpipe.transforms.density import score_image

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen

_SEED, _REDUCE = 17, 2.5
_NOISES = ("canon_5d2", "autochrome")
#: Pictures that a bin rests on, less where a source has fewer than twice as many; below the least no bins are told.
_LEAST_PICTURES, _LEAST_FOR_BINS = 20.0, 16
#: Side of the parts that full frames are cut into, and the most of one frame.
_PART, _MOST_PARTS = 512, 6
_CHANCE_DRAWS = 400
#: Noise that mixtures call noise, of 255.
_SEEN_NOISE = 1.3
_AS_THEY_ARE = "as they are"
#: Of ``clean_test``, without the text.
_JUDGED_PICTURES = 45
#: The sets of ``clean_test``, by the beginning of their names.
_SETS = {"CBSD68": "cbsd68", "Kodak": "kodim", "Set14": "set14"}
#: Mostly text: no photograph (as in the bench).
_TEXT = "set14_ppt3.png"


class Picture(NamedTuple):
    """A clean picture ``(3, H, W)`` in [0, 1]; ``scene``: pictures of one scene are no independent samples."""

    scene: str
    image: Tensor


class Answers(NamedTuple):
    """Of degraded copies, ``(N,)`` each.

    Attributes:
        probabilities: of a kind.
        there: whether it is there.
        scenes: which scene it is of.
    """

    probabilities: Tensor
    there: Tensor
    scenes: Tensor

    def only(self, use: Tensor) -> Answers:
        """Those that ``use (N,)`` marks."""
        return Answers(self.probabilities[use], self.there[use], self.scenes[use])


# --- sources ----------------------------------------------------------------------------------------------------------


def folder(path: Path, prefix: str = "", change: Callable[[Tensor], Tensor] | None = None) -> Iterator[Picture]:
    """The pictures of a folder whose names begin so."""
    for file in sorted(path.iterdir()):
        if file.name.startswith(prefix) and file.name != _TEXT:
            image = pixels(file)
            yield Picture(file.name, change(image) if change else image)


def pixels(file: Path) -> Tensor:
    """``(3, H, W)`` float32 in [0, 1]."""
    return to_float(torch.from_numpy(read_image(file).copy()).permute(2, 0, 1))


def halved(image: Tensor) -> Tensor:
    """Half the size, as ``tools/bench/filter.py`` does it."""
    height, width = (side // 2 * 2 for side in image.shape[1:])
    return quantize_8bit(downscale_bicubic(image[None, :, :height, :width], 2).clamp(0, 1))[0]


def crisp(image: Tensor, amount: float = 1.0) -> Tensor:
    """Unsharp mask of 1 pixel, by default all of it once more."""
    return quantize_8bit(sharpened(image[None], 1.0, amount).clamp(0, 1))[0]


def rescaled(image: Tensor, factor: float) -> Tensor:
    """Enlarged by ``factor``."""
    return quantize_8bit(resized(image[None], (round(factor * image.shape[1]), round(factor * image.shape[2]))))[0]


def coded(image: Tensor) -> Tensor:
    """Through JPEG of quality 88."""
    return quantize_8bit(jpeg(image[None], 88))[0]


def references(data: Path) -> Iterator[Picture]:
    """PolyU's crops of the scenes that settings may be chosen on, means of many shots."""
    for file in sorted((data / "real_noise" / "clean").iterdir()):
        if is_chosen(file.name):
            yield Picture(file.stem.rsplit("_", 1)[0], pixels(file))


def frames(data: Path) -> Iterator[Picture]:
    """Parts of the halved full frames of the same scenes."""
    for file in sorted((data / "real_noise_full" / "clean").iterdir()):
        if is_chosen(file.name):
            image = halved(pixels(file))
            corners = [
                (top, left)
                for top in range(0, image.shape[1] - _PART + 1, _PART)
                for left in range(0, image.shape[2] - _PART + 1, _PART)
            ]
            for top, left in corners[:: max(len(corners) // _MOST_PARTS, 1)][:_MOST_PARTS]:
                yield Picture(file.name, image[:, top : top + _PART, left : left + _PART])


def realsr(data: Path, change: Callable[[Tensor], Tensor] | None = None) -> Iterator[Picture]:
    """Of other cameras, at 100 %; looked at, and part of no fit that ships."""
    for part in ("dev", "ceiling"):
        yield from folder(data / "real_sr" / "realsr_x4" / part / "hr", change=change)


def leaves(count: int = 16, side: int = 320) -> Iterator[Picture]:
    """Discs over discs, some with stripes as fine as texture, drawn at twice the size: edges of all sizes, no noise."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        canvas = np.full((2 * side, 2 * side, 3), 128.0)
        y, x = np.mgrid[: 2 * side, : 2 * side]
        depth = rng.uniform(0, 18)
        for _ in range(300):
            radius = 12 / rng.power(2.0) ** 0.5
            inside = (x - rng.uniform(0, 2 * side)) ** 2 + (y - rng.uniform(0, 2 * side)) ** 2 < radius**2
            across, down, strength = *rng.uniform(-1, 1, 2), depth * rng.uniform()
            stripes = strength * np.sin(across * x[inside] + down * y[inside])
            canvas[inside] = rng.uniform(30, 220, 3) + stripes[:, None]
        small = canvas.reshape(side, 2, side, 2, 3).mean((1, 3)).round().clip(0, 255) / 255
        yield Picture(f"leaves {seed}", torch.from_numpy(small).float().permute(2, 0, 1))


def other_sources(data: Path) -> dict[str, Iterator[Picture]]:
    """What neither network nor calibration has seen, and what settings may be chosen on (RealSR: looked at)."""
    return {
        "RealSR HR": realsr(data),
        "RealSR HR, halved": realsr(data, halved),
        "City100 HR": folder(data / "real_sr" / "city100_iphone_x2" / "dev" / "hr"),
        "PolyU references": references(data),
        "PolyU frames, halved": frames(data),
        "drawn leaves": leaves(),
    }


def judged_pictures(data: Path, change: Callable[[Tensor], Tensor] | None) -> list[Picture]:
    """``clean_test``, each picture a scene."""
    return [*folder(data / "clean_test", change=change)]


def holds_noise(image: Tensor) -> bool:
    """Whether :func:`estimate_noise` finds noise that mixtures call noise, 1.3 of 255, and is rather sure of it."""
    found = estimate_noise(image)
    return found is not None and 255 * found.level >= _SEEN_NOISE and found.certainty >= 0.5


# --- answers ----------------------------------------------------------------------------------------------------------


def ask(scorer: KindScorer, pictures: Iterable[Picture], mixtures: int, kind: str) -> Answers:
    """Degrade, score, and keep what is known of the kind."""
    noises = [checkpoints.load(weights, kind="deflow") for weights in _NOISES]
    rows: list[tuple[float, bool, int]] = []
    scenes: dict[str, int] = {}
    for place, (scene, image) in enumerate(pictures):
        owner = scenes.setdefault(scene, len(scenes))
        for number in range(mixtures):
            seed = sample_seed(_SEED, number, f"{place}/{scene}")
            with torch.no_grad():
                mixture = draw_mixture(image, seed, _REDUCE, noises)
            label = int(mixture.labels[KINDS.index(kind)])
            if label >= 0:
                chance = score_image(scorer, mixture.image[0])[probability_column(kind)]
                rows.append((chance, label == 1, owner))
    values, there, owners = zip(*rows, strict=True)
    return Answers(torch.tensor(values, dtype=torch.float64), torch.tensor(there), torch.tensor(owners))


def row_of(name: str, answers: Answers) -> str:
    """A row of the table."""
    p, there, scenes = answers
    count = len(scenes.unique())
    whole = reliability_bins(p, there, scenes, bins=1)[0]
    bins = "-"
    if count >= _LEAST_FOR_BINS:
        found = reliability_bins(p, there, scenes, least_groups=min(_LEAST_PICTURES, count / 2))
        worst = max(found, key=lambda one: abs(one.bias))
        bins = (
            f"{largest_bias(found):.2f} ({worst.low:.1f} to {worst.high:.1f}: says {worst.probability:.2f}, "
            f"{worst.share:.2f} have it; {worst.interval[0]:+.2f} to {worst.interval[1]:+.2f})"
        )
    return (
        f"| {name} | {count} | {len(p)} | {auroc(p[~there], p[there]):.2f} | {whole.bias:+.2f} "
        f"({whole.interval[0]:+.2f} to {whole.interval[1]:+.2f}) | {bins} |"
    )


def elsewhere(scorer: KindScorer, data: Path, mixtures: int, kind: str) -> Iterator[tuple[str, Answers]]:
    """All of :func:`other_sources`."""
    for name, pictures in tqdm(other_sources(data).items(), unit="source", disable=None):
        yield name, ask(scorer, pictures, mixtures, kind)


def chance_of(answers: Answers, pictures: int) -> str:
    """How large the largest bias gets where so many of the pictures are drawn, each as often as it comes."""
    generator = torch.Generator().manual_seed(_SEED)
    by_scene = [torch.nonzero(answers.scenes == scene)[:, 0] for scene in answers.scenes.unique()]
    found = []
    for _ in range(_CHANCE_DRAWS):
        drawn = [by_scene[place] for place in torch.randint(len(by_scene), (pictures,), generator=generator).tolist()]
        rows, owners = torch.cat(drawn), torch.repeat_interleave(torch.tensor([len(few) for few in drawn]))
        bins = reliability_bins(answers.probabilities[rows], answers.there[rows], owners, least_groups=_LEAST_PICTURES)
        found.append(largest_bias(bins))
    biases = torch.tensor(found)
    median, high, highest = biases.quantile(torch.tensor([0.5, 0.95, 0.99])).tolist()
    return (
        f"{pictures} drawn pictures of these: largest bias {median:.2f} on the median, {high:.2f} in 5 % and "
        f"{highest:.2f} in 1 % of draws; above 0.1 in {100 * float((biases > 0.1).float().mean()):.0f} %"
    )


def held_out(data: Path, mixtures: int, kind: str) -> Iterator[tuple[str, Answers]]:
    """A scorer of three quarters of ``clean_train``, asked about each fourth picture, as it is and changed."""
    files = sorted((data / "clean_train").iterdir())
    with tempfile.TemporaryDirectory() as name:
        fitted, unseen = Path(name, "fitted"), Path(name, "unseen")
        for place in (fitted, unseen):
            place.mkdir()
        for number, file in enumerate(files):
            ((unseen if number % 4 == 1 else fitted) / file.name).symlink_to(file.resolve())
        scorer = fit_kinds(fitted, KindCalibrationOptions(mixtures=16, crisp=12), progress=True).scorer
        changes: dict[str, Callable[[Tensor], Tensor] | None] = {
            _AS_THEY_ARE: None,
            "halved": halved,
            "reduced by 1.5": partial(rescaled, factor=1 / 1.5),
            "sharpened": crisp,
            "sharpened by half": partial(crisp, amount=0.5),
            "enlarged by 1.2": partial(rescaled, factor=1.2),
            "JPEG 88": coded,
        }
        for words, change in changes.items():
            yield f"BSDS held out, {words}", ask(scorer, folder(unseen, change=change), mixtures, kind)


def judged(scorer: KindScorer, data: Path, mixtures: int, kind: str) -> Iterator[tuple[str, Answers]]:
    """``clean_test`` as a whole, without the pictures that hold noise, and by its sets; as they are, and halved."""
    for words, change in ((_AS_THEY_ARE, None), ("halved", halved)):
        pictures = judged_pictures(data, change)
        answers = ask(scorer, pictures, mixtures, kind)
        names = [*dict.fromkeys(picture.scene for picture in pictures)]
        noisy = torch.tensor([holds_noise(picture.image) for picture in pictures])
        yield f"clean_test, {words}", answers
        yield f"- without {int(noisy.sum())} that hold noise", answers.only(~noisy[answers.scenes])
        for name, prefix in _SETS.items():
            member = torch.tensor([name.startswith(prefix) for name in names])
            yield f"- {name}", answers.only(member[answers.scenes])


def main() -> None:
    """Ask, and print one row for each source."""
    args = parse_arguments()
    torch.set_num_threads(1)
    print("| source | scenes | copies | AUROC | too high on the whole | worst bin |")
    print("| --- | --- | --- | --- | --- | --- |")
    if args.held_out:
        rows = held_out(args.data, args.mixtures, args.kind)
    else:
        scorer = checkpoints.load(args.weights, kind="kind_scorer")
        assert isinstance(scorer, KindScorer)
        rows = (judged if args.judge else elsewhere)(scorer, args.data, args.mixtures, args.kind)
    chance = ""
    for name, answers in rows:
        print(row_of(name, answers), flush=True)
        if name.endswith(_AS_THEY_ARE) and args.held_out:
            chance = chance_of(answers, _JUDGED_PICTURES)
    print(f"\n{chance}" if chance else "")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", default="scorer_kinds")
    parser.add_argument("--kind", choices=KINDS, default="noise")
    parser.add_argument("--mixtures", type=int, default=12, help="degraded copies of each picture")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--held-out", action="store_true", help="fit on three quarters of clean_train, judge the others")
    which.add_argument("--judge", action="store_true", help="clean_test by its sets")
    return parser.parse_args()


if __name__ == "__main__":
    main()
