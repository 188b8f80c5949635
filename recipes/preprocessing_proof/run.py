"""Does it help to clean the clean side?  Photographs spoilt by mild noise, with and without ``Denoise``, and intact.

    python recipes/preprocessing_proof/run.py --data ../shared/data

Three arms: photographs as they are (``clean``), with correlated noise of 5/255 (``corrupted``), and those again behind
the ``Denoise`` transform with a denoiser that was trained on the corrupted files alone (``denoised``).  Of each: the
noise that is left, what a DeFlow learns from it about a camera whose noise is known, and what a small network trained
on its pairs is worth on intact held-out photographs.  See README.md.

Every step leaves files in ``--out`` and is skipped when they are there; ``--until`` stops after a step; ``--quick``
tries the whole in a minute, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from corpus import SCALE, camera, load, make_folders, save_image
from networks import Size, mean_psnr, train_network
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.basicsr_plugin.compat import prepare as prepare_basicsr
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.config.training import read_train_options
from synthpipe.denoisers.noise_level import choose_hole, estimate_sigma, noise_correlation
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit
from synthpipe.noise_statistics import histogram_kld, measure_noise, residual_of
from synthpipe.seeds import sample_seed
from synthpipe.training import train
from synthpipe.transforms.build import build_denoise
from synthpipe.transforms.deflow import DeFlowDegrade

ARMS = ("clean", "corrupted", "denoised")
#: Pairs of the networks: bicubic reduction, and behind it the DeFlow of the arm.
KINDS = ("bicubic", "deflow")
STEPS = ("folders", "denoiser", "denoised", "deflow", "networks")
#: Levels are estimated for each image, and estimates above this quantile of the corpus are taken for it: texture adds
#: to an estimate, and nothing takes away from it.
LEVEL_QUANTILE = 0.25
#: Images whose noise tells how large a hole has to be.
HOLE_IMAGES = 24
#: Images estimated below this share of that level are left alone.
GUARD = 0.8
QUICK = Size(
    photos=4,
    denoiser_steps=3,
    deflow_steps=3,
    crops=2,
    sr_steps=4,
    seeds=1,
    patch=12,
    batch=2,
    features=4,
    layers=1,
    pictures=2,
)
HERE = Path(__file__).parent

Images = Mapping[str, Tensor]
Pairs = dict[str, tuple[Tensor, Tensor]]


def main() -> None:
    args = parse_arguments()
    prepare_basicsr()
    size = QUICK if args.quick else Size(seeds=args.seeds, deflow_steps=args.deflow_steps)
    done = args.out / "folders.done"
    if not done.is_file():
        make_folders(args.data / "clean_train", args.out, args.seed, size.photos)
        done.touch()
    stop_after("folders", args)
    corrupted = f"data.images.folder={args.out / 'corrupted'}"
    denoiser = train_once(args, "denoiser", "denoiser.yml", size.denoiser_steps, [corrupted], size)
    stop_after("denoiser", args)
    levels = denoise_folders(args, denoiser)
    stop_after("denoised", args)
    flows = {arm: train_deflow(args, arm, size) for arm in ARMS}
    stop_after("deflow", args)
    report: dict[str, Any] = {"size": vars(size) | {}, "levels": levels, "gt": {}, "pairs": {}, "psnr": []}
    clean = load(args.out / "clean")
    truth = {name: camera(reduce_images({name: x})[name], name, args.seed + 1) for name, x in clean.items()}
    report["gt"]["clean_denoised"] = noise_of_gt(load(args.out / "clean_denoised"), clean)
    for arm in ARMS:
        gt = load(args.out / arm)
        pairs = {kind: make_pairs(gt, flows[arm] if kind == "deflow" else None) for kind in KINDS}
        report["gt"][arm] = noise_of_gt(gt, clean)
        report["pairs"][arm] = noise_of_pairs(pairs["deflow"], clean, truth)
        report["psnr"] += run_networks(args, arm, pairs, size)
    (args.out / "results.json").write_text(json.dumps(report, indent=1))
    text = tables(report)
    (args.out / "results.md").write_text(text + "\n")
    print(json.dumps({"recovered": recovered(report["psnr"]), "levels": levels, "gt": report["gt"]}, indent=1))
    print(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds clean_train and clean_test")
    parser.add_argument("--out", type=Path, default=Path("runs/preprocessing_proof"))
    parser.add_argument("--seed", type=int, default=0, help="of all noise")
    parser.add_argument("--seeds", type=int, default=Size.seeds, help="networks of each arm and kind of pairs")
    parser.add_argument("--deflow-steps", type=int, default=Size.deflow_steps, help="other than before: another --out")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1])
    parser.add_argument("--quick", action="store_true", help="try the whole in a minute; its figures mean nothing")
    return parser.parse_args()


def stop_after(step: str, args: argparse.Namespace) -> None:
    if args.until == step:
        print(f"{args.out}: done until {step}")
        sys.exit()


# --- trained models ---


def train_once(args: argparse.Namespace, name: str, options: str, steps: int, data: Sequence[str], size: Size) -> Path:
    """Final weights of a run of ``synthpipe train``, made where there are none; a run that was cut short goes on."""
    run_dir = args.out / name
    final = run_dir / "final.safetensors"
    if not final.is_file():
        given = [f"run_dir={run_dir}", f"max_steps={steps}", f"data.batch_size={size.crops}", "resume=auto", *data]
        train(read_train_options(HERE / options, given))
    return final


def train_deflow(args: argparse.Namespace, arm: str, size: Size) -> Path:
    folders = (f"data.clean.folder={args.out / arm}", f"data.noisy.folder={args.out / 'camera'}")
    return train_once(args, f"deflow_{arm}", "deflow.yml", size.deflow_steps, folders, size)


# --- arms ---


def denoise_folders(args: argparse.Namespace, weights: Path) -> dict[str, float]:
    """``denoised`` from ``corrupted``, and ``clean_denoised`` from ``clean``, by the transform; what was found."""
    estimates = {arm: torch.cat([estimate_sigma(x) for x in load(args.out / arm).values()]) for arm in ARMS[:2]}
    limit = float(torch.quantile(estimates["corrupted"], LEVEL_QUANTILE))
    hole = choose_hole(noise_correlation(x[0] for x in load(args.out / "corrupted", HOLE_IMAGES).values()))
    options = DenoiseOptions(weights=str(weights), sigma="auto", min_sigma=GUARD * limit, max_sigma=limit, hole=hole)
    for source, target in (("corrupted", "denoised"), ("clean", "clean_denoised")):
        done = args.out / f"{target}.done"
        if done.is_file():
            continue
        transform = build_denoise(options)
        for name, x in load(args.out / source).items():
            batch = {"gt": x, "key": [name], "seed": torch.tensor([0])}
            save_image(args.out / target / f"{name}.png", transform(batch)["gt"])
        done.touch()
    passed = {f"passed_{arm}": float((found < options.min_sigma).float().mean()) for arm, found in estimates.items()}
    return {"hole": hole, "min_sigma": options.min_sigma, "max_sigma": limit, **passed}


def reduce_images(images: Images) -> dict[str, Tensor]:
    return {name: quantize_8bit(downscale_bicubic(x, SCALE)) for name, x in images.items()}


@torch.no_grad()
def make_pairs(gt: Images, flow: Path | None) -> Pairs:
    """Low- and high-resolution images by name."""
    if flow is None:
        return {name: (lq, gt[name]) for name, lq in reduce_images(gt).items()}
    transform = DeFlowDegrade(checkpoints.load(flow, kind="deflow"), SCALE)
    batches = ({"gt": x, "key": [name], "seed": torch.tensor([sample_seed(0, 0, name)])} for name, x in gt.items())
    return {name: (quantize_8bit(transform(batch)["lq"]), gt[name]) for name, batch in zip(gt, batches, strict=True)}


# --- noise ---


def noise_of_gt(gt: Images, clean: Images) -> dict[str, float]:
    """What is left between an arm's images and the intact ones."""
    pairs = [(gt[name][0], clean[name][0]) for name in clean]
    psnr = statistics.fmean(-10 * float((a - b).square().mean().clamp(min=1e-10).log10()) for a, b in pairs)
    flat, all_of_it = (measure_noise(pairs, flat_only=only) for only in (True, False))
    return {
        "psnr": psnr,
        "sigma_flat": 255 * _mean(flat.sigma),
        "sigma": 255 * _mean(all_of_it.sigma),
        "lag1": (flat.lag1_h + flat.lag1_v) / 2,
        "lag2": (flat.lag2_h + flat.lag2_v) / 2,
        "estimate": 255 * statistics.median(float(estimate_sigma(a[None])) for a, _ in pairs),
    }


def noise_of_pairs(pairs: Pairs, clean: Images, truth: Images) -> dict[str, float]:
    """The DeFlow's noise: what it adds to what it is given, and what there is in all, beside the camera's own."""
    reduced, scene = reduce_images({name: gt for name, (_, gt) in pairs.items()}), reduce_images(clean)
    added = measure_noise([(lq[0], reduced[name][0]) for name, (lq, _) in pairs.items()])
    total = measure_noise([(lq[0], scene[name][0]) for name, (lq, _) in pairs.items()])
    real = measure_noise([(truth[name][0], scene[name][0]) for name in truth])
    residuals = [
        [residual_of(lq[0], reference[name][0]) for name, (lq, _) in pairs.items()] for reference in (reduced, scene)
    ]
    camera_residuals = [residual_of(truth[name][0], scene[name][0]) for name in pairs]
    return {
        "added_sigma": 255 * _mean(added.sigma),
        "total_sigma": 255 * _mean(total.sigma),
        "camera_sigma": 255 * _mean(real.sigma),
        "added_lag1": (added.lag1_h + added.lag1_v) / 2,
        "camera_lag1": (real.lag1_h + real.lag1_v) / 2,
        "added_kld": histogram_kld(camera_residuals, residuals[0]),
        "total_kld": histogram_kld(camera_residuals, residuals[1]),
    }


def _mean(sigmas: tuple[float, float, float]) -> float:
    return statistics.fmean(s**2 for s in sigmas) ** 0.5


# --- networks ---


def run_networks(args: argparse.Namespace, arm: str, pairs: Mapping[str, Pairs], size: Size) -> list[dict[str, Any]]:
    """PSNR of each network of the arm, on held-out photographs that were never spoilt."""
    tests = {"bicubic": {}, "deflow": {}}  # type: dict[str, Pairs]
    for name, photo in load(args.data / "clean_test", size.pictures).items():
        gt = crop_to_multiple(photo, SCALE)
        lq = downscale_bicubic(gt, SCALE)
        tests["bicubic"][name] = (quantize_8bit(lq), gt)
        tests["deflow"][name] = (camera(lq, name, args.seed + 2), gt)
    rows = []
    for kind in KINDS:
        for seed in range(size.seeds):
            path = args.out / "networks" / f"{arm}_{kind}_{seed}.json"
            if not path.is_file():
                net = train_network(pairs[kind], seed, size)
                path.parent.mkdir(exist_ok=True)
                path.write_text(
                    json.dumps({"arm": arm, "pairs": kind, "seed": seed, "psnr": mean_psnr(net, tests[kind])})
                )
            rows.append(json.loads(path.read_text()))
            print(rows[-1], flush=True)
    return rows


# --- report ---


def recovered(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of what the corruption costs, the share that denoising gives back; by kind of pairs, mean over seeds."""
    out = {}
    for kind in KINDS:
        psnr = {(row["arm"], row["seed"]): row["psnr"] for row in rows if row["pairs"] == kind}
        seeds = sorted({seed for _, seed in psnr})
        lost = [psnr["clean", seed] - psnr["corrupted", seed] for seed in seeds]
        back = [psnr["denoised", seed] - psnr["corrupted", seed] for seed in seeds]
        out[kind] = {"lost_db": lost, "back_db": back, "share": sum(back) / sum(lost) if sum(lost) else None}
    return out


def tables(report: dict[str, Any]) -> str:
    """Markdown."""
    gt = ["| arm | PSNR to intact | noise, flat parts | noise, all | lag 1 | lag 2 |", "|" + " --- |" * 6]
    for arm in (*ARMS, "clean_denoised"):
        row = report["gt"][arm]
        numbers = f"{row['sigma_flat']:.2f} | {row['sigma']:.2f} | {row['lag1']:.2f} | {row['lag2']:.2f} |"
        gt.append(f"| {arm} | {'-' if arm == 'clean' else format(row['psnr'], '.2f')} | {numbers}")
    pairs = ["| arm | noise added | noise in all | the camera's | KL added | KL in all |", "|" + " --- |" * 6]
    for arm, row in report["pairs"].items():
        numbers = [row[name] for name in ("added_sigma", "total_sigma", "camera_sigma")]
        divergences = f"{row['added_kld']:.4f} | {row['total_kld']:.4f} |"
        pairs.append(f"| {arm} | " + " | ".join(f"{value:.2f}" for value in numbers) + f" | {divergences}")
    psnr = ["| arm | " + " | ".join(f"{kind} pairs" for kind in KINDS) + " |", "|" + " --- |" * (1 + len(KINDS))]
    for arm in ARMS:
        cells = (
            " / ".join(f"{row['psnr']:.3f}" for row in report["psnr"] if (row["arm"], row["pairs"]) == (arm, kind))
            for kind in KINDS
        )
        psnr.append(f"| {arm} | " + " | ".join(cells) + " |")
    back = [
        f"{kind}: the corruption costs {statistics.fmean(row['lost_db']):.3f} dB, denoising gives back "
        f"{statistics.fmean(row['back_db']):.3f} dB" + (f", {row['share']:.0%}" if row["share"] is not None else "")
        for kind, row in recovered(report["psnr"]).items()
    ]
    return "\n\n".join("\n".join(part) for part in (gt, pairs, psnr, back))


if __name__ == "__main__":
    main()
