"""Options of a scorer's calibration."""

from __future__ import annotations

from typing import get_args

from pydantic import Field

from synthpipe.config.dde import Family
from synthpipe.config.places import Folder, Weights
from synthpipe.config.reader import MAX_PIXELS_MEANING, Options
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = ["CalibrationOptions", "KindCalibrationOptions"]


class CalibrationOptions(Options):
    """How ``degraded_logit`` is fitted on a clean set; see :func:`synthpipe.training.calibration.calibrate`."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of all randomness: tiles, corruptions, the split")
    tile: int = Field(64, ge=16, description="side of the tiles that the scorer will look at, pixels")
    levels: tuple[float, ...] = Field(
        (0.01, 0.03), min_length=1, description="noise levels at which the density is asked, on the [0, 1] scale"
    )
    norm_levels: tuple[float, ...] = Field(
        (), description="noise levels at which the length of the gradient is a part too; each costs three levels"
    )
    families: tuple[Family, ...] = Field(
        get_args(Family),
        description="synthetic corruptions to tell from clean; may be empty where 'degraded' has folders",
    )
    degraded: tuple[Folder, ...] = Field((), description="folders of really degraded images, each a family of its own")
    tiles_per_image: int = Field(4, ge=1, le=256, description="tiles cut from each image")
    holdout: float = Field(0.25, gt=0, lt=1, description="share of the images that the fit does not see")
    reduce: float = Field(
        2.0,
        ge=1,
        le=8,
        description="half of the images are first reduced by a factor from 1 to this, since sharper images will come",
    )
    ignore: tuple[str, ...] = Field((), description="parts that shall not count, by name or pattern (`*_ratio_*`)")
    ridge: float = Field(3e-3, ge=0, description="penalty on the weights' squares")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description=MAX_PIXELS_MEANING)
    device: str = Field("auto", description="where the density runs: cpu, cuda, cuda:1, ...; auto: CUDA or the CPU")


class KindCalibrationOptions(Options):
    """How a scorer by kinds is fitted on clean images; see :func:`synthpipe.training.kinds.fit_kinds`."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of all randomness: mixtures, tiles, the split")
    mixtures: int = Field(12, ge=1, le=4096, description="degraded copies of each image")
    crisp: int = Field(
        9,
        ge=0,
        le=4096,
        description="degraded copies beside these, of the image reduced, sharpened or (more seldom) softened first: "
        "else fine texture of crisp pictures is taken for noise",
    )
    holdout: float = Field(
        0.25,
        gt=0,
        le=0.5,
        description="share of the images that is held out in turn: a network fitted on the others judges them, which "
        "calibrates the probabilities of the one that is fitted on all",
    )
    reduce: float = Field(2.5, ge=1, le=8, description="copies are first reduced by a factor from 1 to this")
    noises: tuple[Weights, ...] = Field(
        ("canon_5d2", "autochrome"), description="learned noise beside synthetic noise: DeFlow weights with levels"
    )
    epochs: int = Field(30, ge=1, description="passes over the tiles")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description=MAX_PIXELS_MEANING)
