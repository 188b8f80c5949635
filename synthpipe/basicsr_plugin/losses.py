"""BasicSR's perceptual loss with the VGG weights named in the option file, and no surprise download.

BasicSR's own ``PerceptualLoss`` fetches 550 MB from the network while it is constructed.  Here the file is given, found
in one of the two places where it usually lies, or fetched by PyTorch's hub, in this order; when none of them works the
error says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from basicsr.archs import vgg_arch
from basicsr.losses.basic_loss import PerceptualLoss
from torch import Tensor, nn
from torchvision.models import get_model_weights, vgg

from synthpipe.basicsr_plugin.compat import patched
from synthpipe.config.places import expand_place
from synthpipe.errors import CheckpointError, OptionError

__all__ = ["SynthPipePerceptualLoss", "find_vgg_weights"]

_LAYOUTS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


class SynthPipePerceptualLoss(PerceptualLoss):  # type: ignore[misc]
    """Distance between VGG features of images ``(B, 3, H, W)`` in [0, 1]: (perceptual, style), each a scalar or None.

    Args:
        layer_weights: weight of each layer's distance, such as ``{"conv5_4": 1.0}``.
        vgg_path: a state dictionary of torchvision's VGG (``features.*`` are enough); None looks in BasicSR's
            ``experiments/pretrained_models``, then in PyTorch's hub folder, then asks the network.
        vgg_type: ``vgg11``, ``vgg13``, ``vgg16`` or ``vgg19``, with ``_bn`` appended for batch normalisation.
        options: the rest as BasicSR's ``PerceptualLoss`` takes it.

    Raises:
        OptionError: unknown ``vgg_type`` or layer.
        CheckpointError: no weights anywhere, or a file that does not hold them.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        vgg_path: str | None = None,
        vgg_type: str = "vgg19",
        **options: Any,
    ) -> None:
        _check_layers(layer_weights, vgg_type)
        features = _load_features(find_vgg_weights(vgg_path, vgg_type), vgg_type)
        # BasicSR asks torchvision for a whole VGG; it gets one that holds the loaded features and nothing else.
        source = SimpleNamespace(**{vgg_type: lambda **_: SimpleNamespace(features=features)})
        with patched(vgg_arch, vgg=source, VGG_PRETRAIN_PATH=""):
            super().__init__(dict(layer_weights), vgg_type=vgg_type, **options)


def find_vgg_weights(vgg_path: str | None, vgg_type: str = "vgg19") -> Path:
    """The file with the weights: the one given, else found locally, else fetched.

    Raises:
        OptionError: the given path has an unknown user or variable.
        CheckpointError: the given file is absent, or none is found and the network does not answer.
    """
    if vgg_path is not None:
        try:
            path = Path(expand_place(vgg_path))
        except ValueError as error:
            raise OptionError(f"vgg_path: {error}") from error
        if not path.is_file():
            raise CheckpointError(f"vgg_path: no file at {vgg_path!r}; {_advice(vgg_type)}")
        return path
    url = _url(vgg_type)
    hub = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    for candidate in (Path("experiments/pretrained_models") / hub.name, hub):
        if candidate.is_file():
            return candidate
    try:
        torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network or no room; a download with the wrong hash
        raise CheckpointError(
            f"VGG weights are not here and cannot be fetched ({error}); {_advice(vgg_type)}"
        ) from error
    return hub


def _url(vgg_type: str) -> str:
    return str(get_model_weights(vgg_type).IMAGENET1K_V1.url)


def _advice(vgg_type: str) -> str:
    return (
        f"fetch {_url(vgg_type)} where there is a network and set train.perceptual_opt.vgg_path to the file, "
        "or leave out perceptual_opt as recipes/esrgan_x4/train_no_vgg.yml does"
    )


def _check_layers(layer_weights: Mapping[str, float], vgg_type: str) -> None:
    base = vgg_type.removesuffix("_bn")
    if base not in _LAYOUTS:
        raise OptionError(f"vgg_type: expected one of {sorted(_LAYOUTS)}, with or without '_bn', got {vgg_type!r}")
    names = vgg_arch.NAMES[base]
    known = vgg_arch.insert_bn(names) if vgg_type != base else names
    unknown = sorted(set(layer_weights) - set(known))
    if unknown or not layer_weights:
        raise OptionError(f"layer_weights: expected layers of {vgg_type} such as 'conv5_4', got {unknown or 'none'}")


def _load_features(path: Path, vgg_type: str) -> nn.Module:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no one exception for a file that is not its own
        raise CheckpointError(f"vgg_path {path}: not a PyTorch state dictionary ({error})") from error
    prefix = "features."
    tensors = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    layout = vgg.cfgs[_LAYOUTS[vgg_type.removesuffix("_bn")]]
    with torch.device("meta"):  # nothing to initialise, and no draw from the global generator
        features: nn.Module = vgg.make_layers(layout, batch_norm=vgg_type.endswith("_bn"))
    try:
        features.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"vgg_path {path}: its tensors are not those of {vgg_type}: {error}") from error
    return features
