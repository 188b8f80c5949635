"""Shards that tests make, a degradation that tests can predict, and comparisons of batches."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from synthpipe.images import downscale_bicubic
from synthpipe.seeds import generator_for
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch

__all__ = [
    "SMALL",
    "NoisyHalf",
    "noise_image",
    "png",
    "same_batches",
    "samples_by_webdataset",
    "small_options",
    "take",
    "write_corpus",
    "write_tar",
]

#: Options of a stream small enough for tests: LR tiles of 24, patches of 8.
SMALL: dict[str, Any] = {
    "gt_size": 16,
    "scale": 2,
    "tile": 24,
    "margin": 2,
    "batch_size": 4,
    "tiles_per_batch": 3,
    "patches_per_tile": 2,
    "pool": 20,
    "shuffle_buffer": 5,
    "open_shards": 2,
}


class NoisyHalf(BatchTransform):
    """Bicubic reduction by 2 plus white noise from the sample's own seed."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        side = batch["gt"].shape[-1] // 2
        draws = [torch.randn(3, side, side, generator=generator_for(seed, "test")) for seed in batch["seed"].tolist()]
        return {"noise": torch.stack(draws)}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        noise = params["noise"].to(batch["gt"].device)
        return {**batch, "lq": downscale_bicubic(batch["gt"], 2) + 0.05 * noise}


def noise_image(seed: int, height: int = 60, width: int = 72) -> np.ndarray:
    """(H, W, 3) uint8 in which every window differs from every other."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar with these members, in order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_corpus(folder: Path, counts: Sequence[int], height: int = 60, width: int = 72) -> list[str]:
    """Shards ``s-0.tar``, ... with ``counts`` images; sample i of shard s has key ``s_00i`` and its own content."""
    folder.mkdir(exist_ok=True, parents=True)
    return [
        str(
            write_tar(
                folder / f"s-{shard}.tar",
                [
                    (f"{shard}_{number:03d}.png", png(noise_image(1000 * shard + number, height, width)))
                    for number in range(count)
                ],
            )
        )
        for shard, count in enumerate(counts)
    ]


def samples_by_webdataset(urls: Iterable[str | Path]) -> list[dict[str, Any]]:
    """All samples of shards as webdataset groups them.  Its own opener would leave the files open."""
    samples: list[dict[str, Any]] = []
    for url in urls:
        with open(url, "rb") as stream:
            samples += group_by_keys(tar_file_expander([{"url": str(url), "stream": stream}]))
    return samples


def small_options(shards: Sequence[str], **changes: Any) -> dict[str, Any]:
    """:data:`SMALL` on these shards."""
    return {**SMALL, "shards": list(shards), **changes}


def take(stream: Any, count: int) -> list[Batch]:
    """The next ``count`` batches."""
    return [next(stream) for _ in range(count)]


def same_batches(left: Sequence[Batch], right: Sequence[Batch]) -> bool:
    """Whether two runs gave the same bits."""
    return len(left) == len(right) and all(
        a.keys() == b.keys()
        and all(torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)
        for a, b in zip(left, right, strict=True)
    )
