#!/usr/bin/env bash
# Networks and their maps on other images than they were trained and calibrated on.
#
#     docs/results/deployed_shift.sh resolutions TASK_FOLDER DATASET_ID OUT
#     docs/results/deployed_shift.sh frames TASK_FOLDER DATASET_ID OUT
#
# `resolutions`: the average of five folds, as deployed.sh left it, on the cases in no fold with larger voxels
# (RESOLUTIONS, how many voxels become one). `frames`: of a data set with two frames a patient, networks of one frame,
# on both. One is trained on the first frames of every second patient of the folds and calibrated on the first frames
# of the others, one on the last frames (folds 5 and 6); both meet both frames of the patients in no fold.
# STEPS="prepare train measure" are all of `frames`. What is finished is not done again. Values go to
# docs/results/study/DATASET/shift/, a folder for each condition.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
kind=$1 task=$(cd "$2" && pwd) id=$3
mkdir -p "$4"
out=$(cd "$4" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
configuration=2d_small
trainer=nnUNetTrainerDiceCE_${SCHEDULE:-100epochs_50iters}
device=${DEVICE:-cpu}
steps=${STEPS:-prepare train measure}

# shellcheck source=study_data.sh
. "$here/study_data.sh"
outer=$out/outer/$dataset/shift
values=$here/study/$dataset/shift
link_outer "$outer"

measure() { # CONDITION CASES FOLD...: predict the images in the folder CASES, and say what was promised of them
    local name=$1 cases=$2 model=$nnUNet_results/$dataset/${trainer}__nnUNetPlans__$configuration
    if [ ! -f "$outer/$name/.complete" ]; then
        nnUNetv2_predict -i "$cases/images" -o "$outer/$name" -d "$id" -c "$configuration" -tr "$trainer" \
            -f "${@:3}" -device "$device" -npp 1 -nps 1 --save_probabilities
        touch "$outer/$name/.complete"
    fi
    [ -f "$values/$name/cases.csv" ] || python "$here/deployed.py" "$model" "$values/$name" \
        -i "$name=$outer/$name" -gt "$cases/labels"
}

if [ "$kind" = resolutions ]; then
    read -r -a resolutions <<< "${RESOLUTIONS:-1,1,1 2,2,2 1,1,3}"
    for factors in "${resolutions[@]}"; do
        name=voxels_${factors//,/x}
        [ -d "$outer/cases_$name" ] || python "$here/resolutions.py" "$outer" "$outer/cases_$name" ${factors//,/ }
        measure "$name" "$outer/cases_$name" 0 1 2 3 4
    done
    exit
fi

patient='^(patient[0-9]+)'
splits=$(folder_of "$nnUNet_preprocessed")/splits_final.json
python - "$splits" "$patient" <<'SPLITS'
import json, os, pathlib, re, sys
path, pattern = pathlib.Path(sys.argv[1]), sys.argv[2]
folds = json.loads(path.read_text())[:5]
frames = {}
for case in sorted(folds[0]["train"] + folds[0]["val"]):
    frames.setdefault(re.search(pattern, case)[1], []).append(case)
for which in (0, -1):
    cases = [frames[patient][which] for patient in sorted(frames)]
    folds.append({"train": cases[::2], "val": cases[1::2]})
temporary = path.with_suffix(".tmp")
temporary.write_text(json.dumps(folds, indent=1))
os.replace(temporary, path)
SPLITS
for which in first last; do
    mkdir -p "$outer/$which/images" "$outer/$which/labels"
done
for first in $(find "$outer/labels/" -name '*.nii.gz' -printf '%f\n' | sort | awk -F_ '!seen[$1]++'); do
    for label in "$outer/labels/${first%%_*}_"*; do
        which=last
        [ "$(basename "$label")" != "$first" ] || which=first
        ln -sf "$(readlink -f "$label")" "$outer/$which/labels/$(basename "$label")"
        for image in "$outer/images/$(basename "$label" .nii.gz)"_*; do
            ln -sf "$(readlink -f "$image")" "$outer/$which/images/"
        done
    done
done
fold=5
for which in first last; do
    export nnUNet_results=$out/results_$which
    model=$nnUNet_results/$dataset/${trainer}__nnUNetPlans__$configuration
    if wanted train && [ ! -f "$model/fold_$fold/validation/summary.json" ]; then
        nnUNetv2_train "$id" "$configuration" "$fold" -tr "$trainer" -device "$device" --npz --c
    fi
    if wanted measure; then
        [ -f "$model/calibration_map.json" ] || nnunet_nacl calibrate -d "$id" -c "$configuration" -tr "$trainer" \
            -f "$fold" -device "$device" -groups "$patient"
        for other in first last; do
            measure "${which}_frames_on_$other" "$outer/$other" "$fold"
        done
    fi
    fold=6
done
