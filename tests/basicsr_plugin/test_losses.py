"""The perceptual loss reads weights from a file, agrees with BasicSR's own, and says what to do without any."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe.errors import CheckpointError, OptionError
from tests.basicsr_runs import require_basicsr

require_basicsr()

from basicsr.archs import vgg_arch  # noqa: E402
from basicsr.losses import build_loss  # noqa: E402
from basicsr.losses.basic_loss import PerceptualLoss  # noqa: E402
from torchvision.models import vgg  # noqa: E402

from synthpipe.basicsr_plugin.losses import SynthPipePerceptualLoss, find_vgg_weights  # noqa: E402

LAYERS = {"conv1_2": 0.1, "relu2_2": 1.0, "conv3_1": 0.5}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG11's features with random values."""
    torch.manual_seed(1)
    features = vgg.make_layers(vgg.cfgs["A"])
    path = tmp_path_factory.mktemp("vgg") / "vgg11.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, an empty hub folder, an empty working directory."""

    def fail(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def test_equals_basicsrs_loss_with_the_same_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"conv1_1": 0.1, "relu2_1": 1.0, "conv3_2": 0.5}
    ours = SynthPipePerceptualLoss(layers, str(weights), "vgg11", perceptual_weight=0.7, style_weight=0.3)

    class Whole:
        features = vgg.make_layers(vgg.cfgs["A"])

    Whole.features.load_state_dict(
        {name.removeprefix("features."): value for name, value in torch.load(weights, weights_only=True).items()}
    )
    monkeypatch.setattr(vgg, "vgg11", lambda pretrained: Whole)
    theirs = PerceptualLoss(layers, "vgg11", perceptual_weight=0.7, style_weight=0.3)

    x, gt = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    for one, two in zip(ours(x, gt), theirs(x, gt), strict=True):
        assert one.item() == two.item() != 0


def test_built_by_name_from_an_option_file(weights: Path) -> None:
    loss = build_loss(
        {
            "type": "SynthPipePerceptualLoss",
            "layer_weights": {"relu1_1": 1.0},
            "vgg_path": str(weights),
            "vgg_type": "vgg11",
        }
    )
    x = torch.rand(1, 3, 16, 16)
    percep, style = loss(x, x)
    assert percep.item() == 0
    assert style is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_construction_draws_no_random_number(weights: Path) -> None:
    before = torch.get_rng_state()
    SynthPipePerceptualLoss({"relu1_1": 1.0}, str(weights), "vgg11")
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_file_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"no file at '/nowhere/vgg.pth'.*vgg19-dcbb9e9d.pth.*perceptual_opt"):
        SynthPipePerceptualLoss(LAYERS, "/nowhere/vgg.pth")


@pytest.mark.usefixtures("offline")
def test_no_weights_and_no_network_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"name resolution.*vgg19-dcbb9e9d.pth.*train.perceptual_opt.vgg_path"):
        SynthPipePerceptualLoss(LAYERS)


@pytest.mark.usefixtures("offline")
def test_found_where_basicsr_and_the_hub_keep_them(tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    own = Path("experiments/pretrained_models/vgg19-dcbb9e9d.pth")
    for place in (hub, own):
        place.parent.mkdir(parents=True)
        place.write_bytes(b"")
        assert find_vgg_weights(None) == place


def test_a_file_that_is_no_state_dictionary(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"x.pth: not a PyTorch state dictionary"):
        SynthPipePerceptualLoss(LAYERS, str(tmp_path / "x.pth"))


def test_weights_of_another_vgg(weights: Path) -> None:
    with pytest.raises(CheckpointError, match="its tensors are not those of vgg16"):
        SynthPipePerceptualLoss(LAYERS, str(weights), "vgg16")


@pytest.mark.parametrize(
    ("layers", "vgg_type", "message"),
    [
        ({"conv9_9": 1.0}, "vgg19", "expected layers of vgg19.*conv9_9"),
        ({}, "vgg19", "expected layers of vgg19.*none"),
        ({"conv1_1": 1.0}, "resnet50", "expected one of .*got 'resnet50'"),
    ],
)
def test_wrong_options(layers: dict[str, float], vgg_type: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SynthPipePerceptualLoss(layers, "/any", vgg_type)


def test_basicsr_is_left_as_it_was(weights: Path) -> None:
    before = (vgg_arch.vgg, vgg_arch.VGG_PRETRAIN_PATH)
    SynthPipePerceptualLoss({"relu1_1": 1.0}, str(weights), "vgg11")
    assert (vgg_arch.vgg, vgg_arch.VGG_PRETRAIN_PATH) == before


def test_the_path_of_the_weights_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NET", "vgg")
    (tmp_path / "vgg.pth").touch()
    assert find_vgg_weights("~/$NET.pth") == tmp_path / "vgg.pth"
    with pytest.raises(OptionError, match="vgg_path: no user 'nobody9'"):
        find_vgg_weights("~nobody9/vgg.pth")
    with pytest.raises(CheckpointError, match=r"vgg_path: no file at '~/other\.pth'"):
        find_vgg_weights("~/other.pth")
