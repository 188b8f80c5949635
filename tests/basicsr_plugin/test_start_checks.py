"""What is wrong in an option file is said before anything is built: key, value and cure, all of it at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from synthpipe.errors import OptionError
from tests.basicsr_runs import options, require_basicsr, run_entry, write_options

require_basicsr()

from synthpipe.basicsr_plugin.checks import check_options  # noqa: E402
from synthpipe.basicsr_plugin.command_line import parse_command_line  # noqa: E402
from synthpipe.basicsr_plugin.option_file import read_option_file  # noqa: E402

#: Stands for a key that is taken away.
GONE = object()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that has nothing wrong, by its path an ESRGANModel."""
    return options(tmp_path_factory.mktemp("run"), gan=True)


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with values at dotted paths."""
    opt = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        block = opt
        for parent in parents:
            block = block[parent]
        if value is GONE:
            del block[last]
        else:
            block[last] = value
    return opt


def problems(opt: dict[str, Any], *flags: str) -> list[str]:
    """Lines of the error, without the file's name."""
    try:
        check_options(opt, parse_command_line(["-opt", "x.yml", *flags]))
    except OptionError as error:
        return [line.removeprefix("x.yml: ") for line in str(error).splitlines()]
    return []


def test_a_good_file_has_no_problem(base: dict[str, Any]) -> None:
    assert problems(base) == []


NUMBERS: list[tuple[str, Any, str]] = [
    # of the case, and its siblings: an exponent without point or sign is text to YAML 1.1
    ("train.total_iter", "1e1", "train.total_iter: '1e1' is text, not a number, to YAML; write 10, without quotes"),
    ("train.total_iter", "400,000", "'400,000' is text, not a number, to YAML; write 400000"),
    ("train.total_iter", "4e5", "write 400000"),
    ("train.optim_g.lr", "1e-4", "write 1.0e-4, with a point and a sign"),
    ("train.optim_g.lr", "1.0e-4 ", "write 1.0e-4"),
    ("train.optim_d.lr", "2E-5", "train.optim_d.lr: '2E-5' is text, not a number, to YAML; write 2.0e-5"),
    ("train.optim_g.weight_decay", "5e-3", "write 5.0e-3"),
    ("train.optim_g.betas", [0.9, "99e-2"], "train.optim_g.betas[1]: '99e-2' is text"),
    ("train.optim_g.betas", [0.9, 9.9], "train.optim_g.betas[1]: expected a number, at least 0 and at most 1, got 9.9"),
    ("train.scheduler.milestones", ["5e3", 10000], "train.scheduler.milestones[0]: '5e3' is text"),
    ("train.scheduler.milestones", 5000, "train.scheduler.milestones: expected a list of numbers, got 5000"),
    ("train.pixel_opt.loss_weight", "1e-2", "train.pixel_opt.loss_weight: '1e-2' is text"),
    ("train.gan_opt.real_label_val", "0,9", "'0,9' is text, not a number, to YAML; write 0.9, without quotes"),
    (
        "train.ema_decay",
        "0.999",
        "'0.999' is text, not a number, to YAML; write 0.999, without quotes",
    ),
    ("train.ema_decay", 999, "train.ema_decay: expected a number, at least 0 and at most 1, got 999"),
    ("train.warmup_iter", None, "train.warmup_iter: expected a whole number, at least -1, got nothing; leave the key"),
    ("train.net_d_iters", 0, "train.net_d_iters: expected a whole number, at least 1, got 0"),
    ("logger.print_freq", "1e2", "logger.print_freq: '1e2' is text, not a number, to YAML; write 100"),
    ("logger.print_freq", 0, "logger.print_freq: expected a whole number, at least 1, got 0"),
    ("logger.save_checkpoint_freq", "5e3", "write 5000"),
    ("val.val_freq", 0, "val.val_freq: expected a whole number, at least 1, got 0"),
    ("val.val_freq", "5e3", "val.val_freq: '5e3' is text"),
    ("val.metrics.psnr.crop_border", "4", "val.metrics.psnr.crop_border: '4' is text, not a number, to YAML; write 4"),
    ("val.save_img", "no", "val.save_img: expected true or false, got 'no'; any text counts as true"),
    ("manual_seed", "abc", "manual_seed: expected an integer, at least 0 and at most 4294967295, got 'abc'"),
    ("manual_seed", -1, "manual_seed: expected an integer, at least 0"),
    ("manual_seed", "1_000", "manual_seed: '1_000' is text, not a number, to YAML; write 1000"),
    ("manual_seed", 1.5, "manual_seed: expected an integer"),
    ("scale", "4", "scale: '4' is text, not a number, to YAML; write 4, without quotes"),
    ("datasets.train.gt_size", "3_2e0", "datasets.train.gt_size: '3_2e0' is text, not a number, to YAML; write 32"),
    ("datasets.train.batch_size_per_gpu", "2", "datasets.train.batch_size_per_gpu: '2' is text"),
    ("datasets.train.batch_size_per_gpu", 0, "batch_size_per_gpu: expected an integer, at least 1, got 0"),
    ("datasets.train.virtual_length", "1e5", "datasets.train.virtual_length: '1e5' is text"),
    ("datasets.train.dataset_enlarge_ratio", 0, "dataset_enlarge_ratio: expected an integer, at least 1, got 0"),
    ("datasets.train.dataset_enlarge_ratio", "1e1", "datasets.train.dataset_enlarge_ratio: '1e1' is text"),
    ("datasets.train.dataset_enlarge_ratio", [2], "expected an integer, at least 1, got [2]"),
    ("train.optim_g.lr", [1e-4], "train.optim_g.lr: expected a number, at least 0, got [0.0001]"),
    ("train.total_iter", {"a": 1}, "train.total_iter: expected a whole number, at least 1, got {'a': 1}"),
    ("train.optim_g.betas", "\n", "train.optim_g.betas: expected a list of numbers, got '\\n'"),
    ("train.total_iter\r", 5, "train.total_iter\\r: BasicSR reads no such key"),
    ("network_g.num_feat", "8", "network_g.num_feat: '8' is text, not a number, to YAML; write 8"),
    ("network_g.num_block", "1e0", "network_g.num_block: '1e0' is text"),
]


@pytest.mark.parametrize(("path", "value", "message"), NUMBERS, ids=[f"{path}={value}" for path, value, _ in NUMBERS])
def test_numbers(path: str, value: Any, message: str, base: dict[str, Any]) -> None:
    found = problems(changed(base, {path: value}))
    assert len(found) == 1, found  # said once, whoever else could complain of it
    assert message in found[0]


def test_yaml_reads_what_the_messages_say() -> None:
    """The cures are numbers to YAML 1.1, and the texts are none; PyYAML is the judge."""
    for cure, value in (("1.0e-4", 1e-4), ("2.0e-5", 2e-5), ("400000", 400000), ("0.9", 0.9), ("1.0e+6", 1e6)):
        assert yaml.safe_load(cure) == value
    for text in ("1e1", "4e5", "1e-4", "2E-5", "400,000", "0,9"):
        assert isinstance(yaml.safe_load(text), str)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("train:optim_g:lr=1e-4", "'1e-4' is text, not a number, to --force_yml; write train:optim_g:lr=0.0001"),
        ("train:total_iter=5e3", "write train:total_iter=5000"),
        ("train:warmup_iter=-1", "write train:warmup_iter=!!float-1"),
        ("train:scheduler:milestones=['1e3']", "train.scheduler.milestones[0]: '1e3' is text"),
        ("val:save_img=no", "val.save_img: expected true or false, got 'no'"),
    ],
)
def test_numbers_on_the_command_line(entry: str, message: str, base: dict[str, Any], tmp_path: Path) -> None:
    path = write_options(tmp_path / "x.yml", base)
    command = parse_command_line(["-opt", str(path), "--force_yml", entry])
    with pytest.raises(OptionError) as raised:
        check_options(read_option_file(command), command)
    assert message in str(raised.value)


@pytest.mark.parametrize("cure", ["train:optim_g:lr=0.0001", "train:warmup_iter=!!float-1", "train:total_iter=5000"])
def test_cures_of_the_command_line_are_read_by_basicsr(cure: str, base: dict[str, Any], tmp_path: Path) -> None:
    command = parse_command_line(["-opt", str(write_options(tmp_path / "x.yml", base)), "--force_yml", cure])
    check_options(read_option_file(command), command)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("trian:total_iter=5", "the file has no 'trian' at its top level; did you mean 'train'?"),
        ("train:optim:lr=5", "the file has no 'optim' at its train; did you mean 'optim_g'?"),
        ("name:sub=5", "name is a value, not a block of options"),
        ("train:total_iter", "expected key:sub=value with one '='"),
        ("train:scheduler:milestones=[1,", "value cannot be read"),
    ],
)
def test_entries_of_the_command_line_that_name_no_place(
    entry: str, message: str, base: dict[str, Any], tmp_path: Path
) -> None:
    command = parse_command_line(["-opt", str(write_options(tmp_path / "x.yml", base)), "--force_yml", entry])
    with pytest.raises(OptionError, match="--force_yml") as raised:
        read_option_file(command)
    assert message in str(raised.value)


def test_what_is_no_number_is_left_alone(base: dict[str, Any]) -> None:
    more = {
        "name": "1e5",
        "datasets.train.name": "007",
        "logger.wandb": {"project": None, "resume_id": "1e5"},
        "path.param_key_g": "1_0",
        "train.total_iter": 4.0e5,  # what YAML makes of 4.0e+5: BasicSR compares and divides alone
        "train.scheduler.milestones": [5e3, 10000],
        "my_key": "64",  # of somebody's own network; in quotes on purpose
    }
    assert problems(changed(base, more)) == []


TYPES: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "ESRGANmodel"}, "model_type: BasicSR knows no model 'ESRGANmodel'; did you mean 'ESRGANModel'?"),
    ({"model_type": "SynthPipeESRGAN"}, "did you mean 'SynthPipeESRGANModel'?"),
    ({"model_type": GONE}, "model_type: required and not given"),
    ({"network_g.type": "RRDBnet"}, "network_g.type: BasicSR knows no arch 'RRDBnet'; did you mean 'RRDBNet'?"),
    ({"network_d.type": "UNetDiscriminator"}, "did you mean 'UNetDiscriminatorSN'?"),
    ({"network_g.type": GONE}, "network_g.type: required and not given"),
    ({"network_g.num_feats": 8}, "network_g.num_feats: RRDBNet takes no such argument; did you mean 'num_feat'?"),
    ({"network_g.window_size": 8}, "network_g.window_size: RRDBNet takes no such argument; it takes: num_block"),
    ({"network_g.num_in_ch": GONE}, "network_g.num_in_ch: RRDBNet needs it, and it is not given"),
    (
        {"train.pixel_opt.type": "L1loss"},
        "BasicSR knows no loss 'L1loss'; did you mean 'L1Loss'?",
    ),
    ({"train.gan_opt.type": "GanLos"}, "did you mean 'GANLoss'?"),
    ({"train.gan_opt.gan_typ": "lsgan"}, "train.gan_opt.gan_typ: GANLoss takes no such argument; did you mean"),
    ({"train.optim_g.type": "AdamW"}, "train.optim_g.type: BasicSR knows no optimizer 'AdamW'; it knows Adam"),
    ({"train.optim_g.beta": [0.9, 0.99]}, "train.optim_g.beta: Adam takes no such argument; did you mean 'betas'?"),
    ({"train.optim_d.lr": GONE}, "train.optim_d.lr: BasicSR needs it, and it is not given"),
    ({"train.scheduler.type": "CosineAnnealingLR"}, "did you mean 'CosineAnnealingRestartLR'?"),
    ({"train.scheduler.milestone": [3]}, "train.scheduler.milestone: MultiStepRestartLR takes no such argument"),
    (
        {"train.scheduler": {"type": "CosineAnnealingRestartLR", "periods": [3, 3], "restart_weights": [1, 1]}},
        "train.scheduler.periods: they end after 6 iterations and train.total_iter is 8",
    ),
    (
        {"train.scheduler": {"type": "CosineAnnealingRestartLR", "periods": [4, 4]}},
        "train.scheduler.periods: as many as restart_weights are expected, got 2 and 1",
    ),
    ({"datasets.train.type": "SynthpipeDataset"}, "datasets.train.type: BasicSR knows no dataset 'SynthpipeDataset'"),
    ({"datasets.val.type": "PairedImagesDataset"}, "did you mean 'PairedImageDataset'?"),
    (
        {"val.metrics.psnr.type": "psnr"},
        "val.metrics.psnr.type: BasicSR knows no metric 'psnr'; known: calculate_niqe, calculate_psnr",
    ),
    (
        {"val.metrics.psnr.type": "calculate_psnr_pt"},
        "calculate_psnr_pt works on tensors, and BasicSR's validation gives",
    ),
    ({"val.metrics.psnr.crop_border": GONE}, "val.metrics.psnr.crop_border: calculate_psnr needs it"),
]

MODELS: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "EDVRModel"}, "EDVRModel trains on sequences of frames, and a SynthPipeDataset gives single"),
    ({"model_type": "VideoRecurrentGANModel"}, "VideoRecurrentGANModel trains on sequences of frames"),
    ({"model_type": "StyleGAN2Model"}, "StyleGAN2Model makes faces out of noise and reads no lq; take SRModel"),
    ({"model_type": "RealESRGANModel"}, "high_order_degradation: RealESRGANModel makes lq itself"),
    ({"model_type": "RealESRNetModel"}, "set high_order_degradation: false on top, which trains on the stream's pairs"),
    ({"model_type": "RealESRGANModel", "high_order_degradation": False}, "l1_gt_usm: RealESRGANModel reads it"),
    ({"model_type": "SwinIRModel"}, "network_g.window_size: SwinIRModel pads validation images to it"),
    ({"network_d": GONE}, "network_d: ESRGANModel needs this block, and it is not given"),
    ({"train.gan_opt": GONE}, "train.gan_opt: ESRGANModel needs this block"),
    ({"train.optim_d": GONE, "train.optimd": {}}, "train.optim_d: ESRGANModel needs this block"),
    ({"model_type": "SRModel", "train.pixel_opt": GONE}, "train.pixel_opt: SRModel needs it or perceptual_opt"),
    ({"train.ema_decya": 0.9}, "train.ema_decya: BasicSR reads no such key, so its default would count; did you mean"),
    ({"logger.print_frq": 3}, "logger.print_frq: BasicSR reads no such key"),
    ({"path.strict_load": True}, "path.strict_load: BasicSR reads no such key"),
    ({"val.metric": {}}, "val.metric: BasicSR reads no such key"),
    ({"datasets.train.degrade": GONE}, "ESRGANModel: datasets.train has no `degrade`, so its batches hold no 'lq'"),
    (
        {"model_type": "SynthPipeESRGANModel", "degrade": {"type": "classical"}},
        "degrade: datasets.train has a degrade, too, so the model's own is never used",
    ),
    (
        {"model_type": "SynthPipeESRGANModel", "datasets.train.degrade": GONE},
        "degrade: neither datasets.train nor the top level, where SynthPipeESRGANModel reads it, has one",
    ),
]

DATA: list[tuple[dict[str, Any], str]] = [
    ({"datasets.train.dataroot_gt": "/x"}, "dataroot_gt: only BasicSR's own datasets have such keys; remove them"),
    ({"datasets.train.kernel_list": ["iso"]}, "kernel_list: only BasicSR's own datasets have such keys"),
    ({"datasets.train.num_frame": 5, "datasets.train.meta_info": "x"}, "meta_info, num_frame: only BasicSR's own"),
    (
        {"datasets.train.io_backend": {"type": "lmdb"}},
        "io_backend: a stream reads `shards`, and no 'lmdb'",
    ),
    ({"datasets.train.use_shuffle": False}, "datasets.train.use_shuffle: a stream always shuffles; remove the key"),
    (
        {"datasets.train.prefetch_mode": "cude"},
        "prefetch_mode: expected cpu, cuda or nothing, got 'cude'",
    ),
    ({"datasets.train.dataset_enlarge_ratio": 100}, "a stream needs no dataset_enlarge_ratio"),
    ({"datasets.train.batch_size_per_gpu": GONE}, "datasets.train.batch_size_per_gpu: required and not given"),
    ({"datasets.train.name": GONE}, "datasets.train.name: required and not given"),
    ({"datasets.val.persistent_workers": True}, "datasets.val.persistent_workers: BasicSR validates without worker"),
    ({"datasets.train": GONE}, "datasets.train: required and not given"),
    ({"datasets.test": {}}, "datasets.test: BasicSR's training knows 'train', 'val', and 'val_1'"),
    ({"datasets.val": None}, "datasets.val: expected a block of options, got None"),
    ({"datasets.train.gt_size": 30}, "gt_size must be a multiple of scale 4, got 30"),
    ({"datasets.train.gt_size": 36}, "datasets.train.gt_size: UNetDiscriminatorSN takes multiples of 8 pixels, got 36"),
    (
        {"network_d": {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 8}},
        "network_d.input_size: VGGStyleDiscriminator takes patches of 128 pixels, and datasets.train.gt_size is 32",
    ),
    ({"network_g.scale": 2}, "network_g.scale: RRDBNet enlarges by 2, and scale is 4; make them equal"),
    ({"network_g": {"type": "MSRResNet", "upscale": 3}}, "network_g.upscale: MSRResNet enlarges by 3, and scale is 4"),
    (
        {"network_g": {"type": "SwinIR", "upsampler": "pixelshuffle"}},
        "upscale: SwinIR enlarges by 2, its default",
    ),
    ({"network_g": {"type": "SwinIR", "upscale": 4}}, "network_g.upsampler: SwinIR enlarges by 4 with one of"),
    (
        {"network_g": {"type": "SwinIR", "upscale": 4, "upsampler": "pixelshuffle"}},
        "datasets.train.gt_size: SwinIR takes lq patches of a multiple of window_size 7, got 32 / 4 = 8",
    ),
    ({"scale": 8, "network_g.scale": 8}, "scale: RRDBNet enlarges by one of (1, 2, 4), got 8"),
    (
        {"scale": 2, "network_g": {"type": "SwinIR", "upscale": 2, "upsampler": "nearest+conv"}},
        "scale: SwinIR/nearest+conv enlarges by one of (4,), got 2",
    ),
    ({"scale": GONE}, "scale: required and not given"),
    ({"network_g.num_in_ch": 1}, "network_g.num_in_ch: RRDBNet works on 1 channels, and pictures have 3"),
    ({"network_d.num_in_ch": 6}, "network_d.num_in_ch: UNetDiscriminatorSN works on 6 channels"),
]

RUNS: list[tuple[dict[str, Any], str]] = [
    ({"name": 123}, "name: expected a text, by which the run's folder is called, got 123"),
    ({"name": GONE}, "name: expected a text"),
    ({"path": None}, "path: expected a block of options, got None"),
    ({"logger": GONE}, "logger: expected a block of options"),
    ({"num_gpu": GONE}, "num_gpu: required and not given"),
    ({"num_gpu": "all"}, "num_gpu: expected 'auto' or a number of GPUs, 0 for the CPU, got 'all'"),
    ({"num_gpu": -1}, "num_gpu: expected 'auto' or a number of GPUs"),
    ({"num_gpu": "1"}, "num_gpu: expected 'auto' or a number of GPUs, 0 for the CPU, got '1'"),
    ({"train.total_iter": GONE}, "train.total_iter: required and not given"),
    (
        {"train.total_iter": GONE, "train.total_iters": 5},
        "total_iter: required and not given; did you mean 'total_iters'?",
    ),
    ({"logger.save_checkpoint_freq": GONE}, "logger.save_checkpoint_freq: required and not given"),
    ({"logger.use_tb_logger": GONE}, "logger.use_tb_logger: required and not given"),
    (
        {"logger.wandb": {"project": "p"}, "logger.use_tb_logger": False},
        "logger.use_tb_logger: wandb reads TensorBoard's log",
    ),
    ({"val": GONE}, "val: not given, so BasicSR would never validate on datasets.val"),
    ({"datasets.val": GONE}, "datasets.val: not given, so `val` would validate on nothing"),
    ({"val.save_img": GONE}, "val.save_img: required and not given"),
    ({"val.val_freq": GONE}, "val.val_freq: required and not given"),
    ({"val.metrics": GONE}, "val.metrics: neither metrics nor save_img"),
    ({"path.pretrain_network_g": "/nope/net.pth"}, "path.pretrain_network_g: no file at '/nope/net.pth'"),
    ({"path.pretrain_network_g": "x" * 5000}, "path.pretrain_network_g: no file at 'xxx"),
    ({"path.pretrain_network_g": "~nobody_here/a\0.pth"}, "path.pretrain_network_g: no file at"),
    ({"path.pretrain_network_g": "$HOME/a.pth"}, "no file at '$HOME/a.pth', where variables are not expanded"),
    ({"path.resume_state": "x" * 5000}, "path.resume_state: no file at"),
    ({"datasets.val.dataroot_gt": "x" * 5000}, "datasets.val.dataroot_gt: no folder at"),
    ({"path.pretrain_network_d": "/"}, "path.pretrain_network_d: a folder at '/'"),
    ({"path.resume_state": "/nope/8.state"}, "path.resume_state: no file at '/nope/8.state'"),
]


@pytest.mark.parametrize(("changes", "message"), TYPES + MODELS + DATA + RUNS)
def test_options(changes: dict[str, Any], message: str, base: dict[str, Any]) -> None:
    found = problems(changed(base, changes))
    assert [line for line in found if message in line], found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets.train.prefetch_mode": "cuda"}, "prefetch_mode: 'cuda' needs a GPU, and this machine has no CUDA"),
        ({"datasets.train.compile": True}, "datasets.train.compile: needs a GPU, and this machine has no CUDA device"),
        ({"num_gpu": 2}, "num_gpu: 2, and PyTorch"),
        (
            {"model_type": "RealESRGANModel", "high_order_degradation": False},
            "RealESRGANModel asks for CUDA in its constructor, and this machine has none; take SRGANModel",
        ),
    ],
)
def test_without_a_cuda_device(changes: dict[str, Any], message: str, base: dict[str, Any]) -> None:
    found = problems(changed(base, changes))
    assert [line for line in found if message in line], found


def test_devices_that_are_there(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert problems(changed(base, {"num_gpu": 1})) == []
    assert problems(changed(base, {"num_gpu": "auto"})) == []
    [found] = problems(changed(base, {"num_gpu": 4}))
    assert found.startswith("num_gpu: 4, and this machine has 1: BasicSR would give them 4 times the batch")
    # under torchrun the other GPUs may stand in other machines
    assert problems(changed(base, {"num_gpu": 8}), "--launcher", "pytorch") == []
    cuda = {"num_gpu": 1, "datasets.train.prefetch_mode": "cuda"}
    assert "pin_memory: BasicSR demands true" in problems(changed(base, cuda))[0]
    assert problems(changed(base, {**cuda, "datasets.train.pin_memory": True})) == []
    compiled = {"num_gpu": 1, "datasets.train.compile": True}
    assert problems(changed(base, compiled)) == []
    for change, why in (({"num_gpu": 0}, "num_gpu is 0"), ({"datasets.train.device": "cpu"}, "device is cpu")):
        [found] = problems(changed(base, {**compiled, **change}))
        assert found == f"datasets.train.compile: needs a GPU, and {why}; remove the key"
    usm = dict.fromkeys(("l1_gt_usm", "percep_gt_usm", "gan_gt_usm"), False)
    real = {"num_gpu": 1, "model_type": "RealESRGANModel", "high_order_degradation": False, **usm}
    assert problems(changed(base, real)) == []


NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "MSRResNet": ("upscale", {"num_feat": 8, "num_block": 1}),
    "RRDBNet": ("scale", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}),
    "EDSR": ("upscale", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1}),
    "RCAN": ("upscale", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 16, "num_group": 1, "num_block": 1}),
    "SRVGGNetCompact": ("upscale", {"num_feat": 8, "num_conv": 1}),
    **{
        f"SwinIR {upsampler}": (
            "upscale",
            {"img_size": 8, "window_size": 8, "embed_dim": 12, "depths": [1], "num_heads": [2], "upsampler": upsampler},
        )
        for upsampler in ("pixelshuffle", "pixelshuffledirect", "nearest+conv", "")
    },
}


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("network", NETWORKS)
def test_scales_are_judged_as_the_network_judges_them(
    network: str, scale: int, base: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    """Brute force: the network is built and run."""
    from basicsr.utils.registry import ARCH_REGISTRY

    key, arguments = NETWORKS[network]
    arguments = {**arguments, key: scale}
    try:
        built = ARCH_REGISTRY.get(network.split()[0])(**arguments)
        fits = built(torch.zeros(1, 3, 8, 8)).shape[-1] == 8 * scale
    except (AssertionError, AttributeError, ValueError):
        fits = False
    opt = changed(base, {"scale": scale, "network_g": {"type": network.split()[0], **arguments}})
    opt["datasets"]["train"].update(gt_size=24 * scale, tile=None)
    del opt["datasets"]["val"], opt["val"]
    assert (problems(opt) == []) == fits, problems(opt)


@pytest.mark.parametrize("size", [8, 12, 16, 20, 32, 36, 64])
def test_patches_are_judged_as_the_discriminator_judges_them(size: int, base: dict[str, Any]) -> None:
    from basicsr.utils.registry import ARCH_REGISTRY

    try:
        ARCH_REGISTRY.get("UNetDiscriminatorSN")(num_in_ch=3, num_feat=8)(torch.zeros(1, 3, size, size))
        fits = True
    except RuntimeError:
        fits = False
    assert (problems(changed(base, {"datasets.train.gt_size": size})) == []) == fits


def test_the_last_period_is_judged_as_the_scheduler_judges_it(base: dict[str, Any]) -> None:
    """BasicSR steps it once less than there are iterations."""
    from basicsr.models.lr_scheduler import CosineAnnealingRestartLR

    for total in (6, 7, 8):
        parameter = torch.nn.Parameter(torch.zeros(1))
        scheduler = CosineAnnealingRestartLR(torch.optim.Adam([parameter], 1e-3), [3, 3], [1, 1])
        try:
            for _ in range(total - 1):
                scheduler.optimizer.step()
                scheduler.step()
            fits = True
        except TypeError:
            fits = False
        block = {"type": "CosineAnnealingRestartLR", "periods": [3, 3], "restart_weights": [1, 1]}
        assert (problems(changed(base, {"train.scheduler": block, "train.total_iter": total})) == []) == fits


def test_network_files_are_looked_into(base: dict[str, Any], tmp_path: Path) -> None:
    good, bare, text, other = (tmp_path / name for name in ("good.pth", "bare.pth", "text.pth", "other.pth"))
    torch.save({"params_ema": {"w": torch.zeros(2)}, "params": {}}, good)
    torch.save({"conv.weight": torch.zeros(2)}, bare)
    torch.save({"state_dict": {"w": torch.zeros(2)}, "epoch": 3}, other, _use_new_zipfile_serialization=False)
    text.write_text("<html>404</html>")
    assert problems(changed(base, {"path.pretrain_network_g": str(good), "path.param_key_g": "params_ema"})) == []
    assert problems(changed(base, {"path.pretrain_network_g": str(bare), "path.param_key_g": None})) == []
    for path, message in (
        (bare, "has no entry 'params'; set path.param_key_g to ~, which takes its top level"),
        (other, "has no entry 'params'; set path.param_key_g to one of state_dict"),
        (text, "is no file that PyTorch reads"),
    ):
        [found] = problems(changed(base, {"path.pretrain_network_g": str(path)}))
        assert message in found


def test_all_that_is_wrong_is_said_at_once(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    opt = changed(
        base,
        {
            "train.optim_g.lr": "1e-4",
            "network_g.type": "RRDBnet",
            "datasets.train.num_worker_per_gpu": 6,
            "logger.print_freq": 0,
            "path.pretrain_network_g": "nope.pth",
        },
    )
    assert run_entry(monkeypatch, tmp_path, opt) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert not (tmp_path / "experiments").exists()  # nothing was written


def test_a_file_that_is_no_yaml_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run_entry(monkeypatch, tmp_path, {}) == 2
    assert "name: expected a text" in capsys.readouterr().err
    command = parse_command_line(["-opt", str(tmp_path / "nope.yml")])
    with pytest.raises(OptionError, match=r"nope.yml"):
        read_option_file(command)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "the key 'name' stands twice"),
        ("train: {lr: 1, lr: 2}\n", "the key 'lr' stands twice"),
        ("- a\n- b\n", "expected a mapping of options at the top level, got list"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("a: &a [*a]\n", "aliases counted each time; got more"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
            ),
            "aliases counted each time; got more",
        ),
        ("a: " + "[" * 40 + "]" * 40, "32 blocks and lists within each other"),
        ("a: " + "9" * 5000, "not valid YAML"),
    ],
)
def test_files_that_are_no_options(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(OptionError) as raised:
        read_option_file(parse_command_line(["-opt", str(path)]))
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


def test_the_file_means_what_it_means_to_basicsr(tmp_path: Path) -> None:
    """BasicSR's own loader is the judge; its files write ``!!float``."""
    from basicsr.utils.options import ordered_yaml

    text = "a: !!float 1e-4\nb: 1e-4\nc: {d: yes, e: 1:30, f: 010, g: [5e3, 1.0e+3]}\nh: ~\ni: &i {x: 1}\nj: *i\n"
    path = tmp_path / "x.yml"
    path.write_text(text)
    assert read_option_file(parse_command_line(["-opt", str(path)])) == yaml.load(text, Loader=ordered_yaml()[0])


def test_models_of_other_people_are_not_judged(base: dict[str, Any]) -> None:
    """A class that somebody registered brings its own keys, optimizers and networks."""
    from basicsr.models.sr_model import SRModel
    from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

    class TheirModel(SRModel):
        def get_optimizer(self, optim_type: str, params: Any, lr: float, **more: Any) -> Any:
            return getattr(torch.optim, optim_type)(params, lr, **more)

    class TheirNetwork(torch.nn.Module):
        def __init__(self, scale: int = 1, **more: Any) -> None:
            super().__init__()

    MODEL_REGISTRY._obj_map["TheirModel"], ARCH_REGISTRY._obj_map["TheirNetwork"] = TheirModel, TheirNetwork
    try:
        changes = {
            "model_type": "TheirModel",
            "network_g": {"type": "TheirNetwork", "scale": 2, "depth": "3"},
            "train.optim_g.type": "AdamW",
            "train.ema_decays": [0.9],
        }
        assert problems(changed(base, changes)) == []
    finally:
        del MODEL_REGISTRY._obj_map["TheirModel"], ARCH_REGISTRY._obj_map["TheirNetwork"]
