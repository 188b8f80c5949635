"""Tars as the stream, scoring, counting and packing read them: the same images and the same problems."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from pathlib import Path
from random import Random

from synthpipe.corpus.image_units import ShardUnit
from synthpipe.errors import ImageError, ShardError
from synthpipe.shards.shard_names import build_index
from synthpipe.shards.shard_reader import ShardReader
from synthpipe.shards.tar_images import tar_images
from tests.fuzz.mutation import mutated_bytes
from tests.fuzz.reader import Reader
from tests.shards.tar_bytes import END, member, pax_record

NAMES = ("a.png", "a.json", "写真.png", "l" * 200 + ".png", "d/e.jpg", "clip.000.png", "clip.001.png", "clip.001.txt")
RECORDS = (
    *((b"size", b"700"), (b"size", b"-1"), (b"size", b"9" * 18), (b"size", b"9" * 30), (b"path", b"x.png")),
    *(
        (b"path", b"../x.png"),
        (b"path", b"a\0.png"),
        (b"path", b"/" * 9000),
        (b"path", b""),
        (b"GNU.sparse.size", b"x"),
    ),
    *((b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"y.png"), (b"comment", b"x" * 3000)),
)
SIZES = (
    *(b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + bytes(7) + b"\x01\0\0\0", b"00000001000\0"),
    *(bytes(12), b" " * 12, b"-0000001000\0", b"0o000000100\0", b"1_000\0", b"\x80" + (2**62).to_bytes(11, "big")),
)
KINDS = b"0\0" + b"123456789ABDKLMNSVXgx\xff"
TOKENS = (
    *(bytes(512), bytes(1024), os.fsencode("\udce9"), b"ustar\x0000", b"ustar  \0", b"30 mtime=1\n"),
    *(pax_record(*record) for record in RECORDS),
    *(member(b"p", pax_record(*record), kind=kind) for record in RECORDS for kind in (b"x", b"g")),
    *(member(b"n.png", b"x" * 600, kind=bytes([kind])) for kind in KINDS),
)


def prepare(folder: Path) -> Reader:
    """Small tars of every layout that the standard library writes."""
    path = folder / "x.tar"
    seeds = []
    for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
            for name in NAMES:
                info = tarfile.TarInfo(name[-90:] if layout == tarfile.USTAR_FORMAT else name)
                data = b'{"source": "x/y"}' if name.endswith("json") else name.encode() * 30
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        seeds.append(buffer.getvalue())
    seeds.append(b"".join([member(b"caf\xe9.png", b"x"), member("s.png", b"", kind=b"S"), END]))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with ShardUnit("x", str(path)).open() as (_, images):
            stored = [(image.key, image.problem, image.data) for image in images]
        reader = ShardReader(str(path))
        streamed = []
        for number, (key, problem, _) in enumerate(stored):
            try:
                found, content = reader.read(number)
                streamed.append((found.key, None, content))
            except ImageError as error:
                streamed.append((key, error.reason if problem is not None else "lost", b""))
        reader.close()
        assert streamed == stored
        for image in tar_images(str(path), "x", "", Counter()):
            assert image.offset + image.size <= len(data)
            assert "." not in image.key
        try:
            counted = build_index(str(path)).samples
        except ShardError:
            return
        assert counted == len(stored)

    return Reader(seeds, read, TOKENS, _mutate)


def _mutate(data: bytes, rng: Random) -> bytes:
    """Fields of headers, and headers between members, with checksums that fit."""
    blocks = [data[place : place + 512] for place in range(0, len(data), 512)]
    for _ in range(rng.randrange(1, 5)):
        headers = [number for number, block in enumerate(blocks) if block[257:262] == b"ustar"]
        if not headers:
            break
        number = rng.choice(headers)
        block = bytearray(blocks[number].ljust(512, b"\0"))
        match rng.randrange(6):
            case 0:
                block[124:136] = rng.choice(SIZES)
            case 1:
                block[156] = rng.choice(KINDS)
            case 2:
                block[:100] = rng.choice(NAMES).encode()[:100].ljust(100, b"\0")
            case 3:
                first = rng.randrange(512)
                block[first : first + 8] = rng.randbytes(8)
            case 4:
                record = rng.choice(RECORDS)
                added = member(b"p", pax_record(*record), kind=rng.choice((b"x", b"g", b"L", b"K")))
                blocks[number:number] = [added[place : place + 512] for place in range(0, len(added), 512)]
                continue
            case _:
                blocks[number:number] = [rng.randbytes(512)] * rng.randrange(1, 3)
                continue
        block = block[:512].ljust(512, b"\0")
        if rng.random() < 0.9:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        blocks[number] = bytes(block)
    out = b"".join(blocks)
    return out if rng.random() < 0.7 else mutated_bytes(out, rng, TOKENS, [out])
