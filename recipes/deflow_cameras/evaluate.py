r"""Noise of three cameras against what their weights make, scene by scene: JSON and Markdown.

    python recipes/deflow_cameras/evaluate.py --data runs/deflow_cameras \
        --weights "runs/deflow_cameras/{camera}/run/final.safetensors"

Weights have seen the noisy sides of other scenes of their camera (of the 80D: the left halves of the same frames).  For
each judged scene the noise level is estimated on its noisy frame, as a user would, and asked for.  Rows beside it:

* as pairs are made: the same images, with the error that the data set's own JPEG coding of the reference (quality 75,
  chroma halved) brings into every real pair (``reference_errors.py``);
* no correction: the same weights without what the flat areas of the pile said;
* flat-area Gaussian: drawn from the same flat-area statistics without a flow;
* baselines that are fitted to the judged pairs themselves (``comparison.py``).

All rows are measured in the three views of ``comparison.py``.  A fourth one is without the errors of the references:
each is moved onto its shot, the covariances of its coding error are taken off those of the real residuals, and where
distributions are compared (KLD, AKLD) all rows carry that error as the real ones do.  Two tables at the end say how far
the weights are from each target of the recipe, in pairs as they are and without the errors.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from comparison import VIEWS, Generator, baselines, by_transform, figures, generate, load_pairs, many, read, table
from flat_gaussian import flat_gaussian, pile_noise
from prepare import CAMERAS, Camera
from reference_errors import coding_error, moments, register
from torch import Tensor

from synthpipe import __version__, checkpoints
from synthpipe.config.degrade import ClassicalDegradeOptions, GaussianNoiseOptions
from synthpipe.flat_noise import noise_level
from synthpipe.flows import DeFlow
from synthpipe.images import quantize_8bit
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, akld, histogram_kld, residual_of
from synthpipe.seeds import sample_seed
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade

OURS, CODED, PLAIN, PEER = "DeFlow", "DeFlow, as pairs are made", "DeFlow, no correction", "flat-area Gaussian, no flow"
GAUSSIAN, STRICT = "Gaussian, fitted", "Gaussian, fitted to pairs as they are"
REAL, KLDS = "real noise", ("kld", "akld")
#: Judged by the recipe's targets: flat pixels, but KLD and AKLD, which are of all pixels.
FLAT, ALL = "flat pixels, local mean removed", "local mean removed"

Pairs = tuple[Tensor, Tensor, list[str]]


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
    scenes = report["scenes"]
    text.append("## Without the errors of the references\n\n" + true_figures(scenes))
    text.append("## Targets, pairs as they are\n\n" + targets(scenes, (OURS, CODED, PLAIN, PEER), as_they_are))
    text.append("## Targets, without them\n\n" + targets(scenes, (OURS, PLAIN, PEER, STRICT), true_distances))
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
        pairs = load_pairs(folder / "judged" / scene, args.limit)
        found[scene] = {"level": level, "views": figures_of(rows, pairs, args.seed)}
        found[scene]["without_errors"] = without_errors(rows, pairs, args.seed)
    return found


def figures_of(unpaired: dict[str, Generator], pairs: Pairs, seed: int) -> dict[str, dict[str, Any]]:
    """All rows in all views."""
    clean, noisy, names = pairs
    seeds = draw_seeds(names, seed)

    def draws(rows: dict[str, Generator]) -> dict[str, list[Tensor]]:
        return {label: [generate(generator, clean, s, 4) for s in seeds] for label, generator in rows.items()}

    made, views = draws(unpaired), {}
    error = torch.stack([coding_error(image) for image in clean])
    made[CODED] = [quantize_8bit(drawn + error) for drawn in made[OURS]]
    fitted: dict[int | None, dict[str, list[Tensor]]] = {}
    for view, (window, flat) in VIEWS.items():
        if window not in fitted:
            fitted[window] = draws(baselines(clean, noisy, window))
        rows = {REAL: [noisy], **made, **fitted[window]}
        views[view] = {label: figures(drawn, noisy, clean, window, flat) for label, drawn in rows.items()}
    return views


def draw_seeds(names: list[str], seed: int) -> list[list[int]]:
    """Of two draws."""
    return [[sample_seed(seed, draw, name) for name in names] for draw in range(2)]


def without_errors(unpaired: dict[str, Generator], pairs: Pairs, seed: int) -> dict[str, Any]:
    """All rows against registered pairs, the coding error taken off the moments and carried by the distributions."""
    together, seeds = register(*pairs[:2]), draw_seeds(pairs[2], seed)
    clean, noisy, error = together.clean, together.noisy, together.error
    residuals = [residual_of(y, x, LOCAL_MEAN_WINDOW) for y, x in zip(noisy, clean, strict=True)]
    everywhere = moments(noisy - clean, clean, flat=False)
    alone = everywhere - moments(error, clean, flat=False)
    rows: dict[str, dict[str, Any]] = {
        REAL: (moments(noisy - clean, clean, flat=True) - moments(error, clean, flat=True)).as_dict()
    }
    generators = unpaired | {GAUSSIAN: white(alone.covariance), STRICT: white(everywhere.covariance)}
    for label, generator in generators.items():
        drawn = [generate(generator, clean, s, 4) for s in seeds]
        rows[label] = moments(drawn[0] - clean, clean, flat=True).as_dict()
        carried = drawn if label == STRICT else [quantize_8bit(y + error) for y in drawn]
        ours = [[residual_of(y, x, LOCAL_MEAN_WINDOW) for y, x in zip(draw, clean, strict=True)] for draw in carried]
        rows[label]["kld"] = histogram_kld(residuals, ours[0])
        rows[label]["akld"] = sum(akld(residuals, draw) for draw in ours) / len(ours)
    return rows


def white(covariance: Tensor) -> Generator:
    """Gaussian noise of a covariance of R, G, B."""
    rows = [[float(value) for value in row] for row in covariance]
    noise = GaussianNoiseOptions.model_validate({"covariance": rows})
    return by_transform(ClassicalDegrade(ClassicalDegradeOptions(noise=noise), 1))


def distances(real: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """How far a row is from the real noise on flat pixels, by target."""
    bins = zip(ours["sigma_by_brightness"], real["sigma_by_brightness"], strict=True)
    pairs = [*zip(ours["sigma"], real["sigma"], strict=True), *((a, b) for a, b in bins if a is not None)]
    channels = zip(ours["channel_correlation"], real["channel_correlation"], strict=True)
    return {
        "sigma": max((a / b - 1 for a, b in pairs), key=abs),
        "sigma, mean of channels": sum(ours["sigma"]) / sum(real["sigma"]) - 1,
        "lag-1": max((ours[key] - real[key] for key in ("lag1_h", "lag1_v")), key=abs),
        "channel correlation": max((a - b for a, b in channels), key=abs),
    }


def as_they_are(scene: dict[str, Any], label: str) -> dict[str, float]:
    """Distances by pairs as they are."""
    flat, everywhere = scene["views"][FLAT], scene["views"][ALL]
    found = distances(flat[REAL], flat[label])
    return found | {f"{key.upper()} / Gaussian's": everywhere[label][key] / everywhere[GAUSSIAN][key] for key in KLDS}


def true_distances(scene: dict[str, Any], label: str) -> dict[str, float]:
    """Distances without the errors of the references."""
    rows = scene["without_errors"]
    found = distances(rows[REAL], rows[label])
    return found | {f"{key.upper()} / Gaussian's": rows[label][key] / rows[GAUSSIAN][key] for key in KLDS}


def targets(
    scenes: dict[str, Any], labels: Sequence[str], far: Callable[[dict[str, Any], str], dict[str, float]]
) -> str:
    """The largest distance of each kind, by scene and row."""
    bounds = ["15%", "15%", "0.10", "0.12", "0.40", "0.60"]
    lines: list[str] = []
    for name, scene in scenes.items():
        for label in labels:
            found = far(scene, label)
            if not lines:
                lines = ["| scene | level | noise | " + " | ".join(found) + " |", "|" + " --- |" * (len(found) + 3)]
                lines.append("| *target* | | | " + " | ".join(f"*{bound}*" for bound in bounds) + " |")
            cells = [f"{v:+.1%}" if key.startswith("sigma") else many([v], 1, 2) for key, v in found.items()]
            lines.append(f"| {name} | {255 * scene['level']:.2f} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def true_figures(scenes: dict[str, Any]) -> str:
    """All rows without the errors of the references."""
    lines = [
        "| scene | noise | sigma R / G / B | by brightness 8-48 / -96 / -160 / -247 | lag-1 h / v | corr. RG / GB / RB "
        "| KLD | AKLD |",
        "|" + " --- |" * 8,
    ]
    for name, scene in scenes.items():
        for label, row in scene["without_errors"].items():
            cells = [
                many(row["sigma"], 255, 2),
                many(row["sigma_by_brightness"], 255, 1),
                many([row["lag1_h"], row["lag1_v"]], 1, 2),
                many(row["channel_correlation"], 1, 2),
                many([row.get("kld")], 1, 4),
                many([row.get("akld")], 1, 3),
            ]
            lines.append(f"| {name} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
