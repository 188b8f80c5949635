"""What BasicSR draws for Real-ESRGAN's pairs: its own code runs, and what it would do to pixels is noted, not done.

Kernels come from ``RealESRGANDataset.__getitem__``, all else from ``RealESRGANModel.feed_data``, whose class asks for
CUDA in its constructor: the method runs on an object that has what it reads of a model.  One image a batch, so that
each draw is of one sample, those that BasicSR shares over a batch too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

from synthpipe.basicsr_plugin.compat import patched, prepare

__all__ = [
    "BLUR_KINDS",
    "DATASET_OPTIONS",
    "MODEL_OPTIONS",
    "basicsr_draws",
    "kernel_draws",
    "noise_draws",
    "sinc_draws",
]

_FILE = yaml.safe_load((Path(__file__).parent.parent / "tools" / "bench" / "real_esrgan.yml").read_text("utf-8"))
MODEL_OPTIONS: dict[str, Any] = {**_FILE["model"], "gt_size": 256}
DATASET_OPTIONS: dict[str, Any] = _FILE["dataset"]
#: BasicSR's names of kernels, in the order of the published option file.
BLUR_KINDS = tuple(DATASET_OPTIONS["kernel_list"])

#: Side of ``gt``: never made, but sizes are fractions of it, and cut to whole numbers.
_SIDE = 4_000_000


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """BasicSR draws from the global generators; they are left as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def _noted_kernels(notes: list[dict[str, Any]]) -> Iterator[None]:
    """Each kernel that is made is a note, and 1 in one place."""
    from basicsr.data import degradations, realesrgan_dataset

    def pulse(size: int) -> np.ndarray:
        kernel = np.zeros((size, size))
        kernel[size // 2, size // 2] = 1
        return kernel

    def gaussian(kind: str) -> Any:
        def note(size: int, x: float, y: float, angle: float, beta: float = 1.0, *, isotropic: bool) -> np.ndarray:
            name = f"{kind}{'iso' if isotropic else 'aniso'}"
            notes.append({"kind": name, "size": size, "sigma_x": x, "sigma_y": y, "angle": angle, "beta": beta})
            return pulse(size)

        return note

    def sinc(cutoff: float, size: int, pad_to: int = 0) -> np.ndarray:
        notes.append({"kind": "sinc", "size": size, "cutoff": cutoff})
        return pulse(max(size, pad_to))

    with (
        patched(
            degradations,
            bivariate_Gaussian=gaussian(""),
            bivariate_generalized_Gaussian=gaussian("generalized_"),
            bivariate_plateau=gaussian("plateau_"),
        ),
        patched(realesrgan_dataset, circular_lowpass_kernel=sinc),
    ):
        yield


def _dataset(notes: list[dict[str, Any]], stack: ExitStack, **options: Any) -> Any:
    """A ``RealESRGANDataset`` that reads no file, with the published options but for those that are given."""
    from basicsr.data import realesrgan_dataset

    picture = np.zeros((400, 400, 3), np.float32)
    stack.enter_context(_noted_kernels(notes))
    stack.enter_context(
        patched(
            realesrgan_dataset,
            imfrombytes=lambda *_, **__: picture,
            augment=lambda image, *_: image,
            img2tensor=lambda images, **_: images,
        )
    )
    made = realesrgan_dataset.RealESRGANDataset.__new__(realesrgan_dataset.RealESRGANDataset)
    own = {**DATASET_OPTIONS, **options}
    vars(made).update(
        own,
        opt=own,
        paths=["picture"],
        file_client=SimpleNamespace(get=lambda *_: b""),
        kernel_range=[2 * v + 1 for v in range(3, 11)],
        pulse_tensor=torch.zeros(21, 21),
    )
    return made


def _model(notes: list[tuple[str, Any]], stack: ExitStack) -> Any:
    """What ``feed_data`` reads of a model, with its operations on pixels noted."""
    from basicsr.data import degradations
    from basicsr.models import realesrgan_model

    small = torch.zeros(1, 3, 1, 1)

    def noted(name: str, *keys: str) -> Any:
        def note(image: torch.Tensor, *values: Any, **more: Any) -> torch.Tensor:
            # The quality is a tensor that the real one changes, hence the copies.
            plain = [value.clone() if isinstance(value, torch.Tensor) else value for value in values]
            notes.append((name, {**dict(zip(keys, plain, strict=False)), **more}))
            return small

        return note

    def quality(image: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
        notes.append(("jpeg", {"quality": float(quality)}))
        return small

    stack.enter_context(
        patched(
            realesrgan_model,
            filter2D=noted("blur", "kernel"),
            F=SimpleNamespace(interpolate=noted("resize")),
            paired_random_crop=lambda hr, lr, *_: (hr, lr),
        )
    )
    stack.enter_context(
        patched(
            degradations,
            generate_gaussian_noise_pt=noted("gaussian", "level", "grey"),
            generate_poisson_noise_pt=noted("poisson", "level", "grey"),
        )
    )
    return SimpleNamespace(
        is_train=True,
        opt=MODEL_OPTIONS,
        device=torch.device("cpu"),
        usm_sharpener=lambda image: image,
        jpeger=quality,
        _dequeue_and_enqueue=lambda: None,
    )


def basicsr_draws(count: int, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Draws of ``count`` samples under the published options.

    Returns:
        By stage (``blur``, ``resize``, ``noise``, ``jpeg``, ``blur 2``, ..., ``last``), by name ``(count,)``.  ``NaN``
        or ``""`` stands where a stage or a kind has no such number.  ``resize``: ``way`` (up, down, keep), ``factor``,
        ``filter``; ``noise``: ``kind``, ``level`` (of 255, or the Poisson scale), ``grey``; ``last``: ``jpeg_first``,
        ``filter``, ``sinc``, ``size``, ``cutoff``.
    """
    prepare()
    from basicsr.models.realesrgan_model import RealESRGANModel

    kernels: list[dict[str, Any]] = []
    notes: list[tuple[str, Any]] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    gt = torch.zeros(1, 3, 1, 1).expand(1, 3, _SIDE, _SIDE)
    with ExitStack() as stack:
        stack.enter_context(_seeded(seed))
        dataset, model = _dataset(kernels, stack), _model(notes, stack)
        for _ in range(count):
            kernels.clear()
            notes.clear()
            sample = dataset[0]
            data = {key: sample[key][None] for key in ("kernel1", "kernel2", "sinc_kernel")}
            RealESRGANModel.feed_data(model, {"gt": gt, **data})
            for stage, row in _read(kernels, notes).items():
                rows.setdefault(stage, []).append(row)
    return {stage: _columns(each) for stage, each in rows.items()}


def kernel_draws(kind: str, count: int, second: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws of one kind alone, which may be rare, by the dataset's own function: sigmas, angle, beta."""
    prepare()
    from basicsr.data.degradations import random_mixed_kernels

    number = "2" if second else ""
    kernels: list[dict[str, Any]] = []
    with _seeded(seed), _noted_kernels(kernels):
        for _ in range(count):
            sigma = DATASET_OPTIONS[f"blur_sigma{number}"]
            betas = (DATASET_OPTIONS[f"betag_range{number}"], DATASET_OPTIONS[f"betap_range{number}"])
            random_mixed_kernels([kind], [1], 21, sigma, sigma, [-math.pi, math.pi], *betas, noise_range=None)
    return _columns(kernels)


def sinc_draws(count: int, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Draws of sinc kernels alone, which are rare in the first two places: ``blur``, ``blur 2``, ``last``."""
    prepare()
    kernels: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stack.enter_context(_seeded(seed))
        dataset = _dataset(kernels, stack, sinc_prob=1, sinc_prob2=1, final_sinc_prob=1)
        for _ in range(count):
            dataset[0]
    return {stage: _columns(kernels[place::3]) for place, stage in enumerate(("blur", "blur 2", "last"))}


def noise_draws(count: int, second: bool = False, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Draws of ``gaussian`` and of ``poisson`` noise alone, by BasicSR's functions: ``level``, ``grey``."""
    prepare()
    from basicsr.data import degradations

    number = "2" if second else ""
    notes: list[tuple[str, Any]] = []
    image, grey = torch.zeros(1, 3, 1, 1), MODEL_OPTIONS[f"gray_noise_prob{number}"]
    with ExitStack() as stack:
        stack.enter_context(_seeded(seed))
        _model(notes, stack)
        for _ in range(count):
            sigma, scale = MODEL_OPTIONS[f"noise_range{number}"], MODEL_OPTIONS[f"poisson_scale_range{number}"]
            degradations.random_add_gaussian_noise_pt(image, sigma_range=sigma, gray_prob=grey)
            degradations.random_add_poisson_noise_pt(image, scale_range=scale, gray_prob=grey)
    rows = [{"level": float(values["level"]), "grey": float(values["grey"])} for _, values in notes]
    return {"gaussian": _columns(rows[::2]), "poisson": _columns(rows[1::2])}


def _read(kernels: list[dict[str, Any]], notes: list[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
    """One sample's notes, in the order in which ``feed_data`` works."""
    waiting = list(notes)
    taken: dict[str, dict[str, Any]] = {}

    def take(name: str) -> dict[str, Any]:
        found, values = waiting.pop(0)
        assert found == name, (found, name)
        return values

    def noise() -> dict[str, Any]:
        kind, values = waiting.pop(0)
        return {"kind": kind, "level": float(values["level"]), "grey": float(values["grey"])}

    take("blur")
    taken["blur"] = kernels[0]
    factor = take("resize")
    taken["resize"] = _resized(factor["scale_factor"], factor["mode"])
    taken["noise"], taken["jpeg"] = noise(), take("jpeg")
    second = waiting[0][0] == "blur"
    if second:
        take("blur")
    taken["blur 2"] = {**kernels[1], "applied": float(second)}
    values = take("resize")
    taken["resize 2"] = _resized(values["size"][0] / (_SIDE / MODEL_OPTIONS["scale"]), values["mode"])
    taken["noise 2"] = noise()
    jpeg_first = waiting[0][0] == "jpeg"
    order = ("jpeg", "resize", "blur") if jpeg_first else ("resize", "blur", "jpeg")
    last = {name: take(name) for name in order}
    assert not waiting
    taken["jpeg 2"] = last["jpeg"]
    sinc = {"size": math.nan, "cutoff": math.nan, **(kernels[2] if len(kernels) == 3 else {})}
    taken["last"] = {
        "jpeg_first": float(jpeg_first),
        "filter": last["resize"]["mode"],
        "sinc": float(len(kernels) == 3),
        "size": sinc["size"],
        "cutoff": sinc["cutoff"],
    }
    return taken


def _resized(factor: float, mode: str) -> dict[str, Any]:
    way = "keep" if factor == 1 else "up" if factor > 1 else "down"
    return {"way": way, "factor": float(factor), "filter": mode}


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
