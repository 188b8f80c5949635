"""The zoo: degradations of the real world that ship with the package, by name.

The only list of them.  Most are learned, and a card in ``synthpipe/weights`` says of each what it was trained on and
how near it comes; what is known to the bit, the codec of the web, is itself.  All can be part of a captured graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["ZOO", "ZooEntry", "zoo_chain"]


@dataclass(frozen=True)
class ZooEntry:
    """One of them.

    Args:
        what: the images that it makes, a few words.
        stages: the chain as it stands in an option file, from ``gt`` to ``lq``.  Behind a reduction it works, too: the
            resize at its beginning leaves an image of the LR size as it is.
        scale: what it is for; None: any.
        sigma: of the noise that it adds to flat grey of 0.1 to 0.9, of 255: the least and the most over brightness and
            draws.
    """

    what: str
    stages: tuple[Mapping[str, Any], ...]
    scale: int | None
    sigma: tuple[float, float]


def _noise(what: str, weights: str, sigma: tuple[float, float]) -> ZooEntry:
    """Noise, by a DeFlow at the LR size."""
    return ZooEntry(what, ({"type": "resize", "to": "lr"}, {"type": "deflow", "weights": weights}), None, sigma)


#: By name, which is also that of the weights where there is one file of them.
ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    {
        "canon_5d2": _noise("JPEG files of a Canon 5D Mark II at ISO 3200 and 6400", "canon_5d2", (1.5, 5.8)),
        "nikon_d800": _noise("JPEG files of a Nikon D800 at ISO 1600 to 6400", "nikon_d800", (0.8, 3.5)),
        "canon_80d": _noise("JPEG files of a Canon 80D at ISO 800 to 6400", "canon_80d", (0.8, 3.3)),
        "iphone_x": ZooEntry(
            "the wide lens of an iPhone X, at any strength of its blur and sharpening, and its noise",
            (
                {"type": "resize", "to": "lr"},
                {"type": "kernels", "weights": "kernels_city100", "strength": [0, 1.5], "sharpening": [0, 2]},
                {"type": "noise", "kinds": {"gaussian": 1}, "sigma": [0.001, 0.008]},
            ),
            2,
            (0.25, 2.0),
        ),
        "autochrome": _noise("the grain of an autochrome, an early colour photograph", "autochrome", (6, 16)),
        "web": ZooEntry(
            "JPEG of the web, saved once or twice",
            ({"type": "resize", "to": "lr"}, {"type": "jpeg", "quality": [30, 80], "times": [1, 2]}),
            None,
            (0.0, 0.0),
        ),
    }
)


def zoo_chain(name: str) -> list[dict[str, Any]]:
    """The stages of an entry; ``KeyError`` where there is none of this name."""
    return [dict(stage) for stage in ZOO[name].stages]
