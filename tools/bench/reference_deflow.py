"""The network of a checkout of the authors' DeFlow code (volflow/DeFlow), with the weights of one of our models.

Nothing of it is copied here: its class is imported from the checkout, built from its YAML configuration, and given our
tensors under its names.  Its modules for plotting and logging, which the network imports and never calls, are replaced
by empty ones, so that torch, NumPy, SciPy and PyYAML are enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from synthpipe.errors import OptionError
from synthpipe.flows import DeFlow
from synthpipe.flows.deflow import CLEAN, CONDITION, NOISY, SPLIT, TOP
from synthpipe.flows.deflow_official import official_names
from synthpipe.flows.draws import GeneratorNoise, Generators
from synthpipe.images import downscale_bicubic, quantize_8bit

__all__ = ["ReferenceDeFlow"]


class ReferenceDeFlow:
    """Degrades as :meth:`DeFlow.degrade` does, by the authors' network.

    Reduction, normalisation and draws are ours, and equal, so that images can be compared; no dequantisation noise.

    Args:
        checkout: the folder that holds ``codes/``.
        config: YAML file, relative to the checkout or not, of a network of the model's size.
        model: affine couplings, a full covariance and ESRGAN's trunk, as published.

    Raises:
        OptionError: no such checkout, or a model or configuration of another kind.
    """

    def __init__(self, checkout: Path, config: Path, model: DeFlow) -> None:
        published = {"coupling": "affine", "covariance": "full", "dequantize_output": False, "unconditional": False}
        unlike = {key: model.config[key] for key, value in published.items() if model.config[key] != value}
        kind = model.config["encoder"]["type"]
        if unlike or kind != "rrdb":
            raise OptionError(
                f"--reference: the authors' network has an rrdb encoder and {published}, not {kind} and {unlike}"
            )
        self._model = model
        options = _options(checkout, config)
        if options["scale"] != model.scale:
            raise OptionError(f"{config}: scale {options['scale']}, but the model has {model.scale}; name its own file")
        network = options["network_G"]
        self._net = _network_class(checkout)(
            in_nc=network["in_nc"],
            out_nc=network["out_nc"],
            nf=network["nf"],
            nb=network["nb"],
            scale=options["scale"],
            K=network["flow"]["K"],
            opt=options,
            step=0,
        )
        _give_weights(self._net, model)
        self._net.eval().requires_grad_(False).to(next(model.parameters()).device)

    @torch.no_grad()
    def degrade(self, x: Tensor, generators: Generators) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1], sides multiples of ``model.size_multiple``, to the same shape."""
        model, noise = self._model, GeneratorNoise(generators)
        clean, noisy = (torch.full((len(x),), domain, device=x.device) for domain in (CLEAN, NOISY))
        lr = quantize_8bit(downscale_bicubic(x, model.scale))
        if model.normalization is not None:
            x = model.normalization.normalize(x, clean)[0]
            lr = model.normalization.normalize_condition(lr, clean)
        lr = lr + model.config["condition_noise"] * noise.normal(lr, CONDITION)
        features = self._net.rrdbPreprocessing(lr)
        latents, _, _ = self._net(
            gt=x, lr=lr, reverse=False, epses=[], lr_enc=features, add_gt_noise=False, y_label=clean
        )
        shifts: Sequence[Any] = list(model.shifts)
        moved = [
            z + shift.shift(noise.normal(z, purpose), z)
            for z, shift, purpose in zip(latents, shifts, (SPLIT, TOP), strict=True)
        ]
        y: Tensor = self._net(
            lr=lr,
            z=None,
            eps_std=1.0,
            reverse=True,
            epses=moved,
            lr_enc=features,
            add_gt_noise=False,
            y_label=noisy,
        )[0]
        return y if model.normalization is None else model.normalization.undo(y, noisy)


def _options(checkout: Path, config: Path) -> dict[str, Any]:
    path = config if config.exists() else checkout / config
    if not path.is_file() or not (checkout / "codes").is_dir():
        raise OptionError(f"--reference: expected a folder with codes/ and its YAML file, got {checkout} and {config}")
    options: dict[str, Any] = yaml.safe_load(path.read_text())
    # What its own reader of options adds; noise on the condition is drawn here.
    options["network_G"]["scale"] = options["scale"]
    options["network_G"].setdefault("train_RRDB", None)
    options["network_G"]["flow"]["LR_noise_std"] = 0
    return options


def _network_class(checkout: Path) -> Any:
    """The class of the checkout; leaves the checkout on ``sys.path``, because it imports more when it is built."""
    sys.path.insert(0, str((checkout / "codes").resolve()))
    options_reader = types.ModuleType("utils.util")
    options_reader.opt_get = _option  # type: ignore[attr-defined]
    sys.modules["utils.util"] = options_reader
    for name in ("utils.debug", "models.modules.flow_utils"):
        sys.modules[name] = types.ModuleType(name)
    if importlib.util.find_spec("tqdm") is None:
        progress = types.ModuleType("tqdm")
        progress.tqdm = lambda items=None, *args, **kwargs: items  # type: ignore[attr-defined]
        sys.modules["tqdm"] = progress
    return importlib.import_module("models.modules.RRDBGlowNet_arch").RRDBGlowNet


def _option(options: Mapping[str, Any] | None, keys: Sequence[str], default: Any = None) -> Any:
    """A nested option, or the default where any key is missing or null."""
    found: Any = options
    for key in keys:
        if found is None:
            return default
        found = found.get(key)
    return default if found is None else found


def _give_weights(net: Any, model: DeFlow) -> None:
    """Our tensors under the official names; every tensor of ours has a place, and what stays is never used."""
    state, ours = net.state_dict(), model.state_dict()
    names = official_names(model.config)
    missing = sorted(names.keys() - state.keys())
    if missing:
        raise OptionError(f"--reference: the network of the checkout has no {missing[0]}, and {len(missing) - 1} more")
    for theirs, mine in names.items():
        if state[theirs].numel() != ours[mine].numel():
            shapes = tuple(state[theirs].shape), tuple(ours[mine].shape)
            raise OptionError(f"--reference: {theirs} has the shape {shapes[0]} there and {shapes[1]} here")
        state[theirs] = ours[mine].reshape(state[theirs].shape).clone()
    net.load_state_dict(state)
    for module in net.modules():
        if hasattr(module, "inited"):  # its ActNorms start from the first batch otherwise
            module.inited = True
