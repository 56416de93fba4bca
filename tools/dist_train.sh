#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG GPUS [options of train.py]     NNODES, NODE_RANK, MASTER_ADDR and PORT for many nodes
set -euo pipefail

if ! [[ ${2:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "Usage: bash tools/dist_train.sh CONFIG GPUS [options of train.py], with GPUS, the processes per node, a number" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2

PYTHONPATH="$(dirname "$0")/..:${PYTHONPATH:-}" exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
