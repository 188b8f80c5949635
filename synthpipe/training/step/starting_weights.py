"""The weights of a file that a new run starts from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from synthpipe import checkpoints
from synthpipe.errors import OptionError
from synthpipe.training.base import Objective

__all__ = ["weights_to_start_from"]


def weights_to_start_from(path: str, objective: Objective[Any]) -> dict[str, Tensor]:
    """The state of the weights at ``path``, made to fit the objective's model where the objective knows how.

    Raises:
        OptionError: another class of model, or another configuration.
        CheckpointError: the file cannot be read.
    """
    model = checkpoints.load(path)
    if type(model) is type(objective.model):
        model = objective.starting_point(model)
    theirs, ours = getattr(model, "config", None), getattr(objective.model, "config", None)
    if type(model) is not type(objective.model) or theirs != ours:
        raise OptionError(
            f"init_weights {path!r}: a {type(model).__name__} of configuration {theirs}, "
            f"expected a {type(objective.model).__name__} of {ours}"
        )
    return model.state_dict()
