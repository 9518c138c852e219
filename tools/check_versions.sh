#!/usr/bin/env bash
# Runs the unit tests under every Python from 3.10 on that is found, with the oldest and the newest nnU-Net v2 that the
# package allows, each in a new virtual environment. Prints one line for each combination at the end; the exit status is
# the number of combinations that failed.
#
#   tools/check_versions.sh [ARGUMENTS OF PYTEST]      for example: tools/check_versions.sh tests/registration tests/losses
#
#   PYTHONS="python3.11 /opt/python3.14/bin/python"    only these (default: python3.10 to python3.15 on the PATH, and
#                                                      pyenv's)
#   NNUNETS="2.8.0 newest main"                        only these (default: 2.8.0 newest)
#   NNUNET_MAIN=FOLDER                                 a checkout of nnU-Net's main branch, for `main`
#   WHEEL=FILE.whl                                     this wheel instead of the sources, with what it requires alone, and
#                                                      instead of the tests doctor, the list of trainers and `pip check`
#
# What is asked for and is not there is skipped, with the reason.
# Every environment gets PyTorch anew: from the package index on Linux with its CUDA libraries, several gigabytes each.
# PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL, as pip knows them, can name a place that has builds for the CPU.
set -uo pipefail
[ -z "${NNUNET_MAIN:-}" ] || NNUNET_MAIN=$(realpath "$NNUNET_MAIN")
[ -z "${WHEEL:-}" ] || WHEEL=$(realpath "$WHEEL")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
chmod 755 "$work"  # tests give up root's rights, and go on as a user who may read but not write
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
unset PYTHONPATH nnUNet_raw nnUNet_preprocessed nnUNet_results nnUNet_extTrainer

find_python() { # VERSION or PATH: what runs, with all that a virtual environment needs
    local candidate
    # pyenv's shims are there for versions that are not active, too, but do not run
    for candidate in "$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/${1#python}".*/bin/python; do
        if "$candidate" -c 'import venv, ensurepip' 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

run() { # PYTHON NNUNET FOLDER [ARGUMENTS OF PYTEST]
    local python=$1 nnunet=$2 folder=$3 requirement="nnunetv2==$2"
    shift 3
    [ "$nnunet" = newest ] && requirement=nnunetv2
    [ "$nnunet" = main ] && requirement=$NNUNET_MAIN
    if [ -n "${WHEEL:-}" ]; then
        "$python" -m venv "$folder/.venv" &&
            "$folder/.venv/bin/pip" install -q --upgrade "$requirement" "$WHEEL" &&
            (cd "$folder" && .venv/bin/pip check && .venv/bin/nnunet_nacl --version && .venv/bin/nnunet_nacl doctor &&
                .venv/bin/nnunet_nacl trainers > /dev/null)
        return
    fi
    mkdir "$folder" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$folder" &&
        "$python" -m venv "$folder/.venv" &&
        "$folder/.venv/bin/pip" install -q --upgrade "$requirement" -e "${folder}[demo,test]" &&
        (cd "$folder" && .venv/bin/python -m pytest -q "$@")
}

report=""
failed=0
for asked in ${PYTHONS:-python3.10 python3.11 python3.12 python3.13 python3.14 python3.15}; do
    if ! python=$(find_python "$asked"); then
        report+="skipped $asked: neither on the PATH nor among pyenv's, or without venv and ensurepip"$'\n'
        continue
    fi
    for nnunet in ${NNUNETS:-2.8.0 newest}; do
        if [ "$nnunet" = main ] && [ ! -e "${NNUNET_MAIN:-}/pyproject.toml" ]; then
            report+="skipped $("$python" -V), nnU-Net's main: NNUNET_MAIN names no checkout of it"$'\n'
            continue
        fi
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
