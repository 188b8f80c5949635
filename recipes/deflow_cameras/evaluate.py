r"""Noise of three cameras against what their weights make, scene by scene: JSON and Markdown.

    python recipes/deflow_cameras/evaluate.py --data runs/deflow_cameras \
        --weights "runs/deflow_cameras/{camera}/run/final.safetensors"

Weights have seen the noisy sides of other scenes of their camera (of the 80D: the left halves of the same frames).  For
each judged scene the noise level is estimated on its noisy frame, as a user would, and asked for.  Rows beside it:

* as pairs are made: the same images, with the error that the data set's own JPEG coding of the reference (quality 75,
  chroma halved) brings into every real pair; the reference is coded once more, off its grid, to get it;
* no correction: the same weights without what the flat areas of the pile said;
* flat-area Gaussian: drawn from the same flat-area statistics without a flow;
* baselines that are fitted to the judged pairs themselves (``comparison.py``).

All rows are measured in the three views of ``comparison.py``; the last table says how far the weights are from each
target of the recipe.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparison import VIEWS, Generator, baselines, by_transform, figures, generate, load_pairs, many, read, table
from flat_gaussian import flat_gaussian, pile_noise
from PIL import Image
from prepare import CAMERAS, Camera
from torch import Tensor

from synthpipe import __version__, checkpoints
from synthpipe.flat_noise import noise_level
from synthpipe.flows import DeFlow
from synthpipe.images import quantize_8bit, to_float, to_uint8
from synthpipe.seeds import sample_seed
from synthpipe.transforms.deflow import DeFlowDegrade

OURS, CODED, PLAIN, PEER = "DeFlow", "DeFlow, as pairs are made", "DeFlow, no correction", "flat-area Gaussian, no flow"
#: Rows and columns that a reference is moved by before it is coded again, and the quality of the data set's files.
MOVE, QUALITY = (3, 5), 75
#: Judged by the recipe's targets: flat pixels, but KLD and AKLD, which are of all pixels.
FLAT, ALL = "flat pixels, local mean removed", "local mean removed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/deflow_cameras"), help="made by prepare.py")
    parser.add_argument(
        "--weights", default="runs/deflow_cameras/{camera}/run/final.safetensors", help="of each camera"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/deflow_cameras"), help="for evaluation.json and .md")
    parser.add_argument("--cameras", nargs="+", default=[camera.name for camera in CAMERAS])
    parser.add_argument("--scenes", nargs="+", help="of those only these")
    parser.add_argument("--limit", type=int, help="use only this many crops of a scene, evenly spread")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"versions": {"synthpipe": __version__, "torch": torch.__version__}, "scenes": {}}
    text = []
    for camera in CAMERAS:
        if camera.name not in args.cameras:
            continue
        for scene, found in judged_scenes(camera, args).items():
            report["scenes"][f"{camera.name} {scene}"] = found
            heading = f"## {camera.name}, {scene}: level {255 * found['level']:.2f}"
            text += [heading] + [f"**{view}**\n\n{table(rows)}" for view, rows in found["views"].items()]
    text.append("## Targets\n\n" + targets(report["scenes"]))
    (args.out / "evaluation.json").write_text(json.dumps(report, indent=1))
    (args.out / "evaluation.md").write_text("\n\n".join(text) + "\n")
    print("\n\n".join(text))


def judged_scenes(camera: Camera, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Level asked for and figures of each view, by scene."""
    folder = args.data / camera.name
    model = checkpoints.load(args.weights.format(camera=camera.name), kind="deflow")
    assert isinstance(model, DeFlow)
    plain = copy.deepcopy(model)
    plain.correct(None)
    pile = pile_noise(folder / "noisy")
    found = {}
    for scene in camera.judged:
        if args.scenes and scene not in args.scenes:
            continue
        level = noise_level(read(folder / "frames" / f"{scene}.png"))
        assert level is not None, scene
        asked = 255 * level if model.pile is not None else None
        rows = {
            OURS: by_transform(DeFlowDegrade(model, 1, level=asked)),
            PLAIN: by_transform(DeFlowDegrade(plain, 1, level=asked)),
            PEER: flat_gaussian(pile, level),
        }
        found[scene] = {"level": level, "views": figures_of(rows, folder / "judged" / scene, args)}
    return found


def coded(image: Tensor) -> Tensor:
    """``(3, H, W)`` in [0, 1] after JPEG with chroma at half the size."""
    moved = to_uint8(image[None])[0].roll(MOVE, (1, 2)).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(moved).save(file, "JPEG", quality=QUALITY, subsampling=2)
    decoded = torch.from_numpy(np.array(Image.open(file)))
    return to_float(decoded.permute(2, 0, 1)).roll((-MOVE[0], -MOVE[1]), (1, 2))


def figures_of(unpaired: dict[str, Generator], folder: Path, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All rows in all views."""
    clean, noisy, names = load_pairs(folder, args.limit)
    seeds = [[sample_seed(args.seed, draw, name) for name in names] for draw in range(2)]

    def draws(rows: dict[str, Generator]) -> dict[str, list[Tensor]]:
        return {label: [generate(generator, clean, s, 4) for s in seeds] for label, generator in rows.items()}

    made, views = draws(unpaired), {}
    lost = clean - torch.stack([coded(image) for image in clean])
    made[CODED] = [quantize_8bit(drawn + lost) for drawn in made[OURS]]
    fitted: dict[int | None, dict[str, list[Tensor]]] = {}
    for view, (window, flat) in VIEWS.items():
        if window not in fitted:
            fitted[window] = draws(baselines(clean, noisy, window))
        rows = {"real noise": [noisy], **made, **fitted[window]}
        views[view] = {label: figures(drawn, noisy, clean, window, flat) for label, drawn in rows.items()}
    return views


def distances(views: dict[str, dict[str, Any]], label: str) -> dict[str, float]:
    """How far a row is from the real noise, by target."""
    real, ours = views[FLAT]["real noise"], views[FLAT][label]
    white = views[ALL]["Gaussian, fitted"]
    bins = zip(ours["sigma_by_brightness"], real["sigma_by_brightness"], strict=True)
    pairs = [*zip(ours["sigma"], real["sigma"], strict=True), *((a, b) for a, b in bins if a is not None)]
    channels = zip(ours["channel_correlation"], real["channel_correlation"], strict=True)
    return {
        "sigma": max((a / b - 1 for a, b in pairs), key=abs),
        "sigma, mean of channels": sum(ours["sigma"]) / sum(real["sigma"]) - 1,
        "lag-1": max((ours[key] - real[key] for key in ("lag1_h", "lag1_v")), key=abs),
        "channel correlation": max((a - b for a, b in channels), key=abs),
        "KLD / Gaussian's": views[ALL][label]["kld"] / white["kld"],
        "AKLD / Gaussian's": views[ALL][label]["akld"] / white["akld"],
    }


def targets(scenes: dict[str, Any]) -> str:
    """The largest distance of each kind, by scene and row."""
    names = [
        "sigma",
        "sigma, mean of channels",
        "lag-1",
        "channel correlation",
        "KLD / Gaussian's",
        "AKLD / Gaussian's",
    ]
    lines = ["| scene | level | noise | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 3)]
    bounds = ["15%", "15%", "0.10", "0.12", "0.40", "0.60"]
    lines.append("| *target* | | | " + " | ".join(f"*{bound}*" for bound in bounds) + " |")
    for name, scene in scenes.items():
        for label in (OURS, CODED, PLAIN, PEER):
            far = distances(scene["views"], label)
            cells = [f"{far[names[0]]:+.1%}", f"{far[names[1]]:+.1%}"]
            cells += [many([far[key]], 1, 2) for key in names[2:]]
            lines.append(f"| {name} | {255 * scene['level']:.2f} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
