#!/usr/bin/env bash
# bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [options of train.py]
# Variables: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS
set -euo pipefail

PARTITION=$1
JOB=$2
CONFIG=$3
WORK_DIR=$4

PYTHONPATH="$(dirname "$0")/..:${PYTHONPATH:-}" exec srun \
    --partition="$PARTITION" \
    --job-name="$JOB" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --gres=gpu:"${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "${@:5}"
