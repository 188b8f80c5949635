"""Unpaired data: what a crop is, that it depends on nothing but (seed, step, slot), and what is refused."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.config.deflow import UnpairedOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.errors import ImageError, OptionError, TrainingError
from synthpipe.files.decode import decode_image
from synthpipe.training.data import folder_domain
from synthpipe.training.data.folder_domain import DecodedCache, FolderDomain, list_images, uniforms
from synthpipe.training.data.unpaired import CLEAN, NOISY, UnpairedData


def options(photos: dict[str, str], **changes: Any) -> UnpairedOptions:
    base = {"clean": {"folder": photos["clean"]}, "noisy": {"folder": photos["noisy"]}, "crop": 16, "batch_size": 8}
    return parse_options(base | changes, UnpairedOptions)


def domain(photos: dict[str, str], name: str = "clean", seed: int = 0, **changes: Any) -> FolderDomain:
    data = options(photos, **changes)
    return FolderDomain(name, getattr(data, name), data, data.crop, data.batch_size // 2, seed)


def coded(path: Path, height: int, width: int) -> None:
    """An image whose pixel (row, column) is (row, column, 7): a crop tells where it was cut."""
    rows, columns = np.mgrid[0:height, 0:width]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([rows, columns, np.full_like(rows, 7)], -1).astype(np.uint8)).save(path, compress_level=1)


def test_uniforms_are_uniform_and_follow_their_key() -> None:
    draws = np.array([uniforms(3, "a", i) for i in range(4000)])
    assert draws.shape == (4000, 8)
    assert 0 <= draws.min() <= draws.max() < 1
    # Mean of n uniform numbers: standard deviation sqrt(1 / 12 n); 5 of these.
    assert np.abs(draws.mean(0) - 0.5).max() < 5 / np.sqrt(12 * 4000)
    assert np.abs(np.corrcoef(draws.T) - np.eye(8)).max() < 5 / np.sqrt(4000)
    assert uniforms(3, "a", 1) == uniforms(3, "a", 1) != uniforms(3, "b", 1)


@pytest.mark.parametrize("second", ["", "sub", "link"])
def test_folders_that_overlap_are_refused(tmp_path: Path, second: str) -> None:
    """Their images would come twice as often as the others."""
    coded(tmp_path / "a" / "sub" / "a.png", 18, 17)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    other = tmp_path / ("link" if second == "link" else f"a/{second}")
    data = options({"clean": str(tmp_path / "a"), "noisy": str(tmp_path / "a")})
    given = DomainOptions(folder=(str(tmp_path / "a"), str(other)))
    with pytest.raises(OptionError, match="overlap; name only"):
        FolderDomain("clean", given, data, 16, 4, 0)


def test_a_crop_is_a_window_of_its_image_and_every_window_comes_up(tmp_path: Path, photos: dict[str, str]) -> None:
    coded(tmp_path / "coded" / "a.png", 18, 17)
    source = domain({**photos, "clean": str(tmp_path / "coded")}, augment="none")
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(600):
        crop, key = source.crop(step, 0)
        assert crop.shape == (3, 16, 16)
        assert crop.dtype == torch.uint8
        assert Path(key).name == "a.png"
        top, left = int(crop[0, 0, 0]), int(crop[1, 0, 0])
        assert torch.equal(crop[0], torch.arange(top, top + 16, dtype=torch.uint8)[:, None].expand(16, 16))
        assert torch.equal(crop[1], torch.arange(left, left + 16, dtype=torch.uint8).expand(16, 16))
        seen[top, left] += 1
    assert set(seen) == {(top, left) for top in range(3) for left in range(2)}
    # Six windows, 100 expected in each, standard deviation 9.1.
    assert max(abs(count - 100) for count in seen.values()) < 46


@pytest.mark.parametrize(("augment", "kinds"), [("none", 1), ("hflip", 2), ("flips", 4), ("dihedral", 8)])
def test_augmentation_gives_each_orientation_equally_often(
    augment: str, kinds: int, tmp_path: Path, photos: dict[str, str]
) -> None:
    coded(tmp_path / "coded" / "a.png", 16, 16)
    source = domain({**photos, "clean": str(tmp_path / "coded")}, augment=augment)
    steps = 100 * kinds
    seen = Counter(bytes(source.crop(step, 0)[0].numpy().tobytes()) for step in range(steps))
    assert len(seen) == kinds
    assert min(seen.values()) > 100 - 5 * 10


@pytest.mark.parametrize(("weight", "share"), [("area", 64 * 48 / (64 * 48 + 16 * 24)), ("uniform", 0.5)])
def test_images_are_drawn_by_weight(
    weight: str, share: float, tmp_path: Path, photos: dict[str, str], write_image: Callable[..., Path]
) -> None:
    write_image(tmp_path / "w" / "big.png", 64, 48)
    write_image(tmp_path / "w" / "small.png", 16, 24)
    source = domain(photos, clean={"folder": str(tmp_path / "w"), "weight": weight})
    hits = sum(source.crop(step, 0)[1].endswith("big.png") for step in range(1000))
    assert abs(hits / 1000 - share) < 5 * np.sqrt(share * (1 - share) / 1000)


def test_resized_crops_keep_straight_lines_and_the_drawn_factor(tmp_path: Path, photos: dict[str, str]) -> None:
    coded(tmp_path / "coded" / "a.png", 120, 120)
    clean = {"folder": str(tmp_path / "coded"), "resize_range": [0.5, 0.8]}
    source = domain(photos, clean=clean, augment="none")
    factors = []
    for step in range(200):
        crop = source.crop(step, 0)[0].double()
        assert crop.shape == (3, 16, 16)
        assert float((crop[2] - 7).abs().max()) == 0
        # A ramp stays a ramp under any interpolation, up to rounding; its slope is 1 / factor.
        slope = float((crop[1, :, -1] - crop[1, :, 0]).mean()) / 15
        middle = crop[1].mean() + slope * (torch.arange(16) - 7.5)
        assert float((crop[1] - middle).abs().max()) < 1.6
        factors.append(1 / slope)
    assert 0.47 < min(factors) < 0.54
    assert 0.75 < max(factors) < 0.84
    assert abs(np.mean(np.log(factors)) - (np.log(0.5) + np.log(0.8)) / 2) < 0.05


def test_downscale_reduces_whole_images_first(tmp_path: Path, photos: dict[str, str]) -> None:
    coded(tmp_path / "coded" / "a.png", 70, 66)
    source = domain(photos, clean={"folder": str(tmp_path / "coded"), "downscale": 4}, augment="none")
    crop = source.crop(0, 0)[0]  # 70 x 66 -> 17 x 16
    # Four neighbours 4k..4k+3 have the mean 4k + 1.5; away from the mirrored edges a ramp stays one.
    left = crop[1, 8, 3:13].double() - (4 * torch.arange(3, 13) + 1.5)
    assert float((left - left.mean()).abs().max()) <= 1.0
    assert abs(float(left.mean())) < 0.5


def test_batches_are_half_and_half_and_depend_on_the_step_only(photos: dict[str, str]) -> None:
    data, again = UnpairedData(options(photos), seed=5), UnpairedData(options(photos, workers=3), seed=5)
    first = [data.next_batch() for _ in range(4)]
    assert first[0]["x"].shape == (8, 3, 16, 16)
    assert first[0]["domain"].tolist() == [CLEAN] * 4 + [NOISY] * 4
    assert all("clean" in Path(key).parts for key in first[0]["key"][:4])
    assert all("noisy" in Path(key).parts for key in first[0]["key"][4:])
    assert sorted(first[0]["slot"]) == list(range(8))
    again.load_state_dict({name: {**state, "step": 2} for name, state in again.state_dict().items()})
    assert_same(again.next_batch()["x"], first[2]["x"])
    again.load_state_dict(data.state_dict())
    assert_same(again.next_batch()["x"], data.next_batch()["x"])
    other = UnpairedData(options(photos), seed=6)
    assert not torch.equal(other.next_batch()["x"], first[0]["x"])
    for source in (data, again, other):
        source.close()


def test_processes_share_the_batch_of_one(photos: dict[str, str]) -> None:
    whole = UnpairedData(options(photos), seed=1)
    parts = [UnpairedData(options(photos), seed=1, rank=rank, world_size=2) for rank in range(2)]
    expected = whole.next_batch()
    got = [part.next_batch() for part in parts]
    by_slot = dict(zip(expected["slot"], expected["x"], strict=True))
    slots = [slot for batch in got for slot in batch["slot"]]
    assert sorted(slots) == sorted(by_slot)
    for batch in got:
        assert batch["domain"].tolist() == [CLEAN] * 2 + [NOISY] * 2
        for slot, x in zip(batch["slot"], batch["x"], strict=True):
            assert_same(x, by_slot[slot])
    for source in (whole, *parts):
        source.close()


def test_example_is_fixed_and_leaves_the_steps_alone(photos: dict[str, str]) -> None:
    data, plain = UnpairedData(options(photos), seed=2), UnpairedData(options(photos), seed=2)
    before = data.example(3)
    data.next_batch(), plain.next_batch()
    after = data.example(3)
    assert before is not None
    assert after is not None
    assert_same(before["x"], after["x"])
    assert before["domain"].tolist() == [CLEAN] * 3 + [NOISY] * 3
    assert_same(data.next_batch()["x"], plain.next_batch()["x"])
    data.close(), plain.close()


def test_cache_is_bounded_and_decodes_once_what_fits() -> None:
    reads: Counter[int] = Counter()

    def read(index: int) -> Tensor:
        reads[index] += 1
        return torch.full((3, 10, 10), index, dtype=torch.uint8)

    cache = DecodedCache(limit=650, read=read)  # two images of 300 bytes
    for index in (0, 1, 0, 1):
        assert int(cache.get(index)[0, 0, 0]) == index
    assert reads == {0: 1, 1: 1}
    cache.get(0)
    cache.get(2)  # drops 1, the one not used for longest
    cache.get(0)
    cache.get(1)
    assert reads == {0: 1, 1: 2, 2: 1}


def test_threads_that_want_one_image_decode_it_once() -> None:
    entered, go_on = threading.Event(), threading.Event()
    reads: list[int] = []

    def read(index: int) -> Tensor:
        reads.append(index)
        entered.set()
        assert go_on.wait(30)
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    cache = DecodedCache(limit=1000, read=read)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.get, 5) for _ in range(3)]
        assert entered.wait(30)
        go_on.set()
        images = [future.result(30) for future in waiting]
    assert reads == [5]
    assert images[0] is images[1] is images[2]


def test_images_that_outgrow_the_cache_are_decoded_once_per_many_crops(
    tmp_path: Path, photos: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def counted(data: bytes, name: str, **options: Any) -> Any:
        decoded.append(name)
        return decode_image(data, name, **options)

    monkeypatch.setattr(folder_domain, "decode_image", counted)
    for index in range(6):
        coded(tmp_path / "big" / f"{index}.png", 1400, 1400)  # 5.6 MB decoded, cache of 16 MB
    source = domain({**photos, "clean": str(tmp_path / "big")}, cache_mb=16, crops_per_decode=8)
    crops = [source.crop(step, slot) for step in range(16) for slot in range(2)]
    # Each slot changes its image every 8 steps: at most 3 images per slot in 16 steps.
    assert 2 <= len(decoded) <= 6
    assert len({crop.numpy().tobytes() for crop, _ in crops}) >= 31


def test_small_and_broken_images_are_skipped_and_counted(
    tmp_path: Path, photos: dict[str, str], write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "mixed"
    good = write_image(folder / "good.png", 40, 40)
    write_image(folder / "tiny.png", 15, 90)
    (folder / "noise.jpg").write_bytes(b"not an image at all")
    whole = write_image(folder / "cut.png", 300, 300, 4).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    source = domain({**photos, "clean": str(folder)})
    assert source.skipped == {"too_small": 1, "unreadable": 1}
    keys = {source.crop(step, 0)[1] for step in range(20)}
    assert keys == {str(good)}
    assert source.skipped == {"too_small": 1, "unreadable": 1, "truncated": 1}
    assert "cut.png" in caplog.text


def test_refusals_name_the_folder_and_the_way_out(
    tmp_path: Path, photos: dict[str, str], write_image: Callable[..., Path]
) -> None:
    with pytest.raises(TrainingError, match=r"nowhere' does not exist"):
        domain({**photos, "clean": str(tmp_path / "nowhere")})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(TrainingError, match=r"empty': no images; expected files ending in \.png, .*found 1 \.txt"):
        domain({**photos, "clean": str(tmp_path / "empty")})
    write_image(tmp_path / "tiny" / "a.png", 12, 30)
    with pytest.raises(TrainingError, match=r"none of 1 image can be used .*needs 16 .*largest has 12"):
        domain({**photos, "clean": str(tmp_path / "tiny")})
    with pytest.raises(OptionError, match=r"multiple of 6 .*got 8"):
        UnpairedData(options(photos), seed=0, world_size=3)
    (tmp_path / "bad").mkdir()
    data = write_image(tmp_path / "bad" / "a.png", 200, 200).read_bytes()
    (tmp_path / "bad" / "a.png").write_bytes(data[:-2000])
    with pytest.raises(TrainingError, match=r"none of 1 image can be read .*truncated.*a\.png"):
        domain({**photos, "clean": str(tmp_path / "bad")}).crop(0, 0)


def test_a_state_of_other_images_is_refused(photos: dict[str, str], write_image: Callable[..., Path]) -> None:
    data = UnpairedData(options(photos), seed=0)
    state = data.state_dict()
    data.close()
    write_image(Path(photos["noisy"]) / "new.png", 64, 64)
    changed = UnpairedData(options(photos), seed=0)
    with pytest.raises(TrainingError, match=r"noisy: the images in .* are not those of the run"):
        changed.load_state_dict(state)
    changed.close()


def test_crops_and_fingerprint_of_a_plain_folder_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Runs that were begun at commit 433fa2b, which gave these numbers, go on with the same bits."""
    names = ["b.png", "B.PNG", "a-b.png", "a/x.png", "a/b/1.png", "a b/z.png", "é.png", "写真/あ.png", "x.png/in.png"]
    for place, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[: 40 + place, : 50 + 2 * place]
        Image.fromarray(np.stack([x * 5, y * 5, x + y + 20 * place], 2).astype(np.uint8)).save(tmp_path / name)
    source = FolderDomain("clean", DomainOptions(folder=str(tmp_path)), ReadingOptions(), 32, 4, 7)
    assert source.fingerprint == "0fe88ed543d0986a19abb567b2935932"
    digest = hashlib.sha256()
    for step in range(12):
        for slot in range(3):
            digest.update(source.crop(step, slot)[0].numpy().tobytes())
    assert digest.hexdigest()[:32] == "67a0f932a289f00421b4364cc32cf604"


def test_linked_folders_are_read_and_the_rest_is_logged(
    tmp_path: Path, photos: dict[str, str], write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "store" / "far.png", 40, 40)
    (tmp_path / "clean" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "clean" / "old.psd").write_bytes(b"x")
    (tmp_path / "clean" / "._0.png").write_bytes(b"x")
    caplog.set_level("INFO", "synthpipe")
    source = domain({**photos, "clean": str(tmp_path / "clean")})
    assert any(source.crop(step, 0)[1].endswith("linked/far.png") for step in range(50))
    assert re.search(r"clean: 4 images, .* megapixels; passed over: 1 \(hidden\), 1 \.psd", caplog.text)


def test_names_that_are_no_text_can_be_trained_on(tmp_path: Path, photos: dict[str, str]) -> None:
    odd = tmp_path / "odd" / os.fsdecode(b"\xff")
    coded(odd / os.fsdecode(b"\xe9.png"), 18, 17)
    source = domain({**photos, "clean": str(tmp_path / "odd")})
    assert source.crop(0, 0)[1] == str(odd / os.fsdecode(b"\xe9.png"))
    assert len(source.fingerprint) == 32


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        ({}, "exactly one of 'folder' and 'shards'"),
        ({"folder": "a", "shards": "b"}, "exactly one of 'folder' and 'shards'"),
        ({"folder": "a", "resize_range": [0.9, 0.5]}, "low <= high"),
        ({"shards": "a", "downscale": 2}, "need 'folder'"),
        ({"folder": "a", "wieght": "area"}, "did you mean 'weight'"),
    ],
)
def test_domain_options_are_checked(clean: dict[str, Any], message: str, photos: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=message):
        options(photos, clean=clean)


def test_listing_is_sorted_nested_and_case_blind(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpeg", "a/c.webp", "skip.txt", "a.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == [
        "a.tif",
        "a/c.webp",
        "a/z.jpeg",
        "b.PNG",
    ]
    assert issubclass(ImageError, Exception)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
