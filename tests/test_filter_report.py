"""The report of a filter: its numbers by hand, its pictures, and that nothing in it runs or is fetched."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.filter import FilterOutcome, filter_corpus
from synthpipe.corpus.keep_rule import Decisions, State
from synthpipe.corpus.score_table import open_scores
from synthpipe.filter_report import KeepRate, keep_rates_by_decile, keep_rates_by_source, render_report
from tests.scored_corpus import encoded, photo, rows_of, score, write_weights
from tests.stream_corpus import write_tar

NASTY = "<script>alert(1)&\"'><img src=x onerror=y>"


class Page(HTMLParser):
    """Tags with their attributes, and the text of every table cell and caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags are not nested"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif "figcaption" in self.open:
            self.captions[-1] += data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def outcome(place: Path) -> FilterOutcome:
    """Twelve samples of two sources, one with a nasty key, one broken."""
    members = [(f"{('a', 'b/' + NASTY)[number % 2]}/{number}.png", encoded(number)) for number in range(11)]
    members[3] = (f"{NASTY}/x.png", encoded(3, height=200, width=300))
    shard = write_tar(place / "s.tar", [*members, ("a/bad.png", b"x")])
    score(write_weights(place / "tiny.safetensors"), str(shard), place / "s.parquet")
    options = {"source": (str(shard),), "scores": str(place / "s.parquet"), "output": str(place / "out")}
    return filter_corpus(CorpusFilterOptions(**options, reject=0.3), render=render_report)


@pytest.fixture(scope="module")
def text(outcome: FilterOutcome, place: Path) -> str:
    return (place / "out" / "report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    return page


def test_nothing_runs_and_nothing_is_fetched(text: str, page: Page) -> None:
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form", "a", "base"} == set()
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert all(
            name != "src" or str(value).startswith("data:image/png;base64,") for name, value in attributes.items()
        )
        assert tag != "img" or "src" in attributes
    assert re.findall(r"url\(|@import", text) == []
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert "default-src 'none'" in str(policy["content"])


def test_names_are_shown_as_they_are(text: str, page: Page) -> None:
    assert NASTY not in text
    assert any(f"{NASTY}/x" in caption for caption in page.captions)
    assert any(row[0] == NASTY for table in page.tables for row in table)


def test_summary(outcome: FilterOutcome, page: Page) -> None:
    facts = {row[0]: row[1] for row in page.tables[0]}
    assert facts["rule"] == "reject the worst 30 % by degraded_logit"
    assert facts["kept"] == "8 (66.7 %)"
    assert facts["rejected"] == "3 (25.0 %)"
    assert facts["no score: unreadable"] == "1 (8.3 %)"
    above = int((outcome.decisions.values > 0).sum())
    assert facts["more likely degraded than not (above 0)"] == f"{above} ({100 * above / 12:.1f} %)"
    assert float(facts["threshold"]) == pytest.approx(outcome.decisions.thresholds[None] or 0, rel=1e-3)


def test_keep_rate_of_each_source(outcome: FilterOutcome, place: Path, page: Page) -> None:
    rows = rows_of(place / "s.parquet")
    shown = {row[0]: row[1:4] for row in page.tables[1][1:]}
    for source in ("a", "b", NASTY):
        states = [s for row, s in zip(rows, outcome.decisions.states, strict=True) if row["source"] == source]
        kept = states.count(State.KEPT)
        assert shown[source] == [str(len(states)), str(kept), f"{100 * kept / len(states):.1f}"]
    assert len(shown) == 3


def test_the_bars_of_the_histogram_are_the_images(text: str, outcome: FilterOutcome) -> None:
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    bars = svg.findall(".//{http://www.w3.org/2000/svg}rect")
    words = [re.fullmatch(r"(\S+) to (\S+): (\d+) (kept|rejected)", bar[0].text or "") for bar in bars]
    counts = {"kept": 0, "rejected": 0}
    for bar, word in zip(bars, words, strict=True):
        assert word is not None
        counts[word[4]] += int(word[3])
        assert float(bar.attrib["height"]) > 0
        assert 0 <= float(bar.attrib["y"]) <= 220
    assert counts == {"kept": 8, "rejected": 3}
    heights = [float(bar.attrib["height"]) / int(word[3]) for bar, word in zip(bars, words, strict=True) if word]
    assert max(heights) == pytest.approx(min(heights), abs=0.2)


def test_pictures_are_of_their_images(outcome: FilterOutcome, page: Page) -> None:
    pictures = [str(attributes["src"]).split(",")[1] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 * (3 + 3 + 8 + 8)
    row = next(row for row, (_, key) in outcome.names.items() if key == f"{NASTY}/x")
    small, piece = (
        np.array(Image.open(io.BytesIO(data))) for data in (outcome.pictures[row].small, outcome.pictures[row].piece)
    )
    original = photo(3, height=200, width=300)
    np.testing.assert_array_equal(piece, original[36:164, 86:214])
    assert small.shape == (85, 128, 3)
    assert np.abs(small.mean((0, 1)) - original.mean((0, 1))).max() < 3
    assert base64.b64encode(outcome.pictures[row].piece).decode() in pictures


def test_parts_of_the_score(outcome: FilterOutcome, place: Path, page: Page) -> None:
    table = next(table for table in page.tables if table[0][0] == "column")
    kept = outcome.decisions.states == State.KEPT
    rejected = outcome.decisions.states == State.REJECTED
    rows = rows_of(place / "s.parquet")
    for name, mean_kept, mean_rejected, difference in table[1:]:
        values = np.array([np.nan if row[name] is None else row[name] for row in rows])
        assert float(mean_kept) == pytest.approx(values[kept].mean(), rel=1e-3)
        assert float(mean_rejected) == pytest.approx(values[rejected].mean(), rel=1e-3)
        expected = (values[rejected].mean() - values[kept].mean()) / np.nanstd(values)
        assert float(difference) == pytest.approx(expected, rel=1e-2, abs=1e-3)
    assert len(table) == 1 + len(outcome.about["columns"])


def test_deciles_hold_equally_many() -> None:
    values = np.random.default_rng(0).permutation(200).astype(float)
    states = np.where(values < 60, State.REJECTED, State.KEPT).astype(np.int8)
    decisions = Decisions("x", -values, states, {None: 0.0}, np.zeros(200), {})
    rates = keep_rates_by_decile(values, decisions)
    assert [rate.images for rate in rates] == [20] * 10
    assert [rate.rate for rate in rates] == [0.0] * 3 + [1.0] * 7
    assert [rate.mean for rate in rates] == pytest.approx([-(20 * k + 9.5) for k in range(10)])


def test_deciles_of_equal_values_and_of_none() -> None:
    states = np.zeros(30, np.int8)
    decisions = Decisions("x", np.zeros(30), states, {None: 0.0}, np.zeros(30), {})
    values = np.full(30, 2.0)
    values[:5] = np.nan
    rates = keep_rates_by_decile(values, decisions)
    assert sum(rate.images for rate in rates) == 25
    assert keep_rates_by_decile(np.full(30, np.nan), decisions) == []


def test_many_sources_are_cut(place: Path, tmp_path: Path, outcome: FilterOutcome) -> None:
    table = pq.read_table(place / "s.parquet")
    many = pa.concat_tables([table] * 10)
    names = pa.array([f"source {number}" for number in range(len(many))])
    many = many.set_column(many.schema.get_field_index("source"), "source", names)
    pq.write_table(many, tmp_path / "x.parquet")
    decisions = Decisions(
        "degraded_logit",
        np.tile(outcome.decisions.values, 10),
        np.tile(outcome.decisions.states, 10),
        {None: 0.0},
        np.zeros(120),
        {},
    )
    with open_scores(str(tmp_path / "x.parquet")) as scores:
        rates = keep_rates_by_source(scores, decisions)
        text = render_report(FilterOutcome(**(vars(outcome) | {"decisions": decisions})), scores)
    assert len(rates) == 120
    assert rates[0] == KeepRate("source 0", 1, int(outcome.decisions.states[0] == State.KEPT), rates[0].mean)
    assert "and 70 smaller ones" in text


def test_everything_kept_and_one_value(place: Path, tmp_path: Path) -> None:
    """No rejected images, no spread: still a page."""
    shard = write_tar(tmp_path / "s.tar", [("a.png", encoded(0))])
    score(str(place / "tiny.safetensors"), str(shard), tmp_path / "s.parquet")
    options = {"source": (str(shard),), "scores": str(tmp_path / "s.parquet"), "output": str(tmp_path / "out")}
    outcome = filter_corpus(CorpusFilterOptions(**options, reject=0.0), render=render_report)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert outcome.kept == 1
    assert page.open == []
