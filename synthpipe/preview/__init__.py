"""Pictures of what a stream makes."""

from synthpipe.preview.render import Preview, interest, make_preview, preview_options

__all__ = ["Preview", "interest", "make_preview", "preview_options"]
