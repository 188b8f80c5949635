"""The bench's way into a checkout of the authors' DeFlow code, with a checkout that stands in for it.

Its class has their names, arguments and tensors, and computes with our plain model.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from torch.testing import assert_close

from synthpipe.errors import OptionError
from synthpipe.flows import DeFlow
from tests.flows.test_deflow import generators, images, tiny

BENCH = Path(__file__).parents[2] / "tools" / "bench"
ENCODER = {"type": "rrdb", "features": 4, "growth": 2, "blocks": 3, "taps": [0, 2]}
NETWORK = """
import torch
from torch import nn
import utils.debug as debug
import models.modules.flow_utils as flow_utils
from utils.util import opt_get
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.deflow_official import official_names


class RRDBGlowNet(nn.Module):
    def __init__(self, in_nc, out_nc, nf, nb, gc=32, scale=4, K=None, opt=None, step=None):
        super().__init__()
        assert opt_get(opt, ["network_G", "flow", "LR_noise_std"], 0) == 0
        assert opt_get(opt, ["network_G", "flow", "split", "absent"], "default") == "default"
        blocks = opt_get(opt, ["network_G", "flow", "stackRRDB", "blocks"])
        encoder = dict(type="rrdb", features=nf, growth=2, blocks=nb, taps=blocks)
        torch.manual_seed(99)
        hidden = opt["network_G"]["flow"]["hidden_channels"]
        self.inner = DeFlow(scale=scale, steps=K, transition_steps=1, hidden=hidden, encoder=encoder).double()
        self.norm = nn.Module()
        self.norm.inited = False

    def state_dict(self):
        state = self.inner.state_dict()
        found = {theirs: state[ours] for theirs, ours in official_names(self.inner.config).items()}
        return {name: value[None] if "actnorm" in name else value for name, value in found.items()}

    def load_state_dict(self, state):
        names = official_names(self.inner.config)
        mine = {ours: state[theirs].reshape(self.inner.state_dict()[ours].shape) for theirs, ours in names.items()}
        self.inner.load_state_dict(mine, strict=False)

    def rrdbPreprocessing(self, lr):
        return self.inner.features(lr)

    def forward(self, gt=None, lr=None, z=None, eps_std=None, reverse=False, epses=None, lr_enc=None,
                add_gt_noise=True, y_label=None):
        assert self.norm.inited and not add_gt_noise and len(y_label) == len(lr)
        for norm in self.inner.modules():
            if hasattr(norm, "mark_initialized"):
                norm.mark_initialized()
        if reverse:
            return self.inner.decode(epses, lr_enc)
        latents, logdet = self.inner.encode(gt, lr_enc)
        return epses + latents, -logdet, logdet
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("reference_deflow")
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("models", "utils", "tqdm", "reference_deflow"):
            del sys.modules[name]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    modules = tmp_path / "codes" / "models" / "modules"
    modules.mkdir(parents=True)
    (tmp_path / "codes" / "utils").mkdir()
    (modules / "RRDBGlowNet_arch.py").write_text(NETWORK)
    flow = {"K": 2, "hidden_channels": 4, "LR_noise_std": 0.03, "stackRRDB": {"blocks": [0, 2]}}
    options = {"scale": 4, "network_G": {"in_nc": 3, "out_nc": 3, "nf": 4, "nb": 3, "flow": flow}}
    (tmp_path / "codes" / "tiny.yml").write_text(yaml.safe_dump(options))
    return tmp_path


def model(**changes: object) -> DeFlow:
    return tiny(**{"scale": 4, "steps": 2, "transition_steps": 1, "hidden": 4, "encoder": ENCODER, **changes})


def test_the_same_weights_and_draws_give_the_same_images(bench: ModuleType, checkout: Path) -> None:
    ours = model()
    reference = bench.ReferenceDeFlow(checkout, Path("codes/tiny.yml"), ours)
    x = images(2, 16, 24)
    expected = ours.degrade(x, generators(1, 2))
    assert_close(reference.degrade(x, generators(1, 2)), expected, atol=1e-9, rtol=0)
    assert not torch.allclose(reference.degrade(x, generators(3, 4)), expected, atol=1e-3)


def test_what_does_not_fit_together_is_refused(bench: ModuleType, checkout: Path) -> None:
    config = Path("codes/tiny.yml")
    with pytest.raises(OptionError, match="expected a folder with codes/"):
        bench.ReferenceDeFlow(checkout / "codes", config, model())
    with pytest.raises(OptionError, match="not small and"):
        bench.ReferenceDeFlow(checkout, config, model(encoder={"type": "small", "features": 4}))
    with pytest.raises(OptionError, match="scale 4, but the model has 8"):
        bench.ReferenceDeFlow(checkout, config, model(scale=8))
    with pytest.raises(OptionError, match="has no "):
        bench.ReferenceDeFlow(checkout, config, model(steps=3))
    with pytest.raises(OptionError, match="has the shape"):
        bench.ReferenceDeFlow(checkout, config, model(hidden=6))
