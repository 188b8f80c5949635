"""Pictures of what a stream makes, and what became of one of its samples."""

from synthpipe.preview.option_files import preview_options
from synthpipe.preview.render import Preview, interest, make_preview
from synthpipe.preview.side_by_side import SideBySide, draw_side_by_side

__all__ = ["Preview", "SideBySide", "draw_side_by_side", "interest", "make_preview", "preview_options"]
