"""BasicSR imports with today's torchvision, in a process of its own as a user would, and patches do not stay."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from synthpipe.basicsr_plugin.compat import patched, prepare
from synthpipe.errors import SynthPipeError
from tests.basicsr_runs import require_basicsr

require_basicsr()


def test_basicsr_imports_in_a_fresh_process() -> None:
    code = (
        "from synthpipe.basicsr_plugin import register; register(); register()\n"
        "import basicsr.train, basicsr.data.degradations as d\n"
        "import torch\n"
        "from torchvision.transforms.functional_tensor import rgb_to_grayscale\n"
        "print(rgb_to_grayscale(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # ITU-R 601-2 luma of pure red, as torchvision documents it
    assert float(done.stdout.split()[-1]) == pytest.approx(0.2989, abs=1e-6)


def test_importing_synthpipe_does_not_import_basicsr() -> None:
    code = "import sys, synthpipe.basicsr_plugin; print([m for m in ('basicsr', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_import_failure_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("synthpipe.basicsr_plugin.compat.import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        prepare()


def test_operators_missing_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(range(1000))

    def broken(name: str) -> None:
        raise RuntimeError(f"operator torchvision::synthpipe_test_{next(names)} does not exist")

    monkeypatch.setattr("synthpipe.basicsr_plugin.compat.import_module", broken)
    monkeypatch.setattr(sys, "modules", {})
    with pytest.raises(SynthPipeError, match="still misses operators after 16"):
        prepare()


def test_missing_packages_say_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("synthpipe.basicsr_plugin.compat.import_module", absent)
    with pytest.raises(SynthPipeError, match="torchvision.*belongs to torch " + torch.__version__.split("+")[0]):
        prepare()


def test_patched_restores_after_an_error() -> None:
    owner = SimpleNamespace(a=1, b=2)
    seen = []

    def fail() -> None:
        with patched(owner, a=10, b=20):
            seen.append((owner.a, owner.b))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [(10, 20)]
    assert (owner.a, owner.b) == (1, 2)
