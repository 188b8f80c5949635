"""The objective of DeFlow: the sum of two marginal likelihoods under one flow.

Wolf et al., "DeFlow", CVPR 2021, section 3.  The loss is the mean negative log-likelihood of both domains in true bits
per dimension; every batch holds as many clean as noisy images, so the mean over images weighs the domains equally.
"""

from __future__ import annotations

import copy
import json
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.run import OptimizerOptions
from synthpipe.errors import OptionError, SynthPipeError, TrainingError
from synthpipe.flows.deflow import DeFlow
from synthpipe.images import to_float
from synthpipe.noise_report import render_page
from synthpipe.seeds import picture_generators
from synthpipe.training.base import BatchSource, Objective, RunParts, noise_of
from synthpipe.training.data.flat_calibration import FlatCalibration, check_flat_areas
from synthpipe.training.data.flat_judge import ALIKE, FlatJudge
from synthpipe.training.data.unpaired import CLEAN, NOISY, UnpairedData
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

__all__ = ["DeFlowObjective", "build_objective", "build_run"]

logger = logging.getLogger("synthpipe.training")


class DeFlowObjective(Objective[DeFlow]):
    """Mean bits per dimension of a half clean, half noisy batch.

    Args:
        model: the flow; anything with its ``nll``, ``bits_per_dim``, ``initialize`` and ``degrade`` will do.
        calibrate: at the end of a run, correct the model by the flat areas of its piles.
        report: measure the flat-area distance of the weights, as they will be used: corrected with ``calibrate``; and
            write a report.
    """

    capturable = True
    alike = ALIKE

    def __init__(self, model: DeFlow, calibrate: bool = False, report: bool = False) -> None:
        super().__init__(model)
        self._calibrate, self._report = calibrate, report
        self.measured = "weights as they will be used, corrected" if calibrate else ""
        self._judge: FlatJudge | None = None
        self._calibration: FlatCalibration | None = None

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Bits per dimension, averaged over ``batch["x"]`` ``(B, 3, H, W)`` uint8 with ``batch["domain"]`` ``(B,)``."""
        x, domain = to_float(batch["x"]), batch["domain"]
        # Of 8-bit images and domains of our own, which `initialize` has looked at; no step waits for the device.
        nll = self.model.nll(x, domain, noise_of(seeds, x.device), check_values=False, **_level_of(batch))
        bits = self.model.bits_per_dim(nll, x.shape)  # (B,)
        clean, noisy = (_mean_of(bits.detach(), domain == number) for number in (CLEAN, NOISY))
        return bits.mean(), {"bpd_clean": clean, "bpd_noisy": noisy}

    def initialize(self, batch: Batch, seeds: Tensor) -> None:
        """Data-dependent ActNorm scales from the first batch."""
        x = to_float(batch["x"])
        self.model.initialize(x, batch["domain"], noise_of(seeds, x.device), **_level_of(batch))

    def prepare(self, data: BatchSource) -> None:
        """The levels of the pile, where the model follows them; with ``calibrate`` a look for flat areas."""
        if self._calibrate:
            assert isinstance(data, UnpairedData)
            check_flat_areas(data)
        if getattr(self.model, "pile", None) is not None:
            assert isinstance(data, UnpairedData)
            assert self.model.pile is not None
            self.model.pile.see(list(data.levels.values()))

    def starting_point(self, model: DeFlow) -> DeFlow:
        """Without a correction, which belongs to the weights that it was measured on; with levels where ours has them.

        A model that knew none then starts as one whose noise is proportional to the level.
        """
        model.correct(None)
        if "level" not in self.model.config or "level" in model.config or model.config["covariance"] != "colour":
            return model
        levelled = DeFlow(**model.config, level=True)
        state, own = model.state_dict(), levelled.state_dict()
        for name, value in own.items():
            before = state.get(name)
            if before is None:
                continue
            if before.shape == value.shape:
                value.copy_(before)
            else:  # the first convolution of a shift's colour net, which has one input more
                value.zero_()[:, : before.shape[1]] = before
        return levelled

    def parameter_groups(self, options: OptimizerOptions) -> list[dict[str, Any]]:
        """Everything at ``lr``; the conditioning network (``model.encoder``) at ``encoder_lr`` where that is set."""
        if options.encoder_lr is None:
            return super().parameter_groups(options)
        encoder = getattr(self.model, "encoder", None)
        if not isinstance(encoder, nn.Module):
            raise TrainingError(
                f"optimizer.encoder_lr is {options.encoder_lr}, but {type(self.model).__name__} has no module 'encoder'"
            )
        own = [p for p in encoder.parameters() if p.requires_grad]
        ids = {id(p) for p in own}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in ids]
        return [{"params": rest, "lr": options.lr}, {"params": own, "lr": options.encoder_lr}]

    def finish(self, model: DeFlow, data: BatchSource) -> dict[str, Any]:
        """With ``calibrate``: give ``model`` its correction."""
        if not self._calibrate:
            return {}
        return {"calibration": self._calibration_of(data)(model)}

    def judge(self, model: DeFlow, data: BatchSource) -> dict[str, float] | None:
        """The flat-area distance (:func:`synthpipe.noise_report.compare`), and what it is made of.

        Of the model as it will be used: with ``calibrate`` one without a correction is measured as a copy that has it.
        What the correction sets right at the end says nothing of which weights are best.
        """
        judge = self._judge_of(data)
        used = None if judge is None else self._as_used(model, data)
        found = None if judge is None or used is None else judge.compare(used)
        return None if found is None else found.summary()

    def _as_used(self, model: DeFlow, data: BatchSource) -> DeFlow | None:
        """``model`` or its corrected copy; None where it cannot be corrected, as weights that give infinities."""
        if not self._calibrate or getattr(model, "correction", None) is not None:
            return model
        copied = copy.deepcopy(model)
        try:
            self._calibration_of(data)(copied)
        except (SynthPipeError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            logger.warning("no flat-area distance of this step, it cannot be calibrated: %s", error)
            return None
        return copied

    def pages(self, model: DeFlow, data: BatchSource, name: str) -> dict[str, str]:
        """``report.html``, and its numbers as ``report.json``."""
        judge = self._judge_of(data)
        found = None if judge is None else judge.report(model, f"Noise learned in {name}")
        if found is None:
            return {}
        return {"report.json": json.dumps(found.as_dict(), indent=1), "report.html": render_page(found)}

    def _judge_of(self, data: BatchSource) -> FlatJudge | None:
        if not self._report:
            return None
        if self._judge is None:
            assert isinstance(data, UnpairedData)
            self._judge = FlatJudge(data)
        return self._judge

    def _calibration_of(self, data: BatchSource) -> FlatCalibration:
        if self._calibration is None:
            assert isinstance(data, UnpairedData)
            self._calibration = FlatCalibration(data)
        return self._calibration

    def numbers(self) -> dict[str, float]:
        """Norms of the learned shifts, where the model offers them: a covariance that stays at 0 never trains."""
        norms = getattr(self.model, "shift_norms", None)
        return {name: float(value) for name, value in norms().items()} if callable(norms) else {}

    def pictures(self, model: DeFlow, batch: Batch, seed: int) -> Tensor:
        """Rows of clean | degraded by the model | another image that is really noisy."""
        x = to_float(batch["x"])
        clean, noisy = x[batch["domain"] == CLEAN], x[batch["domain"] == NOISY]
        generators = picture_generators(seed, len(clean))
        degraded = model.degrade(clean, generators).to(clean).clamp(0, 1)
        return picture_grid(torch.stack([clean, degraded, noisy], dim=1), gap=2)


def _level_of(batch: Batch) -> dict[str, Tensor]:
    return {"level": batch["level"]} if "level" in batch else {}


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the ``chosen`` of the values, both ``(B,)``, without asking the device how many they are."""
    return torch.where(chosen, values, torch.zeros_like(values)).sum() / chosen.sum()


def build_objective(options: TrainDeFlowOptions) -> DeFlowObjective:
    """The objective that ``options`` describe.

    Raises:
        OptionError: crops that are no multiple of what the model needs.
    """
    model = DeFlow(**options.model.arguments())
    if options.data.crop % model.size_multiple:
        raise OptionError(
            f"data.crop: expected a multiple of {model.size_multiple}, which this model needs, got {options.data.crop}"
        )
    model.checkpoint_activations(options.activation_checkpointing)
    return DeFlowObjective(model, options.calibrate, options.report)


def build_run(options: TrainDeFlowOptions) -> RunParts:
    """A DeFlow, and crops of two unpaired domains."""
    data = partial(UnpairedData, options.data, options.seed, with_levels=options.model.level)
    return RunParts(partial(build_objective, options), data)
