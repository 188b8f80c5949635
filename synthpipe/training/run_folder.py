"""The folder of one training run: options.yml, log.txt, tb/, samples/, checkpoints/.

Written by the first process only; the others see the same paths and read checkpoints.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.run import RunFolderOptions, RunOptions, folders_of
from synthpipe.config.training import changed_options, write_options
from synthpipe.errors import OptionError, TrainingError, counted
from synthpipe.files.decode import encode_png
from synthpipe.files.folder_walk import walk_image_folders
from synthpipe.files.output_place import OutputPlace
from synthpipe.files.printable import printable
from synthpipe.files.whole_file import check_file_is_writable, check_folder_is_writable, write_whole
from synthpipe.images import to_uint8
from synthpipe.training.checkpoint_file import checkpoint_name, checkpoints_in, read_checkpoint, step_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["RunFolder"]

logger = logging.getLogger("synthpipe.training")


class RunFolder:
    """Where a run writes.

    Args:
        path: the folder; made where it is missing.
        writes: whether this process is the one that writes.
    """

    def __init__(self, path: str | Path, writes: bool) -> None:
        self.path = Path(path)
        self._writes = writes
        self._keep = 1
        self._board: SummaryWriter | None = None

    def check(self, options: RunFolderOptions) -> None:
        """Refuse a folder that cannot be written to, or whose pictures would be read as data by a resumed run.

        Raises:
            OptionError: it lies in a folder of images of ``options``, by whatever links; its name is not UTF-8.
            OSError: no permission, a full disk, a file in the way; before the first step, not at the first checkpoint.
        """
        if printable(str(self.path)) != str(self.path):
            raise OptionError(
                f"run_dir {str(self.path)!r}: expected a name in UTF-8, which TensorBoard needs; rename it"
            )
        if self._writes:
            for folder in ("tb", "samples", "checkpoints"):
                check_folder_is_writable(self.path / folder)
            for file in ("options.yml", "log.txt", "final.safetensors", "best.safetensors", "report.html"):
                check_file_is_writable(self.path / file)
        place = OutputPlace(self.path / "samples", "the folder of samples", cure="name a run_dir beside it")
        for folder in folders_of(options):
            if Path(folder).is_dir():
                # Names alone; who reads the images looks into every file.
                deque(walk_image_folders(folder, Counter(), place), maxlen=0)

    def check_trained(self, steps: int, skipped: int) -> None:
        """Weights that few of the steps have changed are no result; a run of no step is said.

        Raises:
            TrainingError: most steps were skipped.
        """
        if steps == 0:
            logger.warning("no step was done: the weights are those that the run began with")
        if 2 * skipped > steps:
            raise TrainingError(
                f"{skipped} of {counted(steps, 'step')} were skipped, because loss or gradient were not finite: no "
                f"weights were written, the checkpoint in {str(self.path / 'checkpoints')!r} is kept; lower "
                "optimizer.lr or set clip_norm, in a new run_dir"
            )

    def checkpoints(self) -> list[Path]:
        """Checkpoints in the folder, oldest first."""
        return checkpoints_in(self.path / "checkpoints")

    def checkpoint_to_resume(self, options: RunOptions) -> Path | None:
        """The last checkpoint where ``options.resume`` is ``auto``; writes ``options.yml`` for a new run.

        Raises:
            TrainingError: the folder holds a run and ``resume`` is ``never``.
        """
        self._keep = options.keep_checkpoints
        found = self.checkpoints()
        if found and options.resume == "never":
            raise TrainingError(
                f"run_dir {str(self.path)!r} already holds a run (last checkpoint {found[-1].name}); "
                "continue it with --resume, or choose another run_dir"
            )
        if self._writes and not found:
            for name in ("tb", "samples", "checkpoints"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            write_options(self.path / "options.yml", options)
        return found[-1] if found else None

    @contextmanager
    def open(self, resume_from: Path | None) -> Iterator[None]:
        """Log to ``log.txt`` and TensorBoard while inside.

        Raises:
            TrainingError: TensorBoard is not installed.
        """
        if not self._writes:
            yield
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                f"training needs tensorboard, which is not installed ({error}); run: pip install 'synthpipe[train]'"
            ) from error
        step = None if resume_from is None else step_of(resume_from)
        handler = logging.FileHandler(self.path / "log.txt", encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(min(level or logging.INFO, logging.INFO))
        # Points that a killed run wrote after its last checkpoint are dropped: they will be written again.
        self._board = SummaryWriter(str(self.path / "tb"), purge_step=None if step is None else step + 1)
        try:
            yield
        except Exception as error:
            # To the file alone: whoever called gets the error itself.
            record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "stopped: %s", (error,), None)
            handler.handle(record)
            raise
        finally:
            self._board.close()
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()

    def log_numbers(self, step: int, values: Mapping[str, float]) -> None:
        """One line in the log, one point per number in TensorBoard."""
        if self._board is None:
            return
        logger.info("step %d: %s", step, ", ".join(f"{name} {value:.5g}" for name, value in values.items()))
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def log_data(self, about: Mapping[str, Any]) -> None:
        """What the weights were learned from, as their header has it, a line for each domain."""
        for name, facts in about.items():
            if name != "piles":  # those were told when they were measured
                logger.info("data: %s: %s", name, _plain_words(facts))

    def save_picture(self, step: int, picture: Tensor) -> None:
        """``samples/step_N.png`` from ``(3, H, W)`` in [0, 1]."""
        pixels = to_uint8(picture.detach().float().cpu()).permute(1, 2, 0).numpy()
        (self.path / "samples" / f"step_{step:08d}.png").write_bytes(encode_png(pixels))

    def save_weights(self, name: str, model: nn.Module, info: dict[str, Any]) -> None:
        """Weights beside the final ones, by the name of their file."""
        checkpoints.save(self.path / name, model, info)

    def save_text(self, name: str, text: str) -> None:
        """A file in UTF-8, whole."""
        write_whole(self.path / name, text.encode())

    def save(self, fabric: Fabric, step: int, state: dict[str, Any]) -> None:
        """Write ``checkpoints/step_N.pt`` whole or not at all, then drop all but the newest; all processes call it."""
        path = self.path / "checkpoints" / checkpoint_name(step)
        temporary = path.with_suffix(".tmp")
        fabric.save(temporary, state)
        if self._writes:
            temporary.replace(path)
            for old in self.checkpoints()[: -self._keep]:
                old.unlink()
        fabric.barrier()

    def load(self, path: Path, options: RunOptions, world_size: int) -> dict[str, Any]:
        """The state in ``path``, on the CPU.

        Raises:
            TrainingError: a damaged file, one of a newer version, other options, or another number of processes.
            OptionError: options that this version no longer has.
        """
        state = read_checkpoint(path)
        # Read again, so that an option that this version has added counts as its default.
        before = parse_options(state["options"], type(options), source=str(path))
        changed = changed_options(before.model_dump(mode="json"), options.model_dump(mode="json"))
        if changed:
            raise TrainingError(
                f"cannot resume {str(self.path)!r} with other options: {'; '.join(changed)}. "
                "Give the options of the run (options.yml in its folder), or start a new run_dir, where "
                "init_weights can take over the weights"
            )
        if state["world_size"] != world_size:
            raise TrainingError(
                f"cannot resume {path}: it was written by {counted(state['world_size'], 'process')}, this run has "
                f"{world_size}; start torchrun with the same number"
            )
        return state


def _plain_words(value: Any, between: str = "; ") -> str:
    """Of plain values; what is empty is left out."""
    if isinstance(value, Mapping):
        told = {str(key).replace("_", " "): item for key, item in value.items() if item not in (None, {}, [])}
        return between.join(f"{key} {_plain_words(item, ', ')}" for key, item in told.items())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return printable(", ".join(value))
    return printable(str(value))
