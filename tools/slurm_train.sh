#!/usr/bin/env bash
# bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [options of train.py]
# Submits a job that stops with a checkpoint GRACE seconds before its time limit, or when Slurm preempts it, is queued
# again and resumes. The log is WORK_DIR/slurm-<job>.out.
# Variables: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, GRACE, SBATCH_ARGS
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "Usage: bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [options of train.py]" >&2
    exit 2
fi
mkdir -p "$4"
ROOT=$(cd "$(dirname "$0")/.." && pwd)
printf -v TRAIN '%q ' python -u "$ROOT/tools/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"

PYTHONPATH="$ROOT:${PYTHONPATH:-}" exec sbatch \
    --partition="$1" \
    --job-name="$2" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --gres=gpu:"${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --requeue \
    --signal="USR1@${GRACE:-300}" \
    --output="$4/slurm-%j.out" \
    --open-mode=append \
    ${SBATCH_ARGS:-} \
    --wrap="srun --cpus-per-task=${CPUS_PER_TASK:-5} --kill-on-bad-exit=1 $TRAIN \${SLURM_RESTART_COUNT:+--resume}
status=\$?  # 75: stopped with a checkpoint
if [ \$status = 75 ]; then scontrol requeue \$SLURM_JOB_ID; fi
exit \$status"
