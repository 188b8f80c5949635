"""The list of pairs that settings may be chosen on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import evidence

    return evidence


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("Canon5D2_5_160_6400_desk_4.jpg", True),
        ("real_noise/noisy/Canon5D2_5_160_6400_reciever_13.jpg", True),
        ("Canon5D2_5_160_6400_bicycle_10", True),
        ("Canon5D2_5_160_3200_plug_11.jpg", True),
        ("Canon5D2_recie.jpg", True),
        ("Canon5D2_5_160_3200_chair_11.jpg", False),
        ("Canon5D2_5_200_3200_fruit_12.jpg", False),
        ("Canon5D2_fruit.jpg", False),
        ("NikonD800_8_100_6400_bulletin_3.jpg", False),
        ("Nikon800_desch.jpg", False),
        ("Canon80D_8_8_6400_comproom_11.jpg", False),
        ("sidd_00.png", True),
        ("sidd_01.png", False),
    ],
)
def test_names_of_real_pairs(evidence: ModuleType, name: str, chosen: bool) -> None:
    """As the rules of evidence in ``recipes/noise_levels/README.md`` have them."""
    assert evidence.is_chosen(name) is chosen
    older = chosen and "plug" not in name and "sidd" not in name
    assert evidence.is_chosen(name, evidence.SCENES) is older


def test_what_is_judged_is_in_no_pile(evidence: ModuleType) -> None:
    for camera in evidence.CAMERAS.values():
        counts = Counter((*camera.pile, *camera.choose, *camera.judge))
        assert max(counts.values()) == (2 if camera.halves else 1)
        assert not any(evidence.is_chosen(f"{camera.prefix}_{scene}.jpg") for scene in camera.judge)
