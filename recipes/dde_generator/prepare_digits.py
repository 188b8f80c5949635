"""The 8x8 digits that ship with scikit-learn, four of five, as the .npy that digits.yml names.

python recipes/dde_generator/prepare_digits.py runs/dde_generator/digits.npy
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def main() -> None:
    """Write the file."""
    path = Path(sys.argv[1])
    images = load_digits().images.astype(np.float32) / 16
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images[np.arange(len(images)) % 5 != 0])
    print(path)


if __name__ == "__main__":
    main()
