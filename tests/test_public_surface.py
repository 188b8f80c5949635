"""Every package exports its list, every module the names that others take from it; an import brings nothing unasked."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import synthpipe
from synthpipe import checkpoints, registry

ROOT = Path(synthpipe.__file__).parent.parent

#: Beside the models that checkpoints hold, which their packages export.  Nothing: its modules are what is imported.
PUBLIC: dict[str, set[str]] = {
    "synthpipe": {"__version__"},
    "synthpipe.basicsr_plugin": {"register"},
    "synthpipe.basicsr_plugin.checks": {"check_options"},
    "synthpipe.cli": {"main"},
    "synthpipe.config": {"Options", "parse_options", "read_options", "read_yaml"},
    "synthpipe.config.presets": {"PRESETS", "ZOO", "preset_chain"},
    "synthpipe.config.reference": set(),
    "synthpipe.config.stages": set(),
    "synthpipe.cli.folders": set(),
    "synthpipe.corpus": set(),
    "synthpipe.denoisers.blind_spot_nets": set(),
    "synthpipe.files": set(),
    "synthpipe.files.codecs": set(),
    "synthpipe.files.decoding": set(),
    "synthpipe.preview": {
        "Preview",
        "SideBySide",
        "draw_side_by_side",
        "interest",
        "make_preview",
        "preview_options",
    },
    "synthpipe.shards": set(),
    "synthpipe.training": {"train"},
    "synthpipe.training.data": set(),
    "synthpipe.training.kinds": {"Mixture", "draw_mixture", "fit_kinds"},
    "synthpipe.training.step": set(),
    "synthpipe.transforms.chains": {
        *("Canvas", "Chain", "Context", "DeviceChain", "Extent", "HostChain", "Params", "Size", "Stage", "make_chain"),
    },
    "synthpipe.transforms.chains.filtering": set(),
    "synthpipe.transforms.chains.stages": set(),
    "synthpipe.transforms.libjpeg": {"FACTORS", "LibjpegRoundTrip"},
    "synthpipe.checkpoints": {"fingerprint", "fingerprint_of", "load", "read_header", "resolve", "save", "shipped"},
    "synthpipe.denoisers": {"Denoiser", "Problem", "restore"},
    "synthpipe.density": {"DensityEstimator", "dde_loss"},
    "synthpipe.density.kinds": {"KINDS", "probability_column"},
    "synthpipe.kernels": set(),
    "synthpipe.flat_noise": {
        "FlatNoise",
        "LAGS",
        "NODES",
        "NoiseEstimate",
        "estimate_noise",
        "measure_flat_noise",
        "noise_level",
    },
    "synthpipe.noise_report": {
        *("Comparison", "NoiseFigures", "NoiseReport", "PictureRow", "Side", "Verdict"),
        *("compare", "figures_of_images", "figures_of_pairs", "make_report", "render_page", "report_of", "verdicts_of"),
    },
    "synthpipe.flows": {"CLEAN", "FrozenDeFlow", "NOISY", "bits_per_dim"},
    "synthpipe.flows.frozen": {"EncodedImages", "FrozenDeFlow"},
    "synthpipe.transforms": {
        "Batch",
        "BatchTransform",
        "ClassicalDegrade",
        "DeFlowDegrade",
        "Denoise",
        "DensityFilter",
        "DensityScore",
        "DeviceTransform",
    },
    "synthpipe.pipeline": {"Stream", "build_stream"},
}


#: Modules without ``__all__``: all that has no underscore is public.  A new degradation is then one list less.
OPEN = {"synthpipe.__main__", "synthpipe._version", "synthpipe.config.degrade"}


def module_files() -> dict[str, Path]:
    """Every module of synthpipe, packages too, by its dotted name."""
    files = sorted((ROOT / "synthpipe").rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files)
    return dict(zip(names, files, strict=True))


FILES = module_files()
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}


def top_level_names(path: Path) -> set[str]:
    """What a module defines or imports, also only for types."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.If):
            waiting += [*node.body, *node.orelse]
    return found


def listed_names(path: Path) -> set[str] | None:
    """``__all__`` as it stands in the file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = [ast.literal_eval(name) for name in node.value.elts]  # type: ignore[attr-defined]
            assert len(set(names)) == len(names), f"{path}: a name stands twice in __all__"
            return set(names)
    return None


LISTED = {name: listed_names(path) for name, path in FILES.items()}


def test_every_package_is_in_the_list() -> None:
    assert set(PUBLIC) - {"synthpipe.checkpoints"} == PACKAGES


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_each_package_exports_its_list(module: str) -> None:
    loaded = importlib.import_module(module)
    models = {cls.__name__ for cls in registry._KINDS.values() if cls.__module__.startswith(f"{module}.")}
    assert set(getattr(loaded, "__all__", ())) == PUBLIC[module] | (models if module != "synthpipe" else set())
    assert all(hasattr(loaded, name) for name in PUBLIC[module])


@pytest.mark.parametrize("module", sorted(set(FILES) - OPEN - {name for name in PACKAGES if not PUBLIC.get(name)}))
def test_each_module_lists_names_that_it_has(module: str) -> None:
    listed = LISTED[module]
    assert listed is not None, f"{module} has no __all__"
    assert listed <= top_level_names(FILES[module])
    assert not {name for name in listed if name.startswith("_") and name != "__version__"}


def test_private_names_stay_private() -> None:
    """No module of the package, no tool and no recipe imports what another module does not list."""
    taken = []
    for path in sorted(path for folder in ("synthpipe", "tools", "recipes") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.module not in FILES:
                continue
            for alias in node.names:
                if f"{node.module}.{alias.name}" in FILES or alias.name == "__version__":
                    continue
                public = LISTED[node.module] if node.module not in OPEN else {alias.name.lstrip("_")}
                if alias.name not in (public or ()):
                    taken.append(f"{path.relative_to(ROOT)}:{node.lineno}: {alias.name} of {node.module}")
    assert taken == []


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
