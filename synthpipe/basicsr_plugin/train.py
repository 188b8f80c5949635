"""BasicSR training with synthpipe, resumed exactly: ``python -m synthpipe.basicsr_plugin.train -opt x.yml``.

BasicSR's own flags: ``--auto_resume``, ``--launcher pytorch`` (under ``torchrun -m``), ``--debug``, ``--force_yml``.
``experiments/`` and ``tb_logger/`` are written in the working directory.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from synthpipe.basicsr_plugin import compat, register, resume
from synthpipe.basicsr_plugin.loader import SERIAL, StreamLoader
from synthpipe.errors import CheckpointError, OptionError, SynthPipeError, os_error_text

__all__ = ["main"]

_LOG = logging.getLogger("basicsr")


def main() -> int:
    """Run BasicSR's ``train_pipeline`` on the command line's flags; 0 done, 1 failed, 2 usage."""
    try:
        _train(os.getcwd())
    except SynthPipeError as error:
        sys.stderr.write(f"synthpipe.basicsr_plugin.train: {error}\n")
        return 2 if isinstance(error, OptionError) else 1
    except OSError as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"synthpipe.basicsr_plugin.train: {os_error_text(error)}\n")
        return 1
    return 0


def _train(root: str) -> None:
    register()
    from basicsr import train

    with compat.cpu_distributed(), Session().installed(train):
        try:
            train.train_pipeline(root)
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


class Session:
    """One run: ties BasicSR's loader, model and checkpoints together."""

    def __init__(self) -> None:
        self._loader: StreamLoader | None = None
        self._resumed: dict[str, Any] | None = None
        self._opt: dict[str, Any] = {}
        self._clean_only = False
        self._build_dataloader: Callable[..., Any]
        self._build_model: Callable[..., Any]

    @contextmanager
    def installed(self, train: Any) -> Iterator[None]:
        """Put this session's functions in the place of ``basicsr.train``'s."""
        self._build_dataloader, self._build_model = train.build_dataloader, train.build_model
        with compat.patched(
            train,
            load_resume_state=self.load_resume_state,
            make_exp_dirs=_first_rank_first(train.make_exp_dirs),
            copy_opt_file=_first_rank_only(train.copy_opt_file),
            build_dataloader=self.build_dataloader,
            build_model=self.build_model,
        ):
            try:
                yield
            finally:
                if self._loader is not None:
                    self._loader.close()

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """In the place of BasicSR's: find, read and announce the checkpoint to continue from.

        Raises:
            CheckpointError: ``path.resume_state`` names a file that cannot be read.
        """
        from basicsr.utils import check_resume

        # BasicSR draws a seed in each process where none is given; the ranks of one run need one seed.
        opt["manual_seed"] = _from_first_rank(opt["manual_seed"])
        self._opt = opt
        found = _find_checkpoint(opt)
        if found is None:
            return None
        path, state = found
        opt["path"]["resume_state"] = str(path)
        self._resumed = resume.read_rank_state(path, opt["rank"])
        if self._resumed is not None:
            opt["manual_seed"] = self._resumed["manual_seed"]
        check_resume(opt, state["iter"])
        return state

    def build_dataloader(self, dataset: Any, dataset_opt: dict[str, Any], **options: Any) -> Any:
        """In the place of BasicSR's: a stream's own loader; any other dataset gets BasicSR's."""
        from synthpipe.basicsr_plugin.dataset import SynthPipeDataset

        if not isinstance(dataset, SynthPipeDataset):
            return self._build_dataloader(dataset, dataset_opt, **options)
        self._clean_only = not dataset.gives_pairs
        # Without `dist`, BasicSR's one process feeds all GPUs.
        copies = 1 if options["dist"] else max(options["num_gpu"], 1)
        saved = (self._resumed or {}).get("loader")
        batch_size = dataset_opt["batch_size_per_gpu"] * copies
        stream = dataset.open_stream(
            batch_size, default_seed=self._opt["manual_seed"], default_device=None if options["num_gpu"] else "cpu"
        )
        self._loader = StreamLoader(
            stream,
            epoch_length=max(len(options["sampler"]) // batch_size, 1),
            snapshot_every=int(self._opt["logger"]["save_checkpoint_freq"]),
        )
        if saved is not None:
            self._loader.load_state_dict(saved)
            _LOG.info("synthpipe: the stream continues after batch %d.", self._loader.trained)
        elif self._opt["path"].get("resume_state"):
            _LOG.warning("synthpipe: this checkpoint holds no stream position; the stream starts anew.")
        return self._loader

    def build_model(self, opt: dict[str, Any]) -> Any:
        """In the place of BasicSR's: the same model, with this session listening.

        Raises:
            CheckpointError: the run that is to be resumed had another degradation in its model.
            OptionError: neither the stream nor the model makes ``lq``.
        """
        from synthpipe.basicsr_plugin.model import DegradeInFeedData

        model = self._build_model(opt)
        if self._clean_only and not isinstance(model, DegradeInFeedData):
            raise OptionError(
                f"model_type {opt['model_type']}: datasets.train has no `degrade`, so its batches hold no 'lq'; add one"
                " there, or take SynthPipeSRModel, SynthPipeSRGANModel or SynthPipeESRGANModel and add it on top"
            )
        degrade = model.degrade_identity if isinstance(model, DegradeInFeedData) else None
        before = (self._resumed or {}).get("degrade", degrade)  # checkpoints of earlier versions do not say
        if before != degrade:
            raise CheckpointError(
                f"{opt['path']['resume_state']}: trained with degrade {before}, the option file has {degrade}; resume "
                "with the degradation that the run had, or start a run of another name"
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
            """``save``, with the state of the stream and of random numbers beside it."""
            if current_iter != -1:  # -1: the final networks, without a state
                content = {
                    "loader": self._loader.state_dict() if self._loader else None,
                    "rng": resume.rng_state(),
                    "manual_seed": opt["manual_seed"],
                    "degrade": degrade,
                }
                state_file = Path(opt["path"]["training_states"]) / f"{current_iter}.state"
                resume.write_rank_state(state_file, opt["rank"], content)
                # BasicSR's file says that the checkpoint is there: every rank's part comes before it.
                _barrier()
            save(epoch, current_iter)

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
    path = _from_first_rank(path)
    if path is None:
        return None
    try:
        return Path(path), torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no one exception for a file that is not its own
        raise CheckpointError(f"path.resume_state {path!r}: not a readable BasicSR state ({error})") from error


def _from_first_rank(value: Any) -> Any:
    """The first rank's value, on every rank."""
    if not torch.distributed.is_initialized():
        return value
    holder = [value]
    torch.distributed.broadcast_object_list(holder, src=0)
    return holder[0]


def _barrier() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _first_rank_first(function: Callable[..., None]) -> Callable[..., None]:
    def wrapper(*args: Any) -> None:
        """``function``, then wait for all ranks."""
        function(*args)
        _barrier()

    return wrapper


def _first_rank_only(function: Callable[..., None]) -> Callable[..., None]:
    def wrapper(*args: Any) -> None:
        """``function`` on the first rank; the others wait for it."""
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            function(*args)
        _barrier()

    return wrapper


if __name__ == "__main__":
    sys.exit(main())
