#!/usr/bin/env bash
# Runs the unit tests under every Python from 3.10 on that is found, with the oldest and the newest nnU-Net v2 that the
# package allows, each in a new virtual environment. Prints one line for each combination at the end; the exit status is
# the number of combinations that failed.
#
#   tools/check_versions.sh [ARGUMENTS OF PYTEST]      for example: tools/check_versions.sh tests/registration tests/losses
#
#   PYTHONS="python3.11 /opt/python3.14/bin/python"    only these (default: python3.10 to python3.15 on the PATH, and
#                                                      pyenv's)
#   NNUNETS="2.8.0 newest"                             only these
#
# Every environment gets PyTorch anew: from the package index on Linux with its CUDA libraries, several gigabytes each.
# PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL, as pip knows them, can name a place that has builds for the CPU.
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
chmod 755 "$work"  # tests give up root's rights, and go on as a user who may read but not write
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
unset PYTHONPATH nnUNet_raw nnUNet_preprocessed nnUNet_results nnUNet_extTrainer

find_pythons() {
    local minor candidate
    for minor in 10 11 12 13 14 15; do
        # pyenv's shims are there for versions that are not active, too, but do not run
        for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python; do
            if "$candidate" -c 'import venv, ensurepip' 2> /dev/null; then
                echo "$candidate"
                break
            fi
        done
    done
}

run() { # PYTHON NNUNET FOLDER [ARGUMENTS OF PYTEST]
    local python=$1 nnunet=$2 folder=$3 requirement="nnunetv2==$2"
    shift 3
    [ "$nnunet" = newest ] && requirement=nnunetv2
    mkdir "$folder" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$folder" &&
        "$python" -m venv "$folder/.venv" &&
        "$folder/.venv/bin/pip" install -q --upgrade "$requirement" -e "${folder}[demo,test]" &&
        (cd "$folder" && .venv/bin/python -m pytest -q "$@")
}

report=""
failed=0
for python in ${PYTHONS:-$(find_pythons)}; do
    for nnunet in ${NNUNETS:-2.8.0 newest}; do
        folder=$work/environment
        echo "== $("$python" -V), nnunetv2 $nnunet"
        if run "$python" "$nnunet" "$folder" "$@"; then result=passed; else result=FAILED failed=$((failed + 1)); fi
        found=$("$folder/.venv/bin/pip" list 2> /dev/null | awk '/^(nnunetv2|torch|numpy) / {printf " %s %s", $1, $2}')
        report+="$result  $("$python" -V),$found"$'\n'
        rm -rf "$folder"
    done
done
printf '\n%s' "$report"
exit "$failed"
