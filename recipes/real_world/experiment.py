"""One (test, arm, seed): its network, trained where there is none, and its figures; both are kept."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from arms import NOTHING, REAL, Arm, make_arm, real_esrgan, write_stream
from fits import average_kernel, fitted_noise, strength_bank
from measures import measure_columns
from networks import SIZES, Size, make_network, real_batches, stream_batches, train_network
from PIL import Image
from scenes import TESTS, Columns, Test, clean_photos, columns_of, pile_files, piles_of, real_pairs
from torch import nn

from synthpipe.cli import main as synthpipe_command

__all__ = ["Job", "Workshop"]

HERE = Path(__file__).parent
#: Raise it where the same settings would give another network.
_VERSION = 1
_MOST_STRENGTH = 1.5


@dataclass(frozen=True, order=True)
class Job:
    """What is kept as one result."""

    test: str
    arm: str
    seed: int

    @property
    def label(self) -> str:
        """As it is printed."""
        return f"{self.test}/{self.arm}/{self.seed}"


@dataclass(frozen=True)
class Workshop:
    """Where everything lies, and how large it is.

    Args:
        data: the folder with ``clean_train``, ``clean_test``, ``real_noise_full`` and ``real_sr``.
        out: networks, results, shards, fits and option files.
        weights: of learned degradations, by test and by name in ``arms/*.yml``.
        size: a name of :data:`networks.SIZES`.
        device: where networks train and pairs are made.
        steps: of every training; None: as the size says.
    """

    data: Path
    out: Path
    weights: Mapping[str, Mapping[str, str]]
    size: str
    device: str
    steps: int | None = None

    @property
    def sizes(self) -> Size:
        """Of networks and runs."""
        size = SIZES[self.size]
        if self.steps is None:
            return size
        shapes = {scale: replace(shape, steps=self.steps) for scale, shape in size.shapes.items()}
        return replace(size, shapes=shapes)

    def run(self, job: Job) -> dict[str, Any]:
        """The result of a job: read where its settings are those of the kept one, else made."""
        arm, digest = self.planned(job)
        kept = self.kept(job, digest)
        if kept is not None:
            return kept
        write_stream(arm, self.out / "streams" / f"{job.test}-{job.arm}.yml")
        net, seconds = self._network(job, arm, digest)
        start = time.process_time()
        measures = measure_columns(net, self.columns(job.test), TESTS[job.test].scale, self.sizes.most_pairs)
        result = {
            **asdict(job),
            "digest": digest,
            **measures,
            "training_seconds": seconds,
            "measuring_seconds": round(time.process_time() - start, 1),
            "stream": arm.stream,
            "size": asdict(self._shape(job)),
        }
        _write(self._result_path(job), json.dumps(result, indent=1).encode())
        return result

    def planned(self, job: Job) -> tuple[Arm, str]:
        """The arm and the digest of all that decides its figures.

        Raises:
            MissingError: its weights are not there.
        """
        test = TESTS[job.test]
        arm = make_arm(test, job.arm, self.shards(test.enlarge), self.sizes, self._values(test))
        more: dict[str, Any] = {"version": _VERSION, "seed": job.seed, "batch": self.sizes.batch}
        more |= {"rate": self.sizes.rate, "scale": test.scale, "shape": asdict(self._shape(job))}
        if test.enlarge != 1:
            more["enlarge"] = test.enlarge
        if job.arm == REAL:
            more["pairs"] = job.test
        return arm, arm.digest(more | {"photos": _names_digest(clean_photos(self.data))})

    def kept(self, job: Job, digest: str) -> dict[str, Any] | None:
        """A finished result, None where there is none of these settings, or one of before all was measured."""
        path = self._result_path(job)
        if not path.is_file():
            return None
        result: dict[str, Any] = json.loads(path.read_text())
        whole = TESTS[job.test].scale == 1 or "tone" in result
        return result if result["digest"] == digest and whole else None

    def network(self, job: Job) -> nn.Module | None:
        """A finished network; None is bicubic enlargement, and where there is none an error."""
        if job.arm == NOTHING:
            return None
        path = self._network_path(self.planned(job)[1])
        net = make_network(0, self._shape(job), TESTS[job.test].scale).eval()
        net.load_state_dict(torch.load(path, weights_only=True)["state"])
        return net

    def columns(self, test: str) -> Columns:
        """What networks of a test are asked."""
        return _columns(TESTS[test], self.data, self.sizes.crops, self.sizes.photos)

    def shards(self, enlarge: int) -> Path:
        """Shards of the clean photographs, made where there are none, by ``synthpipe shard``."""
        photos, shards = (self.out / f"{name}_x{enlarge}" for name in ("clean", "shards"))
        if not (shards / "index.json").is_file():
            photos.mkdir(parents=True, exist_ok=True)
            for path in clean_photos(self.data):
                _put_photo(path, photos, enlarge)
            if synthpipe_command(["shard", str(photos), str(shards), "--workers", "1"]):
                raise SystemExit(f"{shards}: `synthpipe shard` failed; see above")
        return shards

    def _network(self, job: Job, arm: Arm, digest: str) -> tuple[nn.Module | None, float | None]:
        """The network, and the seconds of processor time that it took."""
        if job.arm == NOTHING:
            return None, None
        path = self._network_path(digest)
        if path.is_file():
            return self.network(job), torch.load(path, weights_only=True)["seconds"]
        test, device = TESTS[job.test], torch.device(self.device)
        if arm.stream is None:
            batches = real_batches(real_pairs(test, self.data), job.seed, self.sizes, test.scale)
        else:
            batches = stream_batches({**arm.stream, "seed": job.seed}, device)
        start = time.process_time()
        net = train_network(batches, job.seed, self.sizes, test.scale, device)
        seconds = round(time.process_time() - start, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        torch.save({"state": net.state_dict(), "seconds": seconds}, unfinished)
        unfinished.replace(path)
        return net, seconds

    def _values(self, test: Test) -> dict[str, Callable[[], Any]]:
        """What the names of ``arms/*.yml`` stand for in this test, made when they are asked for."""
        values: dict[str, Callable[[], Any]] = {
            name: partial(Path, path) for name, path in self.weights.get(test.name, {}).items()
        }
        values["real-esrgan"] = partial(real_esrgan, test.scale)
        values["average_kernels"] = partial(self._average_kernels, test)
        values["kernels"] = partial(self._learned_kernels, test)
        for name in ("gaussian", "coloured"):
            values[name] = partial(self._fitted, test, name)
        return values

    def _fitted(self, test: Test, name: str) -> dict[str, Any]:
        path = self.out / "fits" / f"{test.name}.json"
        if not path.is_file():
            _write(path, json.dumps(fitted_noise(real_pairs(test, self.data), test.scale), indent=1).encode())
        block: dict[str, Any] = json.loads(path.read_text())[name]
        return block

    def _average_kernels(self, test: Test) -> Path:
        path = self.out / "fits" / f"{test.name}_average_kernels.npy"
        if not path.is_file():
            strength_bank(average_kernel(*piles_of(test, self.data), test.scale), _MOST_STRENGTH, path)
        return path

    def _learned_kernels(self, test: Test) -> Path:
        """Weights of `synthpipe train` with `kind: kernels`, of the pile with a folder for each camera."""
        run = self.out / "fits" / f"{test.name}_kernels"
        weights = run / "final.safetensors"
        if not weights.is_file():
            self.shards(1)
            pile = self.out / "piles" / test.name
            for camera, files in pile_files(test, self.data).items():
                (pile / camera).mkdir(parents=True, exist_ok=True)
                for file in files:
                    link = pile / camera / file.name
                    if not link.exists():
                        link.symlink_to(file.resolve())
            data = {"clean.folder": self.out / "clean_x1", "noisy.folder": pile, "clean.downscale": test.scale}
            data["crops"] = self.sizes.kernel_crops
            given = [f"data.{name}={value}" for name, value in data.items()]
            if synthpipe_command(["train", str(HERE / "kernels.yml"), f"run_dir={run}", *given]):
                raise SystemExit(f"{run}: `synthpipe train` failed; see above")
        return weights

    def _shape(self, job: Job) -> Any:
        return self.sizes.shapes[TESTS[job.test].scale]

    def _result_path(self, job: Job) -> Path:
        return self.out / "results" / job.test / f"{job.arm}-{job.seed}.json"

    def _network_path(self, digest: str) -> Path:
        return self.out / "networks" / f"{digest}.pt"


def _put_photo(source: Path, folder: Path, enlarge: int) -> None:
    """A link, or a bicubically enlarged copy."""
    target = folder / (source.name if enlarge == 1 else f"{source.stem}.png")
    if target.exists():
        return
    if enlarge == 1:
        target.symlink_to(source.resolve())
        return
    with Image.open(source) as image:
        image = image.convert("RGB")
        larger = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.BICUBIC)
    larger.save(target, compress_level=1)


@cache
def _columns(test: Test, data: Path, crops: int, photos: int) -> Columns:
    return columns_of(test, data, crops, photos)


def _names_digest(paths: list[Path]) -> str:
    return hashlib.sha256("\n".join(f"{p.name} {p.stat().st_size}" for p in paths).encode()).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
