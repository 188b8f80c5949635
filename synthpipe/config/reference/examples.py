"""Examples of the option reference: YAML as it stands in a file, by topic.  A test reads them all.

Those of degradations and of kinds of training stand with their schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from synthpipe.config.chain import StageOption
from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options
from synthpipe.config.training import SCHEMAS

__all__ = ["EXAMPLES"]


def _members(union: Any) -> tuple[type[Options], ...]:
    """Of an annotated union of schemas."""
    members: tuple[type[Options], ...] = get_args(get_args(union)[0])
    return members


#: Topic -> YAML documents.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "stream": (
        """\
shards: /data/hr                     # a folder that `synthpipe shard` wrote
gt_size: 128
scale: 4
workers: 4
degrade: {type: deflow, weights: deflow_small}
denoise: {weights: auto}
filter: {clean_quantile: 0.95}
""",
    ),
    "basicsr": (
        """\
scale: 4
datasets:
  train:
    name: my_corpus
    type: SynthPipeDataset
    shards: /data/hr-{000000..000511}.tar
    gt_size: 128
    batch_size_per_gpu: 16
    num_worker_per_gpu: 0            # BasicSR's own workers; the stream has its own
    workers: 4
    degrade: {type: deflow, weights: deflow_small}
""",
    ),
    "basicsr_model": (
        """\
scale: 4
gt_size: 128
degrade: {type: deflow, weights: deflow_small}
""",
    ),
    "degrade_file": (
        """\
scale: 4
degrade: real-esrgan
""",
    ),
    "degrade": tuple(text for schema in _members(DegradeOptions) for text in schema.examples),
    "stages": tuple(text for schema in _members(StageOption) for text in schema.examples),
    **{f"train.{kind}": schema.examples for kind, schema in SCHEMAS.items()},
    "images": (
        """\
clean: {folder: [/data/photos, /data/more], resize_range: [0.5, 1.0]}
""",
        """\
clean: {shards: "/data/hr-{000..063}.tar"}
""",
    ),
    "noise": (
        """\
noise: {type: gaussian, sigma: [0.02, 0.2]}
""",
        """\
noise: {type: signal_dependent, a: [0.0, 0.01], b: [0.0001, 0.0005]}
""",
    ),
}
