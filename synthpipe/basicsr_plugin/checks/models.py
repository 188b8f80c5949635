"""Whether the model can be trained on a stream's pairs, and has the blocks that it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from synthpipe.basicsr_plugin.checks.lookup import block_at, nearest, value_at
from synthpipe.basicsr_plugin.checks.types import model_class

__all__ = ["check_model", "gives_pairs", "gives_stream"]

_PAIRED = "SRModel, SRGANModel, ESRGANModel or SwinIRModel"
#: Models of BasicSR 1.4.2 that read something else than pairs of pictures.
_NOT_PAIRED = {
    **dict.fromkeys(
        ("VideoBaseModel", "EDVRModel", "VideoGANModel", "VideoRecurrentModel", "VideoRecurrentGANModel"),
        "trains on sequences of frames, and a SynthPipeDataset gives single pictures",
    ),
    "StyleGAN2Model": "makes faces out of noise and reads no lq",
}
_REAL = ("RealESRGANModel", "RealESRNetModel")
_USM_KEYS = ("l1_gt_usm", "percep_gt_usm", "gan_gt_usm")

#: What else may stand in the blocks that BasicSR reads; a key that is close to one of these and none of them is meant
#: to be it.
_KNOWN = {
    "": (
        *("name", "model_type", "scale", "num_gpu", "manual_seed", "datasets", "path", "train", "val", "logger"),
        *("network_g", "network_d", "dist_params", "find_unused_parameters", "degrade", "gt_size", "queue_size"),
        *("high_order_degradation", *_USM_KEYS),
    ),
    "train": (
        *("ema_decay", "optim_g", "optim_d", "scheduler", "total_iter", "warmup_iter", "net_d_iters"),
        *("net_d_init_iters", "pixel_opt", "perceptual_opt", "gan_opt", "ldl_opt", "feature_matching_opt", "fix_flow"),
        *("flow_lr_mul", "tsa_iter", "mixing_prob", "net_g_reg_every", "net_d_reg_every", "r1_reg_weight"),
    ),
    "val": ("val_freq", "save_img", "metrics", "pbar", "suffix"),
    "logger": ("print_freq", "save_checkpoint_freq", "use_tb_logger", "wandb"),
    "path": (
        *("pretrain_network_g", "pretrain_network_d", "strict_load_g", "strict_load_d", "param_key_g", "param_key_d"),
        *("resume_state", "ignore_resume_networks"),
    ),
}


def gives_stream(options: Mapping[str, Any]) -> bool:
    """Whether training reads a stream of ours."""
    return bool(value_at(options, "datasets.train.type") == "SynthPipeDataset")


def gives_pairs(options: Mapping[str, Any]) -> bool:
    """Whether it brings its own low-quality partners."""
    return gives_stream(options) and bool(value_at(options, "datasets.train.degrade"))


def check_model(options: Mapping[str, Any]) -> Iterator[str]:
    """One line for each reason why the model cannot be trained as it stands."""
    model = model_class(options)
    if model is None:
        return  # its name is wrong, which is said elsewhere
    if gives_stream(options):
        yield from _check_input(options, model.__name__)
    if model.__name__ in _REAL:
        yield from _check_real(options, model.__name__)
    yield from _check_blocks(options, model)
    if model.__module__.startswith(("basicsr.", "synthpipe.")):
        yield from _check_spelling(options)


def _check_input(options: Mapping[str, Any], name: str) -> Iterator[str]:
    from synthpipe.basicsr_plugin.model import DegradeInFeedData

    if name in _NOT_PAIRED:
        yield f"model_type: {name} {_NOT_PAIRED[name]}; take {_PAIRED}"
        return
    degrades = issubclass(model_class(options), DegradeInFeedData)
    if degrades and gives_pairs(options) and options.get("degrade"):
        yield (
            "degrade: datasets.train has a degrade, too, so the model's own is never used; keep one of them: the "
            f"data set's, or the model's ({name})"
        )
    if gives_pairs(options) or name in _REAL:
        return
    if not degrades:
        yield (
            f"model_type {name}: datasets.train has no `degrade`, so its batches hold no 'lq'; add one there, or take "
            "SynthPipeSRModel, SynthPipeSRGANModel or SynthPipeESRGANModel and add it on top"
        )
    elif not options.get("degrade"):
        yield (
            f"degrade: neither datasets.train nor the top level, where {name} reads it, has one, so nothing makes "
            "'lq'; add for example degrade: {type: deflow, weights: deflow_small}"
        )


def _check_real(options: Mapping[str, Any], name: str) -> Iterator[str]:
    """Real-ESRGAN's models make ``lq`` themselves, of kernels that their own data set draws."""
    pairs = "SRGANModel" if name == "RealESRGANModel" else "SRModel"
    if gives_stream(options) and options.get("high_order_degradation", True):
        yield (
            f"high_order_degradation: {name} makes lq itself, of kernels that a RealESRGANDataset draws, and would "
            "leave the stream's lq unused; set high_order_degradation: false on top, which trains on the stream's "
            f"pairs, or take {pairs}"
        )
    elif gives_stream(options) and not gives_pairs(options):
        yield f"datasets.train.degrade: {name} with high_order_degradation: false reads lq; add a degrade"
    if not torch.cuda.is_available() or options.get("num_gpu") == 0:
        yield (
            f"model_type: {name} asks for CUDA in its constructor, and "
            f"{'num_gpu is 0' if torch.cuda.is_available() else 'this machine has none'}; take {pairs}"
        )
    if name == "RealESRGANModel":
        for key in _USM_KEYS:
            if key not in options:
                yield f"{key}: {name} reads it on the top level, and it is not given; true compares with a sharpened gt"


def _check_blocks(options: Mapping[str, Any], model: Any) -> Iterator[str]:
    from basicsr.models.sr_model import SRModel
    from basicsr.models.srgan_model import SRGANModel
    from basicsr.models.swinir_model import SwinIRModel

    if not issubclass(model, SRModel):
        return
    needed = ["network_g", "train.optim_g", "train.scheduler"]
    needed += ["network_d", "train.optim_d", "train.gan_opt"] if issubclass(model, SRGANModel) else []
    for path in needed:
        if not isinstance(value_at(options, path), Mapping):
            parent, _, key = path.rpartition(".")
            beside = [str(name) for name in (block_at(options, parent) if parent else options)]
            near = nearest(key, set(beside) - {each.rpartition(".")[2] for each in needed}, cutoff=0.75)
            hint = f"; {near}" if near.startswith("did") else ""
            yield f"{path}: {model.__name__} needs this block, and it is not given{hint}"
    if model.init_training_settings is SRModel.init_training_settings and not (
        value_at(options, "train.pixel_opt") or value_at(options, "train.perceptual_opt")
    ):
        yield f"train.pixel_opt: {model.__name__} needs it or perceptual_opt, and neither is given"
    if issubclass(model, SwinIRModel) and value_at(options, "network_g.window_size") is None:
        yield (
            f"network_g.window_size: {model.__name__} pads validation images to it, and it is not given; write it for "
            f"SwinIR, or take SRModel for {value_at(options, 'network_g.type')}"
        )
    if value_at(options, "train.ldl_opt") and not value_at(options, "train.ema_decay"):
        yield "train.ema_decay: ldl_opt compares with the averaged network; set for example ema_decay: 0.999"


def _check_spelling(options: Mapping[str, Any]) -> Iterator[str]:
    """BasicSR takes any key, and a misspelt one is its default without a word."""
    for path, known in _KNOWN.items():
        block = block_at(options, path) if path else options
        for key in block:
            if key in known or str(key).startswith(("network_", "pretrain_", "optim_")):
                continue
            near = nearest(str(key), known, cutoff=0.8)
            if near.startswith("did"):
                where = f"{path}.{key}" if path else str(key)
                yield f"{where}: BasicSR reads no such key, so its default would count; {near}"
