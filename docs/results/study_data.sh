# What deployed.sh and calibration_study.sh share; they source it with task, id, out, here, steps and configuration set:
# nnU-Net's folders in OUT, the data set converted, planned and preprocessed, the cases in no fold.

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

link_outer() { # FOLDER: the cases in no fold, as images/ and labels/
    [ ! -d "$1/labels" ] || return 0
    mkdir -p "$1/images" "$1/labels.new"
    for case in $(python -c 'import json, sys; print(*json.load(open(sys.argv[1])))' "$task/outer_test.json"); do
        ln -sf "$nnUNet_raw/$dataset/imagesTr/$case"_0*.nii.gz "$1/images/"
        ln -sf "$nnUNet_raw/$dataset/labelsTr/$case.nii.gz" "$1/labels.new/"
    done
    mv "$1/labels.new" "$1/labels"
}
