#!/usr/bin/env bash
# Sets up a virtual environment with synthpipe, BasicSR 1.4.2 and the tools of tests and demo.  Safe to run again.
#
#   bash tools/setup.sh                 everything, into .venv
#   bash tools/setup.sh demo            only what the demo needs
#
# Environment:
#   VENV     the virtual environment's folder (default .venv)
#   PYTHON   the interpreter to use (default: python3.11, then python3.12, then python3, whichever runs first)
#   TORCH    what to install instead of the pinned CPU build, as pip arguments: TORCH="torch torchvision" for CUDA
#   BASICSR  what to install as BasicSR (default basicsr==1.4.2); a wheel's path works too (needed on Python 3.13)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${VENV:-.venv}
basicsr=${BASICSR:-basicsr==1.4.2}
profile=${1:-all}
case $profile in
  all) extras=basicsr-headless,demo,train,test,dev ;;
  demo) extras=basicsr-headless,demo ;;
  *) echo "setup.sh: unknown profile '$profile'; expected 'all' or 'demo'" >&2; exit 2 ;;
esac

say() { echo "setup: $*"; }

runs() {  # an interpreter that really starts (pyenv's shims may not) and can make virtual environments
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, int(sys.argv[1])))' \
    "$2" >/dev/null 2>&1
}

find_python() {
  if [[ -n ${PYTHON:-} ]]; then
    runs "$PYTHON" 99 && { echo "$PYTHON"; return; }
    echo "setup.sh: PYTHON=$PYTHON: expected a Python >= 3.11 that has venv and ensurepip" >&2
    return 1
  fi
  local candidate
  for candidate in python3.11 python3.12 python3 python; do
    runs "$candidate" 12 && { echo "$candidate"; return; }
  done
  echo "setup.sh: no Python 3.11 or 3.12 with venv and ensurepip on PATH; install one or set PYTHON=/path/to/python" >&2
  return 1
}

python=$(find_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# What was installed is remembered, so that the second run takes a second.  "all" serves every profile.
stamp=$venv/.synthpipe-setup
wanted=$(cat setup.cfg pyproject.toml constraints.txt tools/setup.sh | cksum)" $version ${TORCH:-} $basicsr"
if [[ -f $stamp ]] && { [[ $(cat "$stamp") == "$profile $wanted" ]] || [[ $(cat "$stamp") == "all $wanted" ]]; }; then
  say "$venv is up to date"
  exit 0
fi

say "$venv with Python $version ($profile); downloading and installing takes some minutes"
if [[ -x $venv/bin/python ]] &&
   [[ $("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') != "$version" ]]; then
  say "$venv holds another Python version; making it anew"
  rm -rf "$venv"
fi
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
rm -f "$stamp"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
# First: the setuptools that venv brings cannot build BasicSR without its build requirements, among them torch.
"${pip[@]}" install -qq --upgrade pip "setuptools>=77" wheel

if [[ -n ${TORCH:-} ]]; then
  read -ra torch_arguments <<<"$TORCH"
  "${pip[@]}" install -qq "${torch_arguments[@]}"
  # Whatever came stays: the packages below must not exchange it.
  "$venv/bin/python" - >"$venv/constraints.txt" <<'PY'
from importlib.metadata import PackageNotFoundError, version
for name in ("torch", "torchvision"):
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        pass
PY
else
  cp constraints.txt "$venv/constraints.txt"
  chosen=$("${pip[@]}" install --dry-run -qq --no-deps --report - -c constraints.txt torch 2>/dev/null |
    "$python" -c 'import json, sys; print("".join(i["metadata"]["version"] for i in json.load(sys.stdin)["install"]))' || true)
  if [[ $(uname -s) == Linux && -n $chosen && $chosen != *+cpu* ]]; then
    say "pip found no CPU-only torch for Python $version, so it takes the CUDA build (some 3 GB with its libraries);"
    say "it works without a GPU too.  For the small one, set PIP_FIND_LINKS to a folder with the CPU wheel, or TORCH."
  fi
  "${pip[@]}" install -qq -c "$venv/constraints.txt" torch numpy
fi
say "torch $("$venv/bin/python" -c 'import torch; print(torch.__version__)')"

"${pip[@]}" install -qq -c "$venv/constraints.txt" -e ".[$extras]"

# BasicSR declares torch as a build requirement and six packages that it never imports, OpenCV with a window system
# among them; what it does import is our extra `basicsr-headless`.
if [[ $basicsr == basicsr==* && $version == 3.13 ]]; then
  echo "setup.sh: BasicSR's source does not build on Python 3.13 (KeyError: '__version__').  Build its wheel with 3.11" >&2
  echo "or 3.12: pip wheel --no-deps --no-build-isolation $basicsr; then set BASICSR=/path/to/the.whl" >&2
  exit 1
fi
"${pip[@]}" install -qq --no-deps --no-build-isolation "$basicsr"

"$venv/bin/python" - <<'PY'
from synthpipe.basicsr_plugin import register
register()
import basicsr, torch, torchvision
print(f"setup: BasicSR {basicsr.__version__}, torchvision {torchvision.__version__}, CUDA {torch.cuda.is_available()}")
PY
echo "$profile $wanted" >"$stamp"
say "done: source $venv/bin/activate"
