"""Which real pairs of the data root settings may be chosen on: all others are judged alone.

PolyU's files are ``CAMERA_..._SCENE_NUMBER.jpg`` (crops) and ``CAMERA_SCENE.jpg`` (full frames, five letters of the
scene), SIDD's ``sidd_NUMBER.png``.  Recipes and benches put this folder on their path; it is the only list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CAMERAS", "SCENES", "Camera", "is_chosen"]

_CAMERA = "Canon5D2"
#: Of that camera, by the beginning of a word.
SCENES = ("bag", "bicyc", "circu", "desk", "recie")
#: The same scenes, and what was added to them later: a scene of the same camera, and SIDD's letter tiles.
_LATER = (*SCENES, "plug")
_LETTERS = "sidd_00"


@dataclass(frozen=True)
class Camera:
    """Full frames of one camera: ``real_noise_full/{noisy,clean}/PREFIX_SCENE.jpg``.

    Args:
        prefix: of its files.
        pile: scenes whose noisy side may be learned from, and whose pairs train the ceiling.
        choose: scenes by which settings of what is learned from the pile may be chosen.
        judge: scenes that nobody may choose by.
        halves: the pile has the left half of each frame, the judge the right one.
    """

    prefix: str
    pile: tuple[str, ...]
    choose: tuple[str, ...]
    judge: tuple[str, ...]
    halves: bool = False


CAMERAS: Mapping[str, Camera] = {
    "5d2": Camera(_CAMERA, ("bag", "bicyc", "circu", "chair"), ("desk", "recie"), ("fruit",)),
    "d800": Camera("Nikon800", ("bulle", "class", "desch", "flowe"), (), ("door", "plant")),
    "80d": Camera("Canon80D", ("GO", "ball", "compr"), (), ("GO", "ball", "compr"), halves=True),
}


def is_chosen(name: str, scenes: tuple[str, ...] | None = None) -> bool:
    """Whether settings may be chosen on the pair whose file has this name, with or without a folder and suffix.

    Args:
        name: of a file of PolyU or SIDD.
        scenes: the scenes of PolyU alone that count, SIDD's then never; by default all, and SIDD's letters.
    """
    stem = name.rsplit("/", 1)[-1].split(".", 1)[0]
    if stem.startswith("sidd"):
        return scenes is None and stem == _LETTERS
    camera, *words = stem.split("_")
    return camera == _CAMERA and any(word.startswith(_LATER if scenes is None else scenes) for word in words)
