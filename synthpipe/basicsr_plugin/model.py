"""BasicSR models that degrade inside ``feed_data``: for people who keep their own folder or LMDB dataset.

The dataset gives clean images alone; the model, on its device and in the main process, makes the low-quality partners.
The option file names one of the model types below and carries, at its top level, ``degrade: {...}`` as in a stream and
optionally ``gt_size``: images are degraded whole and cut to that size afterwards, so that no patch sees a border.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models.esrgan_model import ESRGANModel
from basicsr.models.sr_model import SRModel
from basicsr.models.srgan_model import SRGANModel
from torch import Tensor

from synthpipe.config.basicsr import FeedDataOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, ShapeError
from synthpipe.images import check_images
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.captured import CapturedFunction
from synthpipe.transforms.identity import options_identity

__all__ = ["DegradeInFeedData", "SynthPipeESRGANModel", "SynthPipeSRGANModel", "SynthPipeSRModel"]


class DegradeInFeedData:
    """Mixin, left of a BasicSR model: adds ``lq`` to training batches that hold ``gt`` alone.

    A batch that already holds ``lq``, and every batch outside training, passes untouched.  A sample's randomness comes
    from the batch's ``seed`` where there is one (a synthpipe stream without ``degrade``), else from ``manual_seed``,
    the iteration, the rank, and the sample's place and path: a resumed run draws what an uninterrupted one would.

    Raises:
        OptionError: options that cannot be used, or a batch without ``lq`` where it is needed.
        CheckpointError: DeFlow weights that are missing or damaged.
    """

    # What BasicSR's BaseModel sets.
    opt: dict[str, Any]
    is_train: bool
    device: torch.device

    def __init__(self, opt: dict[str, Any]) -> None:
        given = {name: opt[name] for name in ("degrade", "gt_size", "scale") if opt.get(name) is not None}
        options = parse_options(given, FeedDataOptions, source=f"option file of {opt.get('name')!r}")
        super().__init__(opt)  # type: ignore[call-arg]
        self._iteration = 0
        self._gt_size = options.gt_size
        self._scale = options.scale
        self._degrade = None
        #: What the model's own degradation does, by content; a checkpoint keeps it.
        self.degrade_identity = None if options.degrade is None else options_identity(options.degrade)
        self._captured: CapturedFunction | None = None
        self._known_sizes: set[torch.Size] = set()
        if self.is_train and options.degrade is not None:
            self._degrade = build_degrade(options.degrade, options.scale).to(self.device)
            if self.device.type == "cuda" and isinstance(self._degrade, DeviceTransform):
                self._captured = CapturedFunction(self._compute)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """BasicSR calls this at the start of each iteration, before ``feed_data``: here its number can be learnt."""
        self._iteration = current_iter
        super().update_learning_rate(current_iter, warmup_iter=warmup_iter)  # type: ignore[misc]

    def validation(self, *args: Any, **options: Any) -> None:
        """As BasicSR's, with ``is_train`` off: a validation set is frozen and brings its own ``lq``."""
        training, self.is_train = self.is_train, False
        try:
            super().validation(*args, **options)  # type: ignore[misc]
        finally:
            self.is_train = training

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take ``gt`` ``(B, 3, H, W)`` in [0, 1], make ``lq`` ``(B, 3, H/s, W/s)`` if it is not there, hand both on."""
        if "lq" not in data:
            if not self.is_train:
                raise OptionError("validation needs frozen pairs: its dataset gave no 'lq'; use PairedImageDataset")
            if self._degrade is None:
                raise OptionError(
                    "the training dataset gives no 'lq' and the option file has no 'degrade'; add for example "
                    "degrade: {type: deflow, weights: deflow_small} at its top level"
                )
            data = self._make_pair(data)
        super().feed_data(data)  # type: ignore[misc]

    @torch.no_grad()
    def _make_pair(self, data: Mapping[str, Any]) -> dict[str, Any]:
        assert self._degrade is not None
        gt: Tensor = data["gt"]
        first = gt.shape[2:] not in self._known_sizes
        # A captured degradation looks at no value.  Batches of a CUDA prefetcher are looked at once for each size: to
        # wait for the device costs time.
        if gt.device.type == "cpu" or first:
            check_images(gt, "gt of the training dataset")
        gt = gt.to(self.device, non_blocking=True)
        if first:
            self._degrade.check_tiles(*gt.shape[2:])
            self._known_sizes.add(gt.shape[2:])
        seeds = data["seed"] if "seed" in data else self._draw_seeds(data, len(gt))
        keys = list(data.get("key") or data.get("gt_path") or map(str, range(len(gt))))
        seen = self._seen(len(gt))
        if self._captured is not None and self._captured.takes(gt, seeds, seen):
            lq = self._captured(gt, seeds, seen)[0].clone()
        else:  # images of ever other sizes
            lq = self._degrade({"gt": gt, "key": keys, "seed": seeds, "seen": seen})["lq"]
        if self._gt_size is None:
            return {**data, "gt": gt, "lq": lq}
        return {**data, **self._crop(gt, lq, seeds, self._gt_size)}

    def _seen(self, count: int) -> Tensor:
        """Images that training had seen before each of a batch, on all ranks."""
        before: int = max(self._iteration - 1, 0) * self.opt.get("world_size", 1) + self.opt["rank"]
        return before * count + torch.arange(count)

    def _compute(self, gt: Tensor, seeds: Tensor, seen: Tensor) -> tuple[Tensor]:
        """``lq`` in tensor operations alone, for batches of one size in one launch."""
        assert isinstance(self._degrade, DeviceTransform)
        return (self._degrade.compute({"gt": gt, "seed": seeds, "seen": seen})["lq"],)

    def _draw_seeds(self, data: Mapping[str, Any], count: int) -> Tensor:
        names = data.get("gt_path") or [""] * count
        rank, seed = self.opt["rank"], self.opt["manual_seed"]
        return torch.tensor(
            [sample_seed(seed, self._iteration, f"{rank}/{place}/{name}") for place, name in enumerate(names)]
        )

    def _crop(self, gt: Tensor, lq: Tensor, seeds: Tensor, gt_size: int) -> dict[str, Tensor]:
        """Cut one aligned patch from each pair."""
        side, (height, width) = gt_size // self._scale, lq.shape[-2:]
        if side > min(height, width):
            raise ShapeError(f"gt_size {gt_size}: larger than the dataset's images, {tuple(gt.shape[-2:])}")
        cuts_gt, cuts_lq = [], []
        for index, seed in enumerate(seeds):
            generator = generator_for(seed, "basicsr.crop")
            top = int(torch.randint(height - side + 1, (), generator=generator))
            left = int(torch.randint(width - side + 1, (), generator=generator))
            cuts_lq.append(lq[index, :, top : top + side, left : left + side])
            top, left = top * self._scale, left * self._scale
            cuts_gt.append(gt[index, :, top : top + gt_size, left : left + gt_size])
        return {"gt": torch.stack(cuts_gt), "lq": torch.stack(cuts_lq)}


class SynthPipeSRModel(DegradeInFeedData, SRModel):  # type: ignore[misc]
    """BasicSR's ``SRModel`` (pixel loss) that degrades in ``feed_data``."""


class SynthPipeSRGANModel(DegradeInFeedData, SRGANModel):  # type: ignore[misc]
    """BasicSR's ``SRGANModel`` that degrades in ``feed_data``."""


class SynthPipeESRGANModel(DegradeInFeedData, ESRGANModel):  # type: ignore[misc]
    """BasicSR's ``ESRGANModel`` (relativistic GAN) that degrades in ``feed_data``."""
