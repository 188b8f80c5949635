"""Folders of images in, folders of results out: names, pairs, the walk of `degrade`, `denoise` and `restore`."""
