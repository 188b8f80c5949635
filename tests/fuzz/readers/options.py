"""Option files: YAML into the schemas of streams and of every kind of training."""

from __future__ import annotations

from pathlib import Path

from synthpipe.config.reader import parse_options, read_yaml
from synthpipe.config.stream import StreamOptions
from synthpipe.config.training import read_train_options
from tests.fuzz.reader import Reader

ROOT = Path(__file__).resolve().parents[3]
TOKENS = (
    *(b"&a ", b"*a", b"<<: *a\n", b"!!int ", b"!!binary ", b"!!set ", b"!!python/name:os.system ", b"---\n", b"...\n"),
    *(b"? ", b": ", b"- ", b"[", b"]", b"{", b"}", b"|\n", b">\n", b"'", b'"', b"%YAML 1.1\n", b"\t", b"# ", b", "),
    *(b"2020-01-01", b"1:30", b"0o7", b"yes", b"~", b".nan", b".inf", b'"\\U0010ffff"', b'"\\ud800"', b"kind: glow\n"),
    *(b"a: &a [*a]\n", b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n", b"1e400", b"\xc2\x85"),
)


def prepare(folder: Path) -> Reader:
    """All recipes of the repository are the seeds."""
    path = folder / "options.yml"
    seeds = [file.read_bytes() for file in sorted((ROOT / "recipes").rglob("*.yml"))]
    seeds += [b"a: &a {b: 1}\nc: {<<: *a, d: [1, 2.5, 'x', null]}\n", "a: é\n".encode("utf-16")]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        value = read_yaml(path)
        if "kind" in value:
            read_train_options(path)
        else:
            parse_options(value, StreamOptions, str(path))

    return Reader(seeds, read, TOKENS)
