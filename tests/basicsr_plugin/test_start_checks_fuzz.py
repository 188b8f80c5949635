"""Whatever stands in an option file: the checks at the start refuse it in words, or find nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthpipe.errors import OptionError
from tests.basicsr_runs import options, require_basicsr

require_basicsr()

from synthpipe.basicsr_plugin.checks import check_options  # noqa: E402
from synthpipe.basicsr_plugin.command_line import CommandLine  # noqa: E402
from synthpipe.basicsr_plugin.option_file import _override, read_option_file  # noqa: E402

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["1e-4", "5e3", "~", "cuda", "auto", "RRDBNet", "SRModel", "MultiStepLR", "/", "{}", "{0.x}", "{a}"]
    ),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return options(tmp_path_factory.mktemp("run"), gan=True)


def refusal(call: Callable[[], Any]) -> str | None:
    """What an OptionError says; None without one.  Anything else that is raised fails the test."""
    try:
        call()
    except OptionError as error:
        return str(error)
    return None


def places(block: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Every key of the file, blocks included."""
    found: list[tuple[Any, ...]] = []
    for key, value in block.items():
        found.append((key,))
        if isinstance(value, dict):
            found += [(key, *inner) for inner in places(value)]
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_at_any_place(data: st.DataObject, base: dict[str, Any]) -> None:
    opt = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(1, 3))):
        keys = data.draw(st.sampled_from(places(opt)))
        block = opt
        for key in keys[:-1]:
            block = block[key]
        if data.draw(st.booleans()):
            block[keys[-1]] = data.draw(VALUES)
        else:
            block[data.draw(st.text(max_size=8) | st.integers() | st.just(f"{keys[-1]}s"))] = data.draw(VALUES)
    said = refusal(lambda: check_options(opt, CommandLine("x.yml")))
    assert said is None or all(line.startswith("x.yml: ") for line in said.splitlines())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"#,~ \n\t01e.<?%@`", max_size=60) | st.binary(max_size=40))
def test_any_text_as_a_file(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    said = refusal(lambda: read_option_file(CommandLine(str(path))))
    assert said is None or str(path) in said


@settings(max_examples=100, deadline=None)
@given(entry=st.text(alphabet="ab:=[](),'1e-.~! ", max_size=25))
def test_any_entry_of_the_command_line(entry: str) -> None:
    options: dict[str, Any] = {"a": {"b": 1}, "b": None}
    said = refusal(lambda: _override(options, entry))
    assert said is None or "--force_yml" in said
