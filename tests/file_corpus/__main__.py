"""``python -m tests.file_corpus OUT``: write the odd files, and say of each what it must become."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.file_corpus import odd_files, write_odd_files


def main(folder: str) -> None:
    """Write them, and a line for each."""
    write_odd_files(Path(folder))
    for file in odd_files().values():
        truth = file.truth
        if isinstance(truth, str):
            meaning = f"refused: {truth}"
        else:
            gone = ", ".join(f"{count} {reason}" for reason, count in truth.given_up.items())
            size = "x".join(map(str, truth.color.shape))
            meaning = (
                f"{size} {truth.color.dtype}{'+alpha' if truth.alpha is not None else ''}; {gone or 'nothing'} given up"
            )
        sys.stdout.write(f"{file.name!a}: {meaning}{'' if file.taken else '; not taken for an image'}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.file_corpus OUT")
    main(sys.argv[1])
