"""The option reference fits the terminal that it is printed in."""

from __future__ import annotations

import pytest

from synthpipe.config.reference.examples import EXAMPLES
from synthpipe.config.reference.terminal import names_page, topic_page
from synthpipe.config.reference.topics import TOPICS


def lines_of_examples(page: str) -> set[str]:
    start = page.find("\n\nExample")
    return set(page[start:].splitlines()) if start >= 0 else set()


@pytest.mark.parametrize("width", [60, 100, 200])
@pytest.mark.parametrize("topic", TOPICS)
def test_no_line_is_wider_than_the_terminal(topic: str, width: int) -> None:
    page = topic_page(topic, "", width)
    # Examples are YAML, which is not wrapped, and one pattern is a single word.
    prose = [line for line in page.splitlines() if line not in lines_of_examples(page)]
    assert [line for line in prose if len(line) > width] == []


@pytest.mark.parametrize("width", [60, 100, 140])
def test_names_fit_as_well(width: int) -> None:
    page = names_page(width)
    assert all(len(line) <= width for line in page.splitlines())
    assert all(any(line.startswith(f"{name} ") for line in page.splitlines()) for name in TOPICS)


def test_a_wide_terminal_shows_a_table() -> None:
    page = topic_page("stream", "tile", 160)
    header, row = page.splitlines()[:2]
    assert header.split() == ["OPTION", "TYPE", "DEFAULT", "MEANING"]
    cells = [row[header.index(word) :].strip() for word in ("OPTION", "TYPE", "DEFAULT", "MEANING")]
    assert cells[0].startswith("tile ")
    assert cells[1].startswith("integer from 8 to 2048")
    assert cells[2].startswith("null ")
    assert cells[3].startswith("side of the LR tile")


def test_a_narrow_terminal_shows_options_below_each_other() -> None:
    lines = topic_page("train.deflow", "model.normalization", 60).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("model.normalization.clean_mean"))
    assert lines[at] == "model.normalization.clean_mean: list of 3 numbers, required"
    assert lines[at + 1].strip() == "mean of the clean images, R, G, B on the 0..255 scale"
    assert not any("OPTION" in line for line in lines)


@pytest.mark.parametrize("width", [60, 160])
def test_nothing_of_an_option_is_lost_by_wrapping(width: int) -> None:
    words = " ".join(topic_page("degrade", "", width).split())
    for part in ("jpeg_quality", "blur.ratio", "noise.covariance", "type: poisson_gaussian"):
        assert part in words


def test_a_block_comes_with_the_option_that_it_is() -> None:
    page = topic_page("stream", "degrade", 160)
    assert page.splitlines()[1].startswith("degrade  block by type (deflow,")
    assert "degrade.blur.sigma" in page
    assert "open_shards" not in page


def test_entries_of_lists_are_found_without_brackets() -> None:
    assert "data.degraded[].family" in topic_page("train.dde", "data.degraded", 160)
    assert topic_page("train.dde", "data.degraded[].family", 160) == topic_page(
        "train.dde", "data.degraded.family", 160
    )
    assert "one corruption" in topic_page("train.dde", "data.degraded.family", 160)


def test_an_unknown_path_shows_nothing() -> None:
    assert topic_page("stream", "tlie", 100) == ""


def test_commands_say_how_their_flags_are_called() -> None:
    assert "`max_samples` is `--max-samples`" in topic_page("shard", "", 160)


def test_examples_stand_at_the_end() -> None:
    last_line = EXAMPLES["degrade"][-1].rstrip().splitlines()[-1]
    assert topic_page("degrade", "", 100).rstrip().endswith(last_line)
