"""``synthpipe degrade`` on folders, end to end through ``cli.main``."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints, images
from synthpipe.cli import degrade as command
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.seeds import sample_seed


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained but initialised flow whose shift adds noise of a few grey levels."""
    model = DeFlow(
        scale=4,
        levels=2,
        steps=1,
        transition_steps=0,
        hidden=8,
        encoder={"type": "small", "features": 8, "depth": 1},
        covariance_init=0.1,
    )
    model.initialize(torch.rand(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]), torch.Generator().manual_seed(0))
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", model, {}))


def main(*argv):
    """The command alone: other commands' modules are not this test's business."""
    import argparse

    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return command.run(parser.parse_args(["degrade", *map(str, argv)]))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def load(path):
    return np.array(Image.open(path))


def test_folder_to_folder(weights, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", picture(37, 50))
    save(tmp_path / "in" / "deep" / "b.jpg", picture(24, 31, 1))
    save(tmp_path / "in" / "deep" / "b.png", picture(20, 20, 2))
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    assert main(weights, tmp_path / "in", tmp_path / "out") == 0
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "deep/b.jpg.png", "deep/b.png.png"]
    for name, size in (("a.png", (37, 50)), ("deep/b.jpg.png", (24, 31))):
        assert load(tmp_path / "out" / name).shape == (*size, 3)
    assert "3 of 3 images degraded" in capsys.readouterr().out


def test_the_result_is_the_models(weights, tmp_path):
    save(tmp_path / "in" / "a.png", picture(26, 30))
    assert main(weights, tmp_path / "in", tmp_path / "out", "--seed", 5) == 0
    model = checkpoints.load(weights)
    x = images.to_float(torch.from_numpy(picture(26, 30)).permute(2, 0, 1)[None])
    noise = SeededNoise(torch.tensor([sample_seed(5, 0, "a")]), "degrade tile 0")
    expected = images.to_uint8(model.degrade(x, noise))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(expected - picture(26, 30)).mean() > 1
    found = load(tmp_path / "out" / "a.png").astype(int)
    # the frozen model, which sums in another order
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 1e-3


def test_an_images_result_does_not_depend_on_its_neighbours(weights, tmp_path):
    save(tmp_path / "one" / "z.png", picture(20, 20))
    save(tmp_path / "two" / "z.png", picture(20, 20))
    save(tmp_path / "two" / "a.png", picture(20, 20, 1))
    for name in ("one", "two"):
        assert main(weights, tmp_path / name, tmp_path / f"out_{name}") == 0
    assert (tmp_path / "out_one" / "z.png").read_bytes() == (tmp_path / "out_two" / "z.png").read_bytes()


def test_scale_and_samples(weights, tmp_path):
    save(tmp_path / "in" / "a.png", picture(43, 62))
    assert main(weights, tmp_path / "in", tmp_path / "out", "--scale", 2, "--samples", 2, "--strength", 0.5) == 0
    one, two = load(tmp_path / "out" / "a_1.png"), load(tmp_path / "out" / "a_2.png")
    assert one.shape == two.shape == (21, 31, 3)
    assert (one != two).mean() > 0.3


def test_strength_zero_gives_the_reduced_image_back(weights, tmp_path):
    save(tmp_path / "in" / "a.png", picture(40, 44))
    assert main(weights, tmp_path / "in", tmp_path / "out", "--scale", 2, "--strength", 0) == 0
    x = images.to_float(torch.from_numpy(picture(40, 44)).permute(2, 0, 1)[None])
    expected = images.to_uint8(images.downscale_bicubic(x, 2))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(load(tmp_path / "out" / "a.png").astype(int) - expected).max() <= 1


def test_large_images_go_tile_by_tile(weights, tmp_path):
    save(tmp_path / "in" / "a.png", picture(150, 90))
    assert main(weights, tmp_path / "in", tmp_path / "out", "--tile", 64, "--overlap", 16, "--strength", 0) == 0
    assert np.abs(load(tmp_path / "out" / "a.png").astype(int) - picture(150, 90)).max() <= 1


def test_broken_images_are_skipped_and_listed(weights, tmp_path, capsys):
    save(tmp_path / "in" / "good.png", picture(20, 20))
    buffer = io.BytesIO()
    Image.fromarray(picture(64, 64)).save(buffer, "PNG")
    (tmp_path / "in" / "cut.png").write_bytes(buffer.getvalue()[:2000])
    (tmp_path / "in" / "text.jpg").write_text("no image")
    save(tmp_path / "in" / "tiny.png", picture(2, 9))
    assert main(weights, tmp_path / "in", tmp_path / "out", "--scale", 4) == 0
    captured = capsys.readouterr()
    assert "1 of 4 images degraded; skipped: 1 too_small, 1 truncated, 1 unreadable" in captured.out
    for name in ("cut.png", "text.jpg", "tiny.png"):
        assert name in captured.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_nothing_usable_is_a_failure(weights, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.jpg").write_text("no image")
    assert main(weights, tmp_path / "in", tmp_path / "out") == 1
    assert "no image below" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--scale", 0], "--scale: expected at least 1, got 0"),
        (["--strength", 50], "--strength: expected at most 4, got 50"),
        (["--level", 300], "--level: expected at most 128, got 300"),
        (["--tile", 100, "--overlap", 32], "4 times the overlap"),
        (["--device", "gpu9"], "--device: 'gpu9'"),
    ],
)
def test_bad_arguments(weights, tmp_path, argv, message):
    from synthpipe.errors import OptionError

    save(tmp_path / "in" / "a.png", picture(20, 20))
    with pytest.raises(OptionError, match=message):
        main(weights, tmp_path / "in", tmp_path / "out", *argv)


def test_missing_input_and_weights(weights, tmp_path):
    from synthpipe.errors import CheckpointError, OptionError

    with pytest.raises(OptionError, match="found nothing"):
        main(weights, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(CheckpointError, match="no weights"):
        main(tmp_path / "no.safetensors", tmp_path / "in", tmp_path / "out")
