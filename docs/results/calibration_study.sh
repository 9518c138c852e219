#!/usr/bin/env bash
# Trains, calibrates, decides and compares: from a Decathlon task to the tables of regimes.md.
#
#     docs/results/calibration_study.sh TASK_FOLDER DATASET_ID OUT
#
# TASK_FOLDER holds, beside the task, splits_final.json (nnU-Net's folds) and outer_test.json (a list of labelled cases
# that are in no fold). Networks, maps and every choice come from the folds; all tables are of the outer test cases.
# Every step is one of nnU-Net's commands or of `nnunet_nacl`; what is finished is not done again, and FOLDS, METHODS and
# STEPS cut the work into pieces (STEPS="train" takes most of the time: three to six minutes a training on one core).
# SCHEDULE has the trainers' further tokens; CONFIGURATION is one of those that study_plans.py makes.
# The values of each finished method are kept in OUT/study/DATASET/METHOD.csv, from which the tables are made.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
task=$(cd "$1" && pwd) id=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
read -r -a folds <<< "${FOLDS:-0 1 2 3 4}"
read -r -a methods <<< "${METHODS:-DiceCE CE_plainstart NACL_plainstart MbLS_plainstart DiceCE_anneal DiceNACL_anneal}"
steps=${STEPS:-prepare train predict calibrate compare}
schedule=${SCHEDULE:-20epochs_50iters_adam}
configuration=${CONFIGURATION:-2d_small}
study=$schedule # name of what belongs together
[ "$configuration" = 2d_small ] || study=${schedule}_$configuration

# shellcheck source=study_data.sh
. "$here/study_data.sh"
outer=$out/outer/$dataset/$study
link_outer "$outer"

predict() { # NAME METHOD CHECKPOINT FOLD...
    local name=$1 trainer=nnUNetTrainer$2_$schedule checkpoint=$3
    shift 3
    [ -f "$outer/pred/$name/.complete" ] && return
    nnUNetv2_predict -i "$outer/images" -o "$outer/pred/$name" -d "$id" -c "$configuration" -tr "$trainer" -f "$@" \
        -chk "$checkpoint" -device "${DEVICE:-cpu}" -npp 1 -nps 1 --save_probabilities
    touch "$outer/pred/$name/.complete"
}

review() { # NAME KIND ARGUMENT...
    local name=$1 kind=$2
    shift 2
    nnunet_nacl review -i "$outer/pred/$name" -o "$outer/$kind/$name" --save_probabilities "$@"
}

average=average_$(IFS=_; echo "${folds[*]}")
for method in "${methods[@]}"; do
    trainer=nnUNetTrainer${method}_$schedule
    model=$nnUNet_results/$dataset/${trainer}__nnUNetPlans__$configuration
    for fold in "${folds[@]}"; do
        if wanted train && [ ! -f "$model/fold_$fold/validation/summary.json" ]; then
            resume=()
            [ ! -f "$model/fold_$fold/checkpoint_latest.pth" ] || resume=(--c)
            nnUNetv2_train "$id" "$configuration" "$fold" -tr "$trainer" -device "${DEVICE:-cpu}" --npz "${resume[@]}"
        fi
        ! wanted predict || predict "${method}_$fold" "$method" checkpoint_final.pth "$fold"
    done
    if wanted predict && [ ${#folds[@]} -gt 1 ]; then
        predict "${method}_$average" "$method" checkpoint_final.pth "${folds[@]}"
    fi
    if wanted calibrate; then
        [ -f "$model/calibration_map.json" ] || nnunet_nacl calibrate -d "$id" -c "$configuration" -tr "$trainer" \
            -f "${folds[@]}" -device "${DEVICE:-cpu}" ${GROUPS_REGEX:+-groups "$GROUPS_REGEX"}
        for network in "${folds[@]}" "$average"; do
            name=${method}_$network
            [ -d "$outer/pred/$name" ] || continue
            [ -f "$outer/calibrated/$name/.complete" ] && continue
            map=(-map "$model/calibration_map.json")
            review "$name" calibrated "${map[@]}"
            review "$name" calibrated_decided "${map[@]}" -decide dice
            review "$name" pred_decided -decide dice
            touch "$outer/calibrated/$name/.complete"
        done
    fi
done

compare() { # NAME SUFFIX
    local entries=() method
    for method in "${methods[@]}"; do
        entries+=("$method=$outer/pred/${method}_$2" "$method, decided=$outer/pred_decided/${method}_$2"
            "$method, calibrated=$outer/calibrated/${method}_$2"
            "$method, calibrated, decided=$outer/calibrated_decided/${method}_$2")
    done
    nnunet_nacl compare -i "${entries[@]}" -gt "$outer/labels" -o "$out/compare_${dataset}_${study}_$1"
}

if wanted compare; then
    documents=()
    for method in "${methods[@]}"; do
        document=$out/study/$dataset/${method%_plainstart}_$study.csv
        [ -f "$document" ] || python "$here/study_measure.py" "$outer" "$method" "$document" --folds "${folds[@]}"
        documents+=("$document")
    done
    python "$here/study_tables.py" "${documents[@]}" ${GROUPS_REGEX:+--groups "$GROUPS_REGEX"} \
        | tee "$out/study_${dataset}_$study.md"
    last=$average
    [ ${#folds[@]} -gt 1 ] || last=${folds[0]}
    compare "$last" "$last"
fi
