"""``synthpipe import-realesrgan``: the published settings, changed ones, files that are refused, a training."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from synthpipe.cli import main
from synthpipe.pipeline import build_stream
from tests.basicsr_runs import options, require_basicsr, run_plain, write_shards
from tests.stream_corpus import noise_image

require_basicsr()

from synthpipe.basicsr_plugin.checks import check_options  # noqa: E402
from synthpipe.basicsr_plugin.command_line import CommandLine  # noqa: E402
from synthpipe.basicsr_plugin.option_file import read_option_file  # noqa: E402
from synthpipe.config.basicsr import parse_dataset_options  # noqa: E402
from synthpipe.config.import_realesrgan import translate  # noqa: E402
from synthpipe.errors import OptionError  # noqa: E402
from tests.basicsr_draws import DATASET_OPTIONS, MODEL_OPTIONS  # noqa: E402


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A run as Real-ESRGAN's own option files have it, of small networks."""
    opt = options(tmp_path / "run", gan=True)
    opt |= {**MODEL_OPTIONS, "model_type": "RealESRGANModel", "gt_size": 64, "queue_size": 180}
    opt |= {"l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False}
    opt["datasets"]["train"] = {
        "name": "DF2K+OST",
        "type": "RealESRGANDataset",
        "dataroot_gt": "datasets/DF2K",
        "meta_info": "datasets/DF2K/meta.txt",
        "io_backend": {"type": "disk"},
        **DATASET_OPTIONS,
        "gt_size": 256,
        "use_shuffle": True,
        "num_worker_per_gpu": 5,
        "batch_size_per_gpu": 12,
        "dataset_enlarge_ratio": 1,
        "prefetch_mode": None,
    }
    return opt


def imported(folder: Path, opt: dict[str, Any], *flags: str) -> dict[str, Any]:
    """The file that the command writes, as BasicSR reads it."""
    source, target = folder / "given.yml", folder / "made.yml"
    source.write_text(yaml.safe_dump(opt, sort_keys=False))
    assert main(["import-realesrgan", str(source), "--out", str(target), *flags]) == 0
    return read_option_file(CommandLine(str(target)))


def error_of(folder: Path, opt: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    source = folder / "given.yml"
    source.write_text(yaml.safe_dump(opt, sort_keys=False))
    assert main(["import-realesrgan", str(source)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def chain_of(opt: dict[str, Any]) -> Any:
    return opt["datasets"]["train"]["degrade"]


def degraded(opt: dict[str, Any]) -> Any:
    """The chain as the stream reads it."""
    block = {**opt["datasets"]["train"], "phase": "train", "scale": opt["scale"]}
    return parse_dataset_options(block).degrade


def test_the_published_file_is_the_preset(given: dict[str, Any], tmp_path: Path) -> None:
    made = imported(tmp_path, given)
    preset = {**made["datasets"]["train"], "degrade": "real-esrgan", "phase": "train", "scale": 4}
    assert degraded(made) == parse_dataset_options(preset).degrade
    train = made["datasets"]["train"]
    assert (train["type"], train["shards"], train["gt_size"]) == ("SynthPipeDataset", "datasets/DF2K_shards", 64)
    assert (train["tile"], train["patches_per_tile"], train["pool"]) == (100, 1, 180)
    assert (train["batch_size_per_gpu"], train["workers"], train["num_worker_per_gpu"]) == (12, 5, 0)
    assert made["high_order_degradation"] is False
    for key in ("model_type", "network_g", "network_d", "path", "train", "val", "logger", "name", "scale", "num_gpu"):
        assert made[key] == given[key]
    assert made["datasets"]["val"] == given["datasets"]["val"]
    assert (made["l1_gt_usm"], made["percep_gt_usm"], made["gan_gt_usm"]) == (True, True, False)
    # What nobody reads any more would only mislead.
    assert not set(made) & (set(MODEL_OPTIONS) - {"scale"} | {"queue_size"})


def test_changed_numbers_arrive_in_their_stages(given: dict[str, Any], tmp_path: Path) -> None:
    given |= {"resize_range": [0.25, 2], "noise_range2": [0, 51], "gray_noise_prob": 0, "jpeg_range": [50, 60]}
    given |= {"second_blur_prob": 0.25, "resize_prob2": [0, 0, 1], "gaussian_noise_prob2": 1}
    given["datasets"]["train"] |= {"kernel_list": ["iso", "plateau_iso"], "kernel_prob": [3, 1], "sinc_prob": 0.2}
    given["datasets"]["train"] |= {"blur_sigma2": [0.5, 4], "final_sinc_prob": 0, "betap_range2": [0.5, 3]}
    halo, blur, resize, noise, jpeg, blur2, resize2, noise2, choice = chain_of(imported(tmp_path, given))
    assert halo["type"] == "halo"
    assert blur["kinds"] == {"isotropic": 0.6, "plateau_isotropic": 0.2, "sinc": 0.2}
    assert resize["factor"] == [0.25, 2]
    assert noise["channels"] == {"independent": 1}
    assert jpeg["quality"] == [50, 60]
    assert (blur2["probability"], blur2["sigma"], blur2["beta_plateau"]) == (0.25, [0.5, 4], [0.5, 3])
    assert resize2 == {"type": "resize", "to": "lr", "filter": resize["filter"], "antialias": False}
    assert (noise2["kinds"], noise2["sigma"]) == ({"gaussian": 1}, [0, 0.2])
    assert [[stage["type"] for stage in way["chain"]] for way in choice["of"]] == [
        ["resize", "jpeg"],
        ["jpeg", "resize"],
    ]


def test_read_as_basicsr_reads_it(tmp_path: Path, given: dict[str, Any]) -> None:
    """``yes`` and ``!!float`` by YAML 1.1, anchors; and what was a number is one again."""
    text = yaml.safe_dump(given, sort_keys=False)
    text = text.replace("use_hflip: true", "use_hflip: yes").replace("lr: 0.001", "lr: !!float 1e-4", 1)
    (tmp_path / "given.yml").write_text(text)
    assert main(["import-realesrgan", str(tmp_path / "given.yml"), "--out", str(tmp_path / "made.yml")]) == 0
    made = yaml.safe_load((tmp_path / "made.yml").read_text())
    assert made["datasets"]["train"]["use_hflip"] is True
    assert made["train"]["optim_g"]["lr"] == 1e-4
    assert made["train"]["optim_d"]["lr"] == 1e-3


def test_says_what_has_no_equal(given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given["datasets"]["train"] |= {"io_backend": {"type": "lmdb"}, "use_rot": True, "pin_memory": True, "usefull": 1}
    given["datasets"]["train"] |= {"dataset_enlarge_ratio": 100, "use_shuffle": False, "blur_kernel_size": 15}
    made = imported(tmp_path, given, "--shards", "/data/hr")
    said = capsys.readouterr().err
    text = (tmp_path / "made.yml").read_text()
    assert "run first: synthpipe shard datasets/DF2K /data/hr --min-size 400" in said
    assert "#   synthpipe shard datasets/DF2K /data/hr --min-size 400" in text
    for key in (
        *("queue_size", "crop_pad_size", "meta_info", "io_backend: `synthpipe shard` reads folders and tars, no lmdb"),
        *("use_rot", "pin_memory", "usefull", "dataset_enlarge_ratio", "use_shuffle", "blur_kernel_size", "DiffJPEG"),
    ):
        assert f"{key}" in said
        assert key.split(":")[0] in text.partition("\n\n")[0]
    assert not {"pin_memory", "usefull", "dataset_enlarge_ratio", "use_shuffle"} & set(made["datasets"]["train"])
    assert made["datasets"]["train"]["shards"] == "/data/hr"


@pytest.mark.parametrize("sharpened", [True, False])
def test_realesrnet(sharpened: bool, given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It sharpens gt for good, which a stream cannot; without, nothing is sharpened at all."""
    given |= {"model_type": "RealESRNetModel", "gt_usm": sharpened}
    made = imported(tmp_path, given)
    assert (chain_of(made)[0]["type"] == "halo") is sharpened
    assert ("note: gt_usm: RealESRNetModel compares with a sharpened gt" in capsys.readouterr().err) is sharpened
    assert "gt_usm" not in made


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "SRModel"}, "model_type: expected RealESRGANModel or RealESRNetModel, got 'SRModel'"),
    ({"high_order_degradation": False}, "high_order_degradation is false"),
    ({"datasets": 3}, "datasets.train: expected a block of options, got None"),
    ({"resize_prob": [0.2, 0.8]}, "option 'resize_prob.2' is required"),
    ({"resize_prob": [0, 0, 0]}, "option 'resize_prob': expected a weight above 0, got [0.0, 0.0, 0.0]"),
    ({"resize_range2": [1.1, 1.2]}, "option 'resize_range2': expected [low, high] with 1 between them, got [1.1, 1.2]"),
    ({"noise_range": [30, 1]}, "option 'noise_range': expected [low, high], got [30.0, 1.0]"),
    ({"gray_noise_prob": 1.4}, "option 'gray_noise_prob'"),
    ({"jpeg_range2": "high"}, "option 'jpeg_range2': expected a list, got 'high'"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[next(iter(changes)) for changes, _ in REFUSED])
def test_refused(
    changes: dict[str, Any],
    message: str,
    given: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = error_of(tmp_path, given | changes, capsys)
    assert message in said
    assert "given.yml" in said


def test_refused_blocks(given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def changed(**more: Any) -> dict[str, Any]:
        opt = copy.deepcopy(given)
        opt["datasets"]["train"] |= more
        return opt

    paired = changed(type="PairedImageDataset")
    assert "datasets.train.type: expected RealESRGANDataset, got 'PairedImageDataset'" in error_of(
        tmp_path, paired, capsys
    )
    skew = changed(kernel_list=["iso", "skew"], kernel_prob=[1, 1])
    assert "datasets.train: option 'kernel_list.1': expected" in error_of(tmp_path, skew, capsys)
    short = changed(kernel_prob2=[0.5, 0.5])
    assert "datasets.train.kernel_prob2: expected a weight for each of the 6 kernels, got 2" in error_of(
        tmp_path, short, capsys
    )
    missing = changed()
    del missing["datasets"]["train"]["sinc_prob"], missing["noise_range"]
    assert "option 'noise_range' is required" in error_of(tmp_path, missing, capsys)
    wrong = changed(batch_size_per_gpu=0)
    assert "given.yml: datasets.train" in error_of(tmp_path, wrong, capsys)


def test_line_ends_in_names_end_no_comment(given: dict[str, Any], tmp_path: Path) -> None:
    given["datasets"]["train"] |= {"dataroot_gt": "a\nname: b", "odd\u2028name: c": 1}
    made = imported(tmp_path, given)
    assert made["name"] == given["name"]
    assert made["datasets"]["train"]["shards"] == "a\nname: b_shards"


def test_the_given_file_is_not_overwritten(given: dict[str, Any], tmp_path: Path) -> None:
    source = tmp_path / "given.yml"
    source.write_text(yaml.safe_dump(given))
    before = source.read_text()
    assert main(["import-realesrgan", str(source), "--out", str(tmp_path / "." / "given.yml")]) == 2
    assert source.read_text() == before


def test_trains(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BasicSR's own loop and model on what the command wrote; the model's ``.cuda()`` stays on the CPU."""
    pattern = write_shards(tmp_path / "hr", images=2, side=200)
    given["train"]["total_iter"] = 2
    given["datasets"]["train"] |= {"batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    given |= {"queue_size": 2, "gt_size": 64}
    made = imported(tmp_path, given, "--shards", pattern)
    made["datasets"]["train"]["tile"] = 48  # the images are small
    found = []
    try:
        check_options(made, CommandLine("made.yml"))
    except OptionError as error:
        found = [line for line in str(error).splitlines() if "asks for CUDA in its constructor" not in line]
    assert found == []
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda module, *_: module)
    run_plain(monkeypatch, tmp_path / "trained", made)
    log = next((tmp_path / "trained" / "experiments" / "run").glob("*.log")).read_text()
    assert "End of training" in log
    assert "nan" not in log.lower().replace("non", "")


def test_the_printed_command_makes_shards_that_the_stream_reads(given: dict[str, Any], tmp_path: Path) -> None:
    """Smaller images than the tile would end the stream as bad ones."""
    (tmp_path / "photos").mkdir()
    for number, side in enumerate((420, 200, 399, 200)):
        Image.fromarray(noise_image(number, side, side + 7)).save(tmp_path / "photos" / f"{number}.png")
    given["datasets"]["train"]["dataroot_gt"] = str(tmp_path / "photos")
    translation = translate(given, "given.yml")
    for command in translation.commands:
        assert main(shlex.split(command)[1:]) == 0
    block = translation.options["datasets"]["train"]
    options = {key: block[key] for key in ("shards", "gt_size", "tile", "patches_per_tile", "degrade")}
    with build_stream({**options, "scale": given["scale"], "batch_size": 3, "pool": 0}) as stream:
        assert next(stream)["lq"].shape == (3, 3, 16, 16)
        assert set(stream.counts()) == {"used"}
