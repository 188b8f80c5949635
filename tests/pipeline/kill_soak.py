"""Kill a stream of chains and choices again and again: what it gave is what one that was never killed gives.

    python -m tests.pipeline.kill_soak --kills 20 --workers 2 --folder /tmp/soak

Prints how many batches were compared; fails at the first difference.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path
from typing import Any

from tests.pipeline import killed_run
from tests.stream_corpus import small_options, write_corpus

__all__ = ["CHAIN", "SHUFFLED", "soak"]

#: Draws of every kind: sizes, kinds, noise of each pixel, a codec, a choice with a curriculum, a shuffled row.
CHAIN: list[dict[str, Any]] = [
    {"type": "resize", "factor": [0.5, 1.2], "filter": {"area": 1, "bicubic": 1}, "probability": 0.8},
    {"type": "noise", "kinds": {"gaussian": 1, "poisson": 1}, "sigma": [0.0, 0.1]},
    {"type": "resize", "to": "lr", "filter": "bilinear"},
    {
        "type": "choice",
        "of": [
            {"weight": [[0, 1], [40, 0]], "chain": [], "name": "plain"},
            {"weight": 0.5, "chain": [{"type": "jpeg", "quality": [30, 95]}], "name": "jpeg"},
        ],
    },
]
SHUFFLED = [*CHAIN, {"type": "shuffle", "of": [{"type": "quantise", "levels": [4, 64]}, {"type": "jpeg"}]}]


def soak(folder: Path, changes: dict[str, Any], kills: int, seed: int = 0) -> int:
    """How many batches were written by runs that were killed, and found equal.

    Args:
        folder: empty, for shards and logs.
        changes: options of the stream beside those of :func:`tests.stream_corpus.small_options`.
        kills: runs that are killed, each some batches after its start; one more comes to the end.
        seed: of the places.

    Raises:
        AssertionError: a batch, its counts or the ways of its tiles differ.
    """
    given = small_options(write_corpus(folder / "corpus", [19, 3, 18]), **changes)
    options = folder / "options.json"
    options.write_text(json.dumps(given))
    places = random.Random(seed)
    log, lines = folder / "log", 0
    for _ in range(kills):
        killed_run.run_and_kill(folder, options, 10**9, kill_at=lines + places.randint(4, 19))
        lines = log.read_text().count("\n")
    written = log.read_text().splitlines()
    last = max(int(line.split()[0]) for line in written)
    (folder / "whole").mkdir()
    killed_run.main(folder / "whole", given, last + 3)
    killed_run.main(folder, given, last + 3)
    expected = (folder / "whole" / "log").read_text().splitlines()
    # What lies between the last state and a kill comes twice, and equal.
    found = set(log.read_text().splitlines())
    assert found == set(expected), sorted(found ^ set(expected))[:4]
    return len(written)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="is emptied")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    compared = soak(args.folder, {"workers": args.workers, "pool": 12, "degrade": SHUFFLED}, args.kills)
    print(json.dumps({"kills": args.kills, "workers": args.workers, "batches": compared, "equal": True}))  # noqa: T201


if __name__ == "__main__":
    main()
