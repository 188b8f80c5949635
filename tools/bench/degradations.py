"""What learned degradations are worth: noise, networks trained on their pairs, blur; a JSON row for each.

    python tools/bench/degradations.py                        # all rows whose runs and weights are there
    python tools/bench/degradations.py --run                  # runs what is missing of recipes/real_world first: hours
    python tools/bench/degradations.py --only "kernel_*"

``ours`` and ``peer`` of a row:

* ``noise_CAMERA``: divergence (KLD) from the real noise of the judged scenes, of the camera's DeFlow and of Gaussian
  noise with a covariance fitted to these very pairs; lower is better.  The details have AKLD, sigma by channel and
  brightness, and correlations, scene by scene, at the level that the estimate of the noisy scene asks for.
* ``x1_CAMERA``, ``real_x4_CAMERA``, ``real_x4_realsr`` (both cameras), ``real_x2_city100``: PSNR of the judged half in
  dB, of networks trained on pairs of our best arm and on those of the best hand-made one, or of the prototype at x4.
  Our arm is the one ahead on the half that chooses: of the 5D II at x1, of RealSR at x4 and x2.  ``share`` is the part
  of the gap between bicubic and real pairs.
* ``kernel_canon``, ``kernel_nikon``, ``kernel_iphone``: the largest error of the amplitude of the pile's kernel at 0.2,
  0.3, 0.4 and 0.47 cycles per pixel against what pairs say (MANIFEST.md beside the data), and that of the kernel of
  average spectra.  ``kernel_synthetic``: the same against Gaussians that are known.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from report import bench_parser, provenance, result_path, write_result
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.degrade import DeFlowDegradeOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import SynthPipeError
from synthpipe.flat_noise import noise_level
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit, to_float, to_uint8
from synthpipe.kernels.evidence import evidence_of
from synthpipe.kernels.joint import estimate_groups
from synthpipe.kernels.response import amplitudes
from synthpipe.noise_fit import fit_gaussian
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, akld, histogram_kld, measure_noise, residual_of
from synthpipe.seeds import sample_seed
from synthpipe.transforms.build import build_degrade

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "real_world"
CAMERAS = ("5d2", "d800", "80d")
LEARNED = ("blur", "blur-noise", "deflow", "deflow-spread", "blur-deflow", "mixture", "mixture-jpeg")
#: Tests nothing is chosen on, and the one whose half that chooses says which arm is ours there.
CHOOSER = {"x1_d800": "x1_5d2", "x1_80d": "x1_5d2", "real_x2_city100": "real_x4_realsr"}
_NONE: Mapping[str, Any] = {"psnr": {}}
HAND_MADE = ("bicubic", "real-esrgan", "bsrgan", "gaussian", "coloured")
#: Cycles per pixel, and what pairs say there: MANIFEST.md of real_sr.
PLACES = (0.2, 0.3, 0.4, 0.47)
MEASURED = {"canon": (0.9, 0.55, 0.36, 0.29), "nikon": (1.1, 0.77, 0.53, 0.42), "iphone": (1.2, 0.9, 0.5, 0.36)}
#: Widths of the known kernels, pixels: sigma of Gaussians.
KNOWN = (0.4, 0.6, 0.8)
SIDE = 25

Row = dict[str, Any]
Pairs = Sequence[tuple[Tensor, Tensor]]


def main() -> None:
    """Print the rows."""
    parser = bench_parser(__doc__)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/real_world"), help="finished runs of recipes/real_world"
    )
    parser.add_argument("--settings", type=Path, help="where weights lie, as that recipe's settings.yml")
    parser.add_argument("--run", action="store_true", help="run what is missing of recipes/real_world first")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="ROW", help="patterns of rows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(RECIPE))
    if args.run:
        settings = [] if args.settings is None else ["--settings", str(args.settings)]
        command = [sys.executable, str(RECIPE / "run.py"), "--out", str(args.runs), *settings]
        subprocess.run(command, check=True, stdout=sys.stderr)
    for name, make in makers(args.runs, args.settings).items():
        if not any(fnmatch(name, pattern) for pattern in args.only):
            continue
        try:
            row = make()
        except (SynthPipeError, LookupError, OSError) as error:
            print(f"{name}: left out: {error}", file=sys.stderr, flush=True)
            continue
        result = {"name": name, **row, **provenance(torch.device("cpu"))}
        print(json.dumps(result), flush=True)
        if args.save:
            write_result(result_path(name, result), result)


def makers(runs: Path, settings: Path | None) -> Mapping[str, Callable[[], Row]]:
    """What makes each row, by its name."""
    bench = Bench(runs, settings)
    made: dict[str, Callable[[], Row]] = {}
    for camera in CAMERAS:
        made[f"noise_{camera}"] = partial(bench.noise_row, camera)
        made[f"x1_{camera}"] = partial(bench.network_row, f"x1_{camera}", "judge", HAND_MADE)
    for name, column in (("canon", "judge_canon"), ("nikon", "judge_nikon"), ("realsr", "judge")):
        made[f"real_x4_{name}"] = partial(bench.network_row, "real_x4_realsr", column, ("prototype",))
    made["real_x2_city100"] = partial(bench.network_row, "real_x2_city100", "judge", (*HAND_MADE, "prototype"))
    for camera in MEASURED:
        made[f"kernel_{camera}"] = partial(bench.kernel_row, camera)
    made["kernel_synthetic"] = partial(known_kernels_row, bench.data)
    return made


class Bench:
    """Finished runs, weights and data of the recipe."""

    def __init__(self, runs: Path, settings: Path | None) -> None:
        recipe = importlib.import_module("run")
        arguments = ["--out", str(runs)] + ([] if settings is None else ["--settings", str(settings)])
        self.workshop = recipe.make_workshop(recipe.parse_arguments(arguments))
        self.tests: Mapping[str, Any] = importlib.import_module("scenes").TESTS
        self.fits = importlib.import_module("fits")
        self.runs = runs

    @property
    def data(self) -> Path:
        """Folder of images."""
        return Path(self.workshop.data)

    # --- networks ---

    def network_row(self, test: str, column: str, peers: Sequence[str]) -> Row:
        """Of the finished runs of a test: our arm that is ahead where settings are chosen, the best of the peers.

        Raises:
            LookupError: no finished run of ours, or of a peer.
        """
        path = self.runs / "results.json"
        by_test: dict[str, dict[str, Row]] = {}
        for row in json.loads(path.read_text())["rows"]:
            by_test.setdefault(row["test"], {})[row["arm"]] = row
        rows, chooser = by_test.get(test, {}), by_test.get(CHOOSER.get(test, test), {})
        chosen = {arm: chooser[arm] for arm in LEARNED if arm in rows and "choose" in chooser.get(arm, _NONE)["psnr"]}
        choosing = "choose" if chosen else None
        ours = _best(chosen or rows, LEARNED, choosing, f"{test}: no finished run of a learned arm in {path}")
        peer = _best(rows, peers, column, f"{test}: no finished run of {', '.join(peers)} in {path}")
        share = rows[ours]["share"].get(column)
        kinds = (column, *(c for c in rows[ours]["psnr"] if c.startswith(f"{column}_")), "clean", "jpeg")
        return {
            "ours": rows[ours]["psnr"][column]["mean"],
            "peer": rows[peer]["psnr"][column]["mean"],
            "unit": "dB",
            "share": None if share is None else share["mean"],
            "spread": {"ours": rows[ours]["psnr"][column]["each"], "peer": rows[peer]["psnr"][column]["each"]},
            "details": {
                "arms": {"ours": ours, "peer": peer},
                "seeds": rows[ours]["seeds"],
                "shares": {arm: {c: s["mean"] for c, s in row["share"].items()} for arm, row in rows.items()},
                "psnr": {arm: {c: row["psnr"][c]["mean"] for c in kinds} for arm, row in rows.items()},
            },
        }

    # --- noise ---

    def noise_row(self, camera: str) -> Row:
        """DeFlow's noise on the clean sides of the judged scenes, against the real one."""
        test = self.tests[f"x1_{camera}"]
        weights = self.workshop.weights[test.name]["deflow"]
        columns = self.workshop.columns(test.name)
        scenes = {name: pairs for name, pairs in columns.items() if name.startswith("judge")}
        found = {name: noise_of_scene(pairs, weights) for name, pairs in scenes.items()}
        ours, peer = ([each["kld"][side] for each in found.values()] for side in ("ours", "peer"))
        return {
            "ours": statistics.fmean(ours),
            "peer": statistics.fmean(peer),
            "unit": "nats",
            "ratio": statistics.fmean(ours) / statistics.fmean(peer),
            "details": {"weights": str(weights), "scenes": found},
        }

    # --- blur ---

    def kernel_row(self, camera: str) -> Row:
        """The kernel of a camera's pile, estimated as by `synthpipe train` with `kind: kernels`, against real pairs."""
        test = self.tests["real_x2_city100" if camera == "iphone" else "real_x4_realsr"]
        piles = importlib.import_module("scenes").piles_by_camera(test, self.data)
        pile = piles[camera if camera in piles else "all"]
        photos = importlib.import_module("scenes").photos_of(self.data)
        found = pile_kernel([reduced(x, test.scale) for x in photos], [to_float(x) for x in pile])
        average = torch.from_numpy(self.fits.average_kernel(pile, photos, test.scale))
        return kernel_errors(
            found, amplitudes(average[None], PLACES)[0], torch.tensor(MEASURED[camera], dtype=torch.float64)
        )


def pile_kernel(clean: Sequence[Tensor], degraded: Sequence[Tensor]) -> Tensor:
    """Amplitudes at :data:`PLACES` of the kernel of a pile of images ``(3, H, W)`` in [0, 1]."""
    sharp, blurry = ({str(n): evidence_of(x) for n, x in enumerate(pile)} for pile in (clean, degraded))
    return amplitudes(estimate_groups(sharp, {"all": blurry}, SIDE, chroma=False).bank.kernels, PLACES)[0]


def _best(rows: Mapping[str, Row], arms: Sequence[str], column: str | None, message: str) -> str:
    """The arm with the highest PSNR there; with no column to go by the first that is finished, from the end."""
    finished = [arm for arm in arms if arm in rows]
    if not finished:
        raise LookupError(message)
    if column is None:
        return "blur-deflow" if "blur-deflow" in finished else finished[-1]
    return max(finished, key=lambda arm: rows[arm]["psnr"][column]["mean"])


def noise_of_scene(pairs: Pairs, weights: str) -> dict[str, Any]:
    """How near the noise of DeFlow and of a fitted Gaussian comes to the real noise.

    Args:
        pairs: noisy and clean crops ``(3, H, W)``, uint8.
        weights: of the DeFlow.
    """
    noisy, clean = (torch.stack([to_float(pair[side]) for pair in pairs]) for side in (0, 1))
    covariance = torch.tensor(fit_gaussian(pairs, LOCAL_MEAN_WINDOW).covariance)
    level = level_of(noisy)
    made = {
        "ours": quantize_8bit(degraded(clean, weights, level).clamp(0, 1)),
        "peer": with_gaussian(clean, covariance),
    }
    real = [residual_of(a, b, LOCAL_MEAN_WINDOW) for a, b in zip(noisy, clean, strict=True)]
    figures: dict[str, Any] = {"level_255": None if level is None else 255 * level, "kld": {}, "akld": {}}
    for side, images in made.items():
        residuals = [residual_of(a, b, LOCAL_MEAN_WINDOW) for a, b in zip(images, clean, strict=True)]
        figures["kld"][side] = histogram_kld(real, residuals)
        figures["akld"][side] = akld(real, residuals)
    for side, images in {"real": noisy, "ours": made["ours"]}.items():
        flat = measure_noise(list(zip(images, clean, strict=True)), LOCAL_MEAN_WINDOW, flat_only=True).as_dict()
        kept = ("sigma", "sigma_by_brightness", "lag1_h", "lag1_v", "channel_correlation")
        figures[side] = {key: flat[key] for key in kept}
    return figures


def level_of(noisy: Tensor) -> float | None:
    """The estimate of each image of a scene, their median; None where no image has a flat area."""
    levels = [level for image in noisy if (level := noise_level(image)) is not None]
    return statistics.median(levels) if levels else None


def degraded(clean: Tensor, weights: str, level: float | None) -> Tensor:
    """``(N, 3, H, W)`` by a DeFlow at scale 1, at the level asked for where it knows levels."""
    knows = checkpoints.read_header(weights)["config"].get("level", False)
    options: dict[str, Any] = {"type": "deflow", "weights": weights}
    if knows and level is not None:
        options["level"] = 255 * level
    transform = build_degrade(parse_options(options, DeFlowDegradeOptions), 1)
    keys = [f"crop{n}" for n in range(len(clean))]
    seeds = torch.tensor([sample_seed(0, 0, key) for key in keys])
    with torch.no_grad():
        parts = [
            transform({"gt": clean[n : n + 4], "key": keys[n : n + 4], "seed": seeds[n : n + 4]})["lq"]
            for n in range(0, len(clean), 4)
        ]
    return quantize_8bit(torch.cat(parts).clamp(0, 1))


def with_gaussian(clean: Tensor, covariance: Tensor) -> Tensor:
    """``(N, 3, H, W)`` with noise of this covariance, in 8 bits."""
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    root = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(3))
    return quantize_8bit((clean + torch.einsum("ij,njhw->nihw", root.float(), eps)).clamp(0, 1))


def known_kernels_row(data: Path) -> Row:
    """Photographs reduced and blurred by known kernels; the other half of the photographs is the clean pile."""
    scenes, fits = (importlib.import_module(name) for name in ("scenes", "fits"))
    clean = scenes.photos_of(data)
    sharp, hidden = ([reduced(x, 4) for x in photos] for photos in (clean, scenes.photos_of(data, others=True)))
    each = {}
    for sigma in KNOWN:
        kernel = gaussian(sigma)
        pile = [blurred(image, kernel) for image in hidden]
        average = torch.from_numpy(fits.average_kernel([to_uint8(x) for x in pile], clean, 4))
        peer, truth = (amplitudes(k[None], PLACES)[0] for k in (average, kernel))
        each[f"gaussian {sigma}"] = kernel_errors(pile_kernel(sharp, pile), peer, truth)
    worst: dict[str, Any] = {side: max(row[side] for row in each.values()) for side in ("ours", "peer")}
    return {**worst, "unit": "amplitude", "ratio": worst["ours"] / worst["peer"], "details": {"kernels": each}}


def reduced(image: Tensor, scale: int) -> Tensor:
    """``(3, H, W)`` uint8 -> ``(3, H / scale, W / scale)`` in [0, 1]."""
    return quantize_8bit(downscale_bicubic(crop_to_multiple(to_float(image[None]), scale), scale))[0]


def blurred(image: Tensor, kernel: Tensor) -> Tensor:
    """By a kernel, in 8 bits."""
    radius = kernel.shape[-1] // 2
    padded = torch.nn.functional.pad(image[:, None], (radius,) * 4, mode="reflect")
    return quantize_8bit(torch.nn.functional.conv2d(padded, kernel.float()[None, None])[:, 0])


def gaussian(sigma: float) -> Tensor:
    """``(SIDE, SIDE)`` float64 with the sum 1."""
    line = torch.exp(-0.5 * ((torch.arange(SIDE, dtype=torch.float64) - SIDE // 2) / sigma) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def kernel_errors(ours: Tensor, peer: Tensor, truth: Tensor) -> Row:
    """A row of the largest errors of amplitudes."""
    errors = [float((found - truth).abs().max()) for found in (ours, peer)]
    details = {"places": PLACES, "truth": truth.tolist(), "ours": ours.tolist(), "peer": peer.tolist()}
    ratio = errors[0] / errors[1] if errors[1] else None
    return {"ours": errors[0], "peer": errors[1], "unit": "amplitude", "ratio": ratio, "details": details}


if __name__ == "__main__":
    main()
