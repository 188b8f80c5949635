"""BasicSR training with synthpipe, resumed exactly: ``python -m synthpipe.basicsr_plugin.train -opt x.yml``.

BasicSR's own flags: ``--auto_resume``, ``--launcher pytorch`` (under ``torchrun -m``), ``--debug``, ``--force_yml``.
One of ours: ``--restart_stream`` goes on with the networks, optimizers, schedulers and the iteration of a checkpoint,
and starts the stream anew.  ``experiments/`` and ``tb_logger/`` are written in the working directory.

The option file is checked whole before anything is written or built (:mod:`synthpipe.basicsr_plugin.checks`).

BasicSR's ``train_pipeline`` runs as it is; for the length of the run five names of it are replaced:

* ``load_resume_state`` passes over a torn checkpoint, needs no CUDA device, and reads this rank's own part;
* ``make_exp_dirs`` and ``copy_opt_file`` let the other ranks wait for the first, which BasicSR does not;
* ``build_dataloader`` hands a :class:`SynthPipeDataset`'s stream out without a DataLoader in between;
* ``build_model`` lets ``save`` store the stream's position and the global generators first, ``resume_training`` restore
  them, ``feed_data`` tell how far training is, and ``validation`` leave the generators alone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from synthpipe.basicsr_plugin import compat, register, resume
from synthpipe.basicsr_plugin.command_line import CommandLine, parse_command_line
from synthpipe.basicsr_plugin.loader import SERIAL, StreamLoader
from synthpipe.basicsr_plugin.log import shown_in_basicsr_log
from synthpipe.basicsr_plugin.option_file import read_option_file
from synthpipe.basicsr_plugin.ranks import barrier, first_rank_first, first_rank_only, from_first_rank
from synthpipe.errors import CheckpointError, OptionError, StreamError, SynthPipeError, os_error_text

__all__ = ["main"]

_LOG = logging.getLogger("basicsr")
_RESTART_ADVICE = (
    "or, where the change is meant, add --restart_stream: it keeps networks, optimizers, schedulers and the iteration, "
    "and starts the stream anew"
)


def main() -> int:
    """Run BasicSR's ``train_pipeline`` on the command line's flags; 0 done, 1 failed, 2 usage."""
    try:
        _train(os.getcwd(), sys.argv)
    except SynthPipeError as error:
        sys.stderr.write(f"synthpipe.basicsr_plugin.train: {error}\n")
        return 2 if isinstance(error, OptionError) else 1
    except OSError as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"synthpipe.basicsr_plugin.train: {os_error_text(error)}\n")
        return 1
    return 0


def _train(root: str, arguments: Sequence[str]) -> None:
    command = parse_command_line(arguments[1:])
    register()
    from basicsr import train

    from synthpipe.basicsr_plugin.checks import check_options

    notes = check_options(read_option_file(command), command)
    theirs = compat.patched(sys, argv=[arguments[0], *command.for_basicsr])
    with theirs, compat.cpu_distributed(), Session(command, notes).installed(train):
        try:
            train.train_pipeline(root)
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


class Session:
    """One run: ties BasicSR's loader, model and checkpoints together.

    Args:
        command: what the run was called with.
        notes: what the checks at the start found and did not refuse, for the log.
    """

    def __init__(self, command: CommandLine, notes: Sequence[str] = ()) -> None:
        self._command = command
        self._notes = list(notes)
        self._loader: StreamLoader | None = None
        # BasicSR's checkpoint that the run goes on from, and what stands beside it.
        self._checkpoint: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None
        #: The iteration at which the stream was last started anew; it is part of the stream's seed.
        self._restarted_at: int | None = None
        self._opt: dict[str, Any] = {}
        self._until_the_end = ExitStack()
        self._build_dataloader: Callable[..., Any]
        self._build_model: Callable[..., Any]

    @contextmanager
    def installed(self, train: Any) -> Iterator[None]:
        """Put this session's functions in the place of ``basicsr.train``'s."""
        self._build_dataloader, self._build_model = train.build_dataloader, train.build_model
        with compat.patched(
            train,
            load_resume_state=self.load_resume_state,
            make_exp_dirs=first_rank_first(train.make_exp_dirs),
            copy_opt_file=first_rank_only(train.copy_opt_file),
            build_dataloader=self.build_dataloader,
            build_model=self.build_model,
        ):
            try:
                yield
            finally:
                if self._loader is not None:
                    self._loader.close()
                self._until_the_end.close()

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """In the place of BasicSR's: find, read and announce the checkpoint to continue from.

        Raises:
            CheckpointError: ``path.resume_state`` names a file that cannot be read, or its networks are not there.
        """
        from basicsr.utils import check_resume

        from synthpipe.basicsr_plugin.checks.run import missing_networks

        # BasicSR draws a seed in each process where none is given; the ranks of one run need one seed.
        opt["manual_seed"] = from_first_rank(opt["manual_seed"])
        self._opt = opt
        found = _find_checkpoint(opt)
        if found is None:
            return None
        path, state = found
        given = opt["path"].get("resume_state")
        if opt["auto_resume"] and given and Path(str(given)).resolve() != path.resolve():
            self._notes.append(f"path.resume_state {str(given)!r} is passed over: --auto_resume found {str(path)!r}")
        opt["path"]["resume_state"] = str(path)
        if state["iter"] >= opt["train"]["total_iter"]:
            self._notes.append(
                f"nothing is left to train: {path} stands at iteration {state['iter']}, and train.total_iter is "
                f"{opt['train']['total_iter']}"
            )
        self._checkpoint = state
        self._resumed = resume.read_rank_state(path, opt["rank"])
        beside = self._resumed or {}
        # A rank more than the run had has no file of its own.
        opt["manual_seed"] = from_first_rank(beside.get("manual_seed", opt["manual_seed"]))
        self._restarted_at = state["iter"] if self._command.restart_stream else beside.get("restarted_at")
        check_resume(opt, state["iter"])
        if missing := list(missing_networks(opt)):
            raise CheckpointError(
                f"{path}: BasicSR takes the networks of iteration {state['iter']} from {opt['path']['models']!r}: "
                f"{'; '.join(missing)}; resume in the folder of the run that wrote the checkpoint"
            )
        return state

    def build_dataloader(self, dataset: Any, dataset_opt: dict[str, Any], **options: Any) -> Any:
        """In the place of BasicSR's: a stream's own loader; any other dataset gets BasicSR's."""
        from synthpipe.basicsr_plugin.dataset import SynthPipeDataset

        if not isinstance(dataset, SynthPipeDataset):
            return self._build_dataloader(dataset, dataset_opt, **options)
        self._until_the_end.enter_context(shown_in_basicsr_log())
        # Without `dist`, BasicSR's one process feeds all GPUs.
        copies = 1 if options["dist"] else max(options["num_gpu"], 1)
        stream = dataset.open_stream(
            dataset_opt["batch_size_per_gpu"] * copies,
            default_seed=self._opt["manual_seed"],
            default_device=None if options["num_gpu"] else "cpu",
            restarted_at=self._restarted_at,
        )
        self._loader = StreamLoader(
            stream,
            # As BasicSR counts, rounded up: it runs so many epochs that total_iter is reached, and no more.
            epoch_length=-(-len(options["sampler"]) // dataset_opt["batch_size_per_gpu"]),
            snapshot_every=int(self._opt["logger"]["save_checkpoint_freq"]),
        )
        if self._checkpoint is not None:
            self._continue_stream(self._loader, self._checkpoint)
        return self._loader

    def _continue_stream(self, loader: StreamLoader, checkpoint: dict[str, Any]) -> None:
        """Where the checkpoint left off, or anew; BasicSR's epoch is counted by today's length of one."""
        saved, iteration = (self._resumed or {}).get("loader"), int(checkpoint["iter"])
        if self._command.restart_stream:
            loader.begin_after(iteration)
            _LOG.info(
                "synthpipe: --restart_stream: the stream starts anew after iteration %d, in an order of its own.",
                iteration,
            )
        elif saved is None:
            loader.begin_after(iteration)
            _LOG.warning("synthpipe: this checkpoint holds no stream position; the stream starts anew.")
        else:
            try:
                loader.load_state_dict(saved)
            except StreamError as error:
                raise StreamError(f"{self._opt['path']['resume_state']}: {error}, {_RESTART_ADVICE}") from error
            _LOG.info("synthpipe: the stream continues after batch %d.", loader.trained)
        checkpoint["epoch"] = max(loader.trained - 1, 0) // len(loader)

    def build_model(self, opt: dict[str, Any]) -> Any:
        """In the place of BasicSR's: the same model, with this session listening.

        Raises:
            CheckpointError: the run that is to be resumed had another degradation in its model.
        """
        from synthpipe.basicsr_plugin.model import DegradeInFeedData

        for note in self._notes:
            _LOG.warning("synthpipe: %s", note)
        model = self._build_model(opt)
        degrade = model.degrade_identity if isinstance(model, DegradeInFeedData) else None
        before = (self._resumed or {}).get("degrade", degrade)  # checkpoints of earlier versions do not say
        if before != degrade and not self._command.restart_stream:
            raise CheckpointError(
                f"{opt['path']['resume_state']}: trained with degrade {before}, the option file has {degrade}; resume "
                f"with the degradation that the run had, {_RESTART_ADVICE}"
            )
        model.feed_data = self._feeding(model.feed_data)
        model.save = self._saving(model.save, opt, degrade)
        model.validation = _validating(model.validation)
        model.resume_training = self._resuming(model.resume_training)
        return model

    def _feeding(self, feed_data: Callable[[Any], None]) -> Callable[[Any], None]:
        def feed(data: Any) -> None:
            """``feed_data``, and tell the loader which batch has been trained on."""
            feed_data(data)
            if self._loader is not None and SERIAL in data:
                self._loader.mark_trained(data[SERIAL])

        return feed

    def _saving(
        self, save: Callable[[int, int], None], opt: dict[str, Any], degrade: dict[str, Any] | None
    ) -> Callable[[int, int], None]:
        def save_all(epoch: int, current_iter: int) -> None:
            """``save``, with the state of the stream and of random numbers beside it; the log says what was read."""
            if current_iter != -1:  # -1: the final networks, without a state
                content = {
                    "loader": self._loader.state_dict() if self._loader else None,
                    "rng": resume.rng_state(),
                    "manual_seed": opt["manual_seed"],
                    "degrade": degrade,
                    "restarted_at": self._restarted_at,
                }
                state_file = Path(opt["path"]["training_states"]) / f"{current_iter}.state"
                resume.write_rank_state(state_file, opt["rank"], content)
                # BasicSR's file says that the checkpoint is there: every rank's part comes before it.
                barrier()
            save(epoch, current_iter)
            if self._loader is not None:
                _LOG.info("synthpipe: %s.", self._loader.summary())

        return save_all

    def _resuming(self, resume_training: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        def resume_all(state: dict[str, Any]) -> None:
            """``resume_training``, then the random numbers as they were."""
            resume_training(state)
            if self._resumed is not None:
                resume.restore_rng(self._resumed["rng"])

        return resume_all


def _validating(validation: Callable[..., None]) -> Callable[..., None]:
    def validate(*args: Any, **options: Any) -> None:
        """``validation``, without a trace in the state of random numbers."""
        # BasicSR validates after saving; drawing here would part a resumed run from the uninterrupted one.
        with resume.keep_rng():
            validation(*args, **options)

    return validate


def _find_checkpoint(opt: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The first rank looks, all take what it found, so that no two ranks continue from different iterations."""
    given = opt["path"].get("resume_state")
    path: str | None = None
    if opt["rank"] == 0:
        if opt["auto_resume"]:
            found = resume.complete_state(Path("experiments") / opt["name"] / "training_states")
            path = str(found[0]) if found else None
        elif given:
            path = str(given)
    path = from_first_rank(path)
    if path is None:
        return None
    try:
        return Path(path), resume.read_state(path)
    except CheckpointError as error:
        raise CheckpointError(f"path.resume_state {path!r}: not a readable BasicSR state ({error})") from error


if __name__ == "__main__":
    sys.exit(main())
