r"""Whether the flat-area distance picks good weights: every checkpoint of a run against held-out pairs, as Markdown.

    synthpipe train recipes/deflow_cameras/train.yml run_dir=runs/deflow_cameras/Nikon800/short \
        data.noisy.folder=runs/deflow_cameras/Nikon800/noisy max_steps=60 calibrate=false sample_every=12 \
        checkpoint_every=12 keep_checkpoints=9 ema_decay=0.9 schedule.kind=constant schedule.milestones=[]
    python recipes/deflow_cameras/checkpoints.py --run runs/deflow_cameras/Nikon800/short --camera Nikon800

``sample_every`` and ``checkpoint_every`` must be equal, so that each point of ``distance.csv`` has its weights.  Pairs
are those of ``prepare.py``; their references' errors are carried as in ``evaluate.py``.  Scenes are the first two
judged ones that ``--without`` does not name.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from comparison import Generator, by_transform, generate, load_pairs, read
from prepare import CAMERAS
from reference_errors import Registered, register

from synthpipe import checkpoints
from synthpipe.flat_noise import noise_level
from synthpipe.flows import DeFlow
from synthpipe.images import quantize_8bit
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, akld, histogram_kld, residual_of
from synthpipe.seeds import sample_seed
from synthpipe.transforms.deflow import DeFlowDegrade


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/deflow_cameras"), help="made by prepare.py")
    parser.add_argument("--run", type=Path, required=True, help="folder of a training")
    parser.add_argument("--camera", required=True, choices=[camera.name for camera in CAMERAS])
    parser.add_argument("--without", nargs="*", default=["recie"], help="judged scenes to leave out")
    parser.add_argument("--limit", type=int, default=6, help="crops of a scene")
    args = parser.parse_args()
    camera = next(camera for camera in CAMERAS if camera.name == args.camera)
    model = checkpoints.load(args.run / "final.safetensors", kind="deflow")
    assert isinstance(model, DeFlow)
    scenes = [name for name in camera.judged if name not in args.without][:2]
    judged = []
    for scene in scenes:
        level = noise_level(read(args.data / camera.name / "frames" / f"{scene}.png"))
        assert level is not None, scene
        clean, noisy, names = load_pairs(args.data / camera.name / "judged" / scene, args.limit)
        asked = 255 * level if model.pile is not None else None
        judged.append((asked, register(clean, noisy), [sample_seed(0, 0, name) for name in names]))
    print(f"{camera.name}: {', '.join(scenes)}\n\n| step | distance | AKLD | KLD |\n| --- | --- | --- | --- |")
    with (args.run / "distance.csv").open() as file:
        curve = {int(row["step"]): float(row["distance"]) for row in csv.DictReader(file)}
    for step, distance in sorted(curve.items()):
        state = torch.load(args.run / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)["averaged"]
        own = {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
        model.load_state_dict(own)
        found = [
            divergences(by_transform(DeFlowDegrade(model, 1, level=level)), pairs, seeds)
            for level, pairs, seeds in judged
        ]
        means = [sum(values) / len(values) for values in zip(*found, strict=True)]
        print(f"| {step} | {distance:.3f} | {means[0]:.3f} | {means[1]:.4f} |", flush=True)


def divergences(generator: Generator, pairs: Registered, seeds: list[int]) -> tuple[float, float]:
    """AKLD and KLD of the residuals, both sides with the references' coding error."""
    made = quantize_8bit(generate(generator, pairs.clean, seeds, 4) + pairs.error)
    real, ours = (
        [residual_of(y, x, LOCAL_MEAN_WINDOW) for y, x in zip(side, pairs.clean, strict=True)]
        for side in (pairs.noisy, made)
    )
    return akld(real, ours), histogram_kld(real, ours)


if __name__ == "__main__":
    main()
