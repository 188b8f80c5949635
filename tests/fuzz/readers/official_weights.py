"""``synthpipe import-deflow``: state_dicts of torch.save."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random
from typing import Any

import torch

from synthpipe.cli import import_deflow
from synthpipe.errors import SynthPipeError
from tests.flows.test_deflow_official import tiny_official
from tests.fuzz.mutation import ODD, mutated_tree
from tests.fuzz.reader import Reader

#: Also tensors that are none.
TENSORS: tuple[Any, ...] = (
    *(torch.zeros(0), torch.tensor(1.0), torch.zeros(3), torch.zeros(2, 2), torch.zeros(1, 1, 1, 1), torch.ones(4, 4)),
    *(torch.zeros(4, 4, 3, 3), torch.full((4,), float("nan")), torch.zeros(3, dtype=torch.int64)),
    *(torch.zeros(1).expand(1 << 16, 1 << 16), torch.zeros(2, 2).to_sparse(), torch.zeros(3, dtype=torch.bool)),
    *(torch.zeros(2, dtype=torch.complex64), torch.zeros(4, 3, 3, 3, dtype=torch.bfloat16)),
)


def prepare(folder: Path) -> Reader:
    """The tiny network of the published form, also in torch's old format."""
    source, target = folder / "in.pth", folder / "out.safetensors"
    torch.manual_seed(0)
    official = tiny_official()[1]
    seeds = [torch_bytes(official), torch_bytes(official, _use_new_zipfile_serialization=False)]

    def read(data: bytes) -> None:
        source.write_bytes(data)
        arguments = ["import-deflow", str(source), str(target), "--config", "ntire", "--taps", "0", "1"]
        parser = import_deflow.argparse.ArgumentParser()
        import_deflow.add_parser(parser.add_subparsers())
        import_deflow.run(parser.parse_args(arguments))

    return Reader(
        seeds, read, (b"PK\x03\x04", b"data.pkl", b"\x80\x02", b"ctorch\nFloatStorage\n", b"cos\nsystem\n"), mutate
    )


def mutate(data: bytes, rng: Random) -> bytes:
    """Another value for a tensor, or tensors under other names."""
    tree = torch.load(io.BytesIO(data), weights_only=True)
    return torch_bytes(mutated_tree(dict(tree), rng, (*ODD, *TENSORS, *TENSORS)))


def torch_bytes(value: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes; the text of what it cannot write."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer, **options)
    except (RuntimeError, SynthPipeError, RecursionError, UnicodeEncodeError):
        return b"cannot be saved"
    return buffer.getvalue()
