#!/usr/bin/env bash
# Builds the wheel, installs it without extras into a fresh environment, and tries it there, far from the checkout: what
# a user gets who types `pip install synthpipe`.  Writes only below a temporary folder, which it removes at the end.
#
#   bash tools/try_wheel.sh
#
# Environment:
#   PYTHON       the interpreter to use (default: that of the environment in VENV or .venv, else python3)
#   CONSTRAINTS  the versions to take (default constraints.txt)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
python=${PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  [[ -x ${VENV:-.venv}/bin/python ]] && python=${VENV:-.venv}/bin/python
fi
constraints=${CONSTRAINTS:-$root/constraints.txt}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One thread: the pictures are tiny.  Neither the checkout nor the user's own packages may be seen.
export OMP_NUM_THREADS=1 PYTHONNOUSERSITE=1
unset PYTHONPATH PYTHONDONTWRITEBYTECODE

started=$SECONDS
say() { echo "try_wheel: $* ($((SECONDS - started)) s)"; }
die() { echo "try_wheel: $*" >&2; exit 1; }

say "building the wheel"
mkdir "$work/source"
cp -r setup.cfg pyproject.toml LICENSE synthpipe "$work/source"
"$python" -m venv "$work/env"
bin=$work/env/bin
pip=("$bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" wheel -qq --no-deps --wheel-dir "$work/dist" "$work/source"

say "installing it without extras"
"${pip[@]}" install -qq --no-compile -c "$constraints" "$work"/dist/synthpipe-*.whl
mkdir "$work/elsewhere"
cd "$work/elsewhere"
where=$("$bin/python" -c 'import synthpipe; print(synthpipe.__file__)')
[[ $where == "$work"/env/* ]] || die "synthpipe was imported from $where, not from the wheel"

say "the help of every command"
"$bin/synthpipe" --version
commands=$("$bin/synthpipe" --help | sed -n 's/^    \([a-z][a-z-]*\).*/\1/p')
[[ $(wc -w <<<"$commands") -ge 10 ]] || die "synthpipe --help lists only: $commands"
for command in $commands; do
  "$bin/synthpipe" "$command" --help | grep -q "^example" || die "synthpipe $command --help shows no example"
done

say "pictures to shards"
"$bin/python" - <<'PY'
import os
import random

from PIL import Image

os.makedirs("photos")
draw = random.Random(0)
for number in range(4):
    coarse = Image.frombytes("RGB", (16, 12), draw.randbytes(16 * 12 * 3))
    coarse.resize((256, 192), Image.Resampling.BICUBIC).save(f"photos/{number}.png")
PY
"$bin/synthpipe" shard photos shards --workers 1

say "degraded pictures"
"$bin/synthpipe" degrade deflow_small photos degraded --scale 4
"$bin/python" - <<'PY'
from pathlib import Path

from PIL import Image

sizes = [Image.open(path).size for path in sorted(Path("degraded").iterdir())]
assert sizes == [(64, 48)] * 4, sizes
PY

say "a batch of the stream"
"$bin/python" - <<'PY'
from synthpipe.pipeline import build_stream

degrade = {"type": "deflow", "weights": "deflow_small"}
options = {"shards": "shards", "gt_size": 64, "batch_size": 4, "degrade": degrade}
with build_stream(options) as stream:
    batch = next(stream)
shapes = tuple(batch["gt"].shape), tuple(batch["lq"].shape)
assert shapes == ((4, 3, 64, 64), (4, 3, 16, 16)), shapes
PY

say "what needs an extra says which"
cat >train.yml <<'YML'
kind: glow
run_dir: run
max_steps: 1
data: {images: {folder: photos}, crop: 32, batch_size: 2}
YML
wants() {  # wants TEXT COMMAND...: the command fails, and its last line says TEXT
  local text=$1 said
  shift
  if said=$("$@" 2>&1); then die "$* went well without its extra"; fi
  [[ $said != *Traceback* && $(tail -n 1 <<<"$said") == *"$text"* ]] || die "$*: expected '$text', got: $said"
}
wants "pip install 'synthpipe[train]'" "$bin/synthpipe" train train.yml
wants "pip install 'synthpipe[score]'" "$bin/synthpipe" score scorer_small shards scores.parquet
wants "pip install 'synthpipe[s3]'" "$bin/synthpipe" shard photos s3://bucket/shards
wants "pip install 'synthpipe[http]'" "$bin/python" -c '
import sys
from synthpipe.errors import SynthPipeError
from synthpipe.pipeline import build_stream
try:
    build_stream({"shards": "http://127.0.0.1:9/{0..1}.tar", "gt_size": 64})
except SynthPipeError as error:
    sys.exit(str(error))
'
wants "pip install 'synthpipe[video]'" "$bin/python" -c '
import sys
from synthpipe.errors import SynthPipeError
from synthpipe.pipeline import build_stream
try:
    build_stream({"shards": "shards", "gt_size": 64, "scale": 1, "degrade": {"type": "video"}})
except SynthPipeError as error:
    sys.exit(str(error))
'
wants "pip install 'synthpipe[basicsr-headless]'" "$bin/python" -m synthpipe.basicsr_plugin.train -opt train.yml

say "done"
