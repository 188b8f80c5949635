"""Generators and state files: what is stored comes back, what is torn or foreign is refused or passed over."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from synthpipe.basicsr_plugin import resume
from synthpipe.errors import CheckpointError


def draws() -> tuple[float, ...]:
    """One number from each global generator, normal ones included: they keep a second value back."""
    return (
        torch.rand(()).item(),
        np.random.standard_normal(),
        np.random.random(),
        random.random(),
        random.gauss(0, 1),
    )


def test_generators_come_back_through_a_file(tmp_path: Path) -> None:
    draws()  # leaves numpy's and python's spare normal value in place
    resume.write_rank_state(tmp_path / "8.state", 0, {"rng": resume.rng_state()})
    expected = [draws() for _ in range(3)]
    content = resume.read_rank_state(tmp_path / "8.state", 0)
    assert content is not None
    resume.restore_rng(content["rng"])
    assert [draws() for _ in range(3)] == expected


def test_keep_rng_leaves_no_trace_even_after_an_error() -> None:
    state = resume.rng_state()
    expected = draws()
    resume.restore_rng(state)

    def fail() -> None:
        with resume.keep_rng():
            draws()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert draws() == expected


def test_each_rank_has_its_own_file_and_none_looks_like_basicsrs(tmp_path: Path) -> None:
    for rank in (0, 1):
        resume.write_rank_state(tmp_path / "8.state", rank, {"rank": rank})
    assert [resume.read_rank_state(tmp_path / "8.state", rank)["rank"] for rank in (0, 1)] == [0, 1]  # type: ignore[index]
    assert resume.read_rank_state(tmp_path / "8.state", 2) is None
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(("state", "tmp"))]


def test_a_damaged_file_of_ours_is_refused(tmp_path: Path) -> None:
    resume.write_rank_state(tmp_path / "8.state", 0, {"numbers": torch.arange(1000)})
    path = resume.rank_file(tmp_path / "8.state", 0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"8.synthpipe-rank0.pt: cannot be read.* from an earlier checkpoint"):
        resume.read_rank_state(tmp_path / "8.state", 0)


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, resume.rank_file(tmp_path / "8.state", 0))
    with pytest.raises(CheckpointError, match="expected a state of format 1, got 99"):
        resume.read_rank_state(tmp_path / "8.state", 0)


def test_code_in_a_state_file_does_not_run(tmp_path: Path) -> None:
    torch.save({"format": 1, "path": Path("/")}, resume.rank_file(tmp_path / "8.state", 0))
    with pytest.raises(CheckpointError, match="holds other Python objects, which are never executed here"):
        resume.read_rank_state(tmp_path / "8.state", 0)


def test_the_newest_readable_checkpoint_wins(tmp_path: Path) -> None:
    for iteration in (4, 8, 16):
        torch.save({"iter": iteration, "optimizers": [torch.zeros(1000)]}, tmp_path / f"{iteration}.state")
    whole = (tmp_path / "16.state").read_bytes()
    (tmp_path / "16.state").write_bytes(whole[: len(whole) // 2])  # killed while saving
    (tmp_path / "128.state").write_bytes(b"")
    found = resume.complete_state(tmp_path)
    assert found is not None
    assert found[0].name == "8.state"
    assert found[1]["iter"] == 8


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert resume.complete_state(tmp_path / "absent") is None
    assert resume.complete_state(tmp_path) is None


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"iter": "12"}, 7, {"iter": None}])
def test_what_is_no_state_is_passed_over(tmp_path: Path, content: object) -> None:
    torch.save({"iter": 4, "epoch": 0}, tmp_path / "4.state")
    torch.save(content, tmp_path / "9.state")
    (tmp_path / "²²².state").write_bytes(b"a name of digits that are no number")
    found = resume.complete_state(tmp_path)
    assert found is not None
    assert (found[0].name, found[1]["iter"]) == ("4.state", 4)
    with pytest.raises(CheckpointError, match=r"9.state: no state of BasicSR's, expected a number 'iter' in it"):
        resume.read_state(tmp_path / "9.state")


@pytest.mark.parametrize("content", [[1, 2], 7, "text", {"format": "x" * 9999}])
def test_a_ranks_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "8.synthpipe-rank0.pt")
    with pytest.raises(CheckpointError, match="expected a state of format 1, got") as caught:
        resume.read_rank_state(tmp_path / "8.state", 0)
    assert len(str(caught.value)) < 700
