"""What images of a stream have lost is counted by reason, named, kept in states, and no reason to stop."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthpipe.errors import StreamError
from synthpipe.pipeline import Stream, build_stream
from tests.file_corpus.colour_math import ADOBE, to_srgb
from tests.file_corpus.icc import rgb_profile
from tests.lossy_images import lossy_images, saved, sum_of
from tests.stream_corpus import NoisyHalf, noise_image, png, same_batches, small_options, take, write_tar

IMAGES = lossy_images()


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    members = [(name.replace(".", f"_{n}."), image.data) for n, (name, image) in enumerate(IMAGES.items())]
    return [
        str(write_tar(tmp_path / "a.tar", members[:5])),
        str(write_tar(tmp_path / "b.tar", members[5:])),
    ]


def open_stream(shards: list[str], **changes: Any) -> Stream:
    return build_stream(small_options(shards, **changes), degrade=NoisyHalf())


@pytest.mark.parametrize("workers", [0, 2])
def test_each_pass_counts_every_loss_by_reason_and_none_is_bad(shards: list[str], workers: int) -> None:
    with open_stream(shards, epochs=1, workers=workers, max_bad_fraction=0) as stream:
        for times in (1, 2):
            list(stream)
            assert stream.given_up() == sum_of(IMAGES.values(), times)
            assert stream.counts() == {"used": times * len(IMAGES)}


def test_plain_images_give_nothing_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard = write_tar(tmp_path / "a.tar", [(f"{n}.png", png(noise_image(n))) for n in range(4)])
    with caplog.at_level(logging.INFO), open_stream([str(shard)], epochs=1) as stream:
        list(stream)
        assert stream.given_up() == {}
    assert "given up" not in caplog.text


def test_images_that_are_not_used_are_bad_and_give_nothing_up(tmp_path: Path) -> None:
    small = lossy_images(20, 20)["grey.jpg"].data
    shard = write_tar(tmp_path / "a.tar", [("0.png", png(noise_image(0))), ("1.jpg", small)])
    with open_stream([str(shard)], epochs=1, batch_size=2) as stream:
        list(stream)
        assert (stream.given_up(), stream.counts()) == ({}, {"used": 1, "too_small": 1})


def test_the_log_names_the_first_five_of_a_reason_and_sums_up_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grey = IMAGES["grey.jpg"].data
    members = [(f"{n:02d}.jpg", grey) for n in range(7)] + [("99.tif", IMAGES["stack.tif"].data)]
    shard = write_tar(tmp_path / "a.tar", members)
    with caplog.at_level(logging.INFO), open_stream([str(shard)], epochs=1, shuffle_buffer=0) as stream:
        list(stream)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("given up (grey")]
    assert len(lines) == 5
    assert all(f"{shard}/" in line and "one grey channel repeated three times" in line for line in lines)
    assert "given up (further_pages): " in caplog.text
    assert "epoch 0 done: 8 samples used so far, skipped: none, given up: grey_to_rgb 7, further_pages 2" in caplog.text


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_stream_counts_on(shards: list[str], at: int) -> None:
    with open_stream(shards, epochs=1, pool=0) as stream:
        take(stream, at)
        state, given_up = json.loads(json.dumps(stream.state_dict())), stream.given_up()
    with open_stream(shards, epochs=1, pool=0) as stream:
        stream.load_state_dict(state)
        assert stream.given_up() == given_up
        list(stream)
        assert stream.given_up() == sum_of(IMAGES.values())


def without(value: Any, *names: str) -> Any:
    """The state as a version wrote it that did not know these keys."""
    if isinstance(value, dict):
        return {key: without(part, *names) for key, part in value.items() if key not in names}
    return [without(part, *names) for part in value] if isinstance(value, list | tuple) else value


def test_a_state_from_before_goes_on_and_the_log_tells_of_colours(
    shards: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with open_stream(shards) as stream:
        take(stream, 2)
        state, expected = without(stream.state_dict(), "given_up", "colors"), take(stream, 2)
    with caplog.at_level(logging.WARNING), open_stream(shards) as stream:
        stream.load_state_dict(state)
        assert stream.given_up() == {}
        assert same_batches(take(stream, 2), expected)
    assert "ignored colour profiles" in caplog.text


def test_a_state_of_today_goes_on_without_a_word_and_one_of_other_colours_is_refused(
    shards: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_stream(shards) as stream:
        take(stream, 1)
        state = stream.state_dict()
        stream.load_state_dict(state)
        assert "colour profiles" not in caplog.text
        state["identity"]["colors"] = "as stored"
        with pytest.raises(StreamError, match=r"colors: state 'as stored', here 'srgb'"):
            stream.load_state_dict(state)


def test_shards_of_older_versions_come_out_in_srgb(tmp_path: Path) -> None:
    """Their bytes are as they were; what a stream makes of them is sRGB by the profile's formulas."""
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    data = saved(image, "PNG", icc_profile=rgb_profile(ADOBE))
    shard = write_tar(tmp_path / "a.tar", [("0.png", data)])
    options = {"shards": str(shard), "gt_size": 48, "scale": 1, "batch_size": 1, "hflip": False, "rotate": False}
    with build_stream({**options, "pool": 0, "tiles_per_batch": 1}) as stream:
        found = next(stream)["gt"][0].permute(1, 2, 0).numpy()
        assert stream.given_up() == {"converted_profile": 1}
    assert np.abs(found - to_srgb(image, ADOBE)).max() <= 1.5 / 255


def test_max_pixels_is_an_option_and_in_the_identity_only_where_it_is_given(tmp_path: Path) -> None:
    members = [("0.png", png(noise_image(0, 60, 72))), ("1.png", png(noise_image(1, 70, 72)))]
    shards = [str(write_tar(tmp_path / "a.tar", members))]
    with open_stream(shards, epochs=1, max_pixels=60 * 72, batch_size=2) as stream:
        list(stream)
        assert stream.counts() == {"used": 1, "bomb": 1}
        state = stream.state_dict()
    with open_stream(shards, epochs=1, batch_size=2) as stream:
        assert "max_pixels" not in stream.state_dict()["identity"]
        with pytest.raises(StreamError, match=r"max_pixels: state 4320, here None"):
            stream.load_state_dict(state)
