"""Fixtures for all tests: a fixed seed, the folder of real images and golden numbers, the CUDA skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


# A loaded machine must not fail a property; how long tests take is nobody's property.
settings.register_profile("synthpipe", deadline=None)
settings.load_profile("synthpipe")


# Else torch says some things once in a process, and which test fails for them hangs on the order.
torch.set_warn_always(True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The founders' folder of real images and golden numbers, absent from a user's checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: its images may not be redistributed")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip ``gpu`` tests where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        # Not ``item.keywords``: those hold the names of folders too, and a checkout may lie in one called "gpu".
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
