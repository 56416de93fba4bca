#!/usr/bin/env bash
# Measures what docs/performance.md shows, on a machine that does nothing else. Takes about two hours on two cores.
#
#   MMRESATTN_DATA=data bash .dev_scripts/performance.sh work_dirs/performance
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-work_dirs/performance}
python=${PYTHON:-python}
mkdir -p "$out"

"$python" -W ignore .dev_scripts/performance.py --preset cpu --out "$out/cpu"
"$python" -W ignore .dev_scripts/performance.py --preset scaling --rounds 5 --out "$out/scaling"  # its picture is docs/images/scaling.png
"$python" -W ignore tools/deployment/export_onnx.py configs/resattn/attention56_imagenet.py none "$out/attention56.onnx" \
    --torch-export --int8 --calibration 0 --speed 8 | tee "$out/export_imagenet.txt"
"$python" -W ignore tools/deployment/export_onnx.py configs/resattn/attention56_cifar10_fast.py \
    weights/attention56_cifar10_fast.safetensors "$out/attention56_cifar10.onnx" --size 32 32 --int8 --images 2000 \
    --speed 64 | tee "$out/export_cifar10.txt"

# What importing this package adds to importing MMPretrain, and when the first iteration of the digits is logged.
for _ in 1 2 3 4 5; do
    "$python" -W ignore -c "
import time
import mmpretrain.apis, mmpretrain.models
begin = time.perf_counter()
import mmresattn
print(f'import mmresattn: {time.perf_counter() - begin:.2f} s more')" 2> /dev/null | tail -n 1
done | tee "$out/import.txt"
begin=$(date +%s)
"$python" -W ignore tools/train.py configs/resattn/attention56_digits.py --work-dir "$out/digits" \
    --cfg-options train_cfg.max_epochs=1 default_hooks.logger.interval=1 > "$out/digits.txt" 2>&1 &
until grep -q 'Epoch(train)' "$out/digits.txt"; do sleep 0.1; done
echo "first iteration after $(($(date +%s) - begin)) s" | tee "$out/start.txt"
wait
