"""Pictures of what a stream makes, and what became of one of its samples."""

from synthpipe.preview.option_files import preview_options
from synthpipe.preview.render import Preview, interest, make_preview

__all__ = ["Preview", "interest", "make_preview", "preview_options"]
