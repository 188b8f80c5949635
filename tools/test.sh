#!/usr/bin/env bash
# Sets up .venv (tools/setup.sh), then lint, formatting, types and all tests.  Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh all
bin=${VENV:-.venv}/bin

"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# One thread per process: the tests' tensors are tiny, and on two cores threads only wait for each other.
export OMP_NUM_THREADS=1
"$bin/python" -m pytest -q --hypothesis-profile ci -n "${JOBS:-2}" --dist worksteal "$@"
