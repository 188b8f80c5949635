"""What two streams must share for the state of one to fit the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthpipe import checkpoints
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import excerpt, shortened
from synthpipe.pipeline.keep_list import KeepList
from synthpipe.pipeline.stream_corpus import Corpus
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.density import DensityFilter, DensityScore, KindFilter
from synthpipe.transforms.identity import options_identity, options_identity_by_name

__all__ = ["VERSION", "IdentityParts", "StreamIdentity", "has_colors", "has_noise", "stream_identity"]

#: Of the states of streams.  Version 1 knew the weights of degradation and filter by the names of their files.
VERSION = 2

# These change how fast a stream runs or when it gives up, and nothing of what it yields.
_NOT_IDENTITY = {
    "shards",
    "degrade",
    "denoise",
    "filter",
    "tile",
    "prefetch",
    "start_method",
    "compile",
    "max_bad_fraction",
    "allow_pipe",
    "spool_dir",
    "pool",
    "max_pixels",
}

#: What stands for the degradation where there is none.
_NO_DEGRADATION = type(None).__name__
#: Known only where the shards have an index: compared where both sides know it.
_CHECKSUMS = "shard_checksums"
#: What colours come out; missing from states of versions that ignored profiles.
_COLORS = "colors"
#: How the noise of degradations is drawn; missing from states of versions that drew it from one generator per sample.
_NOISE = "noise"


@dataclass(frozen=True)
class IdentityParts:
    """All that a stream is made of; numbers that follow from several options stand beside them."""

    options: StreamOptions
    corpus: Corpus
    tile: int
    border: int
    patches_per_tile: int
    rank: int
    world_size: int
    keep: KeepList | None
    judges: tuple[DensityScore, DensityFilter | KindFilter] | None
    degrade: BatchTransform | None
    transforms: tuple[BatchTransform, ...]


class StreamIdentity:
    """Plain values by name, for today's states and for those of version 1.

    Args:
        current: what a state of today carries.
        by_name: what the same stream's state carried in version 1.
    """

    def __init__(self, current: Mapping[str, Any], by_name: Mapping[str, Any]) -> None:
        self.current = dict(current)
        self._by_name = dict(by_name)

    @property
    def has_weights_by_name(self) -> bool:
        """Whether version 1 knew weights of this stream by nothing but the name of their file."""
        parts = (self._by_name.get("degrade"), self._by_name.get("filter"))
        return any(isinstance(part, dict) and "weights" in part for part in parts)

    @property
    def degrades(self) -> bool:
        """Whether the stream makes low-quality partners."""
        return bool(self.current.get("degrade") != _NO_DEGRADATION)

    def differences(self, version: int, theirs: Mapping[str, Any]) -> list[str]:
        """One line for each value in which a state of ``version`` differs; none: the state fits."""
        ours = self.current if version == VERSION else self._by_name
        # Where the state does not know: no index, or a version that ignored profiles.
        unknown = {_CHECKSUMS} if None in (ours.get(_CHECKSUMS), theirs.get(_CHECKSUMS)) else set()
        unknown |= {key for key in (_COLORS, _NOISE) if key not in theirs}
        return [
            f"{shortened(str(key))}: state {excerpt(theirs.get(key))}, here {excerpt(ours.get(key))}"
            for key in {**ours, **theirs}
            if not _same(ours.get(key), theirs.get(key)) and key not in unknown
        ]


def _same(ours: Any, theirs: Any) -> bool:
    try:
        return bool(ours == theirs)
    except (TypeError, ValueError, RuntimeError, RecursionError):  # arrays and tensors say it of each number
        return False


def has_colors(identity: Mapping[str, Any]) -> bool:
    """Whether a state's identity says what colours came out; not in states of versions that ignored profiles."""
    return _COLORS in identity


def has_noise(identity: Mapping[str, Any]) -> bool:
    """Whether a state's identity says how noise was drawn; not in states of versions that used generators."""
    return _NOISE in identity


def stream_identity(parts: IdentityParts) -> StreamIdentity:
    """The identity of a stream.

    Raises:
        CheckpointError: weights that cannot be read.
    """
    shared = {
        **parts.options.model_dump(mode="json", exclude=_NOT_IDENTITY),
        "tile": parts.tile,
        "pool": parts.options.pool_size,
        "patches_per_tile": parts.patches_per_tile,
        "shards": parts.corpus.fingerprint(),
        "samples": parts.corpus.samples,
        "transforms": [type(transform).__name__ for transform in parts.transforms],
        "rank": parts.rank,
        "world_size": parts.world_size,
    }
    if parts.options.max_pixels != MAX_PIXELS:
        shared["max_pixels"] = parts.options.max_pixels
    options, denoise = parts.options.degrade, parts.options.denoise
    given = _given_identity(parts.degrade)
    current = {
        "degrade": given if options is None else options_identity(options),
        "denoise": None
        if denoise is None
        else {"border": parts.border, **options_identity(denoise, leave_out=frozenset({"border"}))},
        "filter": _filter_identity(parts, checkpoints.fingerprint),
        _CHECKSUMS: parts.corpus.checksum(),
        _COLORS: "srgb",
        _NOISE: "philox",
    }
    by_name = {
        "degrade": given if options is None else options_identity_by_name(options),
        "denoise": _denoise_identity_of_version_1(parts),
        "filter": _filter_identity(parts, lambda weights: Path(weights).name),
    }
    return StreamIdentity({**shared, **current}, {**shared, **by_name})


def _given_identity(degrade: BatchTransform | None) -> str:
    """A ready degradation is known by its class, and by how many rows it makes of one."""
    samples = 1 if degrade is None else degrade.samples
    return type(degrade).__name__ + (f", {samples} samples" if samples > 1 else "")


def _filter_identity(parts: IdentityParts, describe: Callable[[str], str]) -> dict[str, Any] | None:
    """What is decided, not how it was asked for: the same table in another place, the same threshold by other means."""
    if parts.keep is not None:
        return {"keys": parts.keep.fingerprint()}
    if parts.judges is None:
        return None
    assert parts.options.filter is not None
    score, threshold = parts.judges
    weights = describe(parts.options.filter.scorer)
    limit = {"kinds": threshold.limits} if isinstance(threshold, KindFilter) else {"max_logit": threshold.max_logit}
    return {"weights": weights, "tiles": score.tiles, **limit}


def _denoise_identity_of_version_1(parts: IdentityParts) -> dict[str, Any] | None:
    """By the bytes of the file."""
    options = parts.options.denoise
    if options is None:
        return None
    files = b"".join(checkpoints.resolve(weights).read_bytes() for weights in options.networks)
    digest = hashlib.sha256(files).hexdigest()
    settings = options.model_dump(mode="json", exclude={"weights", "border"})
    return {"weights": digest[:16], "border": parts.border, **settings}
