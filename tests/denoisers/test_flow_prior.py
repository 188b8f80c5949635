"""The flow-prior denoiser as a denoiser."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthpipe.denoisers import FlowPriorDenoiser
from synthpipe.errors import ShapeError
from tests.denoiser_contract import check_denoiser


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contract_of_denoisers_holds(tmp_path: Path, channels: int) -> None:
    check_denoiser(FlowPriorDenoiser(channels, width=4, depth=3), tmp_path)


def test_settings_that_make_no_network_are_refused() -> None:
    with pytest.raises(ShapeError, match="channels=2"):
        FlowPriorDenoiser(channels=2)
    with pytest.raises(ShapeError, match="depth=1"):
        FlowPriorDenoiser(depth=1)
