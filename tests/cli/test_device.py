"""One ``--device`` for every command that computes: ``auto`` by default."""

from __future__ import annotations

import argparse

import pytest
import torch

from synthpipe.cli import calibrate, degrade, denoise, preview, restore, score
from synthpipe.cli.device import find_device
from synthpipe.config.calibration import CalibrationOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.score import ScoreOptions
from synthpipe.device import resolve_device
from synthpipe.errors import OptionError

ARGUMENTS = {
    calibrate: ["w", "clean", "out.safetensors"],
    degrade: ["w", "in", "out"],
    denoise: ["w", "in", "out"],
    preview: ["options.yml", "out"],
    restore: ["w", "in", "out", "--task", "denoise"],
    score: ["w", "in", "out.parquet"],
}


@pytest.mark.parametrize("command", ARGUMENTS, ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize("has_cuda", [False, True])
def test_every_command_takes_the_gpu_where_there_is_one(
    command: object, has_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    parser = command.add_parser(argparse.ArgumentParser().add_subparsers())  # type: ignore[attr-defined]
    default = parser.parse_args(ARGUMENTS[command])  # type: ignore[index]
    assert find_device(default) == ("cuda" if has_cuda else "cpu")
    given = parser.parse_args([*ARGUMENTS[command], "--device", "cpu"])  # type: ignore[index]
    assert find_device(given) == "cpu"


def test_option_files_may_say_auto() -> None:
    files = {"weights": "w", "source": ["x"], "output": "x.parquet"}
    assert parse_options({**files, "device": "auto"}, ScoreOptions).device == "auto"
    assert parse_options(files, ScoreOptions).device == "auto"
    assert parse_options({"device": "auto"}, CalibrationOptions).device == "auto"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"^--device: '{name}' cannot be used here"):
        resolve_device(name, "--device")
