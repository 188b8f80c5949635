"""Options of degradations, denoisers and filters -> the transforms that they describe."""

from __future__ import annotations

import logging

from synthpipe.config.degrade import (
    ChainOptions,
    ChoiceOptions,
    DegradeOptions,
)
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.config.filter import FilterOptions
from synthpipe.density.kinds.scorer import KindScorer
from synthpipe.density.scorer import DensityScorer
from synthpipe.errors import OptionError
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.chains.build import build_node, build_row, build_whole
from synthpipe.transforms.chains.chain import make_chain
from synthpipe.transforms.denoise import Denoise, load_denoiser
from synthpipe.transforms.denoise_by_image import DenoiseByImage
from synthpipe.transforms.density import (
    DensityFilter,
    DensityScore,
    KindFilter,
    clean_threshold,
    load_scorer,
    tile_places,
)

__all__ = ["build_degrade", "build_denoise", "build_filter"]

logger = logging.getLogger("synthpipe.transforms")


def build_degrade(options: DegradeOptions, scale: int) -> BatchTransform:
    """The transform, on the CPU (``.to(device)`` moves it); ``scale`` is the ratio of ``gt`` to ``lq``.

    A new degradation is one case of ``build_whole`` and one member of :data:`synthpipe.config.degrade.DegradeOptions`;
    the type checker refuses one without the other.

    Raises:
        CheckpointError: DeFlow weights that are missing, damaged or of another kind.
    """
    match options:
        case ChainOptions():
            return make_chain(build_row(options.stages, "", scale), scale)
        case ChoiceOptions():
            return make_chain(build_node(options, "choice", scale), scale)
        case _:
            return build_whole(options, scale)


def build_denoise(options: DenoiseOptions) -> Denoise | DenoiseByImage:
    """The transform, on the CPU: by each image's noise where the options say nothing of it.

    Raises:
        CheckpointError: weights that are missing, damaged, or of no denoiser.
        OptionError: a hole for a denoiser that has none.
    """
    if options.by_image:
        return DenoiseByImage(*map(load_denoiser, options.networks), tile=options.tile, overlap=options.overlap)
    model = load_denoiser(options.networks[0])
    if options.hole is not None and not hasattr(model, "hole"):
        raise OptionError(
            f"denoise.hole: {options.weights} is no blind-spot network but a {type(model).__name__}; leave hole out"
        )
    return Denoise(model, **options.arguments())


def build_filter(options: FilterOptions, side: int) -> tuple[DensityScore, DensityFilter | KindFilter]:
    """The score and the filter that judge tiles of ``side`` pixels on the device; on the CPU.

    Raises:
        CheckpointError: scorer weights that are missing, damaged, of another kind, or not calibrated.
        OptionError: tiles smaller than the scorer's, or ``reject_kinds`` of a scorer that tells none.
    """
    scorer = load_scorer(options.scorer)
    if side < scorer.tile:
        raise OptionError(
            f"filter: the stream cuts tiles of {side} pixels, the scorer {options.scorer!r} needs at least "
            f"{scorer.tile}; enlarge tile (with degrade) or gt_size, or filter by a table of scores"
        )
    if options.reject_kinds is not None:
        if not isinstance(scorer, KindScorer):
            raise OptionError(
                f"filter.reject_kinds: the scorer {options.scorer!r} gives one number and tells no kinds apart; use "
                "weights: scorer_kinds, or max_logit or clean_quantile"
            )
        return DensityScore(scorer, options.tiles_used, kinds=options.kinds_rejected), KindFilter(options.kind_limits)
    if isinstance(scorer, DensityScorer):
        logger.info(
            "filter: %s gives one number for everything; `reject_kinds: [noise, compression]` (scorer_kinds) tells "
            "kinds apart",
            options.scorer,
        )
    threshold = options.max_logit
    if threshold is None:
        assert options.clean_quantile is not None
        places = tile_places(side, side, scorer.tile, options.tiles_used)
        threshold = clean_threshold(scorer, options.clean_quantile, len(places))
    return DensityScore(scorer, options.tiles_used), DensityFilter(threshold)
