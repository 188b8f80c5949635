"""Examples of the option reference: YAML as it stands in a file, by topic.  A test reads them all."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EXAMPLES"]

_DEGRADE = (
    """\
# learned: weights that ship with synthpipe, or a file that `synthpipe train` wrote
degrade: {type: deflow, weights: deflow_small}
""",
    """\
# blur: each sample has its own width, from 0.4 to 1.5 low-resolution pixels, and direction
degrade:
  type: classical
  blur: {sigma: [0.4, 1.5], ratio: [0.6, 1.0]}
""",
    """\
# JPEG: each sample has its own quality
degrade: {type: classical, jpeg_quality: [50, 95]}
""",
    """\
# Poisson-Gaussian noise: sigma is 2 of 255 at black, sqrt(b), and 8 of 255 at white, sqrt(a + b); R, G, B
degrade:
  type: classical
  noise: {type: poisson_gaussian, a: [0.00092, 0.00092, 0.00092], b: [0.00006, 0.00006, 0.00006]}
""",
    """\
# white Gaussian noise of 1 to 10 of 255
degrade:
  type: classical
  noise: {type: gaussian, sigma: [0.004, 0.04]}
""",
    """\
# Gaussian noise of 5 of 255 that is alike in R, G and B (correlation 0.5)
degrade:
  type: classical
  noise:
    type: gaussian
    covariance: [[0.0004, 0.0002, 0.0002], [0.0002, 0.0004, 0.0002], [0.0002, 0.0002, 0.0004]]
""",
    """\
# all of it, in the order in which it is applied
degrade:
  type: classical
  blur: {sigma: [0.3, 1.2]}
  noise: {type: gaussian, sigma: [0.0, 0.02]}
  jpeg_quality: [70, 95]
""",
)

#: Topic -> YAML documents.
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "stream": (
        """\
shards: /data/hr                     # a folder that `synthpipe shard` wrote
gt_size: 128
scale: 4
workers: 4
degrade: {type: deflow, weights: deflow_small}
denoise: {weights: blind_spot_small, min_sigma: 0.008, max_sigma: 0.03}
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
    "degrade": _DEGRADE,
    "train.deflow": (
        """\
kind: deflow
run_dir: runs/mine
max_steps: 3000
model: {preset: small}
data:
  clean: {folder: /data/clean_photos}
  noisy: {folder: /data/noisy_photos}
  crop: 64
  batch_size: 16
  augment: flips
optimizer: {lr: 0.002}
schedule: {kind: cosine, warmup_steps: 100}
""",
    ),
    "train.glow": (
        """\
kind: glow
run_dir: runs/glow
model: {levels: 3, steps: 8, window: 32}
data: {images: {folder: /data/clean_photos}, crop: 32}
""",
    ),
    "train.flow_prior": (
        """\
kind: flow_prior
run_dir: runs/flow_prior
prior: glow_small
noise_model: estimated_line          # of images that are noisy as they are
data: {images: {folder: /data/noisy_photos}, crop: 40}
data_term: {type: stein}
weight: {type: automatic, rule: white}
""",
    ),
    "train.blind_spot": (
        """\
kind: blind_spot
run_dir: runs/blind_spot
hole: auto                           # for noise that is correlated between pixels
model: {level: total}                # the images are noisy as they are
data: {images: {folder: /data/noisy_photos}}
""",
    ),
    "train.plain_denoiser": (
        """\
kind: plain_denoiser
run_dir: runs/plain
data:
  images: {folder: /data/clean_photos}
  noise: {type: gaussian, sigma: [0.0, 0.2]}
""",
    ),
    "train.map_denoiser": (
        """\
kind: map_denoiser
run_dir: runs/map
model: {width: 48, depth: 8, sigma_range: [0.008, 0.2]}
prior: {type: dae, teacher: runs/plain/final.safetensors, train: false}
data: {images: {folder: /data/clean_photos}}
""",
    ),
    "train.distill": (
        """\
kind: distill
run_dir: runs/small
teacher: blind_spot_small
model: {width: 24, depth: 8}
data: {images: {folder: /data/noisy_photos}}
""",
    ),
    "train.dde": (
        """\
kind: dde
run_dir: runs/dde
data:
  clean: {folder: /data/clean_photos}
  degraded:
    - {name: jpeg, type: corruption, family: jpeg}
    - {name: scraped, type: images, folder: /data/bad_photos}
  batch_size: 48
""",
    ),
    "train.dde_generator": (
        """\
kind: dde_generator
run_dir: runs/spirals
data: {type: points, name: two_spirals}
density: {type: vector}
sigma: [0.05, 1.0]
""",
    ),
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
