"""Shards: index, plan, one reader and one writer of tar files, and the engines that run jobs over many of them."""
