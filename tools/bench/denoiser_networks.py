"""Blind-spot networks side by side: what they cost at full size, and how well they do for an equal training budget.

Part of ``denoisers.py``.  Costs are of the published sizes and of ours by default: multiply-adds per pixel, counted at
the convolutions and checked against the published variants' known counts; processor time, in turn with the four-branch
network, of one image and of one training step; memory at its highest above what the process held before.

Training is of the same networks with all widths divided, on the same crops of the same photographs with the same noise
and seeds, at a constant learning rate with averaged weights, so that a run can be judged after any step: after the same
number of steps and after the same seconds.  Crops are small, so U-Nets have three levels: deeper ones would learn from
padding.  With ``--full``, full widths, levels and 256-pixel crops, for a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import paired_seconds
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synthpipe.config.denoiser_data import ImageDataOptions
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.config.run import DomainOptions
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.blind_spot_nets.dilated import HoleConv
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import to_float
from synthpipe.training.base import step_seeds
from synthpipe.training.blind_spot import BlindSpotObjective
from synthpipe.training.data.image_data import ImageData

OURS, PEER = "two and two sweeps", "four rotations"
Net = dict[str, Any]
FULL: dict[str, Net] = {
    "dilated, code": {"type": "dilated", "depth": 11, "width": 128, "hole_width": 18, "head": (198, 99, 99)},
    "dilated, figure": {
        "type": "dilated",
        "depth": 11,
        "width": 128,
        "hole_width": 64,
        "head": (384, 192, 96),
        "residual": True,
    },
    PEER: {"type": "rotated", "width": 48, "levels": 5, "head_widths": (384, 96)},
    OURS: {
        "type": "sweeps",
        "deep": (56, 80, 80, 80),
        "up": (96, 112, 112),
        "full": 48,
        "thin": 32,
        "head_widths": (96, 48),
    },
}
#: Thousand multiply-adds per pixel of the published sizes, for three channels and nine outputs.
PUBLISHED = {"dilated, code": 1585, "dilated, figure": 2351, PEER: 1250}
_WIDTHS = ("width", "hole_width", "head", "head_widths", "deep", "up", "full", "thin")
SIGMA = 25 / 255
SIDE = 256
STEP_CROP, STEP_BATCH = 96, 4


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Costs and training of every network; see :func:`add_arguments` for what ``args`` holds."""
    device = torch.device(args.device)
    result: dict[str, Any] = {"side": SIDE, "training_step": [STEP_BATCH, 3, STEP_CROP, STEP_CROP]}
    if args.steps:
        result["training"] = training(args, device)
    result["networks"] = {name: costs(name, net, args, device) for name, net in FULL.items()}
    return result


def reduced(net: Net, factor: float) -> Net:
    """``net`` with its widths divided by ``factor``, and three levels where it has levels."""
    if factor == 1:
        return net
    small = {
        key: (
            tuple(max(1, round(v / factor)) for v in value)
            if isinstance(value, tuple)
            else max(1, round(value / factor))
        )
        if key in _WIDTHS
        else value
        for key, value in net.items()
    }
    if small["type"] == "rotated":
        small["levels"] = 3
    if small["type"] == "sweeps":
        small |= {"deep": small["deep"][:3], "up": small["up"][:2]}
    return small


def build(net: Net, device: torch.device) -> BlindSpotDenoiser:
    """A denoiser with random weights."""
    torch.manual_seed(0)
    model = BlindSpotDenoiser(3, net=net).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


# Costs


def costs(name: str, net: Net, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One network's row."""
    model = build(net, device)
    kmac = multiply_adds(model.net, device) / 1000
    if name in PUBLISHED and abs(kmac - PUBLISHED[name]) > 1:
        raise RuntimeError(f"{name}: counted {kmac:.1f} kMAC per pixel, published {PUBLISHED[name]}")
    row: dict[str, Any] = {
        "kmac_per_pixel": round(kmac, 1),
        "kmac_published": PUBLISHED.get(name),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    peer = build(FULL[PEER], device)
    for what, call in (("image", one_image), ("step", one_step)):
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        times = paired_seconds(call(model, device), call(peer, device), device, args.rounds, clock=clock)
        row[f"seconds_{what}"] = round(statistics.median(times[0]), 4)
        row[f"times_{what}"] = [round(value, 4) for value in times[0]]
        row[f"ratio_{what}"] = round(statistics.median(a / b for a, b in zip(*times, strict=True)), 3)
        row[f"peak_memory_mib_{what}"] = peak_memory(name, what, device)
    return row


def multiply_adds(net: nn.Module, device: torch.device, side: int = 64) -> float:
    """Per pixel of a square image, of all convolutions."""
    total = 0

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        """Add what one convolution takes for its output."""
        nonlocal total
        assert isinstance(module, nn.Conv2d | HoleConv)
        total += module.weight[0].numel() * output.numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d | HoleConv)]
    with torch.no_grad():
        net(torch.zeros(1, 3, side, side, device=device))
    for hook in hooks:
        hook.remove()
    return total / side**2


def one_image(model: BlindSpotDenoiser, device: torch.device, side: int = SIDE) -> Callable[[], object]:
    """The network's pass over one image, without gradients."""
    x = torch.rand(1, 3, side, side, device=device).to(memory_format=torch.channels_last)

    def run() -> object:
        """Once."""
        with torch.no_grad():
            return model.net(x)

    return run


def one_step(model: BlindSpotDenoiser, device: torch.device, side: int = STEP_CROP) -> Callable[[], object]:
    """Likelihood, gradient and update on a small batch."""
    objective = BlindSpotObjective(model, GaussianTrainingNoise(sigma=(SIGMA, SIGMA))).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randint(0, 256, (STEP_BATCH, 3, side, side), dtype=torch.uint8, device=device)
    slots = list(range(STEP_BATCH))

    def run() -> object:
        """One step."""
        optimizer.zero_grad()
        loss, _ = objective({"x": x, "slot": slots}, step_seeds(0, 0, slots))
        loss.backward()
        return optimizer.step()

    return run


def peak_memory(name: str, what: str, device: torch.device) -> float:
    """MiB above what was held before, in a process of its own."""
    command = [sys.executable, __file__, name, what, str(device)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(out.stdout))


def peak_memory_here(name: str, what: str, device: torch.device) -> float:
    """As :func:`peak_memory`, in this process, which must not have held more before."""
    torch.set_num_threads(1)
    model = build(FULL[name], device)
    call = one_image if what == "image" else one_step
    call(model, device, 32)()
    run = call(model, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)
    before = kilobytes_of_process("VmRSS")
    run()
    return round((kilobytes_of_process("VmHWM") - before) / 2**10, 1)


def kilobytes_of_process(field: str) -> int:
    """A line of ``/proc/self/status``; ``getrusage`` would take over the peak of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


# Training


def training(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """PSNR after the same steps and after the same seconds, means over seeds."""
    nets = {name: reduced(FULL[name], args.factor) for name in FULL if name in args.train}
    images = test_images(args.test, args.images, args.skip)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in nets}
    for seed in range(args.seeds):
        for name in reversed(nets):
            runs[name].append(train(nets[name], seed, images, args, device))
            print(f"{name}, seed {seed}: {runs[name][-1]}", file=sys.stderr, flush=True)
    rows: dict[str, Any] = {}
    for name, net in nets.items():
        model = build(net, device)
        rows[name] = {
            "kmac_per_pixel": round(multiply_adds(model.net, device) / 1000, 1),
            "parameters": sum(p.numel() for p in model.parameters()),
            "same_steps": mean_row([run["steps"] for run in runs[name]]),
            "same_seconds": mean_row([run["seconds"] for run in runs[name]]),
        }
    settings = {key: getattr(args, key) for key in ("factor", "steps", "seconds", "seeds", "crop", "batch", "lr")}
    result = settings | {"images": len(images), "images_skipped": args.skip, "networks": rows}
    if rows.keys() >= {OURS, PEER}:
        result["db_behind_four_rotations"] = {
            budget: round(rows[PEER][budget]["psnr"] - rows[OURS][budget]["psnr"], 3)
            for budget in ("same_steps", "same_seconds")
        }
    return result


def mean_row(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Means over seeds, and the posterior mean's PSNR of each."""
    row: dict[str, Any] = {key: round(statistics.mean(run[key] for run in runs), 3) for key in runs[0]}
    return row | {"psnr_of_each_seed": [round(run["psnr"], 3) for run in runs]}


def train(net: Net, seed: int, images: list[Tensor], args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """``steps`` and ``seconds``: figures when the one and the other budget was spent."""
    torch.manual_seed(seed)
    noise = GaussianTrainingNoise(sigma=(SIGMA, SIGMA))
    objective = BlindSpotObjective(BlindSpotDenoiser(3, net=net), noise).to(device).train()
    options = ImageDataOptions(
        images=DomainOptions(folder=str(args.data)),
        crop=args.crop,
        batch_size=args.batch,
        augment="dihedral",
        workers=0,
        crops_per_decode=8,
    )
    data = ImageData(options, seed)
    optimizer = torch.optim.Adam(objective.model.parameters(), lr=args.lr, betas=(0.9, 0.99))
    average = get_ema_multi_avg_fn(args.ema)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(objective.model, multi_avg_fn=average)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    found: dict[str, Any] = {}
    spent, step = 0.0, 0
    while len(found) < 2:
        batch = data.next_batch()  # reading pictures is nobody's cost
        batch["x"] = batch["x"].to(device)
        start = clock()
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 20)
        optimizer.zero_grad()
        loss, _ = objective(batch, step_seeds(seed, step, batch["slot"]))
        loss.backward()
        nn.utils.clip_grad_norm_(objective.model.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(objective.model)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent, step = spent + clock() - start, step + 1
        due = {"steps": step >= args.steps, "seconds": spent >= args.seconds}
        for budget, reached in due.items():
            if reached and budget not in found:
                found[budget] = quality(averaged.module, images, device) | {"step": step, "seconds": round(spent, 1)}
    data.close()
    return found


@torch.no_grad()
def quality(model: nn.Module, images: list[Tensor], device: torch.device) -> dict[str, float]:
    """Mean PSNR of the posterior mean."""
    assert isinstance(model, BlindSpotDenoiser)
    total = 0.0
    for index, clean in enumerate(images):
        generator = torch.Generator().manual_seed(index)
        noisy = (clean + SIGMA * torch.randn(clean.shape, generator=generator)).to(device)
        result = model.denoise(noisy, noisy.new_full((1,), SIGMA))
        total += float(-10 * (result.cpu().clamp(0, 1) - clean).square().mean().log10())
    return {"psnr": total / len(images)}


def test_images(folder: Path, count: int, skip: int) -> list[Tensor]:
    """``(1, 3, H, W)`` of pictures of CBSD68 in a folder, or of any where there are none; the first are left out."""
    paths = list_images(folder)
    chosen = [path for path in paths if path.name.startswith("cbsd68")] or paths
    return [to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]) for path in chosen[skip : skip + count]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this part."""
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_train"), help="pictures to train on")
    parser.add_argument("--test", type=Path, default=Path("../shared/data/clean_test"), help="pictures to measure on")
    parser.add_argument("--images", type=int, default=6, help="pictures to measure on")
    parser.add_argument("--skip", type=int, default=0, help="pictures left out before them")
    parser.add_argument("--train", nargs="+", choices=FULL, default=list(FULL), help="networks to train")
    parser.add_argument("--factor", type=float, default=3, help="what widths are divided by for training")
    parser.add_argument("--steps", type=int, default=150, help="the one budget of training; 0: no training")
    parser.add_argument("--seconds", type=float, default=60, help="the other, of processor time")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.98, help="decay of the averaged weights")
    parser.add_argument("--rounds", type=int, default=2, help="timed calls of each network")
    parser.add_argument("--device", default="cpu")


if __name__ == "__main__":
    print(json.dumps(peak_memory_here(sys.argv[1], sys.argv[2], torch.device(sys.argv[3]))))
