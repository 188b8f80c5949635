"""The report of a stream: noise of known sigma against real images and pairs; what is refused; files of the command."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.errors import ImageError, OptionError
from synthpipe.preview import preview_options
from synthpipe.preview.asked_levels import draws_levels, opposite_levels
from synthpipe.preview.render import degradation_of, draw_patches
from synthpipe.preview.report import stream_report
from synthpipe.preview.tile_columns import Recorder
from synthpipe.preview.trace import trace_degradation
from tests.noise_report.fields import Recipe, flat_images, with_noise

#: What the stream adds: white, the same at every brightness.
SIGMA = 5.0
WHITE = Recipe(base=SIGMA, slope=0, tap=0, channels=0)


def png(image: Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(stream, "png")
    return stream.getvalue()


def folder(path: Path, images: list[Tensor]) -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        (path / f"{number}.png").write_bytes(png(image))
    return path


@pytest.fixture
def stream(tmp_path: Path) -> dict[str, object]:
    with tarfile.open(tmp_path / "s-000000.tar", "w") as tar:
        for number, image in enumerate(flat_images(8, 0, side=240)):
            data = png(image)
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    noise = {"type": "gaussian", "sigma": [SIGMA / 255, SIGMA / 255]}
    degrade = {"type": "classical", "noise": noise}
    return {"shards": str(tmp_path / "s-000000.tar"), "gt_size": 64, "scale": 1, "degrade": degrade}


def test_real_images_and_pairs_of_the_same_noise(stream: dict[str, object], tmp_path: Path) -> None:
    real = folder(tmp_path / "real", with_noise(flat_images(8, 5), WHITE, 6))
    shown = flat_images(4, 7)
    pairs = folder(tmp_path / "clean", shown), folder(tmp_path / "noisy", with_noise(shown, WHITE, 8, factor=2.0))
    found = stream_report(preview_options(stream, "test"), "t", real=real, pairs=pairs, rows=2)
    pile, paired = found.sides
    assert [verdict.subject for verdict in pile.verdicts if verdict.status != "within"] == []
    assert [(v.subject, v.status) for v in paired.verdicts if v.status != "within"] == [("strength", "too weak")]
    for side, sigma in ((pile, SIGMA), (paired, 2 * SIGMA)):
        assert side.real is not None
        measured = [255 * s for c, t in zip(side.real.counts, side.real.sigma, strict=True) if c > 5000 for s in t]
        assert measured == pytest.approx([sigma] * len(measured), rel=0.1)
    assert len(found.pictures) == 2
    assert all(row.real is not None for row in found.pictures)


@pytest.mark.parametrize(("count", "patches"), [(32, 32), (64, 64), (4000, 128)])
def test_patches_come_from_all_images_and_as_few_tiles_of_each_as_do(
    stream: dict[str, object], count: int, patches: int
) -> None:
    options = preview_options(stream, "test")
    degrade = degradation_of(options, stages=False, seen=None)
    drawn = draw_patches(options, None, count, degrade, "cpu", Counter(), most_crops=4)
    images = Counter(name.rsplit("/", 1)[-1].split("#")[0] for name in drawn.names)
    assert images == {f"{number}.png": patches // 8 for number in range(8)}


def test_pairs_of_a_stream_that_reduces(stream: dict[str, object], tmp_path: Path) -> None:
    options = preview_options({**stream, "scale": 2}, "test")
    shown = flat_images(2, 7)
    halved = [image[:, ::2, ::2] for image in shown]
    pairs = folder(tmp_path / "clean", shown), folder(tmp_path / "noisy", with_noise(halved, WHITE, 8))
    (side,) = stream_report(options, "t", pairs=pairs, rows=1).sides
    assert side.name == "pairs"
    assert side.verdicts[0].status == "within"
    with pytest.raises(OptionError, match="expected 1/2 of it"):
        stream_report(options, "t", pairs=(pairs[0], pairs[0]), rows=1)


def test_pairs_need_common_names_and_images(stream: dict[str, object], tmp_path: Path) -> None:
    options = preview_options(stream, "test")
    shown = folder(tmp_path / "clean", flat_images(1, 0))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ImageError, match="no image for --pairs"):
        stream_report(options, "t", pairs=(shown, other), rows=1)
    (other / "else.png").write_bytes(png(flat_images(1, 0)[0]))
    with pytest.raises(OptionError, match="no file name in common"):
        stream_report(options, "t", pairs=(shown, other), rows=1)


def test_pairs_of_one_name_are_told_by_their_suffixes_or_refused(stream: dict[str, object], tmp_path: Path) -> None:
    """Files that differ in suffix alone: the later one took the place of the other."""
    options = preview_options(stream, "test")
    shown = flat_images(3, 7)
    noisy = with_noise(shown, WHITE, 8)
    pairs = folder(tmp_path / "clean", shown), folder(tmp_path / "noisy", noisy)
    for side in pairs:  # the second becomes another format of the first
        Image.open(side / "1.png").save(side / "0.webp", lossless=True)
        (side / "1.png").unlink()
    told: list[str] = []
    report = stream_report(options, "t", pairs=pairs, rows=1, skipped=told)
    assert report.facts["pairs"].startswith("3 of")
    assert report.sides[0].verdicts[0].status == "within"
    assert told == []
    (pairs[1] / "2.png").rename(pairs[1] / "3.png")
    stream_report(options, "t", pairs=pairs, rows=1, skipped=told)
    assert told == [
        f"{pairs[0]}: 1 image without a partner, the first 2.png",
        f"{pairs[1]}: 1 image without a partner, the first 3.png",
    ]
    (pairs[1] / "0.png").unlink()
    with pytest.raises(OptionError, match=r"whose partner\? .*0.png and .*0.webp and .*0.webp differ in suffix"):
        stream_report(options, "t", pairs=pairs, rows=1)


def test_what_cannot_be_read_is_named_once(
    stream: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(stream))
    real = folder(tmp_path / "real", with_noise(flat_images(4, 5), WHITE, 6))
    for name in ("broken", "spoilt"):
        (real / f"{name}.png").write_bytes((real / "0.png").read_bytes()[:500])
    look = ["preview", str(tmp_path / "stream.yml"), str(tmp_path / "look"), "--rows", "1"]
    assert main([*look, "--real", str(real), "--report"]) == 0
    said = capsys.readouterr().err
    assert [said.count(f"{name}.png") for name in ("broken", "spoilt")] == [1, 1]


def test_the_command_writes_page_and_numbers(
    stream: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(stream))
    real = folder(tmp_path / "real", with_noise(flat_images(4, 5), WHITE, 6, factor=0.5))
    look = ["preview", str(tmp_path / "stream.yml"), str(tmp_path / "look"), "--rows", "1"]
    assert main([*look, "--real", str(real), "--report"]) == 0
    said = capsys.readouterr().out
    assert ": strength: too strong by " in said
    assert "change: degrade: level" in said
    numbers = json.loads((tmp_path / "look" / "report.json").read_text())
    assert numbers["sides"][0]["verdicts"][0]["status"] == "too strong"
    assert "too strong" in (tmp_path / "look" / "report.html").read_text()
    assert main([*look, "--report", str(tmp_path / "elsewhere" / "noise.html")]) == 0
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"noise.html", "noise.json"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--report", "page.txt"], "ending in .html"),
        (["--pairs", "a", "b"], "--pairs: is for --report"),
        (["--photos", ".", "--report"], "--report: is of a stream"),
    ],
)
def test_what_does_not_go_together_is_refused(
    stream: dict[str, object],
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(stream))
    assert main(["preview", str(tmp_path / "stream.yml"), str(tmp_path / "look"), *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["alone", "chain", "choice"])
def test_the_level_from_the_other_end_goes_with_all_else_as_it_was(kind: str, stream: dict[str, object]) -> None:
    """Of levels drawn log-uniformly from 2 to 8 the two of a sample have the product 16."""
    one = {"type": "deflow", "weights": "canon_5d2", "level": [2.0, 8.0]}
    chain = [{"type": "resize", "to": "lr"}, one]
    ways = {"alone": one, "chain": chain, "choice": {"type": "choice", "of": [{"chain": [one]}]}}
    options = preview_options({**stream, "degrade": ways[kind]}, "test")
    degrade = degradation_of(options, stages=False, seen=None)
    assert draws_levels(degrade)
    inner = degrade.degrade if isinstance(degrade, Recorder) else degrade

    def level(seed: int) -> float:
        batch = {"gt": torch.full((1, 3, 32, 32), 0.5), "seed": torch.tensor([seed]), "seen": torch.tensor([0])}
        settings = [note.settings for note in trace_degradation(inner, batch)[1]]
        (found,) = [float(drawn["level"]) for drawn in settings if "level" in drawn]
        return found

    before = [level(seed) for seed in range(4)]
    with opposite_levels(degrade):
        assert [a * level(seed) for seed, a in enumerate(before)] == pytest.approx([16.0] * 4, rel=1e-4)
    assert [level(seed) for seed in range(4)] == before
    assert len(set(before)) == 4


def test_a_pair_is_compared_at_its_own_level(stream: dict[str, object], tmp_path: Path) -> None:
    """Pairs of the weakest and of the strongest noise of the pile; those beyond get the nearest that a stream makes."""
    degrade = {"type": "deflow", "weights": "canon_5d2", "level": "pile"}
    options = preview_options({**stream, "degrade": degrade}, "test")
    quantiles = checkpoints.load("canon_5d2").pile.quantiles  # type: ignore[union-attr,attr-defined]
    low, high = 255 * float(quantiles[0]), 255 * float(quantiles[-1])
    shown = flat_images(4, 7)
    clean = folder(tmp_path / "clean", shown)
    ratios = []
    for sigma in (low, high, 3 * high):
        noisy = folder(tmp_path / f"{sigma:.2f}", with_noise(shown, WHITE, 8, factor=sigma / SIGMA))
        report = stream_report(options, "t", pairs=(clean, noisy), rows=1)
        assert report.facts["pairs"].endswith(", each at its own level")
        (side,) = report.sides
        assert side.made is not None
        ratios.append(side.made.levels[0])
    assert ratios[1] / ratios[0] == pytest.approx(high / low, rel=0.15)
    assert ratios[2] == pytest.approx(ratios[1], rel=0.05)


def test_only_degradations_of_several_levels_are_measured_twice(stream: dict[str, object], tmp_path: Path) -> None:
    counts = []
    for level in (5.0, "pile"):
        degrade = {"type": "deflow", "weights": "canon_5d2", "level": level}
        real = tmp_path / "real"
        if not real.exists():
            folder(real, with_noise(flat_images(4, 5), WHITE, 6))
        found = stream_report(preview_options({**stream, "degrade": degrade}, "test"), "t", real=real, rows=1)
        made = found.sides[0].made
        assert made is not None
        counts.append(made.images)
        assert ("two levels" in found.facts["patches of the stream"]) == (level == "pile")
    assert counts[1] == 2 * counts[0]
