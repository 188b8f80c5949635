"""``synthpipe restore`` on folders, end to end."""

from __future__ import annotations

import argparse
import io

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints, images
from synthpipe.cli import restore as command
from synthpipe.denoisers import PlainDenoiser
from synthpipe.denoisers.blur_kernels import gaussian_kernel
from synthpipe.denoisers.blur_operators import CircularBlur, ValidBlur
from synthpipe.denoisers.plug_and_play import Problem, Splitting, method_named, psnr, restore
from synthpipe.errors import CheckpointError, OptionError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network, which changes images by some grey levels."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return str(checkpoints.save(path, PlainDenoiser(channels=3, width=4, depth=3), {}))


def network_of(folder, gain, bias=0.0):
    """An untrained network of one channel, whose change of an image is scaled and moved."""
    torch.manual_seed(0)
    model = PlainDenoiser(channels=1, width=4, depth=3)
    with torch.no_grad():
        model.net.out.weight.mul_(gain)
        model.net.out.bias.fill_(bias)
    return str(checkpoints.save(folder / "network.safetensors", model, {}))


@pytest.fixture(scope="module")
def gentle(tmp_path_factory):
    """A network that hardly changes images, for what the operators do."""
    return network_of(tmp_path_factory.mktemp("weights"), 0.01)


def main(*argv):
    """The command alone: other commands' modules are not this test's business."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return command.run(parser.parse_args(["restore", *map(str, argv)]))


def smooth(height, width, seed=0):
    """``(1, 3, height, width)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 6 + 2, width // 6 + 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def save(path, x):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images.to_uint8(x)[0].permute(1, 2, 0).numpy()).save(path)


def load(path):
    return images.to_float(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None])


def test_deblurring_is_the_librarys(weights, tmp_path):
    kernel = gaussian_kernel(1.0, 5)
    np.save(tmp_path / "k.npy", kernel.numpy())
    save(tmp_path / "in" / "deep" / "a.png", smooth(37, 30))
    save(tmp_path / "in" / "b.png", smooth(20, 41, 1))
    argv = ["--task", "deblur", "--kernel", tmp_path / "k.npy", "--sigma", 0.02, "--method", "dpir"]
    assert main(weights, tmp_path / "in", tmp_path / "out", *argv, "--iterations", 3, "--last", 0.05) == 0
    for name in ("deep/a.png", "b.png"):
        y = load(tmp_path / "in" / name)
        method = Splitting(iterations=3, last=0.05)
        expected = restore(Problem(ValidBlur(kernel), y, 0.02), checkpoints.load(weights), method).image
        assert (expected - y).abs().mean() > 0.01
        torch.testing.assert_close(
            load(tmp_path / "out" / name), images.quantize_8bit(expected), atol=1.01 / 255, rtol=0
        )


def test_large_images_are_restored_whole(weights, tmp_path):
    """Tiles of the denoiser leave no trace; 64 is the smallest tile."""
    save(tmp_path / "in" / "a.png", smooth(75, 150))
    argv = ["--task", "deblur", "--kernel", "gaussian:1.5", "--border", "circular", "--sigma", 0.02]
    for name, tile in (("tiles", 64), ("whole", 512)):
        assert main(weights, tmp_path / "in", tmp_path / name, *argv, "--iterations", 2, "--tile", tile) == 0
    difference = (load(tmp_path / "tiles" / "a.png") - load(tmp_path / "whole" / "a.png")).abs()
    assert float(difference.max()) <= 1.01 / 255
    assert float((difference > 0).float().mean()) < 0.01
    y = load(tmp_path / "in" / "a.png")
    problem = Problem(CircularBlur(gaussian_kernel(1.5)), y, 0.02)
    expected = restore(problem, checkpoints.load(weights), method_named("annealed", iterations=2)).image
    torch.testing.assert_close(
        load(tmp_path / "whole" / "a.png"), images.quantize_8bit(expected), atol=1.01 / 255, rtol=0
    )


@pytest.mark.parametrize("scale", [2, 3])
def test_super_resolution(gentle, tmp_path, scale):
    truth = smooth(24 * scale, 20 * scale)
    save(tmp_path / "in" / "a.png", images.downscale_bicubic(truth, scale))
    assert main(gentle, tmp_path / "in", tmp_path / "out", "--task", "sr", "--scale", scale, "--first", 0.01) == 0
    large = load(tmp_path / "out" / "a.png")
    assert large.shape == truth.shape
    back = images.downscale_bicubic(large, scale)[..., 2:-2, 2:-2]
    assert float((back - load(tmp_path / "in" / "a.png")[..., 2:-2, 2:-2]).abs().mean()) < 2 / 255
    # In place: a shift by a pixel would cost tens of decibels on so smooth a picture.
    assert float(psnr(large, truth, border=6)) > 35


def test_super_resolution_with_a_kernel(gentle, tmp_path):
    kernel = gaussian_kernel(1.0, 5)
    truth = smooth(40, 36)
    save(tmp_path / "in" / "a.png", CircularBlur(kernel, 2)(truth))
    argv = ["--task", "sr", "--scale", 2, "--kernel", "gaussian:1.0", "--border", "circular", "--first", 0.01]
    assert main(gentle, tmp_path / "in", tmp_path / "out", *argv) == 0
    assert float(psnr(load(tmp_path / "out" / "a.png"), truth)) > 33


def test_inpainting_with_a_mask_for_each_image(gentle, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(("a", "deep/b")):
        truth = smooth(30, 26, number)
        hole = torch.rand(30, 26, generator=generator) < 0.3
        save(tmp_path / "in" / f"{name}.png", torch.where(hole, torch.rand(1, 3, 30, 26), truth))
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((hole.numpy() * 255).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    save(tmp_path / "in" / "bare.png", smooth(8, 8))
    argv = ["--task", "inpaint", "--mask", tmp_path / "masks", "--first", 0.02]
    assert main(gentle, tmp_path / "in", tmp_path / "out", *argv) == 0
    for number, name in enumerate(("a", "deep/b")):
        truth = smooth(30, 26, number)
        before, after = (psnr(load(tmp_path / folder / f"{name}.png"), truth) for folder in ("in", "out"))
        assert float(after) > 30 > 20 > float(before)
    assert not (tmp_path / "out" / "bare.png").exists()


def test_denoising_estimates_the_noise(weights, tmp_path):
    save(tmp_path / "in" / "a.png", smooth(40, 40) + 0.05 * torch.randn(1, 3, 40, 40))
    assert main(weights, tmp_path / "in", tmp_path / "out", "--task", "denoise") == 0
    y = load(tmp_path / "in" / "a.png")
    expected = checkpoints.load(weights).denoise(y)
    assert (expected - y).abs().mean() > 1 / 255
    torch.testing.assert_close(
        load(tmp_path / "out" / "a.png"), images.quantize_8bit(expected), atol=1.01 / 255, rtol=0
    )


def test_broken_and_unfit_images_are_skipped_and_counted(weights, tmp_path, capsys):
    save(tmp_path / "in" / "good.png", smooth(20, 20))
    save(tmp_path / "in" / "other.png", smooth(20, 21))
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    (tmp_path / "in" / "cut.png").write_bytes(buffer.getvalue()[:2000])
    Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    argv = ["--task", "inpaint", "--mask", tmp_path / "mask.png"]
    assert main(weights, tmp_path / "in", tmp_path / "out", *argv) == 0
    captured = capsys.readouterr()
    assert "1 of 3 images restored; skipped: 1 mask_size, 1 truncated" in captured.out
    assert "has 20x20 pixels, the image 20x21" in captured.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_an_image_that_runs_away_ends_no_folder(tmp_path, capsys):
    pushing = network_of(tmp_path, 1e4, 1e3)
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.png", smooth(20, 20))
    argv = ["--task", "denoise", "--method", "dpir", "--sigma", 0.05, "--first", 0.2, "--last", 0.2]
    assert main(pushing, tmp_path / "in", tmp_path / "out", *argv) == 1
    captured = capsys.readouterr()
    assert "0 of 2 images restored; skipped: 2 diverged" in captured.out
    assert "left the scale of images at iteration" in captured.err
    assert "take a higher --penalty" in captured.err


def test_a_mask_without_a_pixel(weights, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", smooth(20, 20))
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "mask.png")
    assert main(weights, tmp_path / "in", tmp_path / "out", "--task", "inpaint", "--mask", tmp_path / "mask.png") == 1
    assert "leaves no pixel: white means missing" in capsys.readouterr().err


@pytest.mark.parametrize("white", [1, 127])
def test_a_mask_that_means_something_else(white, weights, tmp_path, capsys):
    save(tmp_path / "in" / "a.png", smooth(20, 20))
    Image.fromarray(np.eye(20, dtype=np.uint8) * white).save(tmp_path / "mask.png")
    assert main(weights, tmp_path / "in", tmp_path / "out", "--task", "inpaint", "--mask", tmp_path / "mask.png") == 1
    assert f"holds values up to {white} of 255; white (255) means missing" in capsys.readouterr().err


@pytest.mark.parametrize("kernel", ["gaussian:1e9", "gaussian:nan", "gaussian:0", "wide.npy"])
def test_kernels_out_of_proportion(kernel, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "a.png", smooth(20, 20))
    np.save("wide.npy", np.full((1, 1003), 1 / 1003))
    with pytest.raises(OptionError, match=r"expected a sigma above 0 and up to 125|expected sides up to 1001"):
        main(weights, "in", "out", "--task", "deblur", "--kernel", kernel)


def test_a_photograph_is_no_kernel(tmp_path):
    pixels = np.full((5, 5, 3), 90, np.uint8)
    pixels[2, 2] = (200, 150, 90)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with pytest.raises(OptionError, match=r"photo\.png: expected a grey image of the kernel, got one in colour"):
        command._read_kernel(str(tmp_path / "photo.png"))


def test_kernels_of_pictures_are_divided_by_their_sum(tmp_path):
    levels = np.zeros((5, 3), np.uint8)
    levels[1, 1], levels[2, 2] = 200, 50
    Image.fromarray(levels).save(tmp_path / "k.png")
    kernel = command._read_kernel(str(tmp_path / "k.png"))
    assert kernel.shape == (5, 3)
    assert float(kernel[1, 1]) == pytest.approx(0.8)
    assert float(kernel[2, 2]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--task", "deblur"], "--task deblur: needs --kernel"),
        (["--task", "sr"], "--task sr: needs --scale"),
        (["--task", "sr", "--scale", 1], "--scale: expected at least 2, got 1"),
        (["--task", "inpaint"], "--task inpaint: needs --mask"),
        (["--task", "inpaint", "--mask", "nowhere.png"], "found nothing at nowhere.png"),
        (["--task", "denoise", "--scale", 2], "--task denoise: has no --scale, got 2"),
        (["--task", "deblur", "--kernel", "none.png"], "found no file 'none.png'"),
        (["--task", "deblur", "--kernel", "gaussian:much"], "--kernel gaussian:much"),
        (["--task", "deblur", "--kernel", "{sum}"], "sum to 1, got a sum of 9; divide by it"),
        (["--task", "deblur", "--kernel", "{even}"], "odd sides, got 4x4"),
        (["--task", "denoise", "--sigma", "loud"], "--sigma: expected auto or a number from 0 to 1, got 'loud'"),
        (["--task", "denoise", "--sigma", 5], "--sigma"),
        (["--task", "denoise", "--method", "dmsp", "--penalty", 1], "method 'dmsp'.*penalty"),
        (["--task", "denoise", "--iterations", 0], "--iterations: expected at least 1"),
        (["--task", "denoise", "--device", "gpu9"], "--device: 'gpu9'"),
    ],
)
def test_bad_arguments(weights, tmp_path, argv, message):
    save(tmp_path / "in" / "a.png", smooth(20, 20))
    np.save(tmp_path / "sum.npy", np.ones((3, 3)))
    np.save(tmp_path / "even.npy", np.full((4, 4), 1 / 16))
    places = {"{sum}": tmp_path / "sum.npy", "{even}": tmp_path / "even.npy"}
    with pytest.raises(OptionError, match=message):
        main(weights, tmp_path / "in", tmp_path / "out", *(places.get(part, part) for part in argv))


def test_weights_that_are_no_denoiser(tmp_path):
    save(tmp_path / "in" / "a.png", smooth(20, 20))
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected a denoiser"):
        main("deflow_small", tmp_path / "in", tmp_path / "out", "--task", "denoise")
