"""A state fits the stream that it was taken from, told by content: weights, shards, and states of version 1."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import StreamError
from synthpipe.flows import DeFlow
from synthpipe.pipeline import Stream, build_stream
from synthpipe.shards.shard_index import INDEX_NAME
from synthpipe.shards.shard_names import build_index
from synthpipe.transforms.identity import options_identity
from tests.stream_corpus import same_batches, small_options, take, write_corpus
from tests.tiny_scorer import tiny_scorer

#: Taken by the code of commit 433fa2b after three batches, with the hashes of ``gt`` in the next two.
GOLDEN = Path(__file__).parent.parent / "golden" / "stream_state_version_1.json"


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    return write_corpus(tmp_path / "shards", [4, 4, 3])


def write_deflow(path: Path, shift: float = 0.0, info: dict[str, Any] | None = None) -> str:
    torch.manual_seed(0)
    encoder = {"type": "small", "features": 4, "depth": 0}
    model = DeFlow(scale=2, levels=2, steps=1, hidden=4, encoder=encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
        next(iter(model.parameters())).view(-1)[0] += shift
    model.mark_initialized()
    return str(checkpoints.save(path, model, info))


def open_stream(shards: list[str], **options: Any) -> Stream:
    return build_stream(small_options(shards, **options))


def with_deflow(shards: list[str], weights: str) -> Stream:
    return open_stream(shards, degrade={"type": "deflow", "weights": weights})


def test_other_degradation_weights_under_the_same_name_are_refused(shards: list[str], tmp_path: Path) -> None:
    weights = write_deflow(tmp_path / "w.safetensors")
    with with_deflow(shards, weights) as stream:
        take(stream, 2)
        state = stream.state_dict()
    write_deflow(tmp_path / "w.safetensors", shift=1e-6)
    with (
        with_deflow(shards, weights) as stream,
        pytest.raises(StreamError, match=r"another stream \(degrade: state .*'weights': '[0-9a-f]{32}'"),
    ):
        stream.load_state_dict(state)


def test_the_same_weights_under_another_name_and_card_go_on(shards: list[str], tmp_path: Path) -> None:
    weights = write_deflow(tmp_path / "w.safetensors")
    with with_deflow(shards, weights) as stream:
        take(stream, 2)
        state, expected = stream.state_dict(), take(stream, 2)
    moved = write_deflow(tmp_path / "elsewhere.safetensors", info={"note": "another card"})
    with with_deflow(shards, moved) as stream:
        stream.load_state_dict(state)
        assert same_batches(take(stream, 2), expected)


def test_other_filter_weights_under_the_same_name_are_refused(shards: list[str], tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    rule = {"weights": str(checkpoints.save(path, tiny_scorer())), "max_logit": 1e6, "min_keep": 0}
    with open_stream(shards, degrade={"type": "classical"}, filter=rule) as stream:
        take(stream, 2)
        state = stream.state_dict()
    checkpoints.save(path, tiny_scorer(seed=1))
    with (
        open_stream(shards, degrade={"type": "classical"}, filter=rule) as stream,
        pytest.raises(StreamError, match=r"another stream \(filter: state "),
    ):
        stream.load_state_dict(state)


@pytest.mark.parametrize("name", ["deflow", "classical"])
def test_a_state_of_version_1_goes_on_and_the_log_says_what_was_not_compared(
    shards: list[str], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    degrade = {"type": "deflow", "weights": "deflow_small"} if name == "deflow" else {"type": "classical"}
    with caplog.at_level(logging.WARNING), open_stream(shards, degrade=degrade) as stream:
        stream.load_state_dict(golden["state"])
        found = [hashlib.sha256(batch["gt"].numpy().tobytes()).hexdigest() for batch in take(stream, 2)]
    assert found == golden["next_gt_sha256"]
    assert ("by the names of their files" in caplog.text) == (name == "deflow")


def test_a_state_of_version_1_of_weights_with_another_name_is_refused(shards: list[str], tmp_path: Path) -> None:
    state = json.loads(GOLDEN.read_text())["deflow"]["state"]
    weights = shutil.copy(checkpoints.resolve("deflow_small"), tmp_path / "other.safetensors")
    with with_deflow(shards, str(weights)) as stream, pytest.raises(StreamError, match="degrade: state"):
        stream.load_state_dict(state)


@pytest.mark.parametrize("in_a_chain", [False, True])
def test_a_level_that_is_not_asked_for_is_not_in_states_as_before_there_were_levels(in_a_chain: bool) -> None:
    def described(**more: float) -> str:
        stage = {"type": "deflow", "weights": "deflow_small", **more}
        given = [{"type": "resize", "to": "lr"}, stage] if in_a_chain else stage
        options = parse_options({"shards": ["s.tar"], "gt_size": 64, "degrade": given}, StreamOptions).degrade
        assert options is not None
        return json.dumps(options_identity(options))

    assert '"level"' not in described()
    assert '"level": 4.0' in described(level=4)


def index(folder: Path) -> None:
    """An index with checksums, as `synthpipe shard` writes it."""
    about = json.loads(build_index(str(folder)).to_json())
    for shard in about["shards"]:
        path = folder / Path(shard["name"]).name
        shard.update(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    (folder / INDEX_NAME).write_text(json.dumps(about))


def test_shards_of_the_same_names_and_counts_with_other_images_are_refused(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "a", [4, 4])
    second = write_corpus(tmp_path / "b", [4, 4], width=74)
    index(tmp_path / "a")
    with open_stream(first, degrade={"type": "classical"}) as stream:
        take(stream, 2)
        state, expected = stream.state_dict(), take(stream, 2)
    with open_stream(second, degrade={"type": "classical"}) as stream:  # no index: nothing to compare by
        stream.load_state_dict(state)
    index(tmp_path / "b")
    with (
        open_stream(second, degrade={"type": "classical"}) as stream,
        pytest.raises(StreamError, match=r"another stream \(shard_checksums: state "),
    ):
        stream.load_state_dict(state)
    (tmp_path / "a" / INDEX_NAME).unlink()
    with open_stream(first, degrade={"type": "classical"}) as stream:
        stream.load_state_dict(state)
        assert same_batches(take(stream, 2), expected)


def test_a_bank_of_kernels_is_known_by_its_content(shards: list[str], tmp_path: Path) -> None:
    """The file ``bank``, beside the weight ``kinds.bank`` of the same name; a blur without one has an identity, too."""

    def stream(value: float, kinds: dict[str, float]) -> Stream:
        kernel = np.zeros((1, 3, 3))
        kernel[0, 1, 1:] = 1, value
        np.save(tmp_path / "bank.npy", kernel)
        blur = {"type": "blur", "kinds": kinds, "bank": str(tmp_path / "bank.npy") if "bank" in kinds else None}
        return open_stream(shards, degrade=[blur, {"type": "resize", "to": "lr"}])

    states = []
    for value, kinds in ((0.0, {"isotropic": 1}), (0.5, {"bank": 1}), (0.25, {"bank": 1}), (0.5, {"bank": 1})):
        with stream(value, kinds) as opened:
            take(opened, 1)
            states.append(opened.state_dict())
    with stream(0.5, {"bank": 1}) as opened:
        opened.load_state_dict(states[1])
        opened.load_state_dict(states[3])
    for state in (states[0], states[2]):
        with stream(0.5, {"bank": 1}) as opened, pytest.raises(StreamError):
            opened.load_state_dict(state)
