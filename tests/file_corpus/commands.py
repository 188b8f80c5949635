"""Each command once over the whole corpus, and what became of each file in it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import tarfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from PIL.Image import Exif

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.denoisers import PlainDenoiser
from synthpipe.density import DDE
from synthpipe.errors import ImageError
from synthpipe.files.decode import decode_image
from synthpipe.files.original import encode_original, read_pages
from synthpipe.flows.deflow import DeFlow
from synthpipe.pipeline.build import build_stream
from synthpipe.training.data.folder_domain import FolderDomain
from tests.file_corpus import odd_files, write_odd_files
from tests.stream_corpus import write_tar
from tests.tiny_scorer import tiny_scorer

__all__ = ["CROP", "Outcome", "Run", "Runs", "read_png"]

#: Side of the patches of the stream and of the training: smaller sides than this are too small for both.
CROP = 96


@dataclass
class Outcome:
    """What a command made of one file; what it does not say is None.

    ``reason`` is why the image was not used.  ``pixels`` ``(h, w, 3)`` are the whole image or a piece of it.  ``data``
    is the file as it was passed on.  ``size`` is height and width.  ``written`` are the files that were made of it, one
    for each page.  ``named`` are the reasons, without numbers, that a table gives.
    """

    reason: str | None = None
    pixels: np.ndarray | None = None
    data: bytes | None = None
    size: tuple[int, int] | None = None
    given_up: dict[str, int] | None = None
    written: list[bytes] = field(default_factory=list)
    named: set[str] | None = None


@dataclass
class Run:
    """What a command made of the corpus: of each file (what is absent it never mentioned), in all, and its words."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, int] | None = None
    said: str = ""
    code: int = 0


class Runs:
    """The corpus below ``place``, and each command's run over it, made when it is asked for."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.odd = write_odd_files(place / "odd")

        self._done: dict[str, Run | str] = {}

    def __getitem__(self, command: str) -> Run:
        """The run; AssertionError, each time, where the command did not come to its end."""
        if self.failed(command):
            raise AssertionError(f"{command} failed as a whole: {self._done[command]}")
        run = self._done[command]
        assert isinstance(run, Run)
        return run

    def failed(self, command: str) -> bool:
        """Whether the command did not come to its end; runs it where it has not been run."""
        if command not in self._done:
            try:
                self._done[command] = _COMMANDS[command](self)
            except Exception:  # noqa: BLE001 - not run again for each file
                self._done[command] = traceback.format_exc()
        return isinstance(self._done[command], str)

    def foreign(self) -> tuple[str, dict[str, str]]:
        """A tar that nobody has looked through, and which file each key stands for."""
        taken = [file for file in odd_files().values() if file.taken]
        keys = {f"{number:03d}": file.name for number, file in enumerate(taken)}
        path = self.place / "foreign.tar"
        if not path.exists():
            write_tar(path, [(key + Path(name).suffix.lower(), odd_files()[name].data) for key, name in keys.items()])
        return str(path), keys

    def weights(self, name: str) -> str:
        """Small weights of one of the kinds in ``_MODELS``; ``identity`` is a denoiser that takes nothing away."""
        path = self.place / f"{name}.safetensors"
        if not path.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                checkpoints.save(path, _MODELS[name](), {"terms": "none"})
        return str(path)


def _flow() -> torch.nn.Module:
    encoder = {"type": "small", "features": 8, "depth": 1}
    model = DeFlow(scale=4, levels=2, steps=1, transition_steps=0, hidden=8, encoder=encoder, covariance_init=0.1)
    model.initialize(torch.rand(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]), torch.Generator().manual_seed(0))
    return model


def _identity() -> torch.nn.Module:
    model = PlainDenoiser(channels=3, width=2, depth=2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


_MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "flow": _flow,
    "denoiser": lambda: PlainDenoiser(channels=3, width=4, depth=3),
    "identity": _identity,
    "dde": lambda: DDE(width=2, depth=2, outputs=2, domains=("clean", "noise")),
    "scorer": tiny_scorer,
}


def _call(*argv: Any) -> Run:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(arg) for arg in argv])
    return Run(said=out.getvalue() + err.getvalue(), code=code)


def _decode(runs: Runs) -> Run:
    run = Run()
    for file in odd_files().values():
        try:
            pixels, given_up = decode_image(file.data, file.name)
            run.outcomes[file.name] = Outcome(pixels=pixels, given_up=dict(given_up))
        except ImageError as error:
            run.outcomes[file.name] = Outcome(reason=error.reason)
    return run


def _original(runs: Runs) -> Run:
    """Every page read at its own depth and encoded again, nothing done in between."""
    run = Run()
    for file in odd_files().values():
        try:
            pages = read_pages(file.data, file.name)
            written = [encode_original(page.color, page.alpha, page.exif) for page in pages]
            run.outcomes[file.name] = Outcome(written=written)
        except ImageError as error:
            run.outcomes[file.name] = Outcome(error.reason)
    return run


def _shard(runs: Runs) -> Run:
    run = _call("shard", runs.odd, runs.place / "shards", "--workers", 1)
    report = json.loads((runs.place / "shards" / "report.json").read_text())
    run.skipped, run.given_up = report["left_out"], report["given_up"]
    for image in report["broken"]:
        run.outcomes[image["source"]] = Outcome(image["reason"])
    for _, source, data in _samples(runs.place / "shards"):
        run.outcomes[source] = Outcome(data=data)
    return run


def _samples(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Key, source and image file of each sample."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, data in members.items():
            key, _, suffix = name.partition(".")
            if suffix == "json":
                (image,) = (
                    value for other, value in members.items() if other.partition(".")[0] == key and other != name
                )
                yield key, json.loads(data)["source"], image


def _stream(runs: Runs) -> Run:
    """Over the shards of `synthpipe shard`."""
    runs["shard"]
    names = {key: source for key, source, _ in _samples(runs.place / "shards")}
    return _read_stream(str(runs.place / "shards"), names)


def _foreign(runs: Runs) -> Run:
    """The stream over a tar of somebody else's."""
    return _read_stream(*runs.foreign())


def _read_stream(shards: str, names: dict[str, str]) -> Run:
    options = {
        "shards": shards,
        "gt_size": CROP,
        "scale": 1,
        "batch_size": 1,
        "tiles_per_batch": 1,
        "pool": 0,
        "hflip": False,
        "rotate": False,
        "epochs": 1,
        "max_bad_fraction": 1.0,
    }
    run = Run()
    with _lines("synthpipe") as lines, build_stream(options) as stream:
        for batch in stream:
            levels = (batch["gt"][0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            run.outcomes[names[batch["key"][0]]] = Outcome(pixels=levels)
        counts = stream.counts()
        run.given_up = dict(stream.given_up())
    counts.pop("used")
    run.skipped = counts
    for line in lines:
        found = re.match(r"skipped \((\w+)\): \S*/(\d+)\.", line)
        if found and found[2] in names:
            run.outcomes[names[found[2]]] = Outcome(found[1])
    return run


def _degrade(runs: Runs) -> Run:
    return _written(runs, "degrade", "flow", "--strength", 0)


def _denoise(runs: Runs) -> Run:
    return _written(runs, "denoise", "denoiser", "--sigma", 0.02, "--strength", 1e-6)


def _restore(runs: Runs) -> Run:
    return _written(runs, "restore", "identity", "--task", "denoise", "--sigma", 0.01)


def _written(runs: Runs, command: str, weights: str, *argv: Any) -> Run:
    out = runs.place / command
    run = _call(command, runs.weights(weights), runs.odd, out, *argv)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for name, stem in _result_names().items():
        made = [path for path in files if re.fullmatch(re.escape(stem) + r"(_p\d+)?\.png", str(path.relative_to(out)))]
        if made:
            run.outcomes[name] = Outcome(written=[path.read_bytes() for path in made])
    run.skipped, run.given_up = _counts_after("; skipped: ", run.said), _counts_after("given up: ", run.said)
    return run


def _denoise_shards(runs: Runs) -> Run:
    """Of the shards of `synthpipe shard`."""
    runs["shard"]
    out = runs.place / "denoised_shards"
    argv = ["--sigma", 0.02, "--strength", 1e-6, "--workers", 1]
    run = _call("denoise", runs.weights("denoiser"), runs.place / "shards", out, *argv)
    run.given_up = json.loads((out / "report.json").read_text())["given_up"]
    for _, source, data in _samples(out):
        run.outcomes[source] = Outcome(written=[data])
    return run


def _result_names() -> dict[str, str]:
    """Without ``.png``: names without suffix, and whole where two differ in it, or in case, alone."""
    stems = {file.name: str(Path(file.name).with_suffix("")) for file in odd_files().values() if file.taken}
    alike = Counter(stem.casefold() for stem in stems.values())
    return {name: stem if alike[stem.casefold()] == 1 else name for name, stem in stems.items()}


def _score(runs: Runs) -> Run:
    table = runs.place / "scores.parquet"
    run = _call("score", runs.weights("scorer"), runs.odd, table, "--tiles", 1, "--workers", 1)
    run.skipped, run.given_up = _counts_after("without a score: ", run.said), _counts_after("given up: ", run.said)
    # A name that is not UTF-8 stands in a table with its bytes escaped.
    names = {name.encode("utf-8", "backslashreplace").decode(): name for name in odd_files()}
    for row in pq.read_table(table).to_pylist():
        size = None if row["width"] is None else (row["height"], row["width"])
        named = None if row["error"] else set((row["given_up"] or "").split())
        run.outcomes[names[row["path"]]] = Outcome(row["error"], size=size, named=named)
    return run


def _filter(runs: Runs) -> Run:
    """Of the foreign tar, by a table of its own; nothing that has a score is rejected."""
    foreign, names = runs.foreign()
    table, out = runs.place / "foreign.parquet", runs.place / "filtered"
    scored = _call("score", runs.weights("scorer"), foreign, table, "--tiles", 1, "--workers", 1)
    run = _call("filter", foreign, table, out, "--max-logit", 1e9, "--workers", 1)
    run.skipped = _counts_after("left out without a score: ", run.said)
    run.code = run.code or scored.code
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                run.outcomes[names[member.name.partition(".")[0]]] = Outcome(data=tar.extractfile(member).read())  # type: ignore[union-attr]
    return run


def _counts_after(words: str, said: str) -> dict[str, int]:
    """Of a line such as ``skipped: 3 truncated, 1 bomb``."""
    line = next((line.partition(words)[2] for line in said.splitlines() if words in line), "")
    return {reason: int(count) for count, reason in re.findall(r"(\d+) (\w+)", line)}


def _train(runs: Runs) -> Run:
    """The reading of a training: crops until each image has given one."""
    run = Run()
    with _lines("synthpipe.training") as lines:
        options = DomainOptions(folder=str(runs.odd), weight="uniform")
        domain = FolderDomain("odd", options, ReadingOptions(augment="none"), CROP, per_step=1, seed=0)
        for step in range(12 * len(domain)):
            crop, path = domain.crop(step, 0)
            name = str(Path(path).relative_to(runs.odd))
            run.outcomes.setdefault(name, Outcome(pixels=crop.permute(1, 2, 0).numpy()))
    run.skipped, run.given_up = dict(domain.skipped), dict(domain.given_up)
    for line in lines:
        found = re.match(r"odd: skipping (.*): (\w+)$", line, re.DOTALL)
        if found:
            run.outcomes[str(Path(found[1]).relative_to(runs.odd))] = Outcome(found[2])
    return run


def _calibrate(runs: Runs) -> Run:
    argv = ["--tile", 16, "--levels", 0.05, "--families", "noise", "--tiles-per-image", 1]
    with _lines("synthpipe.training") as lines:
        run = _call("calibrate", runs.weights("dde"), runs.odd, runs.place / "fitted.safetensors", *argv)
    run.skipped, run.given_up = _counts_after("; skipped: ", run.said), _counts_after("given up: ", run.said)
    for line in lines:
        found = re.match(r"calibrate: skipping (.*): (\w+)$", line, re.DOTALL)
        if found:
            run.outcomes[str(Path(found[1]).relative_to(runs.odd))] = Outcome(found[2])
    return run


@contextlib.contextmanager
def _lines(name: str) -> Iterator[list[str]]:
    """What is logged below ``name`` meanwhile, at level INFO and above."""
    lines: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def read_png(data: bytes) -> tuple[np.ndarray, np.ndarray | None, Exif]:
    """Colours ``(H, W, 1 or 3)`` and alpha ``(H, W, 1)`` of a PNG at its own depth, by libpng; and its EXIF."""
    samples = imagecodecs.png_decode(data)
    samples = samples if samples.ndim == 3 else samples[..., None]
    colors = {0: 1, 2: 3, 4: 1, 6: 3}[data[25]]
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
    return samples[..., :colors], samples[..., colors:] if samples.shape[2] > colors else None, exif


_COMMANDS: dict[str, Callable[[Runs], Run]] = {
    "decode": _decode,
    "original": _original,
    "shard": _shard,
    "stream": _stream,
    "foreign": _foreign,
    "degrade": _degrade,
    "denoise": _denoise,
    "restore": _restore,
    "denoise_shards": _denoise_shards,
    "score": _score,
    "filter": _filter,
    "train": _train,
    "calibrate": _calibrate,
}
