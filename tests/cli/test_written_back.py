"""What `degrade`, `denoise` and `restore` write is what came in: read by other libraries."""

from __future__ import annotations

import io
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.denoisers import PlainDenoiser
from tests.files.image_bytes import png
from tests.files.library_images import saved, tiff

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A denoiser that takes nothing away."""
    model = PlainDenoiser(channels=3, width=2, depth=2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "identity.safetensors", model, {}))


def smooth(height: int, width: int, channels: int, top: int = 65535, seed: int = 0) -> np.ndarray:
    """``(H, W, C)`` whole numbers up to ``top``, with some noise, few of them at an end."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 40
    waves = [np.sin(3 * x + 2 * turn) * np.cos(2 * y + turn) for turn in range(channels)]
    values = 0.5 + 0.4 * np.stack(waves, 2) + rng.normal(0, 0.01, (height, width, channels))
    return np.round(np.clip(values, 0, 1) * top).astype(np.uint8 if top <= 255 else np.uint16)


def read(path: Path) -> np.ndarray:
    """``(H, W, C)`` at the file's own depth, by libpng."""
    samples = imagecodecs.png_decode(path.read_bytes())
    return samples if samples.ndim == 3 else samples[..., None]


def write(folder: Path, **files: bytes) -> Path:
    """Files by their names with ``__`` for the point of the suffix."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def denoise(source: Path, target: Path, *options: str) -> int:
    """Nothing is as noisy as that, so that each image is left as it is."""
    return main(["denoise", "blind_spot_small", str(source), str(target), "--min-sigma", "1", *options])


def opaque_in_the_middle(height: int, width: int, top: int) -> np.ndarray:
    """Alpha ``(H, W, 1)``: 0 at the border, all levels on the way to the middle."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))[..., None]
    return np.clip((distance - 3) / 8 * top, 0, top).astype(np.uint8 if top <= 255 else np.uint16)


grey8, rgb8 = smooth(40, 48, 1, 255), smooth(40, 48, 3, 255)
grey16, rgb16 = smooth(40, 48, 1), smooth(40, 48, 3)
alpha8, alpha16 = opaque_in_the_middle(40, 48, 255), opaque_in_the_middle(40, 48, 65535)
deep_kinds = {
    "grey PNG": (png(grey16, GREY), "png", grey16),
    "grey TIFF of 12 bits": (tiff(grey16[..., 0] >> 4), "tif", grey16 >> 4),
    "RGB TIFF of 10 bits": (tiff(rgb16 >> 6, photometric="rgb"), "tif", rgb16 >> 6),
    "RGB TIFF in planes": (tiff(rgb16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), "tif", rgb16),
    "RGBA PNG": (png(np.concatenate([rgb16, alpha16], 2), RGBA), "png", np.concatenate([rgb16, alpha16], 2)),
    "grey with alpha, 12 bits": (
        png(np.concatenate([grey16 >> 4, alpha16], 2), GREY_ALPHA),
        "png",
        np.concatenate([grey16 >> 4, alpha16], 2),
    ),
}
kinds = deep_kinds | {
    "grey JPEG": (
        jpeg := saved(Image.fromarray(grey8[..., 0]), format="JPEG"),
        "jpg",
        np.asarray(Image.open(io.BytesIO(jpeg)))[..., None],
    ),
    "grey TIFF": (tiff(grey8[..., 0]), "tif", grey8),
    "black and white": (
        saved(Image.fromarray(grey8[..., 0] > 128), format="TIFF"),
        "tif",
        (grey8 > 128).astype(np.uint8) * 255,
    ),
    "grey with alpha": (
        png(np.concatenate([grey8, alpha8], 2), GREY_ALPHA),
        "png",
        np.concatenate([grey8, alpha8], 2),
    ),
    "RGBA WebP": (
        saved(Image.fromarray(np.concatenate([rgb8, alpha8], 2)), format="WEBP", lossless=True, exact=True),
        "webp",
        np.concatenate([rgb8, alpha8], 2),
    ),
    "RGBA TIFF": (
        tiff(np.concatenate([rgb8, alpha8], 2), photometric="rgb", extrasamples=["unassalpha"]),
        "tiff",
        np.concatenate([rgb8, alpha8], 2),
    ),
    "RGB BMP": (saved(Image.fromarray(rgb8), format="BMP"), "bmp", rgb8),
}


@pytest.mark.parametrize("kind", kinds)
def test_an_image_that_is_left_alone_keeps_every_sample(kind: str, tmp_path: Path) -> None:
    data, suffix, expected = kinds[kind]
    source = write(tmp_path / "in", **{f"a__{suffix}": data})
    assert denoise(source, tmp_path / "out") == 0
    found = read(tmp_path / "out" / "a.png")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", kinds)
@pytest.mark.parametrize("command", ["degrade", "restore", "denoise"])
def test_models_keep_depth_range_and_alpha(command: str, kind: str, flow: str, identity: str, tmp_path: Path) -> None:
    """Of models that change nothing the result is the picture, to less than a 255th where it is deep."""
    data, suffix, expected = kinds[kind]
    source = write(tmp_path / "in", **{f"a__{suffix}": data})
    words = {
        "degrade": [flow, "--strength", "0"],
        "restore": [identity, "--task", "denoise", "--sigma", "0.01"],
        "denoise": [identity, "--sigma", "0.01"],
    }[command]
    assert main([command, words[0], str(source), str(tmp_path / "out"), *words[1:]]) == 0
    found = read(tmp_path / "out" / "a.png").astype(int)
    white = 255 if expected.dtype == np.uint8 else next(top for top in (1023, 4095, 65535) if expected.max() <= top)
    if "alpha" in kind:
        white = 4095 if "12" in kind else white
    colors = expected.shape[2] - (expected.shape[2] + 1) % 2
    assert found.shape == expected.shape
    assert abs(found[..., :colors] - expected[..., :colors]).max() <= max(white // 4096, 1)
    np.testing.assert_array_equal(found[..., colors:], expected[..., colors:])


class TestGrey:
    @pytest.mark.parametrize("command", ["degrade", "denoise"])
    def test_is_the_luma_of_what_colour_would_have_become(self, command: str, flow: str, tmp_path: Path) -> None:
        same = smooth(40, 48, 1, 255)
        source = write(tmp_path / "in", a__png=png(same, GREY))
        colored = write(tmp_path / "colored", a__png=png(np.repeat(same, 3, 2), RGB))
        words = {"degrade": [flow], "denoise": ["blind_spot_small", "--sigma", "0.05"]}[command]
        for folder, out in ((source, "out"), (colored, "out_colored")):
            assert main([command, words[0], str(folder), str(tmp_path / out), *words[1:]]) == 0
        with Image.open(tmp_path / "out_colored" / "a.png") as image:
            luma = np.asarray(image.convert("L")).astype(int)
            assert np.ptp(np.asarray(image).astype(int), axis=2).max() > 0
        found = read(tmp_path / "out" / "a.png")[..., 0].astype(int)
        assert abs(found - luma).max() <= 1
        assert abs(found - same[..., 0].astype(int)).mean() > 0.3


class TestAlpha:
    @pytest.mark.parametrize("scale", [1, 2])
    def test_hidden_colours_have_no_influence(self, scale: int, flow: str, tmp_path: Path) -> None:
        color = smooth(40, 48, 3, 255)
        for name, hidden in (("red", (255, 0, 0)), ("noise", smooth(40, 48, 3, 255, 7)[::-1])):
            pixels = np.where(alpha8 > 0, color, np.array(hidden, np.uint8))
            source = write(tmp_path / name, a__png=png(np.concatenate([pixels, alpha8], 2).astype(np.uint8), RGBA))
            assert main(["degrade", flow, str(source), str(tmp_path / f"{name}_d"), "--scale", str(scale)]) == 0
            assert main(["denoise", "blind_spot_small", str(source), str(tmp_path / f"{name}_n")]) == 0
        for what in "dn":
            one, two = (read(tmp_path / f"{name}_{what}" / "a.png") for name in ("red", "noise"))
            seen = one[..., 3] > 0
            assert 0.3 < seen.mean() < 0.9
            np.testing.assert_array_equal(one[seen], two[seen])
            np.testing.assert_array_equal(one[..., 3], two[..., 3])
        # Readers that drop alpha see there what they see in the file.
        for what in "dn":
            hidden = read(tmp_path / f"red_{what}" / "a.png")
            np.testing.assert_array_equal(hidden[:1, :, :3], np.broadcast_to((255, 0, 0), hidden[:1, :, :3].shape))

    @pytest.mark.parametrize("deep", [False, True])
    def test_is_reduced_with_the_picture(self, deep: bool, flow: str, tmp_path: Path) -> None:
        """As Pillow reduces colours that are multiplied by their alpha; it treats borders otherwise."""
        color = np.where(alpha8 > 0, smooth(40, 48, 3, 255), np.array((255, 0, 0), np.uint8)).astype(np.uint8)
        pixels = np.concatenate([color, alpha8], 2)
        data = png(pixels.astype(np.uint16) * 257 if deep else pixels, RGBA)
        source = write(tmp_path / "in", a__png=data)
        assert main(["degrade", flow, str(source), str(tmp_path / "out"), "--scale", "2", "--strength", "0"]) == 0
        found = read(tmp_path / "out" / "a.png") / (257 if deep else 1)
        small = Image.fromarray(pixels).convert("RGBa").resize((24, 20), Image.Resampling.BICUBIC)
        expected = np.asarray(small).astype(float)
        assert abs(found[..., 3] - expected[..., 3]).max() <= 1
        inner = (slice(2, -2), slice(2, -2))
        assert abs(found[..., :3] * found[..., 3:] / 255 - expected[..., :3])[inner].max() <= 2

    def test_is_enlarged_with_the_picture(self, identity: str, tmp_path: Path) -> None:
        alpha = np.full((24, 32, 1), 255, np.uint8)
        alpha[:, :16] = 0
        source = write(tmp_path / "in", a__png=png(np.concatenate([smooth(24, 32, 3, 255), alpha], 2), RGBA))
        words = ["--task", "sr", "--scale", "2", "--sigma", "0.01"]
        assert main(["restore", identity, str(source), str(tmp_path / "out"), *words]) == 0
        found = read(tmp_path / "out" / "a.png")
        assert found.shape == (48, 64, 4)
        assert (found[:, :28, 3] == 0).all()
        assert (found[:, 36:, 3] == 255).all()

    @pytest.mark.parametrize("words", [["sr", "--scale", "3"], ["deblur", "--kernel", "gaussian:1.0"]])
    def test_what_is_hidden_leaves_no_halo(self, words: list[str], tmp_path: Path) -> None:
        """A dark disc on nothing stays dark to its edge, whatever colour nothing has."""
        y, x = np.mgrid[0:40, 0:44]
        alpha = (np.clip(14 - np.hypot(y - 20, x - 22), 0, 1) * 255).astype(np.uint8)[..., None]
        noise = np.random.default_rng(0).normal(0, 2, (40, 44, 3))
        for name, nothing in (("white", 255), ("black", 0), ("red", (255, 0, 0))):
            color = np.where(alpha > 0, np.clip(np.array((30, 40, 60)) + noise, 0, 255), nothing).astype(np.uint8)
            source = write(tmp_path / name, a__png=png(np.concatenate([color, alpha], 2), RGBA))
            assert main(["restore", "map_small", str(source), str(tmp_path / f"{name}_o"), "--task", *words]) == 0
            found = read(tmp_path / f"{name}_o" / "a.png").astype(int)
            seen = found[..., 3] > 0
            assert 0.2 < seen.mean() < 0.6
            assert abs(found[seen][:, :3] - (30, 40, 60)).max() <= 25


class TestRange:
    def test_results_stay_within_that_of_the_data(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A denoised 12-bit picture is nearer to the truth than the noisy one, on the scale of the file."""
        truth = np.asarray(Image.fromarray(smooth(96, 96, 1, 255)[..., 0]).filter(ImageFilter.GaussianBlur(3)))
        truth = truth.astype(float) / 255 * 4095
        noisy = np.clip(truth + np.random.default_rng(1).normal(0, 200, truth.shape), 0, 4095).astype(np.uint16)
        source = write(tmp_path / "in", cell__tif=tiff(noisy), cell2__png=png(noisy[..., None], GREY))
        assert main(["denoise", "blind_spot_small", str(source), str(tmp_path / "out")]) == 0
        for name in ("cell.png", "cell2.png"):
            found = read(tmp_path / "out" / name)[..., 0]
            assert found.max() <= 4095
            assert len(np.unique(found)) > 1000
            assert np.std(found - truth) < np.std(noisy - truth) * 0.8
        said = capsys.readouterr().err
        assert "given up: 2 narrow_range\n" in said
        assert "; cell.tif, cell2.png\n" in said

    def test_can_be_asked_for(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        values = smooth(40, 48, 1) >> 4
        source = write(tmp_path / "in", a__png=png(values, GREY), b__png=png(smooth(40, 48, 1), GREY))
        for asked in ("full", "65535"):
            assert denoise(source, tmp_path / "out", "--range", asked) == 0
            np.testing.assert_array_equal(read(tmp_path / "out" / "a.png"), values)
            assert "given up" not in capsys.readouterr().err
        assert denoise(source, tmp_path / "some", "--range", "4095") == 0
        said = capsys.readouterr()
        assert "1 of 2 images denoised; skipped: 1 out_of_range" in said.out
        assert "b.png: holds values up to" in said.err
        with pytest.raises(SystemExit):
            denoise(source, tmp_path / "none", "--range", "70000")
        assert "expected auto, full or a whole number from 1 to 65535, got '70000'" in capsys.readouterr().err

    def test_16_bits_are_reduced_without_rounding_to_8(self, flow: str, tmp_path: Path) -> None:
        ramp = np.broadcast_to(30000 + 8 * np.arange(96)[:, None], (64, 96, 1)).astype(np.uint16)
        source = write(tmp_path / "in", a__png=png(np.ascontiguousarray(ramp), GREY))
        assert main(["degrade", flow, str(source), str(tmp_path / "out"), "--scale", "2", "--strength", "0"]) == 0
        expected = 30004 + 16 * np.arange(48)
        assert abs(read(tmp_path / "out" / "a.png")[..., 0].astype(int) - expected)[:, 2:-2].max() <= 8


class TestPages:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        stack = np.stack([smooth(24, 32, 1, seed=seed)[..., 0] for seed in range(5)])
        frames = [Image.fromarray(smooth(24, 32, 3, 255, seed)) for seed in range(3)]
        how = {"save_all": True, "append_images": frames[1:]}
        return write(
            tmp_path / "in",
            stack__tif=tiff(stack, photometric="minisblack"),
            anim__webp=saved(frames[0], format="WEBP", lossless=True, **how),
            one__png=png(smooth(24, 32, 3, 255), RGB),
        )

    def test_all_come_out(self, source: Path, tmp_path: Path) -> None:
        assert denoise(source, tmp_path / "out") == 0
        pages = [f"anim_p{page}.png" for page in (1, 2, 3)] + [f"stack_p{page}.png" for page in (1, 2, 3, 4, 5)]
        assert names_in(tmp_path / "out") == sorted([*pages, "one.png"])
        for page in range(5):
            np.testing.assert_array_equal(
                read(tmp_path / "out" / f"stack_p{page + 1}.png"), smooth(24, 32, 1, seed=page)
            )
        for page in range(3):
            np.testing.assert_array_equal(
                read(tmp_path / "out" / f"anim_p{page + 1}.png"), smooth(24, 32, 3, 255, page)
            )

    def test_or_the_first(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert denoise(source, tmp_path / "out", "--pages", "first") == 0
        assert names_in(tmp_path / "out") == ["anim.png", "one.png", "stack.png"]
        np.testing.assert_array_equal(read(tmp_path / "out" / "stack.png"), smooth(24, 32, 1))
        said = capsys.readouterr().err
        assert "given up: 6 further_pages\n" in said
        assert "; anim.webp, stack.tif\n" in said

    def test_or_none(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert denoise(source, tmp_path / "out", "--pages", "refuse") == 0
        assert names_in(tmp_path / "out") == ["one.png"]
        said = capsys.readouterr()
        assert "1 of 3 images denoised; skipped: 2 pages" in said.out
        assert "stack.tif: has 5 pages" in said.err

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning:PIL")
    def test_a_damaged_page_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        frames = [Image.fromarray(smooth(64, 64, 3, 255, seed)) for seed in range(3)]
        data = saved(frames[0], format="TIFF", compression="tiff_lzw", save_all=True, append_images=frames[1:])
        write(tmp_path / "in", cut__tif=data[: len(data) * 2 // 3], whole__tif=data)
        assert denoise(tmp_path / "in", tmp_path / "out") == 0
        said = capsys.readouterr()
        assert "1 of 2 images denoised; skipped: 1 " in said.out
        assert re.search(r"cut.tif: .*; pages before it were written \(2\)", said.err)
        assert names_in(tmp_path / "out") == [
            "cut_p1.png",
            "cut_p2.png",
            "whole_p1.png",
            "whole_p2.png",
            "whole_p3.png",
        ]
        np.testing.assert_array_equal(read(tmp_path / "out" / "cut_p2.png"), smooth(64, 64, 3, 255, 1))

    def test_in_place_they_would_add_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        frames = [Image.fromarray(smooth(24, 32, 3, 255, seed)) for seed in range(3)]
        data = saved(frames[0], format="PNG", save_all=True, append_images=frames[1:])
        source = write(tmp_path / "in", anim__png=data, one__png=png(rgb8, RGB))
        assert denoise(source, source, "--in-place") == 0
        assert names_in(source) == ["anim.png", "one.png"]
        assert (source / "anim.png").read_bytes() == data
        assert "3 pages cannot replace one file; add --pages first" in capsys.readouterr().err
        assert denoise(source, source, "--in-place", "--pages", "first") == 0
        np.testing.assert_array_equal(read(source / "anim.png"), smooth(24, 32, 3, 255))


class TestNames:
    """No result replaces another, whatever lies beside what."""

    @pytest.mark.parametrize(
        "names",
        [
            ["a.tif", "a_p1.png"],
            ["A.tif", "a_P2.png", "a.tif_p1.png"],
            ["a.png", "a.jpg", "a.jpg.png", "a.jpg.webp"],
            ["A.png", "a.png", "a.PNG"],
            ["a.png/x.png", "a.jpg"],
            ["a_1.png", "a.tif", "a_p1_1.png"],
            ["Ü.png", "ü.png"],
        ],
    )
    @pytest.mark.parametrize("samples", [1, 2])
    def test_all_results_are_there(self, names: list[str], samples: int, flow: str, tmp_path: Path) -> None:
        pages = 0
        frames = [Image.fromarray(smooth(16, 16, 3, 255, seed)) for seed in range(3)]
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            many = name.endswith(".tif")
            pages += 3 if many else 1
            how = {"save_all": True, "append_images": frames[1:]} if many else {}
            kind = {"tif": "TIFF", "jpg": "JPEG", "webp": "WEBP"}.get(name.rpartition(".")[2], "PNG")
            frames[0].save(path, format=kind, **how)
        assert main(["degrade", flow, str(tmp_path / "in"), str(tmp_path / "out"), "--samples", str(samples)]) == 0
        found = names_in(tmp_path / "out")
        assert len(found) == samples * pages
        assert len({name.casefold() for name in found}) == len(found)


class TestMetadata:
    def test_exif_is_kept_and_the_picture_stands_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112], exif[0x010F], exif[0x0132] = 6, "Maker", "2026:01:02 03:04:05"
        picture = Image.fromarray(rgb8)
        for name, how in (("a.jpg", {"format": "JPEG"}), ("b.webp", {"format": "WEBP", "lossless": True})):
            write(tmp_path / "in", **{name.replace(".", "__"): saved(picture, exif=exif, **how)})
        assert denoise(tmp_path / "in", tmp_path / "out") == 0
        for name in ("a.png", "b.png"):
            with Image.open(tmp_path / "out" / name) as image:
                kept = image.getexif()
                assert (kept[0x010F], kept[0x0132], 0x0112 in kept) == ("Maker", "2026:01:02 03:04:05", False)
        np.testing.assert_array_equal(read(tmp_path / "out" / "b.png"), np.rot90(rgb8, -1))

    @pytest.mark.parametrize("command", ["degrade", "denoise", "restore"])
    def test_plain_images_have_none(self, command: str, flow: str, identity: str, tmp_path: Path) -> None:
        source = write(tmp_path / "in", a__jpg=saved(Image.fromarray(rgb8), format="JPEG"))
        words = {"degrade": [flow], "denoise": [identity], "restore": [identity, "--task=denoise"]}[command]
        assert main([command, words[0], str(source), str(tmp_path / "out"), *words[1:]]) == 0
        data = (tmp_path / "out" / "a.png").read_bytes()
        assert data[12:16] == b"IHDR"
        assert data[37:41] == b"IDAT"


@pytest.mark.parametrize("command", ["degrade", "denoise", "restore"])
def test_a_limit_on_pixels(
    command: str, flow: str, identity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in", a__png=png(rgb8, RGB), b__png=png(smooth(20, 20, 3, 255), RGB))
    words = {"degrade": [flow], "denoise": [identity], "restore": [identity, "--task=denoise"]}[command]
    call = [command, words[0], str(source), str(tmp_path / "out"), *words[1:], "--max-pixels"]
    assert main([*call, str(40 * 48 - 1)]) == 0
    said = capsys.readouterr()
    assert "1 of 2 images" in said.out
    assert "skipped: 1 bomb" in said.out
    assert "a.png: refused, 48x40 are 1920 pixels" in said.err
    assert main([*call, str(40 * 48)]) == 0
    assert main([*call, "0"]) == 2
    assert "--max-pixels: expected at least 1, got 0" in capsys.readouterr().err


def test_a_mask_of_a_file_is_that_of_its_pages(identity: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(smooth(24, 32, 3, 255, seed)) for seed in range(2)]
    source = write(tmp_path / "in", a__tif=saved(frames[0], format="TIFF", save_all=True, append_images=frames[1:]))
    hole = np.zeros((24, 32, 1), np.uint8)
    hole[4:8, 4:8] = 255
    masks = write(tmp_path / "masks", a__png=png(hole, GREY))
    words = ["--task", "inpaint", "--mask", str(masks)]
    assert main(["restore", identity, str(source), str(tmp_path / "out"), *words]) == 0
    assert names_in(tmp_path / "out") == ["a_p1.png", "a_p2.png"]


def test_a_mask_of_another_file_is_not_taken_for_that_of_a_page(
    identity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name may end as those of pages do."""
    source = write(tmp_path / "in", a__png=png(rgb8, RGB), a_p2__png=png(rgb8, RGB))
    masks = write(tmp_path / "masks", a__png=png((grey8 > 200).astype(np.uint8) * 255, GREY))
    words = ["--task", "inpaint", "--mask", str(masks)]
    assert main(["restore", identity, str(source), str(tmp_path / "out"), *words]) == 0
    assert "skipped: 1 no_mask" in capsys.readouterr().out
    assert names_in(tmp_path / "out") == ["a.png"]
