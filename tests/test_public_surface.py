"""The public names of the design, and nothing that a user did not ask for, come with an import."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import synthpipe
from synthpipe import checkpoints, registry

#: Beside the models that checkpoints hold, which their packages export.
PUBLIC = {
    "synthpipe": {"__version__"},
    "synthpipe.checkpoints": {"fingerprint", "fingerprint_of", "load", "read_header", "resolve", "save"},
    "synthpipe.denoisers": {"Denoiser", "Problem", "restore"},
    "synthpipe.density": {"DensityEstimator", "dde_loss"},
    "synthpipe.flows": {"CLEAN", "FrozenDeFlow", "NOISY", "bits_per_dim"},
    "synthpipe.transforms": {
        "Batch",
        "BatchTransform",
        "ClassicalDegrade",
        "DeFlowDegrade",
        "Denoise",
        "DensityFilter",
        "DensityScore",
    },
    "synthpipe.pipeline": {"Stream", "build_stream"},
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_each_package_exports_its_list(module: str) -> None:
    loaded = importlib.import_module(module)
    models = {cls.__name__ for cls in registry._KINDS.values() if cls.__module__.startswith(f"{module}.")}
    assert set(loaded.__all__) == PUBLIC[module] | (models if module != "synthpipe" else set())
    assert all(hasattr(loaded, name) for name in loaded.__all__)


def test_the_core_needs_neither_basicsr_nor_torchvision() -> None:
    code = (
        "import sys; import synthpipe.flows, synthpipe.transforms, synthpipe.checkpoints, synthpipe.cli; "
        "from synthpipe.pipeline import build_stream; "
        "print(sorted({'basicsr', 'torchvision', 'cv2', 'lightning_fabric', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_shipped_weight_has_a_card_and_is_small() -> None:
    folder = Path(synthpipe.__file__).parent / "weights"
    weights = sorted(folder.glob("*.safetensors"))
    assert weights
    for file in weights:
        assert file.stat().st_size <= 8 * 2**20
        card = file.with_suffix(".md").read_text()
        assert registry.kind_of(checkpoints.load(file)) == checkpoints.read_header(file)["kind"]
        assert "non-commercial" in card  # the terms of the data that they were trained on
