#!/usr/bin/env bash
# The main job on real photographs, from nothing: install, shard, train an ESRGAN on streamed pairs, resume it, look.
# Everything is written below runs/demo; the last line printed is the path of a picture.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh demo
bin=$(cd "${VENV:-.venv}/bin" && pwd)
recipe=$PWD/recipes/demo/esrgan.yml
started=$SECONDS
# Tensors are small here; on a shared machine threads that wait for each other made the demo ten times slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
step() { echo; echo "demo: $* ($((SECONDS - started)) s)"; }

rm -rf runs/demo
mkdir -p runs/demo

step "photographs from scikit-image"
"$bin/python" tools/demo_photos.py runs/demo/photos

cd runs/demo
step "synthpipe shard: images to shards"
"$bin/synthpipe" shard photos/train shards --max-samples 2

step "synthpipe degrade: frozen validation pairs"
"$bin/synthpipe" degrade deflow_small photos/val val --pairs --scale 4

train=("$bin/python" -W ignore -m synthpipe.basicsr_plugin.train -opt "$recipe")
step "BasicSR's ESRGAN on streamed pairs: 60 iterations, checkpoint and validation at 40"
"${train[@]}" --force_yml train:total_iter=60

step "the same run, continued from its checkpoint at 40: iterations 50 and 60 have the same losses again"
"${train[@]}" --auto_resume

step "synthpipe score and filter: which photograph is the worst of four, and a report"
"$bin/synthpipe" score scorer_small shards scores.parquet --workers 2
"$bin/synthpipe" filter shards scores.parquet kept --reject 0.25

step "synthpipe preview: what the stream makes"
"$bin/synthpipe" preview "$recipe" . --rows 4 --crop 56

step "done; networks, log and validation pictures: runs/demo/experiments/demo_esrgan; filter: runs/demo/kept/report.html"
echo "runs/demo/preview.png"
