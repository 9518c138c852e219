#!/usr/bin/env bash
# The hippocampus study: trains, compares, and makes the tables, figures and pages of hippocampus.md.
#
#     docs/results/hippocampus.sh TASK04_FOLDER OUT
#
# TASK04_FOLDER is Task04_Hippocampus of the Medical Segmentation Decathlon. Every training is nnU-Net's own command,
# which `nnunet_nacl demo` shows as it runs it. Interrupted or repeated, the same command resumes.
# Takes about two hours on two CPU cores; a GPU works too (give CONFIGURATION=2d, and expect other figures).
# All methods are trained on folds 0 and 1; lengths, seeds and settings vary on the folds of MORE_FOLDS, by default 0.
set -euo pipefail
if [ $# -ne 2 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
task=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
configuration=${CONFIGURATION:-2d_small}
more_folds=${MORE_FOLDS:-0}
here=$(cd "$(dirname "$0")" && pwd)

short=40epochs_50iters_adam # 2,000 iterations
long=100epochs_50iters_adam # 5,000 iterations
methods=(DiceCE {CE,NACL,LS,Focal,ECP,SVLS,MbLS}_plainstart DiceNACL DiceCE_anneal DiceNACL_anneal NACL_m5_plainstart)
repeated=(DiceCE {CE,NACL}_plainstart)
settings=({CE,NACL,NACL_lambda0p3,NACL_sum,NACL_k5}_plainstart NACLWithoutDeepSupervision)

names() { # SCHEDULE METHOD...
    local schedule=$1 method
    shift
    for method in "$@"; do echo "nnUNetTrainer${method}_$schedule"; done
}

train() { # FOLDER FOLDS TRAINER...
    local folder=$1 folds=$2
    shift 2
    # shellcheck disable=SC2086
    nnunet_nacl demo --data "$task" -o "$folder" -c "$configuration" -f $folds -tr "$@"
}

# names hold no spaces
# shellcheck disable=SC2207
short_names=($(names "$short" "${methods[@]}"))
long_names=($(names "$long" "${repeated[@]}"))
repeated_names=($(names "$short" "${repeated[@]}"))
settings_names=($(names "$short" "${settings[@]}"))

# the trainer without deep supervision is a file of this study, which nnU-Net finds by this variable
export nnUNet_extTrainer=$here/trainers

train "$out/study" "0 1" "${short_names[@]}"
train "$out/study" "$more_folds" "${long_names[@]}"
train "$out/again" "$more_folds" "${repeated_names[@]}" # nnU-Net draws its random numbers anew in every training
train "$out/study" "$more_folds" "${settings_names[@]}"

export nnUNet_raw=$out/study/nnUNet_raw nnUNet_preprocessed=$out/study/nnUNet_preprocessed
export nnUNet_results=$out/study/nnUNet_results
again=$out/again/nnUNet_results/Dataset004_Hippocampus

compare() { # NAME FOLDS TRAINER...
    local name=$1 folds=$2
    shift 2
    # shellcheck disable=SC2086
    nnunet_nacl compare -d 4 -c "$configuration" -f $folds -tr "$@" -o "$out/$name"
}

compare compare_short "0 1" "${short_names[@]}"
compare compare_lengths "$more_folds" "${repeated_names[@]}" "${long_names[@]}"
compare compare_settings "$more_folds" "${settings_names[@]}"
both=()
for method in "${repeated[@]}"; do
    both+=("$method, first=nnUNetTrainer${method}_$short"
        "$method, second=$again/nnUNetTrainer${method}_${short}__nnUNetPlans__$configuration")
done
compare compare_repeated "$more_folds" "${both[@]}"
