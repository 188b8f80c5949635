"""Tiny BasicSR runs for tests: shards, frozen validation pairs, option files, and ways to start training."""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

SCALE = 4


def require_basicsr() -> None:
    """Skip the calling test module where BasicSR is not installed; else make it importable and register our types."""
    for name in ("basicsr", "torchvision"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (bash tools/setup.sh installs it)", allow_module_level=True)
    from synthpipe.basicsr_plugin import register

    register()


def smooth_image(seed: int, side: int) -> np.ndarray:
    """An image with large soft shapes, uint8 ``(side, side, 3)``, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def write_shards(folder: Path, shards: int = 2, images: int = 4, side: int = 96) -> str:
    """Write PNGs into tars; returns the brace pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"clean-{shard:03d}.tar", "w") as tar:
            for image in range(images):
                number = shard * images + image
                buffer = io.BytesIO()
                Image.fromarray(smooth_image(number, side)).save(buffer, "PNG")
                member = tarfile.TarInfo(f"image{number:04d}.png")
                member.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(member, buffer)
    return str(folder / f"clean-{{000..{shards - 1:03d}}}.tar")


def write_pairs(folder: Path, count: int = 2, side: int = 48) -> tuple[str, str]:
    """Frozen validation pairs as two folders."""
    for name in ("gt", "lq"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.fromarray(smooth_image(1000 + number, side))
        image.save(folder / "gt" / f"v{number}.png")
        image.resize((side // SCALE, side // SCALE), Image.Resampling.BICUBIC).save(folder / "lq" / f"v{number}.png")
    return str(folder / "gt"), str(folder / "lq")


def dataset_block(pattern: str, **more: Any) -> dict[str, Any]:
    """A training block over ``pattern``: noisy pairs, two samples per batch."""
    return {
        "name": "tiny",
        "type": "SynthPipeDataset",
        "shards": pattern,
        "gt_size": 32,
        "batch_size_per_gpu": 2,
        "num_worker_per_gpu": 0,
        "degrade": {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.02, 0.1]}},
        "margin": 0,
        "tile": 16,
        "pool": 4,
        "patches_per_tile": 2,
        **more,
    }


def options(
    folder: Path, *, gan: bool = False, iterations: int = 8, save_every: int = 4, **train: Any
) -> dict[str, Any]:
    """An ordinary BasicSR option file: a tiny SRModel or ESRGANModel, validation, TensorBoard."""
    gt, lq = write_pairs(folder / "val")
    adam = {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}
    opt: dict[str, Any] = {
        "name": "run",
        "model_type": "SRModel",
        "scale": SCALE,
        "num_gpu": 0,
        "manual_seed": 7,
        "datasets": {
            "train": dataset_block(write_shards(folder / "shards"), **train),
            "val": {
                "name": "frozen",
                "type": "PairedImageDataset",
                "dataroot_gt": gt,
                "dataroot_lq": lq,
                "io_backend": {"type": "disk"},
            },
        },
        "network_g": {
            "type": "MSRResNet",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 8,
            "num_block": 1,
            "upscale": SCALE,
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "optim_g": adam,
            "scheduler": {"type": "MultiStepLR", "milestones": [6], "gamma": 0.5},
            "total_iter": iterations,
            "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {
            "val_freq": save_every,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": False}},
        },
        "logger": {"print_freq": 4, "save_checkpoint_freq": save_every, "use_tb_logger": True, "wandb": None},
    }
    if gan:
        opt["model_type"] = "ESRGANModel"
        opt["network_g"] = {
            "type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4,
            "scale": SCALE,
        }  # fmt: skip
        opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8}
        opt["train"]["optim_d"] = dict(adam)
        opt["train"]["gan_opt"] = {
            "type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 0.1
        }  # fmt: skip
    return opt


def write_options(path: Path, opt: dict[str, Any]) -> Path:
    """Write an option file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(opt))
    return path


def run_plain(monkeypatch: pytest.MonkeyPatch, root: Path, opt: dict[str, Any], *flags: str) -> None:
    """BasicSR's own ``train_pipeline``, unpatched, in this process."""
    from basicsr.train import train_pipeline

    _enter(monkeypatch, root, opt, flags)
    train_pipeline(str(root))


def run_entry(monkeypatch: pytest.MonkeyPatch, root: Path, opt: dict[str, Any], *flags: str) -> int:
    """Our entry point, in this process; returns the exit code."""
    from synthpipe.basicsr_plugin.train import main

    _enter(monkeypatch, root, opt, flags)
    return main()


def _enter(monkeypatch: pytest.MonkeyPatch, root: Path, opt: dict[str, Any], flags: tuple[str, ...]) -> None:
    from basicsr.utils import logger

    # BasicSR sets its logger up once in a process; each run of ours gets its own log file.
    logger.initialized_logger.clear()
    for handler in list(logging.getLogger("basicsr").handlers):
        logging.getLogger("basicsr").removeHandler(handler)
        handler.close()
    path = write_options(root / "options.yml", opt)
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(path), *flags])


def networks(root: Path, label: str = "latest") -> dict[str, torch.Tensor]:
    """All tensors of the networks that the run in ``root`` saved as ``label``."""
    found = {}
    for path in sorted((root / "experiments" / "run" / "models").glob(f"*_{label}.pth")):
        for group, state in torch.load(path, weights_only=True).items():
            network = path.name.removesuffix(f"_{label}.pth")
            found.update({f"{network}/{group}/{name}": value for name, value in state.items()})
    assert found, f"no networks {label!r} in {root}"
    return found


def assert_same_networks(first: Path, second: Path, label: str = "latest") -> None:
    """Bit-identical weights in two runs' folders."""
    one, two = networks(first, label), networks(second, label)
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert different == []
