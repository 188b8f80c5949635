"""The training loop: one story for every objective, on Lightning Fabric.

Step, log, average, save, resume.  Everything random is drawn from seeds of (seed, step, slot), so a run
that was killed and resumed gives the same weights, bit for bit on the CPU, as one that was not.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from synthpipe import checkpoints
from synthpipe.config.run import RunOptions
from synthpipe.errors import ShapeError, SynthPipeError, counted, shortened
from synthpipe.seeds import sample_seed
from synthpipe.training.base import BatchSource, Objective, step_seeds
from synthpipe.training.checkpoint_file import refused, require_optimizer, require_schedule
from synthpipe.training.run_folder import RunFolder
from synthpipe.training.step.average import WarmedAverage
from synthpipe.training.step.bad_steps import BadSteps, is_bad
from synthpipe.training.step.best import BestWeights
from synthpipe.training.step.captured import CapturedGradient, Gradient
from synthpipe.training.step.fabric import start_fabric
from synthpipe.training.step.meter import Meter
from synthpipe.training.step.optimizer import build_optimizer, load_optimizer, skip_if
from synthpipe.training.step.processes import from_all, mean_over_processes, over_processes
from synthpipe.training.step.schedule import lr_factor
from synthpipe.training.step.starting_weights import weights_to_start_from
from synthpipe.transforms.batch import Batch, join_batches

__all__ = ["Trainer"]

logger = logging.getLogger("synthpipe.training")

#: Several processes agree on stopping only every so many steps: asking costs a collective call.
STEPS_BETWEEN_VOTES = 10


class Trainer:
    """One run, from the first step or from the last checkpoint to ``max_steps``, ``max_minutes`` or ``stop``.

    Args:
        options: of the run.
        build_objective: makes the model and its loss; called once, with torch's default generator seeded.
        build_data: ``(rank, world_size)`` -> batches.
        stop: asked after every step; true ends the run cleanly, as ``max_minutes`` does.
    """

    def __init__(
        self,
        options: RunOptions,
        build_objective: Callable[[], Objective[Any]],
        build_data: Callable[[int, int], BatchSource],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.options, self.stop = options, stop
        self.build_objective, self.build_data = build_objective, build_data
        self.step = 0
        self.best = BestWeights()
        self.bad_steps = BadSteps(options.max_bad_steps)
        self.meter = Meter()
        self.last_numbers: dict[str, float] = {}

    def run(self) -> Path:
        """Train; returns the path of ``final.safetensors``.

        Raises:
            TrainingError: no usable data, losses that stay NaN, a resume with other options, missing libraries.
        """
        started = time.monotonic()
        self.fabric = start_fabric(self.options)
        self.folder = RunFolder(self.options.run_dir, self.fabric.is_global_zero)
        self.folder.check(self.options)
        resume_from = self.folder.checkpoint_to_resume(self.options)
        self.fabric.barrier()
        with self.folder.open(resume_from), self._opened_data() as data, torch.random.fork_rng(devices=[]):
            self._prepare(data, resume_from)
            self._train(data, started)
            return self._finish(data)

    @contextmanager
    def _opened_data(self) -> Iterator[BatchSource]:
        data = self.build_data(self.fabric.global_rank, self.fabric.world_size)
        try:
            yield data
        finally:
            data.close()

    def _prepare(self, data: BatchSource, resume_from: Path | None) -> None:
        """Model, averaged model, optimizer and schedule; new, or as they were."""
        options, fabric = self.options, self.fabric
        torch.manual_seed(options.seed)
        self.objective = self.build_objective()
        self.best = BestWeights(self.objective.measured, self.objective.alike)
        torch.manual_seed(sample_seed(options.seed, 0, f"rank{fabric.global_rank}"))
        saved = None if resume_from is None else self.folder.load(resume_from, options, fabric.world_size)
        self.objective.to(fabric.device)
        self.first_batch: Batch | None = None
        if saved is not None and resume_from is not None:
            with _named(resume_from):
                self.objective.model.load_state_dict(saved["model"])
                self.objective.load_companions(saved.get("companions", {}))
        elif options.init_weights is not None:
            self.objective.model.load_state_dict(weights_to_start_from(options.init_weights, self.objective))
            self.objective.prepare(data)
        else:
            self.first_batch = data.next_batch()
            whole = join_batches(from_all(fabric, self.first_batch))
            self.objective.prepare(data)
            self.objective.initialize(fabric.to_device(whole), step_seeds(options.seed, 0, whole["slot"]))
        optimizer = build_optimizer(options, self.objective)
        self.wrapped, self.optimizer = fabric.setup(self.objective, optimizer)
        self.gradient = self._gradient_way()
        self.averaged = WarmedAverage(self.objective.model, options.ema_decay)
        self.schedule = LambdaLR(optimizer, lambda step: lr_factor(options.schedule, step, options.max_steps))
        if saved is not None and resume_from is not None:
            with _named(resume_from):
                require_optimizer(resume_from, saved["optimizer"], optimizer)
                require_schedule(resume_from, saved["schedule"], self.schedule.state_dict(), saved["step"])
                self._restore(saved, data)
        logger.info(
            "%s on %s, %s, precision %s: %d parameters, step %d of %d",
            type(self.objective.model).__name__,
            fabric.device,
            counted(fabric.world_size, "process"),
            options.precision,
            sum(p.numel() for p in self.objective.model.parameters()),
            self.step,
            options.max_steps,
        )

    def _train(self, data: BatchSource, started: float) -> None:
        options = self.options
        bar = tqdm(
            total=options.max_steps,
            initial=self.step,
            disable=None if self.fabric.is_global_zero else True,
            unit="step",
        )
        self.meter = Meter()
        self.objective.train()
        with bar:
            while self.step < options.max_steps and not self._time_to_stop(started):
                batch = self.first_batch if self.first_batch is not None else data.next_batch()
                self.first_batch = None
                self.meter.add(self._one_step(self.fabric.to_device(self._pinned(batch))))
                bar.update()
                if self.step % options.log_every == 0 or self.step == options.max_steps:
                    self._log(bar)
                if self.step % options.sample_every == 0:
                    self._draw(data, batch)
                    self._judge(data)
                if self.step % options.checkpoint_every == 0:
                    self._save(data)
            if self.meter.steps:  # stopped between two lines of the log
                self._log(bar)

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        """Loss, gradient, clip, update, average; a step that is not finite changes no weight.

        Nothing here waits for the device but the scaler of 16-mixed: whether a step counts is decided there.
        """
        seeds = self._pinned({"seeds": step_seeds(self.options.seed, self.step, batch["slot"])})["seeds"]
        numbers = mean_over_processes(self.fabric, self.gradient(batch, seeds))
        limit = math.inf if self.options.clip_norm is None else self.options.clip_norm
        norm = self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        assert norm is not None, "clipping by norm gives the norm"
        numbers["grad_norm"] = norm
        bad = is_bad(numbers["loss"], norm)
        if self.options.precision != "16-mixed":
            # There the scaler sees a gradient that is not finite, too: it skips the update and lowers its factor.
            skip_if(self.optimizer.optimizer, bad)
        self.optimizer.step()
        self.averaged.follow(bad)
        self.schedule.step()
        self.step += 1
        self.bad_steps.add(self.step, numbers["loss"], norm)
        return numbers

    def _gradient_way(self) -> Gradient:
        """How gradients are computed: captured where that can be, else as plain code."""
        options, fabric = self.options, self.fabric
        if fabric.device.type != "cuda" or options.capture == "never" or not self.objective.capturable:
            return self._plain_gradient
        if fabric.world_size > 1 or options.precision == "16-mixed":
            logger.info("the training step runs as plain code: several processes and 16-mixed are not captured")
            return self._plain_gradient
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return CapturedGradient(self._plain_gradient, trained, fabric.device)

    def _plain_gradient(self, batch: Batch, seeds: Tensor) -> dict[str, Tensor]:
        """Loss and numbers of a batch; their gradient is left at the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, numbers = self.wrapped(batch, seeds)
        self.fabric.backward(loss)
        return {"loss": loss.detach(), **numbers}

    def _pinned(self, batch: Batch) -> Batch:
        """On CUDA in memory from which a copy does not wait for what the device was given before."""
        if self.fabric.device.type != "cuda":
            return batch
        on_host = {name: value for name, value in batch.items() if isinstance(value, Tensor) and not value.is_cuda}
        return {**batch, **{name: value.pin_memory() for name, value in on_host.items()}}

    def _time_to_stop(self, started: float) -> bool:
        limit = self.options.max_minutes
        if self.fabric.world_size == 1:
            return self.stop() or (limit is not None and time.monotonic() - started > limit * 60)
        if self.step % STEPS_BETWEEN_VOTES:
            return False
        # Clocks and signals differ between processes, but all must stop at the same step.
        over = self.stop() or (limit is not None and time.monotonic() - started > limit * 60)
        votes = torch.tensor(float(over), device=self.fabric.device)
        return bool(over_processes(self.fabric, votes, "sum") > 0)

    def _log(self, bar: tqdm[Any]) -> None:
        self.bad_steps.settle()
        self.last_numbers = self._figures()
        values = self.last_numbers | {
            "lr": float(self.schedule.get_last_lr()[0]),
            "steps_per_second": self.meter.steps_per_second(),
            "skipped_steps": float(self.bad_steps.in_all),
        }
        self.meter = Meter()
        self.objective.forget_numbers()
        self.folder.log_numbers(self.step, values)
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)

    def _figures(self) -> dict[str, float]:
        """Numbers of the steps since the last line of the log, or, where there were none, of that line."""
        return self.meter.means() | self.objective.numbers() if self.meter.steps else self.last_numbers

    def _draw(self, data: BatchSource, batch: Batch) -> None:
        if not self.fabric.is_global_zero:
            return
        shown = data.example(self.options.sample_images) or batch
        self.averaged.take_buffers()
        model = self.averaged.module
        model.eval()
        seed = sample_seed(self.options.seed, 0, "pictures")
        try:
            with torch.no_grad():
                picture = self.objective.pictures(model, self.fabric.to_device(shown), seed)
        except ShapeError as error:
            # Weights of the first steps may still give infinities; that is no reason to end the run.
            logger.warning("no sample picture at step %d: %s", self.step, error)
            return
        self.folder.save_picture(self.step, picture)

    def _judge(self, data: BatchSource) -> None:
        """A point of the curve of what the objective can measure of the averaged weights; the best ones are kept."""
        if not self.fabric.is_global_zero:
            return
        self.averaged.take_buffers()
        found = self.objective.judge(self.averaged.module.eval(), data)
        if found is None:
            return
        self.folder.log_numbers(self.step, found)
        info = self._of_step()
        if self.best.add(self.step, found, self.averaged.module, info):
            self.folder.save_weights("best.safetensors", self.averaged.module, self._info(data, info) | found)
        self.folder.save_text("distance.csv", self.best.table())

    def _save(self, data: BatchSource) -> None:
        self.bad_steps.settle()
        self.averaged.take_buffers()
        states = from_all(self.fabric, {"data": data.state_dict(), "rng": torch.get_rng_state()})
        self.folder.save(
            self.fabric,
            self.step,
            {
                "step": self.step,
                "options": self.options.model_dump(mode="json"),
                "world_size": self.fabric.world_size,
                "model": self.objective.model.state_dict(),
                "companions": self.objective.companions(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.fabric.strategy.precision.state_dict(),
                "bad_steps": [self.bad_steps.in_a_row, self.bad_steps.in_all],
                "processes": states,
                "best": self.best.state_dict(),
                "figures": self._figures(),
            },
        )

    def _restore(self, saved: dict[str, Any], data: BatchSource) -> None:
        mine = saved["processes"][self.fabric.global_rank]
        self.averaged.load_state_dict(saved["averaged"])
        load_optimizer(self.optimizer.optimizer, saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.fabric.strategy.precision.load_state_dict(saved["scaler"])
        self.step = int(saved["step"])
        self.best.load_state_dict(saved.get("best", {}))
        self.last_numbers = dict(saved.get("figures", {}))
        self.bad_steps.in_a_row, self.bad_steps.in_all = saved["bad_steps"]
        data.load_state_dict(mine["data"])
        torch.set_rng_state(mine["rng"])

    def _finish(self, data: BatchSource) -> Path:
        """Last checkpoint, and the averaged weights as a file that :func:`synthpipe.checkpoints.load` reads."""
        self.bad_steps.settle()
        self.averaged.take_buffers()
        if self.step % self.options.checkpoint_every:
            self._save(data)
        self.folder.check_trained(self.step, self.bad_steps.in_all)
        path = self.folder.path / "final.safetensors"
        if self.fabric.is_global_zero:
            if not self.best.knows(self.step):
                # Behind the checkpoint: a run that goes on has no point here.
                self._judge(data)
            model = self.averaged.module
            earlier = self.best.earlier_than(self.step, copy.deepcopy(model))
            info = self._info(data, self._of_step()) | self._finished(model, data)
            checkpoints.save(path, model, info)
            self._finish_best(data, info, earlier)
            logger.info(
                "%d of %s done, averaged weights in %s", self.step, counted(self.options.max_steps, "step"), path
            )
            self.folder.log_data(info["data"])
        self.fabric.barrier()
        return path

    def _info(self, data: BatchSource, of_step: dict[str, Any]) -> dict[str, Any]:
        """What the header of weights says of the run, and of the step that they are of."""
        return {"data": data.describe(), "steps": of_step["steps"], "seed": self.options.seed} | of_step

    def _of_step(self) -> dict[str, Any]:
        """What the header of the weights of this step says of them."""
        self.bad_steps.settle()
        return {"steps": self.step, "skipped_steps": self.bad_steps.in_all, "figures": self._figures()}

    def _finished(self, model: nn.Module, data: BatchSource) -> dict[str, Any]:
        """What the objective changes at the end; where it cannot, the weights are kept as they were trained."""
        trained = copy.deepcopy(model)
        try:
            return self.objective.finish(model, data)
        except Exception:
            name = "unfinished.safetensors"
            self.folder.save_weights(name, trained, self._info(data, self._of_step()))
            logger.error("the weights as they were trained are in %s", self.folder.path / name)
            raise

    def _finish_best(self, data: BatchSource, info: dict[str, Any], earlier: nn.Module | None) -> None:
        """``best.safetensors``: the finished weights of the last step or, finished too, those that were best before."""
        model = self.averaged.module
        found = self.objective.judge(model.eval(), data)
        if found is None:
            return
        self.folder.log_numbers(self.step, {f"{name}_final": value for name, value in found.items()})
        if earlier is not None:
            before = self._info(data, self.best.info) | self.objective.finish(earlier, data)
            of_earlier = self.objective.judge(earlier.eval(), data)
            if of_earlier is not None and of_earlier["distance"] < found["distance"]:
                model, info, found = earlier, before, of_earlier
        self.folder.save_weights("best.safetensors", model, info | found)
        logger.info("best.safetensors: weights of step %d, distance %.4f", info["steps"], found["distance"])
        for name, text in self.objective.pages(model, data, str(self.options.run_dir)).items():
            self.folder.save_text(name, text)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What does not fit is said of the checkpoint: torch raises many things where a state is another one's."""
    try:
        yield
    except SynthPipeError:
        raise
    except Exception as error:
        raise refused(
            path, f"it does not fit this run: {type(error).__name__}: {shortened(' '.join(str(error).split()))}"
        ) from error
