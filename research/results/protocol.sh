#!/usr/bin/env bash
# Converts a Decathlon task to nnU-Net's raw format, plans and preprocesses it, and trains its folds.
#
#     research/results/protocol.sh TASK_FOLDER DATASET_ID OUT [LOSS]
#
# TASK_FOLDER holds, beside the Decathlon task, splits_final.json (nnU-Net's folds). LOSS is what stands behind
# nnUNetTrainer (default: DiceCE_100epochs_50iters), CONFIGURATION one that study_plans.py makes (default: 2d_small),
# FOLDS the folds to train (default: all five); STEPS=prepare trains none. What is finished is not done again.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
task=$(cd "$1" && pwd) id=$2 trainer=nnUNetTrainer${4:-DiceCE_100epochs_50iters}
mkdir -p "$3"
out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
read -r -a folds <<< "${FOLDS:-0 1 2 3 4}"
steps=${STEPS:-prepare train}
configuration=${CONFIGURATION:-2d_small}
export nnUNet_raw=$out/raw nnUNet_preprocessed=$out/pre nnUNet_results=$out/results
export nnUNet_n_proc_DA=${nnUNet_n_proc_DA:-1} nnUNet_def_n_proc=${nnUNet_def_n_proc:-1}
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
wanted() { [[ " $steps " == *" $1 "* ]]; }
folder_of() { find "$1/" -maxdepth 1 -name "Dataset$(printf %03d "$id")_*" | head -n 1; }

if wanted prepare && [ ! -f "$out/prepared_${id}_$configuration" ]; then
    [ -n "$(folder_of "$nnUNet_raw")" ] || nnUNetv2_convert_MSD_dataset -i "$task"
    if [ ! -f "$out/planned_$id" ]; then
        nnUNetv2_extract_fingerprint -d "$id"
        nnUNetv2_plan_experiment -d "$id"
        cp "$task/splits_final.json" "$(folder_of "$nnUNet_preprocessed")/"
        touch "$out/planned_$id"
    fi
    python "$here/study_plans.py" "$(folder_of "$nnUNet_preprocessed")" "$configuration"
    nnUNetv2_preprocess -d "$id" -c "$configuration" -np 1
    touch "$out/prepared_${id}_$configuration"
fi

if wanted train; then
    model=$nnUNet_results/$(basename "$(folder_of "$nnUNet_raw")")/${trainer}__nnUNetPlans__$configuration
    for fold in "${folds[@]}"; do
        [ ! -f "$model/fold_$fold/validation/summary.json" ] || continue
        nnUNetv2_train "$id" "$configuration" "$fold" -tr "$trainer" -device "${DEVICE:-cpu}" --npz --c
    done
fi
