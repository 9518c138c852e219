#!/usr/bin/env bash
# Trains five folds, calibrates them, predicts cases in no fold with each and with their average, and measures both.
#
#     docs/results/protocol.sh TASK_FOLDER DATASET_ID OUT [LOSS]
#
# TASK_FOLDER holds, beside the Decathlon task, splits_final.json (nnU-Net's folds) and outer_test.json (a list of labelled
# cases in no fold). Where a patient has several cases, splits/DATASET holds both files, too, and patients.json (the
# patient of each case). LOSS is what stands behind nnUNetTrainer (default: DiceCE_100epochs_50iters). What is finished
# is not done again, and FOLDS and STEPS cut the work into pieces: STEPS="prepare train folds outer" are the usual ones.
# `folds` calibrates and measures validation cases, `outer` predicts and measures the others, `shift` asks which scans
# are marked as unlike: the others, those of TASK_FOLDER/shift or, with CORRUPT=1, corrupted ones (every EVERY-th);
# `needed` asks how many cases a map takes. CONFIGURATION is one that study_plans.py makes, PEERS names other
# calibrators (peers.py). Values go to STUDY/DATASET/LOSS/ (of fewer folds LOSS_fold_0), STUDY by default
# docs/results/study; what is there is not measured again, and a line says so.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
task=$(cd "$1" && pwd) id=$2 loss=${4:-DiceCE_100epochs_50iters}
mkdir -p "$3"
out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
read -r -a folds <<< "${FOLDS:-0 1 2 3 4}"
read -r -a peers <<< "${PEERS-temperature CMSop CDC}"
steps=${STEPS:-prepare train folds outer}
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

dataset=$(basename "$(folder_of "$nnUNet_raw")")
trainer=nnUNetTrainer$loss
model=$nnUNet_results/$dataset/${trainer}__nnUNetPlans__$configuration
name=$loss
[ "$configuration" = 2d_small ] || name=${loss}_$configuration
[ ${#folds[@]} = 5 ] || name=${name}_fold_$(IFS=_; echo "${folds[*]}")
study=${STUDY:-$here/study} values=${STUDY:-$here/study}/$dataset/$name
outer=$out/outer/$dataset
patients=$here/splits/$dataset/patients.json groups=()
[ ! -f "$patients" ] || groups=(-groups "$patients")
network=(-d "$id" -c "$configuration" -tr "$trainer" -device "${DEVICE:-cpu}")
with_peers=(${peers[@]+--peers "${peers[@]}"})

if wanted train; then
    for fold in "${folds[@]}"; do
        [ ! -f "$model/fold_$fold/validation/summary.json" ] || continue
        nnUNetv2_train "$id" "$configuration" "$fold" -tr "$trainer" -device "${DEVICE:-cpu}" --npz --c
    done
fi

for part in folds outer; do
    ! wanted $part || [ ! -f "$values/$part/forms.csv" ] || echo "$values/$part was measured before; STUDY=FOLDER writes elsewhere"
done

if wanted folds && [ ! -f "$values/folds/forms.csv" ]; then
    nnunet_nacl calibrate "${network[@]}" -f "${folds[@]}" ${groups[@]+"${groups[@]}"}
    mkdir -p "$values" "$study/unlike"
    if [ ${#folds[@]} = 5 ]; then
        sed "s|$nnUNet_results/$dataset/||" "$model/calibration_map.json" > "$values/calibration_map.json"
    elif [ ${#folds[@]} = 1 ]; then # losses: how their trainings went
        python "$here/training.py" "$model" "$values"
    fi
    python "$here/measure.py" "$model" "$values/folds" -f "${folds[@]}" ${with_peers[@]+"${with_peers[@]}"}
fi

if wanted needed && [ ! -f "$values/needed.csv" ]; then
    python "$here/cases_needed.py" "$model" "$values/needed.csv" -f "${folds[@]}" ${groups[@]+"${groups[@]}"}
fi

if [ ! -d "$outer/labels" ]; then # the cases in no fold
    mkdir -p "$outer/images" "$outer/labels.new"
    for case in $(python -c 'import json, sys; print(*json.load(open(sys.argv[1])))' "$task/outer_test.json"); do
        ln -sf "$nnUNet_raw/$dataset/imagesTr/$case"_0* "$outer/images/"
        ln -sf "$nnUNet_raw/$dataset/labelsTr/$case".* "$outer/labels.new/"
    done
    mv "$outer/labels.new" "$outer/labels"
fi

if wanted outer && [ ! -f "$values/outer/forms.csv" ]; then
    predicted=()
    for which in "${folds[@]}" average; do
        to=$outer/$name/single_$which use=("$which")
        [ "$which" != average ] || { to=$outer/$name/average; use=("${folds[@]}"); }
        [ -f "$to/.complete" ] || nnUNetv2_predict -i "$outer/images" -o "$to" "${network[@]}" -f "${use[@]}" -npp 1 -nps 1 \
            --save_probabilities --continue_prediction
        touch "$to/.complete"
        predicted+=("$(basename "$to")=$to")
    done
    ensemble=$outer/$name/ensemble
    if [ ! -f "$ensemble/.complete" ]; then
        nnUNetv2_ensemble -i "${folds[@]/#/$outer/$name/single_}" -o "$ensemble" -np 1 --save_npz
        cp "$outer/$name/average/"{dataset,plans}.json "$ensemble/"
        touch "$ensemble/.complete"
    fi
    nnunet_nacl predict -i "$outer/images" -o "$outer/$name/list" "${network[@]}" -f "${folds[@]}" -pages none \
        --continue_prediction
    python "$here/measure.py" "$model" "$values/outer" -f "${folds[@]}" ${with_peers[@]+"${with_peers[@]}"} -gt "$outer/labels" \
        -i "${predicted[@]}" "ensemble=$ensemble" -lists "average=$outer/$name/list"
fi

if wanted shift; then
    sets=("clean=$outer/images:$outer/labels") shifted=$out/shift/$dataset
    if [ -d "$task/shift" ]; then
        sets+=("shift=$task/shift/images:$task/shift/labels")
    elif [ -n "${CORRUPT:-}" ]; then
        [ -d "$shifted/corrupted" ] || python "$here/corruptions.py" "$outer/images" "$shifted/corrupted"
        [ -d "$shifted/voxels_2mm" ] || python "$here/resolutions.py" "$outer" "$shifted/voxels_2mm" 2 2 2
        for set in "$shifted/corrupted/"*; do
            sets+=("$(basename "$set")=$set:$outer/labels")
        done
        sets+=("voxels_2mm=$shifted/voxels_2mm/images:$shifted/voxels_2mm/labels")
    fi
    python "$here/unlike_scans.py" "$model" "$study/unlike/$dataset.csv" "${sets[@]}" -f "${folds[@]}" --every "${EVERY:-1}"
    if [ -d "$task/shift/labels_second_rater" ]; then
        [ -d "$shifted/average" ] || nnUNetv2_predict -i "$task/shift/images" -o "$shifted/average" "${network[@]}" \
            -f "${folds[@]}" -npp 1 -nps 1 --save_probabilities
        python "$here/raters.py" "$model" "$shifted/average" "$task/shift/labels" "$task/shift/labels_second_rater" \
            "$values/raters.csv"
    fi
fi
