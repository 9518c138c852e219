"""Folds of a data set and the preprocessed cases of a configuration, unless they are there.

python preprocess.py PLANS_FILE CONFIGURATION -np PROCESSES
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plans", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("-np", default="1")
    args = parser.parse_args()
    folder = args.plans.parent
    manager = PlansManager(str(args.plans))
    if args.configuration not in manager.available_configurations:
        configurations = ", ".join(manager.available_configurations)
        raise SystemExit(
            f"{args.plans} has no configuration {args.configuration}; there are {configurations}."
        )
    raw_folder = os.path.join(os.environ["nnUNet_raw"], folder.name)
    cases = sorted(get_filenames_of_train_images_and_targets(raw_folder))
    # nnU-Net's first training makes the folds, and another that begins meanwhile would read a file
    # that is half written
    splits = folder / "splits_final.json"
    if not splits.exists() and len(cases) >= FOLDS:
        folds = generate_crossval_split(cases, n_splits=FOLDS)
        temporary = splits.with_name(f".{splits.name}.tmp")
        temporary.write_text(json.dumps(folds, indent=4), encoding="utf-8")
        os.replace(temporary, splits)
    data = folder / manager.get_configuration(args.configuration).data_identifier
    preprocessed = {path.stem for path in data.glob("*.pkl")}
    if not preprocessed >= set(cases):
        number = str(int(folder.name.removeprefix("Dataset")[:3]))
        options = ["-plans_name", args.plans.stem, "-c", args.configuration, "-np", args.np]
        subprocess.run(["nnUNetv2_preprocess", "-d", number, *options], check=True)


if __name__ == "__main__":
    main()
