"""Options of ``synthpipe train``: one schema per kind of run, found by the key ``kind``.

The table here is the only list of what can be trained.  A kind whose options are in ``config/STEM.py`` is built by
``training/STEM.py``; nothing else lists it (:mod:`synthpipe.training.build`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from synthpipe.config.blind_spot import TrainBlindSpotOptions
from synthpipe.config.dde import TrainDDEOptions
from synthpipe.config.dde_generator import TrainDDEGeneratorOptions
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.distillation import TrainDistillOptions
from synthpipe.config.flow_prior import TrainFlowPriorOptions
from synthpipe.config.glow import TrainGlowOptions
from synthpipe.config.kernels import TrainKernelsOptions
from synthpipe.config.map_denoiser import TrainMapDenoiserOptions
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.config.reader import Options, read_options, read_yaml
from synthpipe.config.run import RunFolderOptions
from synthpipe.errors import OptionError, excerpt

__all__ = ["FREE_TO_CHANGE", "SCHEMAS", "changed_options", "read_train_options", "write_options"]

#: Options that may differ between a run and its continuation: none of them changes a number.
FREE_TO_CHANGE = frozenset(
    {
        "activation_checkpointing",
        "capture",
        "run_dir",
        "resume",
        "device",
        "max_minutes",
        "log_every",
        "sample_every",
        "sample_images",
        "checkpoint_every",
        "keep_checkpoints",
        "report",
        "data.workers",
        "data.prefetch",
    }
)


#: Options of every kind of run; a new kind is one line here.
_KINDS: tuple[type[RunFolderOptions], ...] = (
    TrainDeFlowOptions,
    TrainGlowOptions,
    TrainFlowPriorOptions,
    TrainBlindSpotOptions,
    TrainPlainDenoiserOptions,
    TrainMapDenoiserOptions,
    TrainDistillOptions,
    TrainDDEOptions,
    TrainDDEGeneratorOptions,
    TrainKernelsOptions,
)
#: The schema of each kind, by the value of its key ``kind``.
SCHEMAS: dict[str, type[RunFolderOptions]] = {schema.model_fields["kind"].default: schema for schema in _KINDS}


def read_train_options(path: str | Path, overrides: Sequence[str] = ()) -> RunFolderOptions:
    """Read an option file of ``synthpipe train`` with the schema that its ``kind`` names.

    Args:
        path: the option file.
        overrides: ``key.sub=value`` strings.

    Raises:
        OptionError: no or unknown ``kind``, ``resume`` for one without steps, unknown key (with the nearest known
            one), wrong value.
    """
    kind = read_yaml(path).get("kind")
    for override in overrides:
        if override.startswith("kind="):
            kind = override.removeprefix("kind=")
    if not isinstance(kind, str) or kind not in SCHEMAS:
        raise OptionError(f"{path}: option 'kind': expected one of {sorted(SCHEMAS)}, got {excerpt(kind)}")
    schema = SCHEMAS[kind]
    if "resume" not in schema.model_fields and any(override.startswith("resume=") for override in overrides):
        raise OptionError(
            f"{path}: kind: {kind} computes its result at once and has nothing to resume; leave --resume out"
        )
    return read_options(path, schema, overrides)


def write_options(path: str | Path, options: Options) -> None:
    """Write ``options``, defaults included, as YAML that reads back to the same options."""
    text = yaml.safe_dump(options.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def changed_options(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for every option, by its dotted path, that differs and is not free to change within a run."""
    old, new = _flatten(before), _flatten(now)
    return [
        f"{key}: was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if key not in FREE_TO_CHANGE and old.get(key) != new.get(key)
    ]


def _flatten(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
