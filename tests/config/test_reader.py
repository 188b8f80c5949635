"""Option files are read strictly: every error names the file, the key and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from synthpipe.config import Options, parse_options, presets, read_options
from synthpipe.config.deflow import PRESETS, DeFlowModelOptions
from synthpipe.config.degrade import DeFlowDegradeOptions
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError
from synthpipe.flows import DeFlow


class Inner(Options):
    learning_rate: float = Field(0.1, gt=0)


class Outer(Options):
    steps: int
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.yml"
    path.write_text(text)
    return path


def test_values_defaults_and_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "steps: 3\n")
    assert read_options(path, Outer) == Outer(steps=3)
    options = read_options(path, Outer, ["steps=4", "inner.learning_rate=1e-1", "many=[{learning_rate: 2}]"])
    assert options == Outer(steps=4, inner=Inner(learning_rate=0.1), many=(Inner(learning_rate=2),))


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("steps: 3\nsteqs: 4", [], "unknown option 'steqs'; did you mean 'steps'?"),
        ("steps: 3\ninner: {learning_rat: 4}", [], "'inner.learning_rat'; did you mean 'learning_rate'?"),
        ("steps: 3\nmany: [{zzz: 4}]", [], "'many.0.zzz'; known keys: learning_rate"),
        ("inner: {}", [], "option 'steps' is required"),
        ("steps: many", [], "option 'steps'"),
        ("steps: 3\ninner: {learning_rate: -1}", [], "greater than 0, got -1"),
        ("steps: [", [], "not valid YAML"),
        ("- 3", [], "expected a mapping of options at the top level, got list"),
        ("steps: 3", ["steps"], "override 'steps': expected key.sub=value"),
        ("steps: 3", ["steps.more=1"], "'steps' is a value, not a group"),
        ("steps: 3", ["steps=["], "not valid YAML"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, overrides: list[str], words: str) -> None:
    with pytest.raises(OptionError) as error:
        read_options(write(tmp_path, text), Outer, overrides)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gt_size": "abc"}, "mine.yml: option 'gt_size': expected an integer, got 'abc'"),
        ({"workers": -1}, "mine.yml: option 'workers': expected greater than or equal to 0, got -1"),
        ({"gt_size": 130}, "mine.yml: gt_size must be a multiple of scale 4, got 130"),
        (
            {"degrade": ["real-esrgan", {"type": "jpeg"}]},
            "mine.yml: option 'degrade': entry 0: expected a stage, as in {type: jpeg}, got 'real-esrgan'; a preset "
            "takes the place of the list, or stands in it as {type: choice, of: [{chain: real-esrgan}]}",
        ),
        (
            {"degrade": [{"type": "noise", "kinds": "gaussian"}]},
            "mine.yml: option 'degrade.0.kinds': expected a block of options, got 'gaussian'; write {gaussian: 1}",
        ),
        (
            {"degrade": [{"type": "resize", "filter": ["area", "bicubic"]}]},
            "mine.yml: option 'degrade.0.filter': expected a block of options, got ['area', 'bicubic']; write "
            "{area: 1, bicubic: 1}",
        ),
        (
            {"degrade": [{"type": "blur", "kinds": "iso"}]},
            "mine.yml: option 'degrade.0.kinds': expected a block of options, got 'iso'",
        ),
        (
            {"degrade": [{"type": "resize", "filter": "cubic"}]},
            "mine.yml: unknown option 'degrade.0.filter.cubic'; did you mean 'bicubic'?",
        ),
        (
            {"degrade": "deflow_small"},
            "mine.yml: option 'degrade': expected a block of options, a list of stages, or a preset "
            f"({', '.join(sorted(presets.PRESETS))}), got 'deflow_small'",
        ),
        ({"degrade": 4}, "mine.yml: option 'degrade': expected a block of options, got 4"),
        (
            {"degrade": {"type": "deflw"}},
            "mine.yml: option 'degrade.type': expected one of 'deflow', 'classical', 'chain', 'choice', got "
            "'deflw'; "
            "did you mean 'deflow'?",
        ),
        (
            {"degrade": {"type": "classical", "deflow": 1}},
            "mine.yml: unknown option 'degrade.deflow'; known keys: blur, jpeg_quality, noise, type",
        ),
        ({"degrade": {"weights": "x"}}, "mine.yml: option 'degrade.type' is required and was not given"),
        (
            {"degrade": {"type": "deflow", "weights": "x", "strenght": 2}},
            "mine.yml: unknown option 'degrade.strenght'; did you mean 'strength'?",
        ),
        (
            {"degrade": [{"type": "deflow", "weights": "x"}, {"type": "quantise", "level": 2}]},
            "mine.yml: unknown option 'degrade.1.level'; did you mean 'levels'?",
        ),
        (
            {"degrade": {"type": "quantise", "level": 2}},
            "mine.yml: unknown option 'degrade.level'; did you mean 'levels'?",
        ),
        (
            {"degrade": {"type": "choice", "of": [{"chain": [{"type": "quantise", "levels": [4, 2]}]}]}},
            "mine.yml: option 'degrade.of.0.chain.0.levels': expected [low, high], got [4, 2]",
        ),
        (
            {"degrade": {"type": "classical", "blur": {"sigma": [2, 1]}}},
            "mine.yml: option 'degrade.blur': sigma: expected [low, high], got [2.0, 1.0]",
        ),
        (
            {"degrade": [{"type": "blur", "sigma": -1}]},
            "mine.yml: option 'degrade.0.sigma': expected greater than or equal to 0, got -1",
        ),
        (
            {"degrade": [{"type": "blur", "sigma": [1, 2, 3]}]},
            "mine.yml: option 'degrade.0.sigma': expected a number or [low, high], got [1, 2, 3]",
        ),
        (
            {"degrade": [{"type": "blur", "sigma": {"low": 1}}]},
            "mine.yml: option 'degrade.0.sigma': expected a number or [low, high], got {'low': 1}",
        ),
        (
            {"degrade": [{"type": "blur", "probability": [0.5, 1]}]},
            "mine.yml: option 'degrade.0.probability': expected a number or [[samples seen, value], ...], got [0.5, 1]",
        ),
        (
            {"degrade": [{"type": "blur", "probability": -1}]},
            "mine.yml: option 'degrade.0.probability': expected greater than or equal to 0, got -1",
        ),
        (
            {"degrade": [{"type": "blur", "probability": [[0, 1], [10**30, 0]]}]},
            f"mine.yml: option 'degrade.0.probability.1.0': expected less than or equal to {1 << 53}, got {10**30}",
        ),
        (
            {"degrade": [{"type": "deflow", "weights": "x", "strength": [1]}]},
            "mine.yml: option 'degrade.0.strength': expected a number, got [1]\n"
            "mine.yml: option 'degrade.0.strength.1' is required and was not given",
        ),
        (
            {"degrade": {"type": "classical", "blur": {"sigma": [1, 2, 3]}}},
            "mine.yml: option 'degrade.blur.sigma': expected a list of at most 2 items, got [1, 2, 3]",
        ),
        (
            {"degrade": [{"type": "levels", "in_black": 1}]},
            "mine.yml: option 'degrade.0': in_black: expected values at least 0.0001 below those of in_white, "
            "got [1.0, 1.0] and [1.0, 1.0]",
        ),
        (
            {"degrade": [{"type": "blur", "kinds": {5: 1}}]},
            "mine.yml: option 'degrade.0.kinds.5': expected a text as key, got 5",
        ),
        (
            {"degrade": [{"type": "blur", "blades": 1e300}]},
            "mine.yml: option 'degrade.0.blades': expected an integer of fewer digits, got 1e+300",
        ),
        (
            {"degrade": [{"type": "blur", "probability": [[5, 1], [2, 0.5]]}]},
            "mine.yml: option 'degrade.0.probability': expected a number or [[samples seen, value], ...] in ascending "
            "order, got [[5, 1.0], [2, 0.5]]",
        ),
        (
            {"degrade": {"type": "jpeg", "sampling": 421}},
            "mine.yml: option 'degrade.sampling': expected '420', '422', '444', '411' or '440', got '421'",
        ),
        (
            {"degrade": {"type": "video", "codecs": {"h265": 1}}},
            "mine.yml: option 'degrade.codecs.h265': expected 'h264', 'hevc', 'mpeg2', 'mpeg4' or 'vp9', got 'h265'",
        ),
        (
            {"shards": ["a", 1]},
            "mine.yml: option 'shards': expected a text, got ('a', 1)\n"
            "mine.yml: option 'shards.1': expected a text, got 1",
        ),
        (
            {"denoise": {"weights": "x", "sigma": 5}},
            "mine.yml: option 'denoise.sigma': expected auto, or a level from 0 to 1 "
            "(5 of 255 grey levels are 0.0196), got 5",
        ),
    ],
)
def test_mistakes_in_a_stream_are_told_in_the_files_own_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as error:
        parse_options({"shards": "a.tar", "gt_size": 64, **change}, StreamOptions, "mine.yml")
    assert str(error.value) == words


@pytest.mark.parametrize(("given", "near"), [("motion_blur", "blur"), ("gaussian_noise", "noise"), ("jpg", "jpeg")])
def test_an_unknown_stage_names_the_nearest(given: str, near: str) -> None:
    options = {"shards": "a.tar", "gt_size": 64, "degrade": [{"type": given}]}
    with pytest.raises(OptionError, match=f"'degrade.0.type': .*, got '{given}'; did you mean '{near}'"):
        parse_options(options, StreamOptions)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nowhere\.yml'.*No such file"):
        read_options(tmp_path / "nowhere.yml", Outer)


def test_options_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(steps=1).steps = 2  # type: ignore[misc]


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(OptionError) as error:
        parse_options({"stps": 1, "inner": {"learning_rate": 0}}, Outer, "mine.yml")
    assert len(str(error.value).splitlines()) == 3
    assert all(line.startswith("mine.yml: ") for line in str(error.value).splitlines())


def test_a_wrong_name_in_a_list_is_told_once_and_an_empty_list_as_such() -> None:
    """Items that do not count made the list too short, and a union of names had a line for each of its parts."""
    stream = {"shards": "shards", "gt_size": 64}
    with pytest.raises(OptionError) as error:
        parse_options({**stream, "filter": {"reject_kinds": ["nois"]}}, StreamOptions)
    (line,) = str(error.value).splitlines()
    assert "option 'filter.reject_kinds.0': expected 'noise'" in line
    assert "or 'all', got 'nois'" in line
    with pytest.raises(OptionError, match="expected a list of at least 1 item, got"):
        parse_options({**stream, "filter": {"reject_kinds": []}}, StreamOptions)


def test_the_deflow_schema_has_the_constructors_arguments_and_defaults() -> None:
    # Tiny sizes, so that the comparison builds nothing large; every other argument stays at its default.
    sizes = {"steps": 1, "hidden": 2, "encoder": {"type": "small", "features": 4, "depth": 0}}
    model = DeFlow(**sizes)  # type: ignore[arg-type]
    # A file names a level only where there is one, so that older weights keep their fingerprints.
    assert DeFlowModelOptions.model_validate(sizes).arguments() == {**model.config, "level": False}
    sizes |= {"covariance": "colour", "level": True}
    assert DeFlowModelOptions.model_validate(sizes).arguments() == DeFlow(**sizes).config  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_expand_and_can_be_overridden(preset: str) -> None:
    options = parse_options({"preset": preset, "hidden": 7}, DeFlowModelOptions)
    assert options.hidden == 7
    assert options.scale == PRESETS[preset]["scale"]
    assert "preset" not in options.arguments()


def test_unknown_keys_of_a_preset_are_found() -> None:
    with pytest.raises(OptionError, match=r"'preset'.*'aim', 'ntire', 'dped' or 'small'"):
        parse_options({"preset": "tiny"}, DeFlowModelOptions)
    with pytest.raises(OptionError, match=r"'preset'.*got \['small'\]"):
        parse_options({"preset": ["small"]}, DeFlowModelOptions)
    with pytest.raises(OptionError, match="did you mean 'weights'"):
        parse_options({"weigths": "x"}, DeFlowDegradeOptions)
