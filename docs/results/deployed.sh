#!/usr/bin/env bash
# Trains five folds, calibrates them, predicts with each and with their average, and measures what was promised.
#
#     docs/results/deployed.sh TASK_FOLDER DATASET_ID OUT [LOSS]
#
# TASK_FOLDER holds, beside the Decathlon task, splits_final.json (nnU-Net's folds) and outer_test.json (a list of
# labelled cases that are in no fold). Everything is learned and chosen on the folds. LOSS is DiceCE, nnU-Net's own, or
# another of `nnunet_nacl trainers`. What is finished is not done again, and FOLDS and STEPS cut the work into pieces:
# STEPS="prepare train folds outer forms" are all; `folds` calibrates and measures the folds' validation cases, `outer`
# predicts and measures the others, `forms`, after both, compares forms of the map. SCHEDULE has the trainers' further
# tokens, CONFIGURATION is one of those that study_plans.py makes, GROUPS_REGEX finds the patient in a case's name, PEERS
# names calibrators of fiducio, DRAWS says how many sets of patients a map is fitted to when it is asked how many a map
# takes.
# The values of every case and the map go to docs/results/study/DATASET/deployed_LOSS/, with what differs from the usual
# schedule behind LOSS (deployed_DiceCE_seed2). The tables are made from them.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
task=$(cd "$1" && pwd) id=$2 loss=${4:-DiceCE}
mkdir -p "$3"
out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
read -r -a folds <<< "${FOLDS:-0 1 2 3 4}"
steps=${STEPS:-prepare train folds outer forms}
configuration=${CONFIGURATION:-2d_small}
usual=100epochs_50iters
schedule=${SCHEDULE:-$usual}
trainer=nnUNetTrainer${loss}_$schedule
read -r -a peers <<< "${PEERS-TS CMSop CDC}"
device=${DEVICE:-cpu}

# shellcheck source=study_data.sh
. "$here/study_data.sh"
model=$nnUNet_results/$dataset/${trainer}__nnUNetPlans__$configuration
name=deployed_$loss
further=${schedule#"$usual"} further=${further#_}
[ -z "$further" ] || name=${name}_$further
[ "$configuration" = 2d_small ] || name=${name}_$configuration
values=$here/study/$dataset/$name
outer=$out/outer/$dataset/$name

if wanted train; then
    for fold in "${folds[@]}"; do
        [ ! -f "$model/fold_$fold/validation/summary.json" ] || continue
        nnUNetv2_train "$id" "$configuration" "$fold" -tr "$trainer" -device "$device" --npz --c
    done
fi

groups=(${GROUPS_REGEX:+-groups "$GROUPS_REGEX"})
mkdir -p "$values"
if wanted folds; then
    [ -f "$model/calibration_map.json" ] || nnunet_nacl calibrate -d "$id" -c "$configuration" -tr "$trainer" \
        -f "${folds[@]}" -device "$device" "${groups[@]}"
    python - "$model" "$values" <<'COPY' # without the place of this machine
import json, pathlib, sys
model, values = map(pathlib.Path, sys.argv[1:])
content = json.loads((model / "calibration_map.json").read_text(encoding="utf-8")) | {"source": model.name}
(values / "calibration_map.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
COPY
    [ -f "$values/folds/cases.csv" ] || python "$here/deployed.py" "$model" "$values/folds" -f "${folds[@]}"
fi

if wanted outer; then
    link_outer "$outer"
    predict() { # NAME FOLD...
        [ ! -f "$outer/$1/.complete" ] || return 0
        nnUNetv2_predict -i "$outer/images" -o "$outer/$1" -d "$id" -c "$configuration" -tr "$trainer" -f "${@:2}" \
            -device "$device" -npp 1 -nps 1 --save_probabilities
        touch "$outer/$1/.complete"
    }
    single=()
    for fold in "${folds[@]}"; do
        predict "single_$fold" "$fold"
        single+=("single_$fold=$outer/single_$fold")
    done
    predict average "${folds[@]}"
    nnunet_nacl predict -i "$outer/images" -o "$outer/list" -d "$id" -c "$configuration" -tr "$trainer" \
        -f "${folds[@]}" -device "$device" --continue_prediction
    [ -f "$values/outer/cases.csv" ] || python "$here/deployed.py" "$model" "$values/outer" \
        -i "average=$outer/average" "${single[@]}" -gt "$outer/labels" -lists "average=$outer/list"
fi

if wanted forms; then
    [ -f "$values/folds/needed.csv" ] || python "$here/cases_needed.py" "$model" "$values/folds/needed.csv" \
        -f "${folds[@]}" "${groups[@]}" --draws "${DRAWS:-20}"
    [ -f "$values/folds/forms.csv" ] || python "$here/map_forms.py" "$model" "$values/folds/forms.csv" \
        -f "${folds[@]}" "${groups[@]}" --peers "${peers[@]}" -voxels 5000
    if [ ! -f "$outer/ensemble/.complete" ]; then
        nnUNetv2_ensemble -i "${folds[@]/#/$outer/single_}" -o "$outer/ensemble" -np 1 --save_npz
        cp "$outer/average/"{dataset,plans}.json "$outer/ensemble/"
        touch "$outer/ensemble/.complete"
    fi
    [ -f "$values/outer/forms.csv" ] || python "$here/map_forms.py" "$model" "$values/outer/forms.csv" \
        -f "${folds[@]}" -i "average=$outer/average" "ensemble=$outer/ensemble" -gt "$outer/labels" "${groups[@]}" \
        --peers "${peers[@]}" -voxels 5000
fi
