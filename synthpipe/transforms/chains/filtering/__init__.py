"""Kernels, and ways to apply them to images on canvases and on their own."""
