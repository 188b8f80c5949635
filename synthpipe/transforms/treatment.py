"""What to do about the noise of one image, from what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass

from synthpipe.flat_noise import NoiseEstimate

__all__ = ["Treatment", "treatment_of"]

#: Correlation of neighbours up to which noise counts as white.
_WHITE = 0.36
#: Level of white noise from which it is noise and no grain of a photograph that is meant to be clean.
_LEAST_WHITE = 6 / 255
#: Certainty from which that is believed, up to the second level: textures are told with less, noise of whole pictures
#: with 0.65 and more.
_CERTAIN_WHITE, _WHITE_FOR_CERTAIN = 0.5, 14 / 255
#: Correlation of channels from which they have the same noise, as in grey images; texture alone does not come so far.
_SAME = 0.95
#: Estimates of correlated noise are low, those of weak noise behind JPEG most: the network is told this much more.
_TOLD_STRONG, _TOLD_WEAK = 1.25, 1.6
#: The same of strong noise in grey images, whose estimates are not low; with more, the finest textures are lost.
_TOLD_GREY = 1.12
#: Told at least, where neighbours share as much as they do in files of cameras, and change that is allowed there where
#: a level is believed: coding hides weak noise from estimates.
_LEAST_TOLD, _LEAST_MOST = 4 / 255, 2.2 / 255
#: What is left of it at half the size, as a part of what was told.
_COARSE = 0.25
#: Change, as a root mean square, that keeps an image within 45 dB of itself; what is done where a measurement is weak.
_SAFE = 1.4 / 255
#: Change allowed as a multiple of the level where it is strong: noise is taken away, never more than there is of it.
_MOST = 1.3
#: Certainty from which a level is believed where neighbours share as much as they do in files of cameras, and where
#: they share less; correlation of such neighbours.
_CERTAIN, _MORE_CERTAIN, _CAMERA = 0.4, 0.7, 0.55
#: Weak correlated noise that is a photograph's own with more than this probability stays.
_OWN = 0.38
#: Correlated noise above this level has channels that correlate less than this, or it is texture.
_STRONG, _RELATED = 5 / 255, 0.8
#: Above this level, channels that correlate less than this are noise for certain, and neighbours that correlate more
#: than the last number are texture: such noise is of telephones, at 0.45 to 0.55.
_PLAIN, _APART, _LONG = 7 / 255, 0.65, 0.65
#: Correlation of neighbours above which it is shading.
_SHADING = 0.85
#: Grey images say nothing by their channels: a level from which noise is told from texture by certainty, and certainty
#: from which that is believed of white noise and of noise that neighbours share; the same of strong white noise.
_GREY_STRONG, _GREY_WHITE, _GREY_CERTAIN = 4 / 255, 0.76, 0.5
_GREY_STRONG_WHITE, _GREY_LESS_CERTAIN = 8 / 255, 0.6
#: Below this certainty half of it may be fine texture, so that such images change by this part of the level alone.
_GREY_SURE, _GREY_PART = 0.66, 0.35
#: Roughness of the spectrum above which it is of regular texture, whatever the level.
_REGULAR = 0.4
#: Strong noise of grey images is texture where its probability is above the first, and roughness plus unevenness above
#: the second; where the estimate is less certain, above the third or, from the level that comes last on, the fourth.
_TEXTURE, _IRREGULAR, _UNSURE, _UNSURE_STRONG, _MORE_IRREGULAR = 0.25, 0.3, 0.15, 0.22, 14 / 255


@dataclass(frozen=True)
class Treatment:
    """How one image is denoised.

    Args:
        level: that the network is told, a standard deviation on the [0, 1] scale; None: what
            :func:`synthpipe.denoisers.noise_level.estimate_sigma` says, which is most exact where noise is white.
        white: whether neighbouring pixels have independent noise.
        hole: for blind-spot networks of white noise, pixels on each side that are not looked at.
        stride: for the same, the image is looked at as so many times as many images of every ``stride``-th pixel.
        coarse: for other networks, the part of ``level`` that they are told when they look again at half the size; 0:
            they do not, as for white noise.
        most: root mean square by which the image may change.
        same: whether the channels have the same noise, which networks of independent noise take for the image.
    """

    level: float | None
    white: bool
    hole: int
    stride: int
    coarse: float
    most: float
    same: bool = False


def treatment_of(found: NoiseEstimate | None) -> Treatment | None:
    """What suits noise as it was measured; None: the image stays as it is.

    Args:
        found: of :func:`synthpipe.flat_noise.estimate_noise`; None: nothing could be measured.
    """
    if found is None or found.level <= 0:
        return None
    lag = sum(found.lag1) / 2
    related = float(found.channel_correlation.mean())
    if lag <= _WHITE:
        most = _MOST * found.level
        held = most if _is_white_noise(found) and not _is_texture(found) else min(_SAFE, most)
        return Treatment(None, True, 0, 1, 0.0, held, same=related >= _SAME)
    strong = found.level >= _STRONG
    camera = _CAMERA <= lag < _SHADING
    most = _MOST * found.level
    if found.grey and found.level >= _GREY_STRONG and found.certainty < _GREY_SURE:
        most = _GREY_PART * found.level
    if camera:
        most = max(most, _LEAST_MOST)
    if _is_texture(found) or not _is_shared_noise(found, lag, related):
        most = min(most, _SAFE)
    more = (_TOLD_GREY if found.grey else _TOLD_STRONG) if strong else _TOLD_WEAK
    told = max(found.level * more, _LEAST_TOLD if camera else 0.0)
    return Treatment(told, False, 0 if strong else 1, 3 if strong else 1, _COARSE, most)


def _is_texture(found: NoiseEstimate) -> bool:
    """Whether it has peaks in its spectrum, or looks like texture of grey pictures and differs from block to block."""
    if found.roughness > _REGULAR:
        return True
    unsure = _UNSURE_STRONG if found.level >= _MORE_IRREGULAR else _UNSURE
    least = _IRREGULAR if found.certainty >= _GREY_SURE else unsure
    irregular = found.roughness + found.unevenness > least
    return found.grey and found.level >= _GREY_STRONG and found.texture > _TEXTURE and irregular


def _is_white_noise(found: NoiseEstimate) -> bool:
    """Whether what looks like white noise is some, and neither texture nor grain."""
    if found.grey:
        least = _GREY_LESS_CERTAIN if found.level >= _GREY_STRONG_WHITE else _GREY_WHITE
        return found.level >= _GREY_STRONG and found.certainty >= least
    return found.level >= _WHITE_FOR_CERTAIN or (found.level >= _LEAST_WHITE and found.certainty >= _CERTAIN_WHITE)


def _is_shared_noise(found: NoiseEstimate, lag: float, related: float) -> bool:
    """Whether what neighbours share, with correlation ``lag``, and channels with ``related``, is noise."""
    certain = found.certainty >= (_CERTAIN if lag >= _CAMERA else _MORE_CERTAIN)
    weak = certain and found.grain <= _OWN
    if found.grey:
        return lag < _SHADING and (found.certainty >= _GREY_CERTAIN if found.level >= _GREY_STRONG else weak)
    believed = certain and related < _RELATED if found.level >= _STRONG else weak
    plain = found.level >= _PLAIN
    return (believed or (plain and related < _APART)) and lag < (_LONG if plain else _SHADING)
