"""``key.sub=value`` on the command line, several separated by zero bytes."""

from __future__ import annotations

from pathlib import Path

from synthpipe.config.training import read_train_options
from tests.fuzz.reader import Reader
from tests.fuzz.readers.options import TOKENS

FILE = (
    "kind: deflow\nrun_dir: runs/x\ndata: {clean: {folder: a}, noisy: {folder: b}, crop: 32}\nmodel: {preset: small}\n"
)


def prepare(folder: Path) -> Reader:
    """Overrides of a training's file."""
    path = folder / "options.yml"
    path.write_text(FILE)
    seeds = [
        b"seed=3\x00optimizer.lr=1e-3",
        b"data.clean.folder=/x\x00data.noise=null\x00schedule.milestones=[0.5, 0.75]",
        b"model={preset: small, levels: 2}\x00kind=deflow",
        b"data.noisy={shards: 'a-{000..003}.tar'}\x00data.noisy.folder=x",
    ]

    def read(data: bytes) -> None:
        read_train_options(path, [part.decode(errors="surrogateescape") for part in data.split(b"\0")])

    return Reader(seeds, read, (*TOKENS, b"\x00", b"=", b".", b"..", b"data.", b"kind=glow\x00"))
