"""``synthpipe degrade`` by an option file in place of weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from synthpipe.cli import degrade as command
from synthpipe.config.degrade_file import DegradeFileOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError
from synthpipe.images import to_float, to_uint8
from synthpipe.seeds import sample_seed
from synthpipe.transforms.build import build_degrade

BOX = {"type": "resize", "to": "lr", "filter": "box"}
ROUGH = [{"type": "quantise", "levels": 3}, BOX]
#: Random in all that it does.
CHAIN = [
    {"type": "noise", "kinds": {"gaussian": 1}, "sigma": [0.02, 0.1]},
    BOX,
    {"type": "choice", "of": [{"chain": []}, {"chain": [{"type": "jpeg", "quality": [30, 80]}]}]},
]


def main(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return int(command.run(parser.parse_args(["degrade", *map(str, argv), "--device", "cpu"])))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def options(path: Path, **content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return to_float(torch.from_numpy(array.copy()).permute(2, 0, 1)[None])


def by_the_transform(degrade: Any, scale: int, image: np.ndarray, seed: int) -> np.ndarray:
    """What a batch of this image and seed comes to."""
    parsed = parse_options({"degrade": degrade, "scale": scale}, DegradeFileOptions)
    batch = {"gt": as_tensor(image), "seed": torch.tensor([seed]), "seen": torch.tensor([0])}
    return to_uint8(build_degrade(parsed.degrade, scale)(batch)["lq"])[0].permute(1, 2, 0).numpy()


def test_the_result_is_the_chain_by_hand(tmp_path: Path) -> None:
    image = picture(43, 61)
    save(tmp_path / "in" / "deep" / "a.png", image)
    assert main(options(tmp_path / "o.yml", degrade=ROUGH, scale=2), tmp_path / "in", tmp_path / "out") == 0
    x = np.round(image[:42, :60] / 255 * 2) / 2
    expected = 255 * x.reshape(21, 2, 30, 2, 3).mean((1, 3))
    found = load(tmp_path / "out" / "deep" / "a.png")
    assert found.shape == (21, 30, 3)
    assert np.abs(found - expected).max() <= 0.501


@pytest.mark.parametrize(
    "degrade",
    [
        CHAIN,
        {"type": "deflow", "weights": "deflow_small", "strength": [0.2, 0.9], "samples": 3},
        {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.0, 0.1]}, "jpeg_quality": [40, 90]},
    ],
    ids=["chain", "deflow", "classical"],
)
def test_the_result_is_that_of_the_transform_with_the_images_seed(tmp_path: Path, degrade: Any) -> None:
    image = picture(36, 52)
    save(tmp_path / "in" / "a.png", image)
    save(tmp_path / "in" / "b.png", picture(40, 40, 1))
    path = options(tmp_path / "o.yml", degrade=degrade)
    assert main(path, tmp_path / "in", tmp_path / "out", "--samples", 2, "--seed", 7) == 0
    if isinstance(degrade, dict) and degrade["type"] == "deflow":
        degrade = {**degrade, "samples": 1}  # --samples says how many
    made = []
    for number in range(2):
        expected = by_the_transform(degrade, 4, image, sample_seed(7, number, "a"))
        made.append(load(tmp_path / "out" / f"a_{number + 1}.png"))
        np.testing.assert_array_equal(made[-1], expected)
    assert (made[0] != made[1]).mean() > 0.3


def test_pairs_hold_exactly_what_was_degraded(tmp_path: Path) -> None:
    image = picture(43, 61)
    save(tmp_path / "in" / "a.png", image)
    with_alpha = np.dstack([picture(24, 24, 1), np.full((24, 24), 128, np.uint8)])
    save(tmp_path / "in" / "b.png", with_alpha)
    path = options(tmp_path / "o.yaml", degrade=CHAIN, scale=4)
    assert main(path, tmp_path / "in", tmp_path / "val", "--pairs", "--scale", 2) == 0
    for name, sides in (("a", (42, 60)), ("b", (24, 24))):
        gt, lq = load(tmp_path / "val" / "gt" / f"{name}.png"), load(tmp_path / "val" / "lq" / f"{name}.png")
        assert gt.shape == (*sides, 3)
        np.testing.assert_array_equal(lq, by_the_transform(CHAIN, 2, gt, sample_seed(0, 0, name)))
    np.testing.assert_array_equal(load(tmp_path / "val" / "gt" / "a.png"), image[:42, :60])


def test_what_comes_in_comes_out(tmp_path: Path) -> None:
    grey = picture(40, 40)[:, :, 0]
    save(tmp_path / "in" / "grey.png", grey)
    color = picture(40, 40, 1)
    alpha = np.full((40, 40, 1), 255, np.uint8)
    alpha[:, :20] = 0
    color[:, :20] = 0  # hidden black must not darken what is seen
    color[:, 20:] = 200
    save(tmp_path / "in" / "alpha.png", np.concatenate([color, alpha], 2))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "in" / "deep.png")
    path = options(tmp_path / "o.yml", degrade=[{"type": "blur", "kinds": {"box": 1}, "window": 5}, BOX], scale=2)
    assert main(path, tmp_path / "in", tmp_path / "out") == 0
    assert load(tmp_path / "out" / "grey.png").shape == (20, 20)
    seen = load(tmp_path / "out" / "alpha.png")
    assert seen.shape == (20, 20, 4)
    assert (seen[:, :9, 3] == 0).all()
    assert (seen[:, 11:, 3] == 255).all()
    assert (seen[:, 10:, :3] == 200).all()
    deep = load(tmp_path / "out" / "deep.png")
    assert deep.max() > 255
    assert np.abs(deep / 257 - load(tmp_path / "out" / "grey.png")).max() <= 0.51


def test_schedules_are_at_their_end_unless_told(tmp_path: Path) -> None:
    late = [{"type": "quantise", "levels": 2, "probability": [[0, 0], [100, 1]]}]
    image = picture(32, 32)
    save(tmp_path / "in" / "a.png", image)
    path = options(tmp_path / "o.yml", degrade=late, scale=1)
    assert main(path, tmp_path / "in", tmp_path / "end") == 0
    assert main(path, tmp_path / "in", tmp_path / "begin", "--seen", 0) == 0
    np.testing.assert_array_equal(load(tmp_path / "end" / "a.png"), np.where(image > 127, 255, 0))
    np.testing.assert_array_equal(load(tmp_path / "begin" / "a.png"), image)


def test_all_option_files_with_a_degradation_are_taken(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", picture(32, 32))
    ours = {"name": "c", "type": "SynthPipeDataset", "shards": "absent.tar", "gt_size": 64, "batch_size_per_gpu": 2}
    others = {"name": "c", "type": "RealESRGANDataset", "dataroot_gt": "absent", "gt_size": 64}
    contents: dict[str, dict[str, Any]] = {
        "alone": {"degrade": ROUGH, "scale": 2},
        "stream": {"degrade": ROUGH, "scale": 2, "shards": "absent.tar", "gt_size": 64},
        "block": {"scale": 2, "datasets": {"train": {**ours, "degrade": ROUGH}}, "network_g": {}},
        "model": {"scale": 2, "degrade": ROUGH, "datasets": {"train": ours}, "network_g": {}},
        "others": {"scale": 2, "degrade": ROUGH, "datasets": {"train": others}, "network_g": {}},
    }
    for name, content in contents.items():
        assert main(options(tmp_path / f"{name}.yml", **content), tmp_path / "in", tmp_path / name) == 0
    results = {(tmp_path / name / "a.png").read_bytes() for name in contents}
    assert len(results) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scale": 2}, "o.yml: option 'degrade' is required"),
        ({"degrade": ROUGH, "scael": 2}, "o.yml: unknown option 'scael'; did you mean 'scale'"),
        ({"degrade": [{"type": "qantise"}]}, "quantise"),
        ({"shards": "a.tar", "gt_size": 64}, "nothing to apply without `degrade`"),
        ({"datasets": {"train": {"type": "RealESRGANDataset"}}}, "expected type: SynthPipeDataset"),
    ],
)
def test_option_files_that_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    save(tmp_path / "in" / "a.png", picture(32, 32))
    with pytest.raises(OptionError, match=message):
        main(options(tmp_path / "o.yml", **content), tmp_path / "in", tmp_path / "out")


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", picture(32, 32))
    path = options(tmp_path / "o.yml", degrade=ROUGH, scale=2)
    for name, value in {"strength": 1, "tile": 512, "overlap": 32}.items():
        with pytest.raises(OptionError, match=f"--{name}: is for weights"):
            main(path, tmp_path / "in", tmp_path / "out", f"--{name}", value)
    with pytest.raises(OptionError, match="--seen: expected at most"):
        main("deflow_small", tmp_path / "in", tmp_path / "out", "--seen", 10**20)
    with pytest.raises(OptionError, match="--seen: weights have no schedule"):
        main("deflow_small", tmp_path / "in", tmp_path / "out", "--seen", 5)
    with pytest.raises(OptionError, match=r"bsrgan: is a preset .*write \{scale: 4, degrade: bsrgan\} into a file"):
        main("bsrgan", tmp_path / "in", tmp_path / "out")
    with pytest.raises(OptionError, match="cannot read option file"):
        main(tmp_path / "absent.yml", tmp_path / "in", tmp_path / "out")


def test_images_that_the_chain_cannot_take_are_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "in" / "good.png", picture(64, 64))
    save(tmp_path / "in" / "tiny.png", picture(4, 4))
    save(tmp_path / "in" / "huge.png", picture(80, 90))
    blur = [{"type": "blur", "kinds": {"isotropic": 1}, "size": 21}, BOX]
    path = options(tmp_path / "o.yml", degrade=blur, scale=2)
    monkeypatch.setattr(command, "_MOST_PIXELS", 7000)
    assert main(path, tmp_path / "in", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "1 of 3 images degraded; skipped: 1 bomb, 1 unfit_size" in said.out
    assert "tiny.png: 4x4 does not go through the degradation: " in said.err
    assert main(path, tmp_path / "in", tmp_path / "all", "--max-pixels", 7200) == 0
    assert (tmp_path / "all" / "huge.png").is_file()
