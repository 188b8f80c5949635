#!/usr/bin/env python
"""The same as ``synthpipe shard``, for those who look for a script."""

import sys

from synthpipe.cli import main

if __name__ == "__main__":
    sys.exit(main(["shard", *sys.argv[1:]]))
