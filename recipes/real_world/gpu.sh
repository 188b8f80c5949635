#!/usr/bin/env bash
# One seed of three arms at x4 with networks of a size that people train (64 features, 16 layers), on one GPU, one after the
# other, within eight minutes: bicubic pairs, our best, the ceiling.  What is finished is kept and skipped when the script is
# given again; --steps N changes how long each trains (5000, which nobody has timed on a card yet).
#
#     bash recipes/real_world/gpu.sh --data ../shared/data --settings my_settings.yml
set -euo pipefail
cd "$(dirname "$0")/../.."
timeout 480 python recipes/real_world/run.py --size gpu --seeds 0 --device cuda --out "${OUT:-runs}/real_world" \
    --only real_x4_realsr/nothing real_x4_realsr/bicubic real_x4_realsr/blur-noise real_x4_realsr/real "$@"
