"""Draws the calibration records of several trainings into one figure.

    python docs/figures/training_records_figure.py FOLD_FOLDER [FOLD_FOLDER ...] -o trainings.png

FOLD_FOLDER is a fold folder of nnUNet_results whose trainer is one of this package, or its calibration_progress.json.
Left: expected calibration error in the foreground. Middle: mean maximum logit of the foreground, and between which
values 80 % of its voxels lie. Right: the distribution of the maximum logit in the last epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.show.calibration_progress import draw_training_records
from nnunet_nacl.training_record import read_training_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLD_FOLDER")
    parser.add_argument("-o", type=Path, required=True, help="figure: .png, .svg or .pdf")
    args = parser.parse_args()
    try:
        records = [read_training_record(folder) for folder in args.folders]
    except UserError as error:
        parser.error(str(error))
    for folder, record in zip(args.folders, records):
        if not record["epochs"]:
            parser.error(f"{folder}: its record has no epoch yet.")
    names = [f"{record['trainer']}, fold {record['fold']}" for record in records]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in args.folders]
    draw_training_records(dict(zip(names, records)), args.o)


if __name__ == "__main__":
    main()
