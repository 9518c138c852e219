#!/usr/bin/env bash
# Sets up an environment and runs all that needs a GPU: the tests marked gpu, then gpu.py (half an hour).
#
#     research/benchmarks/gpu.sh [FOLDER]
#
# FOLDER (default: gpu_run) gets the environment, tests.log, gpu.json and gpu.md, the small table to send back.
# Install a torch of your CUDA into FOLDER/environment before, if pip's own does not fit your driver.
set -euo pipefail
if [ "${1:-}" = -h ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 0
fi
folder=${1:-gpu_run}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/../.."
[ -d "$folder/environment" ] || python3 -m venv "$folder/environment"
. "$folder/environment/bin/activate"
pip install -q -e '.[dev]' -e './research/paper[test]'
python -c 'import torch; assert torch.cuda.is_available(), "PyTorch finds no GPU"; print(torch.cuda.get_device_name())'
python -m pytest -m gpu tests/gpu 2>&1 | tee "$folder/tests.log"
python research/benchmarks/gpu.py --json "$folder/gpu.json" --output "$folder/gpu.md"
echo "send back: $folder/tests.log $folder/gpu.md $folder/gpu.json"
