"""Names of shards: braces are counted as they are expanded, and no pattern goes beyond its bounds."""

from __future__ import annotations

from pathlib import Path
from random import Random

from synthpipe.shards.brace_pattern import count_names, expand_braces
from synthpipe.shards.shard_names import expand_urls
from tests.fuzz.reader import Reader

TOKENS = (
    *(b"{", b"}", b",", b"..", b"\\", b"{0..9}", b"{9..0..3}", b"{a..z}", b"{-5..5}", b"{007..010}", b"{,}", b"{a,b}"),
    *(b"{0..99999999}", b"{" * 40, b"}" * 40, b"{a,b}" * 30, b"::", b"*", b"?", b"[a-z]", b"//", b"/./", b"/../"),
    *(b"\0", b".tar", b".json", b"pipe:", b"file://", b"http://", b"${WDS_X}", b"$", b"~", b"%7E", b"\xff"),
    b"{" + b"9" * 5000 + b"..1}",
)


def prepare(folder: Path) -> Reader:
    """Patterns in the memory's file system, so that no pattern walks through this machine's."""
    del folder
    seeds = [
        b"hr-{000000..000511}.tar",
        b"{a,b}-{0..1}.tar",
        b"x/{a,b{1..3},{c,d}e}/s-{01..10..3}.tar",
        rb"x\{1,2\}{3,4}.tar",
        b"bucket/*.tar",
        b"bucket/{a,b}/index.json",
        b"a.tar\na.tar",
    ]

    def read(data: bytes) -> None:
        lines = [line.decode("utf-8", "surrogateescape") for line in data.split(b"\n")]
        for line in lines:
            names = expand_braces(line)
            if "::" not in line and "${" not in line:
                assert len(names) == count_names(line)
        expand_urls([f"memory://{line}" for line in lines])

    # Names by the hundred thousand take a second of a core, and more of a busy machine.
    return Reader(seeds, read, TOKENS, _mutate, seconds=60.0)


def _mutate(data: bytes, rng: Random) -> bytes:
    """Words of the grammar, one after the other."""
    parts = [data] if rng.random() < 0.3 else []
    parts += [rng.choice(TOKENS) for _ in range(rng.randrange(1, 30))]
    return b"".join(parts)
