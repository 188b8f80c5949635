"""Whether noise that is made is like noise that is real: figures of both, a distance, verdicts in words, and a page."""

from synthpipe.noise_report.compare import Comparison, compare
from synthpipe.noise_report.figures import NoiseFigures, figures_of_images, figures_of_pairs
from synthpipe.noise_report.page import render_page
from synthpipe.noise_report.report import NoiseReport, PictureRow, Side, make_report, report_of
from synthpipe.noise_report.verdicts import Verdict, verdicts_of

__all__ = [
    "Comparison",
    "NoiseFigures",
    "NoiseReport",
    "PictureRow",
    "Side",
    "Verdict",
    "compare",
    "figures_of_images",
    "figures_of_pairs",
    "make_report",
    "render_page",
    "report_of",
    "verdicts_of",
]
