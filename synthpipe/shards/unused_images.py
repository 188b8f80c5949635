"""Image files in a shard that no sample uses: which they are, and what to say of them.

WebDataset takes the key of a sample up to the first dot of a file's name, so that ``clip.000.png`` to ``clip.099.png``
are one sample ``clip`` without an image, and a hundred images are lost.  Two kinds are told apart:

- ``unused_image``: nobody meant this.  Of a sample without an image of its own, every image file; beside an image,
  one whose further suffix begins with a digit (``IMG.png``, ``IMG.2.png``); and files that WebDataset passes over:
  links, names that begin with a dot or a folder ``__name__``, and names too long for a file.
- ``further_image``: may well be meant.  Beside the image of a sample, one with a suffix of letters
  (``a.jpg``, ``a.mask.png``), or the same in another format (``a.png``, ``a.jpg``).
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from synthpipe.files.image_formats import has_image_suffix

__all__ = [
    "FURTHER_IMAGE",
    "NO_IMAGES",
    "UNUSED_IMAGE",
    "UnusedImages",
    "is_image_name",
    "unused_beside",
    "unused_text",
]

UNUSED_IMAGE = "unused_image"
FURTHER_IMAGE = "further_image"

# Names are quoted in messages up to so many characters.
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class UnusedImages:
    """How many image files no sample uses: ``unused`` by mistake (see above) and ``further`` ones beside an image.

    ``example`` is the name of one that is unused, else of a further one.
    """

    unused: int = 0
    further: int = 0
    example: str = ""

    def __add__(self, other: UnusedImages) -> UnusedImages:
        first, second = (self, other) if self.unused or not other.unused else (other, self)
        return UnusedImages(self.unused + other.unused, self.further + other.further, first.example or second.example)

    def __bool__(self) -> bool:
        return bool(self.unused or self.further)

    def counts(self) -> dict[str, int]:
        """By reason, without those that are 0."""
        return {name: n for name, n in ((UNUSED_IMAGE, self.unused), (FURTHER_IMAGE, self.further)) if n}


NO_IMAGES = UnusedImages()


def is_image_name(name: str) -> bool:
    """Whether a member of this name is an image by its suffix; what macOS keeps beside files as ``._name`` is not."""
    return has_image_suffix(name) and not posixpath.basename(name).startswith("._")


def unused_beside(has_image: bool, others: Iterable[tuple[str, str]]) -> UnusedImages:
    """The images among the members of one sample that are not the sample's.

    Args:
        has_image: whether the sample has one that is.
        others: suffix, in lower case and without its dot, and name of each member but that one.
    """
    found = NO_IMAGES
    for suffix, name in others:
        if is_image_name(name):
            meant = has_image and not suffix[:1].isdigit()
            found += UnusedImages(further=1, example=name) if meant else UnusedImages(unused=1, example=name)
    return found


def unused_text(found: UnusedImages, shard: str) -> str:
    """The rule that lost the images, one of them, and the way out."""
    name = found.example if len(found.example) <= _SHOWN else f"{found.example[:_SHOWN]}..."
    return (
        f"image files that no sample uses, as {name!r}: WebDataset ends the key of a sample at the first dot of the "
        "file's name, and takes one image for each key; links and hidden files it passes over; `synthpipe shard "
        f"{shlex.quote(shard)} OUT` gives every image a key of its own"
    )
