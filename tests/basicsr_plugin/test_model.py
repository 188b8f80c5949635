"""Degrading inside ``feed_data``: which batches, whose randomness, which crops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe.errors import OptionError, ShapeError
from synthpipe.transforms.captured import CapturedFunction
from tests.basicsr_runs import require_basicsr
from tests.recorded import record_on_cpu

require_basicsr()

from basicsr.models import build_model  # noqa: E402

NOISE = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.1, 0.1]}}


def model(iteration: int = 1, rank: int = 0, **more: Any) -> Any:
    """A tiny model about to train ``iteration``."""
    opt = {
        "name": "m",
        "model_type": "SynthPipeSRModel",
        "scale": 2,
        "num_gpu": 0,
        "dist": False,
        "is_train": True,
        "rank": rank,
        "manual_seed": 3,
        "degrade": NOISE,
        "network_g": {
            "type": "MSRResNet",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 4,
            "num_block": 1,
            "upscale": 2,
        },
        "path": {},
        "val": {},
        "train": {
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [100]},
            "pixel_opt": {"type": "L1Loss"},
        },
        **more,
    }
    built = build_model(opt)
    built.optimizer_g.step()  # a scheduler wants to come second
    built.update_learning_rate(iteration)
    return built


def ramp(count: int = 2, side: int = 32) -> Tensor:
    """Images whose value at each pixel tells its position."""
    line = torch.linspace(0.25, 0.75, side)
    return torch.stack(
        [line.expand(side, side), line[:, None].expand(side, side), torch.full((side, side), 0.5)]
    ).repeat(count, 1, 1, 1)


def feed(built: Any, **batch: Any) -> Tensor:
    built.feed_data({"gt": ramp(), "gt_path": ["a.png", "b.png"], **batch})
    return built.lq


def test_lq_is_made_with_the_noise_asked_for() -> None:
    built = model()
    lq = feed(built)
    assert lq.shape == (2, 3, 16, 16)
    assert torch.equal(built.gt, ramp())
    # the blue channel is flat at 0.5, so all its deviation is noise of sigma 0.1: 512 values, standard error 0.003
    assert lq[:, 2].std().item() == pytest.approx(0.1, abs=0.012)


def test_lq_that_is_there_stays() -> None:
    given = torch.rand(2, 3, 16, 16)
    assert torch.equal(feed(model(), lq=given), given)


def test_randomness_follows_iteration_rank_path_and_place() -> None:
    same = feed(model(5))
    assert torch.equal(feed(model(5)), same)
    assert not torch.equal(feed(model(6)), same)
    assert not torch.equal(feed(model(5, rank=1)), same)
    assert not torch.equal(feed(model(5, manual_seed=4)), same)
    assert not torch.equal(same[0], same[1])
    other = feed(model(5), gt_path=["a.png", "c.png"])
    assert torch.equal(other[0], same[0])
    assert not torch.equal(other[1], same[1])
    twice = feed(model(5), gt_path=["a.png", "a.png"])
    assert not torch.equal(twice[0], twice[1])


def test_a_streams_own_seeds_rule() -> None:
    seeds = torch.tensor([11, 12])
    one = feed(model(1), seed=seeds, key=["a", "b"])
    two = feed(model(9), seed=seeds, key=["x", "y"])
    assert torch.equal(one, two)


def test_images_of_another_scale_are_refused_captured_or_not() -> None:
    captured = model()
    captured._captured = CapturedFunction(captured._compute, record=record_on_cpu)
    for built in (model(), captured):
        for factor in (255, -1):  # bytes that nobody divided, and [-1, 1] of a dark image
            with pytest.raises(ShapeError, match=r"gt of the training dataset: expected images in \[0, 1\], got"):
                feed(built, gt=factor * ramp().clamp(min=0.6))
        with pytest.raises(ShapeError, match=r"got torch\.uint8"):
            feed(built, gt=torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_batches_that_a_prefetcher_has_moved_to_the_device_are_looked_at_once_for_each_size() -> None:
    class Moved(Tensor):
        """On the CPU, but says otherwise."""

        device = torch.device("cuda")  # type: ignore[assignment]

    captured = model()
    captured._captured = CapturedFunction(captured._compute, record=record_on_cpu)
    with pytest.raises(ShapeError, match=r"gt of the training dataset: expected images in \[0, 1\], got"):
        feed(captured, gt=(255 * ramp()).as_subclass(Moved))


def test_captured_it_gives_the_same_and_goes_on_where_sizes_are_too_many() -> None:
    plain, captured = model(), model()
    captured._captured = CapturedFunction(captured._compute, most=1, record=record_on_cpu)
    for side in (32, 32, 24):
        batch = {"gt": ramp(side=side), "gt_path": ["a.png", "b.png"]}
        for built in (plain, captured):
            built.feed_data(dict(batch))
        assert torch.equal(captured.lq, plain.lq)
        kept = captured.lq
        captured.feed_data({**batch, "gt_path": ["c.png", "d.png"]})
        assert torch.equal(kept, plain.lq)  # its own memory
        assert not torch.equal(captured.lq, kept)
    with pytest.raises(OptionError, match=r"degrade\.samples: is for streams"):
        model(degrade={"type": "deflow", "weights": "deflow_small", "samples": 2})


def test_crops_are_aligned_and_differ() -> None:
    built = model(gt_size=8, degrade={"type": "classical"})
    lq = feed(built)
    assert built.gt.shape == (2, 3, 8, 8)
    assert lq.shape == (2, 3, 4, 4)
    assert not torch.equal(built.gt[0], built.gt[1])
    # in a ramp the mean of an aligned patch is the same in both resolutions; one LR pixel off is 0.032 off
    assert torch.allclose(lq.mean((2, 3)), built.gt.mean((2, 3)), atol=0.012)


def test_validation_takes_frozen_pairs_only() -> None:
    built = model()
    with pytest.raises(OptionError, match="validation needs frozen pairs"):
        built.validation(_Loader({"gt": ramp(1), "lq_path": ["v.png"]}), 1, None, False)
    given = torch.rand(1, 3, 16, 16)
    seen = []
    built.test = lambda: seen.append(built.lq) or setattr(built, "output", built.gt)
    built.validation(_Loader({"gt": ramp(1), "lq": given, "lq_path": ["v.png"]}), 1, None, False)
    assert torch.equal(seen[0], given)
    assert built.is_train


class _Loader(list[dict[str, Any]]):
    class dataset:  # noqa: N801  what BasicSR asks a loader for
        opt = {"name": "frozen"}  # noqa: RUF012

    def __init__(self, batch: dict[str, Any]) -> None:
        super().__init__([batch])


def test_no_degrade_and_no_lq_says_what_to_add() -> None:
    with pytest.raises(OptionError, match="gives no 'lq' and the option file has no 'degrade'; add for example"):
        feed(model(degrade=None))


def test_misspelt_options_are_refused() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'degrade.blurr'; did you mean 'blur'"):
        model(degrade={"type": "classical", "blurr": {}})
    with pytest.raises(OptionError, match="gt_size: expected a multiple of scale 2, got 9"):
        model(gt_size=9)


def test_images_smaller_than_the_crop() -> None:
    with pytest.raises(ShapeError, match=r"gt_size 64: larger than the dataset's images, \(32, 32\)"):
        feed(model(gt_size=64))


@pytest.mark.parametrize("name", ["SynthPipeSRGANModel", "SynthPipeESRGANModel"])
def test_gan_models_take_a_step(name: str) -> None:
    base = model()
    train = {
        **base.opt["train"],
        "optim_g": {"type": "Adam", "lr": 1e-3},
        "optim_d": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [100]},
        "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
    }
    built = build_model(
        {**base.opt, "model_type": name, "train": train, "network_g": base.opt["network_g"] | {"type": "MSRResNet"},
         "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}}
    )  # fmt: skip
    before = [value.clone() for value in built.net_g.parameters()]
    feed(built)
    built.optimize_parameters(1)
    assert any(not torch.equal(one, two) for one, two in zip(before, built.net_g.parameters(), strict=True))
    assert built.log_dict["l_g_gan"] > 0


def test_chains_go_by_the_iteration_and_refuse_images_that_they_cannot_take() -> None:
    blur = {"type": "blur", "size": 51, "sigma": 3}
    chain = [{"type": "resize", "to": "lr"}, {**blur, "probability": [[0, 0.0], [40, 1.0]]}]
    built, plain = model(1, degrade=chain), model(1, degrade=chain[:1])
    assert torch.equal(feed(built), feed(plain))
    built.update_learning_rate(21)  # 40 images seen; as in a run that was resumed there
    late = feed(built)
    assert not torch.equal(late[0], plain.lq[0])
    assert not torch.equal(late[1], plain.lq[1])
    assert torch.equal(feed(model(21, degrade=chain)), late)
    with pytest.raises(OptionError, match=r"blur has kernels of up to 51x51 pixels, and images of down to 12x12"):
        built.feed_data({"gt": ramp(side=24), "gt_path": ["a.png", "b.png"]})
    with pytest.raises(OptionError, match=r"they must have \(16, 16\)"):
        feed(model(degrade=[{"type": "jpeg"}]))


def test_a_bank_of_kernels_that_is_not_there_is_named() -> None:
    chain = [{"type": "resize", "to": "lr"}, {"type": "blur", "kinds": {"bank": 1}, "bank": "nowhere.npy"}]
    with pytest.raises(OptionError, match=r"bank: cannot read .*nowhere\.npy"):
        model(degrade=chain)
