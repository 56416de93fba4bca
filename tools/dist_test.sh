#!/usr/bin/env bash
# bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]     NNODES, NODE_RANK, MASTER_ADDR and PORT for many nodes
set -euo pipefail

if ! [[ ${3:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "Usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py], with GPUS, the processes per node, a number" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3

PYTHONPATH="$(dirname "$0")/..:${PYTHONPATH:-}" exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
