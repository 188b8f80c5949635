"""``python -m synthpipe``: the same as the ``synthpipe`` command."""

import sys

from synthpipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
