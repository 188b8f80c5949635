"""The published DeFlow weights (Wolf et al. 2021): their tensor names and settings, in our words.

Official layers are numbered through: each level is a squeeze (no tensors), its steps, and after level 1 the split.
Tensors that the published network stores and never uses are dropped: the fixed identities ``I``, the convolution
``f``, and the feature network's last upsampling, ``HRconv`` and ``conv_last``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import CheckpointError, counted, excerpt, shortened

__all__ = ["AIM_STATISTICS", "PUBLISHED", "from_official", "official_names"]

#: AIM-RWSR's statistics as the reference's option file gives them (RGB, 0..255).
AIM_STATISTICS: dict[str, Any] = {
    "clean_mean": [114.476, 111.672, 103.291],
    "clean_std": [59.982, 57.242, 59.913],
    "noisy_mean": [120.717, 115.667, 104.757],
    "noisy_std": [54.150, 52.601, 55.650],
    "lr_clean_mean": [114.361, 111.579, 103.191],
    "lr_clean_std": [53.363, 50.915, 54.046],
    "lr_noisy_mean": [120.717, 115.667, 104.756],
    "lr_noisy_std": [50.674, 49.072, 52.370],
}

# What the reference does at use as well as in training, its dequantisation noise included: the published covariance
# is 0, so that noise is all the variety its outputs have.
_SETTINGS: dict[str, Any] = {
    "condition_noise": 0.03,
    "quant": 32,
    "dequantize_output": True,
    "covariance": "full",
    "covariance_init": 0.0,
    "scale_eps": 0.001,
    "normalization": None,
    "coupling": "affine",
    "whiten": False,
    "unconditional": False,
}

#: Settings that tensors do not show, by the name of the published configuration.
PUBLISHED: dict[str, dict[str, Any]] = {
    "aim": {**_SETTINGS, "scale": 8, "normalization": {**AIM_STATISTICS, "clamp": True}},
    "ntire": {**_SETTINGS, "scale": 4},
    "dped": {**_SETTINGS, "scale": 4},
}

_PUBLISHED_TAPS = (1, 8, 15, 22)
_MOST_LEVELS = 8  # 2^8 pixels to one; more is a damaged file
_LAYER = "flowUpsamplerNet.layers"
_STEP = {"actnorm.bias": "bias", "actnorm.logs": "logs"}
_CONV = {"l": "lower", "u": "upper", "log_s": "log_s", "p": "permutation", "sign_s": "sign"}
_SUBNETS = {"fAffine": "self_net", "fFeatures": "cond_net"}
_SUBNET = {
    "0.weight": "conv1.weight",
    "0.actnorm.bias": "norm1.bias",
    "0.actnorm.logs": "norm1.logs",
    "2.weight": "conv2.weight",
    "2.actnorm.bias": "norm2.bias",
    "2.actnorm.logs": "norm2.logs",
    "4.weight": "out.conv.weight",
    "4.bias": "out.conv.bias",
    "4.logs": "out.logs",
}


def from_official(
    state_dict: Mapping[str, Tensor], config_name: str, taps: Sequence[int] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and state of the :class:`~synthpipe.flows.deflow.DeFlow` that computes what the official one does.

    Args:
        state_dict: official key -> tensor.
        config_name: ``"aim"``, ``"ntire"`` or ``"dped"``; decides everything that shapes do not show.  Sizes are
            read from the tensors.
        taps: blocks of the feature network whose outputs are used; needed only where the network is neither of
            the published size nor tapped after every block.

    Returns:
        ``(config, state)`` for ``DeFlow(**config).load_state_dict(state)``; tensors are float32.

    Raises:
        CheckpointError: an unknown configuration name; a tensor missing, unknown, not finite, or an identity that
            is none.
    """
    if config_name not in PUBLISHED:
        raise CheckpointError(f"official DeFlow: configuration must be one of {sorted(PUBLISHED)}, got {config_name!r}")
    state_dict = _plain(state_dict)
    config = {**PUBLISHED[config_name], **_sizes(state_dict, PUBLISHED[config_name]["scale"], taps)}
    names = official_names(config)
    unused = _unused_names(config)
    missing = sorted(names.keys() - state_dict.keys())
    unknown = sorted(state_dict.keys() - names.keys() - unused)
    if missing or unknown:
        raise CheckpointError(
            f"official DeFlow, configuration {config_name!r}: {_listed('missing', missing)}"
            f"{'; ' if missing and unknown else ''}{_listed('unknown', unknown)}; "
            "are these weights of another network, or another configuration?"
        )
    state: dict[str, Tensor] = {}
    for name in names:
        _require_finite(name, state_dict[name])
        state[names[name]] = _reshaped(name, state_dict[name].to(torch.float32))
    for name in unused & state_dict.keys():
        _require_identity(name, state_dict[name])
    norms = [key.removesuffix("bias") for key in state if re.search(r"(levels\.\d+\.layers\.\d+|norm[12])\.bias$", key)]
    return config, state | {f"{norm}initialized": torch.tensor(True) for norm in norms}


def official_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Official key -> our key, of every tensor that the network uses.

    Args:
        config: DeFlow arguments ``scale, levels, steps, transition_steps, encoder`` (of type ``rrdb``).
    """
    return dict(_encoder_names(config)) | dict(_flow_names(config))


def _encoder_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    upsamplings = max(config["scale"].bit_length() - 2, 0)
    convs = [("conv_first", "conv_first"), ("trunk_conv", "trunk_conv")]
    convs += [(f"upconv{i + 1}", f"up_convs.{i}") for i in range(upsamplings)]
    for block in range(config["encoder"]["blocks"]):
        for dense in range(3):
            convs += [
                (f"RRDB_trunk.{block}.RDB{dense + 1}.conv{i + 1}", f"trunk.{block}.dense.{dense}.convs.{i}")
                for i in range(5)
            ]
    for official, ours in convs:
        for part in ("weight", "bias"):
            yield f"RRDB.{official}.{part}", f"encoder.{ours}.{part}"


def _flow_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    number = 0  # of the official layer; a squeeze takes one and has no tensors
    for level in range(config["levels"]):
        number += 1
        place = 1  # in our Sequential, after its squeeze
        for step in range(config["transition_steps"] + config["steps"]):
            prefix = f"levels.{level}.layers"
            for theirs, ours in _STEP.items():
                yield f"{_LAYER}.{number}.{theirs}", f"{prefix}.{place}.{ours}"
            for theirs, ours in _CONV.items():
                yield f"{_LAYER}.{number}.invconv.{theirs}", f"{prefix}.{place + 1}.{ours}"
            place += 2
            if step >= config["transition_steps"]:
                for net, our_net in _SUBNETS.items():
                    for theirs, ours in _SUBNET.items():
                        yield f"{_LAYER}.{number}.affine.{net}.{theirs}", f"{prefix}.{place}.{our_net}.{ours}"
                place += 1
            number += 1
        if level == 0:
            yield f"{_LAYER}.{number}.mean_shift", "shifts.0.mean"
            yield f"{_LAYER}.{number}.cov_shift", "shifts.0.factor"
            yield f"{_LAYER}.{number}.conv.weight", "split.net.conv.weight"
            yield f"{_LAYER}.{number}.conv.bias", "split.net.conv.bias"
            yield f"{_LAYER}.{number}.conv.logs", "split.net.logs"
            number += 1
    yield "mean_shift", "shifts.1.mean"
    yield "cov_shift", "shifts.1.factor"


def _unused_names(config: Mapping[str, Any]) -> set[str]:
    """What the official network stores and never uses; may be absent."""
    last = config["scale"].bit_length() - 1
    split = 1 + config["transition_steps"] + config["steps"]
    heads = {f"RRDB.{conv}.{part}" for conv in ("HRconv", "conv_last", f"upconv{last}") for part in ("weight", "bias")}
    return heads | {"I", f"{_LAYER}.{split}.I", "flowUpsamplerNet.f.0.weight", "flowUpsamplerNet.f.0.bias"}


def _sizes(state_dict: Mapping[str, Tensor], scale: int, taps: Sequence[int] | None) -> dict[str, Any]:
    """Sizes as the tensors show them, from level 1 alone; what does not fit shows up as missing or unknown keys."""
    numbers = {int(found[1]) for key in state_dict if (found := re.match(rf"{_LAYER}\.([0-9]{{1,6}})\.", key))}
    blocks = {int(found[1]) for key in state_dict if (found := re.match(r"RRDB\.RRDB_trunk\.([0-9]{1,6})\.", key))}
    coupled = sorted(n for n in numbers if f"{_LAYER}.{n}.affine.fAffine.0.weight" in state_dict)
    split = min((n for n in numbers if f"{_LAYER}.{n}.mean_shift" in state_dict), default=0)
    if not blocks or not coupled or not split or coupled[0] > split:
        raise CheckpointError(
            "official DeFlow: expected the keys of a DeFlow state_dict (RRDB.RRDB_trunk.*, flowUpsamplerNet.layers.*), "
            f"got {len(state_dict)} keys beginning {excerpt(sorted(state_dict)[:3])}"
        )
    features, _ = _channels(state_dict, "RRDB.conv_first.weight")
    growth, _ = _channels(state_dict, "RRDB.RRDB_trunk.0.RDB1.conv1.weight")
    hidden, cond_channels = _channels(state_dict, f"{_LAYER}.{coupled[0]}.affine.fFeatures.0.weight")
    levels = max(numbers) + 1 - len(numbers)  # squeezes are the numbers left out
    if levels > _MOST_LEVELS:
        raise CheckpointError(f"official DeFlow: layer numbers up to {max(numbers)} leave {levels} gaps, expected 3")
    return {
        "levels": levels,
        "steps": sum(n < split for n in coupled),
        "transition_steps": coupled[0] - 1,
        "hidden": hidden,
        "encoder": {
            "type": "rrdb",
            "features": features,
            "growth": growth,
            "blocks": len(blocks),
            "taps": list(taps) if taps is not None else _taps(len(blocks), cond_channels // features - 1),
        },
    }


def _taps(blocks: int, count: int) -> list[int]:
    if blocks > max(_PUBLISHED_TAPS) and count == len(_PUBLISHED_TAPS):
        return list(_PUBLISHED_TAPS)
    if blocks == count:
        return list(range(blocks))
    raise CheckpointError(
        f"official DeFlow: cannot tell which {count} of {blocks} blocks are tapped; the published network taps "
        f"{list(_PUBLISHED_TAPS)}; pass taps"
    )


def _channels(state_dict: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Outputs and inputs of a convolution."""
    if name not in state_dict:
        raise CheckpointError(f"official DeFlow: missing tensor {name!r}")
    shape = tuple(state_dict[name].shape)
    if len(shape) != 4 or min(shape) < 1:
        raise CheckpointError(f"official DeFlow: expected weights of a convolution at {name!r}, got the shape {shape}")
    return shape[0], shape[1]


def _plain(state_dict: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Names that are texts, and tensors of real numbers."""
    for name, value in state_dict.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"official DeFlow: expected names of tensors, got {excerpt(name)}, a key of type {type(name).__name__}"
            )
        if not torch.is_tensor(value) or value.is_complex():
            got = value.dtype if torch.is_tensor(value) else type(value).__name__
            raise CheckpointError(
                f"official DeFlow: expected a tensor of real numbers at {shortened(name)!r}, got {got}"
            )
    return dict(state_dict)


def _reshaped(name: str, value: Tensor) -> Tensor:
    if name.endswith(("actnorm.bias", "actnorm.logs", "mean_shift")):
        return value.reshape(-1, 1, 1)  # (1, C, 1, 1), and (C,) of mean_shift
    return value


def _require_finite(name: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(f"official DeFlow: tensor {name!r} holds NaN or infinity; the weights are damaged")


def _require_identity(name: str, value: Tensor) -> None:
    if name.rpartition(".")[2] != "I":
        return
    square = value.ndim == 2 and value.shape[0] == value.shape[1]
    if not square or not torch.equal(value.float(), torch.eye(len(value))):
        raise CheckpointError(f"official DeFlow: expected the identity at {name!r}, got something else")


def _listed(word: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{counted(len(names), f'{word} tensor')}: {shortened(', '.join(names[:5]))}{more}"
