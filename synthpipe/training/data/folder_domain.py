"""Crops from folders of images as a pure function of (seed, step, slot): nothing to save, nothing to replay.

Legend: a *slot* is one place in the batch of all processes together, so a run over two processes sees the same
crops as a run over one.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.errors import ImageError, TrainingError, counted
from synthpipe.files import image_files
from synthpipe.files.decode import decode_image
from synthpipe.files.folder_walk import expected_images, passed_over_text
from synthpipe.files.given_up import count_given_up
from synthpipe.files.image_size import image_size
from synthpipe.files.skip_advice import raise_limit, skip_advice
from synthpipe.files.source_files import refuse_overlap
from synthpipe.images import crop_to_multiple, downscale_bicubic, to_float, to_uint8
from synthpipe.seeds import uniforms
from synthpipe.training.data.crop_blur import CropBlur

__all__ = ["TRAINING_CURES", "DecodedCache", "FolderDomain", "list_images"]

logger = logging.getLogger("synthpipe.training")

#: Images drawn for one slot before all are tried in turn; only broken files cost a draw.
DRAWS = 8
HEADER_THREADS = 8
#: Pixels resized around a crop and cut off again: the library's filter is cut short at the edge of its input.
BORDER = 4
#: What helps where no image of a training can be used, by reason.
TRAINING_CURES = {
    "too_small": "lower data.crop or give larger images",
    "bomb": raise_limit("data.max_pixels"),
}


def list_images(folder: str | Path, passed_over: Counter[str] | None = None) -> list[Path]:
    """All image files below ``folder``, sorted by their path relative to it.

    Args:
        folder: searched with all below it, links to folders included.
        passed_over: counts of what was found and not taken, by suffix or reason, are added here.

    Raises:
        TrainingError: no such folder, or none in it.
    """
    if not Path(folder).is_dir():
        what = "is a file" if Path(folder).is_file() else "does not exist"
        raise TrainingError(f"image folder {str(folder)!r} {what}; give an existing folder")
    here: Counter[str] = Counter()
    found = image_files.list_images(folder, here)
    if not found:
        raise TrainingError(f"image folder {str(folder)!r}: no images; {expected_images(here)}")
    if passed_over is not None:
        passed_over.update(here)
    return found


class DecodedCache:
    """Decoded images, the least recently used dropped first; safe to share between threads.

    Args:
        limit: bytes of pixels kept; one image larger than that is still kept alone.
        read: image number -> ``(3, H, W)`` uint8.
    """

    def __init__(self, limit: int, read: Callable[[int], Tensor]) -> None:
        self._limit, self._read = limit, read
        self._images: OrderedDict[int, Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._reading: dict[int, threading.Lock] = {}

    def get(self, index: int) -> Tensor:
        """The decoded image ``(3, H, W)`` uint8; raises what ``read`` raises."""
        with self._lock:
            own_lock = self._reading.setdefault(index, threading.Lock())
        # One thread reads an image; others that want the same one wait for it instead of decoding it as well.
        with own_lock:
            with self._lock:
                if index in self._images:
                    self._images.move_to_end(index)
                    return self._images[index]
            image = self._read(index)
            with self._lock:
                self._keep(index, image)
            return image

    def _keep(self, index: int, image: Tensor) -> None:
        self._images[index] = image
        self._bytes += image.numel()
        while self._bytes > self._limit and len(self._images) > 1:
            self._bytes -= self._images.popitem(last=False)[1].numel()


class FolderDomain:
    """One domain from folders of images.

    Args:
        name: for messages, and folded into the randomness so that two domains never share it.
        options: the domain's options; ``folder`` is set.
        reading: augmentation and cache sizes.
        crop: side of the crops, pixels.
        per_step: crops of one step, over all processes; only a warning depends on it.
        seed: of the run.
        align: crops that are not resized begin at multiples of so many pixels.
        cures: what to do where no image can be used, by reason, over the general advice.

    Images too small for a crop are skipped and counted in ``skipped`` under ``"too_small"``, unreadable ones under the
    reason of :class:`synthpipe.errors.ImageError`; ``passed_over`` counts what lay beside the images, by suffix or
    reason.  ``sizes`` are height and width of those that can be used.
    ``given_up`` counts what the images read so far held beside 8-bit sRGB, each image once
    (:data:`synthpipe.files.decode.GIVEN_UP`).

    Raises:
        OptionError: a folder that is another one, or lies in it.
        TrainingError: a folder without images, or without one that can be used.
    """

    def __init__(
        self,
        name: str,
        options: DomainOptions,
        reading: ReadingOptions,
        crop: int,
        per_step: int,
        seed: int,
        align: int = 1,
        cures: Mapping[str, str] = MappingProxyType(TRAINING_CURES),
    ) -> None:
        self.name, self.options, self.seed = name, options, seed
        self._align, self._cures = align, dict(cures)
        self._crop, self._augment, self._max_pixels = crop, reading.augment, reading.max_pixels
        self.skipped: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()
        self._broken: set[int] = set()
        self._blur = None if options.blur is None else CropBlur(options.blur)
        self._lock = threading.Lock()
        refuse_overlap(options.places)
        self.passed_over: Counter[str] = Counter()
        found = [path for folder in options.places for path in list_images(folder, self.passed_over)]
        self._paths, self.sizes = self._large_enough(found)
        areas = [height * width for height, width in self.sizes]
        listing = "\n".join(f"{path.name} {area}" for path, area in zip(self._paths, areas, strict=True))
        self._fingerprint = hashlib.blake2b(listing.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        shares = np.asarray(areas if options.weight == "area" else [1.0] * len(areas), dtype=np.float64)
        self._cumulative = np.cumsum(shares) / shares.sum()
        limit = reading.cache_mb * 2**20
        fits = 3 * sum(areas) <= limit
        self._stay = 1 if fits else reading.crops_per_decode
        at_once = 3 * max(areas) * per_step
        if not fits and at_once > limit:
            logger.warning(
                "%s: the images of one batch may take %d MB decoded, more than data.cache_mb %d: raise it, or every "
                "crop decodes a file",
                name,
                at_once // 2**20,
                reading.cache_mb,
            )
        self._cache = DecodedCache(limit, self._read)
        self._counted = bytearray(len(self._paths))
        logger.info(
            "%s: %s, %.1f megapixels%s%s%s",
            name,
            counted(len(self._paths), "image"),
            sum(areas) / 1e6,
            "" if fits else f" (outgrow cache_mb: {self._stay} crops in a row from each)",
            f", skipped {passed_over_text(self.skipped)}" if self.skipped else "",
            f"; passed over: {passed_over_text(self.passed_over)}" if self.passed_over else "",
        )

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def fingerprint(self) -> str:
        """A hash of the usable files' names and sizes in pixels: equal fingerprints give equal crops."""
        return self._fingerprint

    @property
    def files(self) -> list[str]:
        """The usable files; those that turn out broken are among them."""
        return [str(path) for path in self._paths]

    def describe(self) -> dict[str, Any]:
        """Where the images are from, how many are used, what was skipped, and what those read so far have given up."""
        return {
            "folders": list(self.options.places),
            "images": len(self),
            "skipped": dict(self.skipped),
            "given_up": dict(sorted(self.given_up.items())),
        }

    def image(self, number: int) -> Tensor | None:
        """One of the :attr:`files`, whole, ``(3, H, W)`` uint8, after ``downscale``; None where it is broken."""
        return self._image_or_none(number)

    def is_broken(self, number: int) -> bool:
        """Whether one of the :attr:`files` turned out broken when it was read; False of those that nobody has read."""
        return number in self._broken

    def crop(self, step: int, slot: int) -> tuple[Tensor, str]:
        """The crop of one slot at one step, ``(3, crop, crop)`` uint8, and the file it is from.

        Raises:
            TrainingError: no image can be read.
        """
        # Slots move on to their next image at different steps, so that decoding is spread evenly.
        place = (step + slot * 7) // self._stay
        for index in self._candidates(place, slot):
            image = self._image_or_none(index)
            if image is not None:
                draws = uniforms(self.seed, self.name, "crop", step, slot)
                return self._cut(image, draws), str(self._paths[index])
        count = counted(len(self._paths), "image")
        raise TrainingError(
            f"{self.name}: none of {count} can be read ({passed_over_text(self.skipped)}), such as "
            f"{str(self._paths[0])!r}: check the files in {', '.join(self.options.places)}; {self.advice()}"
        )

    def advice(self) -> str:
        """What helps against the images that were skipped, by their reasons."""
        return skip_advice(self.skipped, self._cures)

    def _candidates(self, place: int, slot: int) -> Iterator[int]:
        """Image numbers to try: drawn by weight, then, where those are broken, all in turn."""
        last = len(self._paths) - 1
        for attempt in range(DRAWS):
            choice = uniforms(self.seed, self.name, "image", place, slot, attempt)[0]
            drawn = min(int(np.searchsorted(self._cumulative, choice, side="right")), last)
            yield drawn
        yield from ((drawn + further) % (last + 1) for further in range(1, last + 1))

    def _large_enough(self, paths: Sequence[Path]) -> tuple[list[Path], list[tuple[int, int]]]:
        kept: list[Path] = []
        kept_sizes: list[tuple[int, int]] = []
        largest = 0
        needed = self._source_side(self._lowest_factor)
        # Headers are read by threads: on a network file system this is all waiting.
        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            sizes = list(pool.map(self._size_or_reason, paths))
        for path, size in zip(paths, sizes, strict=True):
            if isinstance(size, str):
                self.skipped[size] += 1
                continue
            height, width = (side // self.options.downscale for side in size)
            largest = max(largest, min(height, width))
            if min(height, width) < needed:
                self.skipped["too_small"] += 1
                continue
            kept.append(path)
            kept_sizes.append((height, width))
        if not kept:
            self._cures["too_small"] = (
                f"a crop needs {needed} pixels on the shorter side after downscale {self.options.downscale}, the "
                f"largest has {largest}; {self._cures['too_small']}"
            )
            raise TrainingError(
                f"{self.name}: none of {counted(len(paths), 'image')} can be used ({passed_over_text(self.skipped)}): "
                f"{self.advice()}"
            )
        return kept, kept_sizes

    @property
    def _lowest_factor(self) -> float:
        return self.options.resize_range[0] if self.options.resize_range else 1.0

    def _source_side(self, factor: float) -> int:
        """Side of the piece that is resized by ``factor``, with a border for the filter where there is one."""
        return self._crop if factor == 1 else math.ceil((self._crop + 2 * self._border) / factor)

    @property
    def _border(self) -> int:
        """Pixels around a resized crop: for the resizing, and for the blur behind it."""
        return BORDER if self._blur is None else max(BORDER, self._blur.margin)

    def _size_or_reason(self, path: Path) -> tuple[int, int] | str:
        try:
            return image_size(path, self._max_pixels)
        except ImageError as error:
            return error.reason

    def _read(self, index: int) -> Tensor:
        path = self._paths[index]
        pixels, given_up = decode_image(path.read_bytes(), str(path), max_pixels=self._max_pixels)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W) view
        if self.options.downscale != 1:
            whole = crop_to_multiple(to_float(image[None]), self.options.downscale)
            image = to_uint8(downscale_bicubic(whole, self.options.downscale))[0]
        if min(image.shape[1:]) < self._source_side(self._lowest_factor):
            raise ImageError(f"{path}: smaller than its header said", reason="too_small")
        if given_up:
            self._count_given_up(index, given_up)
        return image

    def _count_given_up(self, index: int, given_up: Mapping[str, int]) -> None:
        """Count an image the first time that it is read; of each reason the first few are named."""
        with self._lock:
            if self._counted[index]:
                return
            self._counted[index] = True
            count_given_up(self.given_up, given_up, str(self._paths[index]), logger, f"{self.name}: ")

    def _image_or_none(self, index: int) -> Tensor | None:
        if index in self._broken:
            return None
        try:
            return self._cache.get(index)
        except ImageError as error:
            reason = error.reason
        with self._lock:
            if index not in self._broken:
                self._broken.add(index)
                self.skipped[reason] += 1
                logger.warning("%s: skipping %s: %s", self.name, self._paths[index], reason)
        return None

    def _cut(self, image: Tensor, draws: Sequence[float]) -> Tensor:
        top_draw, left_draw, hflip, vflip, transpose, resize = draws[:6]
        factor = self._factor(resize)
        side = self._source_side(factor)
        side = min(side, image.shape[1], image.shape[2])
        step = self._align if factor == 1 else 1
        top = step * int(top_draw * ((image.shape[1] - side) // step + 1))
        left = step * int(left_draw * ((image.shape[2] - side) // step + 1))
        piece = image[:, top : top + side, left : left + side]
        if factor != 1:
            piece = self._resize(piece, draws[6:8])
        elif self._blur is not None:
            piece = self._blurred(image, top, left, draws[6:8])
        augment = self._augment
        if augment != "none" and hflip < 0.5:
            piece = piece.flip(2)
        if augment in ("flips", "dihedral") and vflip < 0.5:
            piece = piece.flip(1)
        if augment == "dihedral" and transpose < 0.5:
            piece = piece.transpose(1, 2)
        return piece.contiguous()

    def _factor(self, draw: float) -> float:
        if self.options.resize_range is None:
            return 1.0
        low, high = self.options.resize_range
        factor: float = low * (high / low) ** draw
        return factor

    def _resize(self, piece: Tensor, draws: Sequence[float]) -> Tensor:
        # Back to 8 bits, like the images that are not resized: the flow dequantises by one grey level.
        border = self._border
        side = self._crop + 2 * border
        resized = F.interpolate(to_float(piece[None]), size=(side, side), mode="bicubic", antialias=True)[0]
        if self._blur is not None:
            resized = self._blur(resized, draws)
        return to_uint8(resized[:, border:-border, border:-border])

    def _blurred(self, image: Tensor, top: int, left: int, draws: Sequence[float]) -> Tensor:
        """The crop, blurred with what surrounds it in the image."""
        assert self._blur is not None, "asked for with a blur alone"
        margin = self._blur.margin
        above, before = min(top, margin), min(left, margin)
        piece = image[:, top - above : top + self._crop + margin, left - before : left + self._crop + margin]
        soft = self._blur(to_float(piece), draws)
        return to_uint8(soft[:, above : above + self._crop, before : before + self._crop])
