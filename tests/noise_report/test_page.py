"""The report's page: what is in it, and what a browser makes of it."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthpipe.noise_report import NoiseReport, PictureRow, make_report, render_page
from tests.noise_report.fields import Recipe, flat_images, with_noise

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
#: Paper, and the colours of made and real lines, as the page has them in either scheme.
COLOURS = {
    "light": ((255, 255, 255), (0xB8, 0x50, 0x0F), (0x1F, 0x5F, 0xAE)),
    "dark": ((0x14, 0x18, 0x1E), (0xF0, 0x95, 0x4F), (0x6D, 0xB1, 0xFF)),
}


def report(factor: float = 1.0) -> NoiseReport:
    clean, noise = flat_images(5, 0), Recipe()
    degraded = with_noise(clean, noise, 1, factor)
    real = with_noise(flat_images(5, 2), noise, 3)
    rows = [PictureRow(clean[i][:, :64, :64], degraded[i][:, :64, :64], real[i][:, :64, :64]) for i in range(2)]
    shots = list(zip(clean, with_noise(clean, noise, 4), degraded, strict=True))
    return make_report(
        "Noise of <mine>.yml",
        zip(clean, degraded, strict=True),
        real,
        pairs=shots,
        pictures=rows,
        facts={"real images": "/data/" + "a_long_folder_name_" * 6},
    )


@pytest.fixture(scope="module")
def spoilt() -> NoiseReport:
    return report(factor=0.5)


@pytest.fixture(scope="module")
def page(spoilt: NoiseReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(spoilt))
    return path


class Figures(HTMLParser):
    """For each figure the tags in it that draw something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.drawn: list[list[str]] = []
        self.scripts = 0
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag == "figure":
            self.drawn.append([])
            self._inside = True
        if self._inside and tag in ("polyline", "rect", "img"):
            given = dict(attrs)
            if tag != "polyline" or len((given["points"] or "").split()) > 1:
                self.drawn[-1].append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "figure"


def test_the_page_says_what_the_report_says(spoilt: NoiseReport, page: Path) -> None:
    text = page.read_text()
    assert "<h1>Noise of &lt;mine&gt;.yml</h1>" in text
    assert "strength too weak" in text
    assert [verdict.subject for verdict in spoilt.wrong] == ["strength", "strength"]
    for side in spoilt.sides:
        assert side.comparison is not None
        assert f"Distance {side.comparison.distance:.3f}" in text
    pairs = spoilt.sides[1].numbers
    # Half the noise: its squares are a quarter, 0.5 (r - 1 - ln r) of r = 0.25, a little less as squares are rounded.
    assert pairs["akld"] == pytest.approx(0.5 * (0.25 - 1 - np.log(0.25)), rel=0.15)


def test_nothing_is_fetched_and_pictures_are_whole(page: Path) -> None:
    text = page.read_text()
    assert Figures(text).scripts == 0
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(sources) == 8
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source))) as picture:
            assert picture.size == (64, 64)


def test_a_report_without_anything_real_is_a_page(tmp_path: Path) -> None:
    clean = flat_images(2, 0)
    only = make_report("Alone", zip(clean, with_noise(clean, Recipe(), 1), strict=True), None)
    text = render_page(only)
    assert "Nothing was compared" in text
    assert all(figure for figure in Figures(text).drawn)
    assert only.wrong == []


def browse(page: Path, folder: Path, *flags: str, width: int = 1200, height: int = 2400) -> tuple[str, list[str]]:
    """What the browser prints, and the messages of its console."""
    if BROWSER is None:
        if os.environ.get("SYNTHPIPE_NEEDS_BROWSER"):
            pytest.fail("no chromium, and SYNTHPIPE_NEEDS_BROWSER is set")
        pytest.skip("no chromium: apt-get install chromium")
    profile = folder / "profile"
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *flags]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_every_figure_is_drawn_without_a_word_in_the_console(page: Path, tmp_path: Path) -> None:
    dom, console = browse(page, tmp_path, "--dump-dom")
    assert console == []
    figures = Figures(dom).drawn
    # Nine charts for each of two sides, four pictures in each of two rows.
    assert len(figures) == 2 * 9 + 2 * 4
    assert all(figures)


def test_the_console_would_say_what_is_wrong(page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("<h1>", '<img src="other.png"><h1>'))
    assert any("Content Security Policy" in line for line in browse(broken, tmp_path, "--dump-dom")[1])


@pytest.mark.parametrize("width", [390, 1200], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_seen_in_light_and_dark_on_phone_and_desktop(page: Path, tmp_path: Path, scheme: str, width: int) -> None:
    shot = tmp_path / "shot.png"
    dark = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0") if scheme == "dark" else ()
    browse(page, tmp_path, f"--screenshot={shot}", *dark, width=width)
    pixels = np.array(Image.open(shot).convert("RGB")).astype(int)
    paper, made, real = (np.abs(pixels - np.array(colour)).max(2) < 12 for colour in COLOURS[scheme])
    assert pixels.shape[1] == width
    # Paper between the cards, lines of both sides, and nothing that runs over the right edge.
    assert paper.mean() > 0.2
    assert min(made.sum(), real.sum()) > 1000
    assert paper[:, -6:].all()
