#!/usr/bin/env bash
# bash tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [options of test.py]
# Variables: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "Usage: bash tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [options of test.py]" >&2
    exit 2
fi
PARTITION=$1
JOB=$2
CONFIG=$3
CHECKPOINT=$4

PYTHONPATH="$(dirname "$0")/..:${PYTHONPATH:-}" exec srun \
    --partition="$PARTITION" \
    --job-name="$JOB" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --gres=gpu:"${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher slurm "${@:5}"
