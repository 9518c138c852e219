#!/usr/bin/env bash
# Trains losses, calibrates them, decides for Dice, and keeps the values that start.md's tables and figure are made of.
#
#     docs/results/start.sh TASK_FOLDER DATASET_ID OUT TRAINER...
#
# TASK_FOLDER as for deployed.sh. A TRAINER is what stands behind nnUNetTrainer, such as NACL_100epochs_50iters. FOLDS are
# trained (default: 0); with STEPS="prepare train decide" they are calibrated and the cases in no fold are predicted
# with all of them, without and with -decide dice.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
task=$(cd "$1" && pwd) id=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
read -r -a folds <<< "${FOLDS:-0}"
steps=${STEPS:-prepare train}
configuration=2d_small

# shellcheck source=study_data.sh
. "$here/study_data.sh"
values=$here/study/$dataset/start
link_outer "$out/outer/$dataset"

for trainer in "${@:4}"; do
    model=$nnUNet_results/$dataset/nnUNetTrainer${trainer}__nnUNetPlans__$configuration
    common=(-d "$id" -c "$configuration" -tr "nnUNetTrainer$trainer" -device "${DEVICE:-cpu}")
    if wanted train; then
        for fold in "${folds[@]}"; do
            [ ! -f "$model/fold_$fold/validation/summary.json" ] || continue
            nnUNetv2_train "$id" "$configuration" "$fold" -tr "nnUNetTrainer$trainer" -device "${DEVICE:-cpu}" --npz --c
        done
    fi
    decided=()
    if wanted decide; then
        nnunet_nacl calibrate "${common[@]}" -f "${folds[@]}"
        place=$out/outer/$dataset/$trainer
        predict=(nnunet_nacl predict -i "$out/outer/$dataset/images" "${common[@]}" -f "${folds[@]}"
            --save_probabilities --continue_prediction)
        "${predict[@]}" -o "$place/predicted"
        "${predict[@]}" -o "$place/decided" -decide dice
        decided=(--decided -outer "$place/predicted" "$place/decided" "$out/outer/$dataset/labels")
    fi
    python "$here/start.py" "$model" "$values" "${decided[@]}"
done
