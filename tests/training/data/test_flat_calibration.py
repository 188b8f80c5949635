"""The correction by flat areas: a pile of known noise, and a flow that has not learnt it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.config.deflow import UnpairedOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, TrainingError
from synthpipe.files.decode import Decoded
from synthpipe.flat_noise import noise_level
from synthpipe.flows import DeFlow, FrozenDeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.images import to_float
from synthpipe.noise_statistics import flat_mask
from synthpipe.training.data import flat_calibration, folder_domain
from synthpipe.training.data.flat_calibration import (
    FlatCalibration,
    _fit_filters,
    check_flat_areas,
    group_levels,
    most_flat,
)
from synthpipe.training.data.unpaired import UnpairedData
from tests.stream_corpus import noise_image, png, write_tar

SIDE = 256
#: Mixes white noise into R, G, B: strong blue, G and B hardly correlated.
MIXING = np.array([[1.0, 0.0, 0.0], [0.6, 0.6, 0.0], [0.1, 0.2, 1.6]])
SIGMA = 3.0


def scene(rng: np.random.Generator) -> np.ndarray:
    """A smooth picture from dark to bright, 0..255, ``(H, W, 3)``."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    a, b, c = rng.uniform(-1, 1, 3)
    light = 25 + 190 * np.clip(0.5 + 0.5 * a * np.cos(2 * x + 3 * b) + 0.4 * c * (y - 0.5), 0, 1)
    return np.repeat(light[..., None], 3, 2)


def sigma_at(light: np.ndarray | float) -> np.ndarray | float:
    """Noise falls with brightness."""
    return 1.4 - light / 255


def noise(light: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Correlated over two pixels of a row, not at all over two rows."""
    white = rng.standard_normal((SIDE, SIDE + 1, 3))
    wide = (white[:, 1:] + 0.5 * white[:, :-1]) / np.sqrt(1.25)
    return level * SIGMA * sigma_at(light) * (wide @ MIXING.T)


def correlation_h() -> float:
    return 0.5 / 1.25


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).save(path, compress_level=1)


@pytest.fixture(autouse=True)
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CANDIDATES": 24, "TILES": 10, "TILE": 128}.items():
        monkeypatch.setattr(flat_calibration, name, value)


@pytest.fixture(scope="module")
def piles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("piles"), np.random.default_rng(0)
    for number in range(6):
        write(root / "clean" / f"{number}.png", scene(rng))
    for number, level in enumerate((1, 1, 1, 2, 2)):
        light = scene(rng)
        write(root / "noisy" / f"{number}.png", light + noise(light, level, rng))
    return root


def options(piles: Path, **changes: object) -> UnpairedOptions:
    domains = {name: {"folder": str(piles / name)} for name in ("clean", "noisy")}
    return parse_options({**domains, "crop": 32, "batch_size": 4, "workers": 0, **changes}, UnpairedOptions)


def flow(batch: dict[str, Tensor], level: bool, raw: float = -4.7) -> DeFlow:
    """As it starts, its noise by default about as strong as the pile's, and neither coloured nor correlated like it."""
    torch.manual_seed(0)
    encoder = {"type": "small", "features": 4, "depth": 1}
    model = DeFlow(
        steps=1, transition_steps=1, hidden=4, encoder=encoder, covariance="colour", coupling="additive", level=level
    )
    given = {"level": batch["level"]} if level else {}
    if model.pile is not None:
        model.pile.see([0.01])
    model.initialize(to_float(batch["x"]), batch["domain"], torch.Generator().manual_seed(0), **given)
    with torch.no_grad():
        for shift in model.shifts:
            shift.raw.fill_(raw)  # type: ignore[union-attr,operator]
    return model


def generated(model: DeFlow, light: float, level: float | None) -> np.ndarray:
    """Residuals in grey levels ``(N, 3, H, W)`` on grey tiles."""
    x = torch.full((16, 3, 64, 64), light / 255)
    y = FrozenDeFlow(model).degrade_with(x, SeededNoise(torch.arange(16)), level=level)
    residual = 255 * (y - x).double()
    return (residual - residual.mean((2, 3), keepdim=True)).numpy()


@pytest.mark.parametrize(("light", "raw"), [(80.0, -4.7), (115.0, -4.7), (115.0, -8.0)], ids=["dark", "bright", "weak"])
def test_what_comes_out_has_the_covariance_of_the_pile_at_its_brightness(piles: Path, light: float, raw: float) -> None:
    data = UnpairedData(options(piles), 0, with_levels=True)
    batch = data.next_batch()
    model = flow(batch, level=True, raw=raw)
    assert model.pile is not None
    model.pile.see(list(data.levels.values()))
    before = np.cov(generated(model, light, 0.02)[:, :, 4:-4, 4:-4].transpose(1, 0, 2, 3).reshape(3, -1))
    said = FlatCalibration(data)(model)
    assert len(said["levels"]) == 2
    levels = sorted(data.levels.values())
    assert levels[-1] / levels[0] == pytest.approx(2, rel=0.05)
    for level, factor in ((levels[0], 1), (levels[-1], 2)):
        residual = generated(model, light, level)[:, :, 4:-4, 4:-4]
        found = np.cov(residual.transpose(1, 0, 2, 3).reshape(3, -1))
        expected = (factor * SIGMA * sigma_at(light)) ** 2 * MIXING @ MIXING.T
        sigma, wanted = np.sqrt(np.diag(found)), np.sqrt(np.diag(expected))
        assert sigma == pytest.approx(wanted, rel=0.12)
        assert found / np.outer(sigma, sigma) == pytest.approx(expected / np.outer(wanted, wanted), abs=0.1)
        lag_h = (residual[..., 1:] * residual[..., :-1]).mean() / (residual**2).mean()
        lag_v = (residual[:, :, 1:] * residual[:, :, :-1]).mean() / (residual**2).mean()
        assert lag_h == pytest.approx(correlation_h(), abs=0.1)
        assert lag_v == pytest.approx(0, abs=0.1)
    # The flow alone had another one.
    wrong = before / np.sqrt(np.outer(np.diag(before), np.diag(before)))
    assert abs(wrong[0, 1] - expected[0, 1] / np.sqrt(expected[0, 0] * expected[1, 1])) > 0.15


def test_a_model_without_levels_gets_the_pile_as_a_whole(piles: Path) -> None:
    data = UnpairedData(options(piles), 0)
    model = flow(data.next_batch(), level=False)
    levels = [255 * (noise_level(_read(path)) or 0) for path in (piles / "noisy").iterdir()]
    (said,) = FlatCalibration(data)(model)["levels"]
    assert min(levels) < said < max(levels)  # of all images together
    sigma = generated(model, 120.0, None).std()
    one = SIGMA * float(sigma_at(120.0)) * np.sqrt((MIXING**2).sum() / 3)
    assert 1.1 * one < sigma < 1.9 * one  # levels 1, 1, 1, 2, 2


def test_crops_bring_the_level_of_their_image(piles: Path) -> None:
    data = UnpairedData(options(piles), 3, with_levels=True)
    batch = data.next_batch()
    for key, level in zip(batch["key"][2:], batch["level"][2:].tolist(), strict=True):
        assert level == pytest.approx(noise_level(_read(key)))
    assert torch.equal(batch["level"][:2], batch["level"][2:])
    assert "level" not in UnpairedData(options(piles), 3).next_batch()


def _read(path: str | Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def test_images_without_a_flat_area_count_as_the_median(piles: Path, tmp_path: Path) -> None:
    for file in (piles / "noisy").iterdir():
        (tmp_path / file.name).symlink_to(file)
    write(tmp_path / "black.png", np.zeros((64, 64, 3)))
    data = UnpairedData(options(piles, noisy={"folder": str(tmp_path)}), 0, with_levels=True)
    known = sorted(level for file, level in data.levels.items() if "black" not in file)
    assert data.levels[str(tmp_path / "black.png")] == known[2]


def test_what_has_no_flat_area_is_refused(piles: Path, tmp_path: Path) -> None:
    write(tmp_path / "black.png", np.zeros((64, 64, 3)))
    with pytest.raises(TrainingError, match="none of 1 image has a flat area"):
        UnpairedData(options(piles, noisy={"folder": str(tmp_path)}), 0, with_levels=True)
    rough = torch.from_numpy(np.random.default_rng(0).random((2, 3, 64, 64)))
    with pytest.raises(TrainingError, match="none of 2 clean crops"):
        most_flat(rough, torch.linspace(0, 1, 3), 1)


def test_the_look_for_flat_areas_reads_no_more_than_it_must(piles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = UnpairedData(options(piles), 0)
    seen: list[Tensor] = []
    monkeypatch.setattr(flat_calibration, "flat_mask", lambda tile: seen.append(tile) or flat_mask(tile))
    check_flat_areas(data)
    assert len(seen) == 1


@pytest.mark.parametrize("with_levels", [False, True])
def test_a_large_pile_is_not_read_whole_for_its_flat_areas(
    with_levels: bool, piles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 100 images 12 at most are decoded for it, from all over the pile; a broken one is replaced by the next."""
    noisy = sorted((piles / "noisy").iterdir())
    for number in range(100):
        (tmp_path / f"{number:03}.png").write_bytes(noisy[number % len(noisy)].read_bytes())
    whole = noisy[0].read_bytes()
    for number in (0, 9):
        (tmp_path / f"{number:03}.png").write_bytes(whole[: len(whole) // 2])
    caplog.set_level("INFO", "synthpipe.training")
    data = UnpairedData(options(piles, noisy={"folder": str(tmp_path)}), 0, with_levels=with_levels)
    read: list[str] = []
    original = folder_domain.decode_image

    def decode(data: bytes, name: str, **more: int) -> Decoded:
        read.append(name)
        return original(data, name, **more)

    monkeypatch.setattr(folder_domain, "decode_image", decode)
    check_flat_areas(data)
    names = [int(Path(name).stem) for name in read if str(tmp_path) in name]
    if with_levels:  # all have been read and are kept
        assert names == []
    else:
        assert names == [0, 1, 9, 10, *range(18, 100, 9)]
        assert "measured on 12 of 100 images" in caplog.text
    data.close()


def test_a_pile_of_broken_images_is_named(piles: Path, tmp_path: Path) -> None:
    """A run from ``init_weights`` looks for flat areas before it reads its first batch."""
    whole = (piles / "noisy" / "0.png").read_bytes()
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(whole[: len(whole) // 3])
    data = UnpairedData(options(piles, noisy={"folder": str(tmp_path)}), 0)
    with pytest.raises(TrainingError, match=r"none of 2 noisy images can be read; check data\.noisy"):
        check_flat_areas(data)
    data.close()


def test_after_a_resume_with_other_choices_broken_images_are_left_out_as_before(piles: Path, tmp_path: Path) -> None:
    """The images are opened anew then, and their levels are not measured again."""
    for path in (piles / "noisy").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(whole[: len(whole) // 2])
    given = options(piles, noisy={"folder": str(tmp_path)}, augment="auto", align="auto")
    data = UnpairedData(given, 0, with_levels=True)
    chosen = {"augment": "none", "align": 8, "resize_range": None}
    assert data.state_dict()["chosen"] != chosen
    data.load_state_dict({**data.state_dict(), "chosen": chosen})
    assert data.describe()["chosen"]["align"] == 8
    check_flat_areas(data)
    data.close()


def test_an_image_that_can_be_read_no_more_is_named(piles: Path, tmp_path: Path) -> None:
    """Levels are measured when a run begins, the correction when it ends."""
    for number in range(10):  # 18 MB, more than are kept
        with Image.open(piles / "noisy" / f"{number % 3}.png") as image:
            write(tmp_path / f"{number}.png", np.tile(np.asarray(image), (3, 3, 1)))
    data = UnpairedData(options(piles, noisy={"folder": str(tmp_path)}, cache_mb=16), 0, with_levels=True)
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"0\.png' could be read before and cannot be now; put it back"):
        check_flat_areas(data)
    data.close()


def test_shards_cannot_be_measured(tmp_path: Path, piles: Path) -> None:
    members = [(f"{number}.png", png(noise_image(number))) for number in range(2)]
    shard = str(write_tar(tmp_path / "one.tar", members))
    with pytest.raises(OptionError, match="give a folder"):
        UnpairedData(options(piles, noisy={"shards": shard}), 0, with_levels=True)
    # And told before the first step where levels are not asked for.
    for name in ("clean", "noisy"):
        data = UnpairedData(options(piles, **{name: {"shards": shard}}), 0)
        with pytest.raises(OptionError, match=rf"data\.{name}"):
            check_flat_areas(data)
        data.close()


def test_groups_span_equal_ratios_and_none_is_empty() -> None:
    levels = [0.01, 0.0101, 0.02, 0.0099, 0.021]
    groups = group_levels(levels)
    assert [group.members for group in groups] == [(0, 1, 3), (2, 4)]
    assert groups[0].level == pytest.approx((0.01 * 0.0101 * 0.0099) ** (1 / 3))
    assert [group.members for group in group_levels([0.01, 0.0102])] == [(0, 1)]
    assert len(group_levels(list(np.geomspace(0.001, 0.1, 50)))) <= 6


def test_filters_give_white_noise_the_asked_correlation() -> None:
    white = torch.zeros(3, 13, 13, dtype=torch.float64)
    white[:, 6, 6] = 1
    wanted = torch.zeros(3, 5, 5, dtype=torch.float64)
    wanted[:, 2, 2] = 1
    wanted[:, 2, (1, 3)] = 0.4
    filters = _fit_filters(white, wanted)
    pairs = np.array([np.correlate(row, row, "full") for row in filters[0].numpy()]).sum(0)
    assert pairs[5] / pairs[4] == pytest.approx(0.4, abs=0.02)
    assert torch.allclose(filters, filters.flip(-1))


def test_the_correlation_of_flat_areas_is_that_of_pairs_within_an_image() -> None:
    """Against sums over all pairs of pixels; nothing comes about from one border to the other."""
    draws = torch.Generator().manual_seed(0)
    residual = torch.randn(2, 3, 9, 12, generator=draws, dtype=torch.float64)
    flat = torch.rand(2, 9, 12, generator=draws, dtype=torch.float64)
    found = flat_calibration._autocorrelation(residual, flat, 6)
    masked = residual * flat[:, None]

    def mean_product(channel: int, down: int, right: int) -> float:
        products = weights = 0.0
        for image, y, x in itertools.product(range(2), range(9), range(12)):
            if 0 <= y + down < 9 and 0 <= x + right < 12:
                products += float(masked[image, channel, y, x] * masked[image, channel, y + down, x + right])
                weights += float(flat[image, y, x] * flat[image, y + down, x + right])
        return products / max(weights, 1)

    for down, right in ((0, 0), (6, 6), (-6, 5), (3, -6), (0, 1)):
        wanted = [mean_product(c, down, right) / mean_product(c, 0, 0) for c in range(3)]
        assert found[:, 6 + down, 6 + right].tolist() == pytest.approx(wanted, abs=1e-12)
