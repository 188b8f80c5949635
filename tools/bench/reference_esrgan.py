"""BasicSR's degradation of Real-ESRGAN on any device: its own ``feed_data`` and its own kernels.

``RealESRGANModel`` asks for CUDA in its constructor; ``feed_data`` reads few of its attributes, and runs here on an
object that has them.  What it does beside degrading (the pool of pairs, sharpening ``gt`` once more for the losses) is
left out.  Nothing of BasicSR is copied or changed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from synthpipe.basicsr_plugin.compat import patched, prepare

__all__ = ["PUBLISHED", "ReferenceRealEsrgan"]

_FILE = yaml.safe_load((Path(__file__).parent / "real_esrgan.yml").read_text(encoding="utf-8"))
#: The keys of the model and of its data set; images are not mirrored.
PUBLISHED: Mapping[str, Any] = {**_FILE["model"], **_FILE["dataset"], "use_hflip": False}


class ReferenceRealEsrgan:
    """Degrades batches of one size as BasicSR does.

    Args:
        seed: of BasicSR's draws, which come from the global generators of Python, NumPy and torch.
        sharpen: whether the image is sharpened at first, as ``feed_data`` has it.
        device: where to work.
    """

    def __init__(self, seed: int, sharpen: bool = True, device: torch.device | str = "cpu") -> None:
        prepare()
        from basicsr.data import realesrgan_dataset
        from basicsr.models.realesrgan_model import RealESRGANModel
        from basicsr.utils import DiffJPEG, USMSharp

        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self._feed_data = RealESRGANModel.feed_data
        self._module = realesrgan_dataset
        self._dataset = self._dataset_without_files()
        self._device = torch.device(device)
        self.sharpener = USMSharp().to(self._device)
        self.jpeg = DiffJPEG(differentiable=False).to(self._device)
        self._sharpen = sharpen

    def kernels(self, count: int) -> dict[str, Tensor]:
        """``kernel1``, ``kernel2`` and ``sinc_kernel``, ``(count, 21, 21)`` each, by ``RealESRGANDataset``."""
        picture = np.zeros((400, 400, 3), np.float32)
        read = {"imfrombytes": lambda *_, **__: picture, "img2tensor": lambda images, **_: images}
        with patched(self._module, **read, augment=lambda image, *_: image):
            samples = [self._dataset[0] for _ in range(count)]
        return {key: torch.stack([s[key] for s in samples]) for key in ("kernel1", "kernel2", "sinc_kernel")}

    def degrade(self, gt: Tensor) -> Tensor:
        """``lq`` of ``gt`` ``(B, 3, H, W)``."""
        model = self._model(gt.shape[-1])
        self._feed_data(model, {"gt": gt, **self.kernels(len(gt))})
        lq: Tensor = model.lq
        return lq

    def _model(self, side: int) -> Any:
        """What ``feed_data`` reads of a model."""
        sharpened = 0

        def sharpen(image: Tensor) -> Tensor:
            """The first time alone: the second is for the losses."""
            nonlocal sharpened
            sharpened += 1
            return self.sharpener(image) if self._sharpen and sharpened == 1 else image

        return SimpleNamespace(
            is_train=True,
            opt={**PUBLISHED, "gt_size": side},
            device=self._device,
            usm_sharpener=sharpen,
            # On the CPU padding keeps the order of DiffJPEG's channels, of which filter2D takes no view.
            jpeger=lambda image, quality: self.jpeg(image, quality).contiguous(),
            _dequeue_and_enqueue=lambda: None,
        )

    def _dataset_without_files(self) -> Any:
        made = self._module.RealESRGANDataset.__new__(self._module.RealESRGANDataset)
        vars(made).update(PUBLISHED)
        vars(made).update(
            opt=PUBLISHED,
            paths=["picture"],
            file_client=SimpleNamespace(get=lambda *_: b""),
            kernel_range=[2 * v + 1 for v in range(3, 11)],
            pulse_tensor=torch.zeros(21, 21),
        )
        made.pulse_tensor[10, 10] = 1
        return made
