"""What a map changes near the predicted structures, and near the true ones: values of every fold case, cross-fitted.

nnunet_nacl calibrate -d DATASET -c CONFIGURATION -tr TRAINER
python docs/results/near.py MODEL_FOLDER OUT.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from nnunet_nacl.comparison.treated_folder import calibrated
from nnunet_nacl.documents.document import FILE_NAME, read_document
from nnunet_nacl.io.locate import find_fold_folders

MASKS, SCORES = ("near", "dilated", "predicted", "foreground", "all"), ("ECE", "NLL", "Brier")


def main(model: Path, output: Path) -> None:
    rows = []
    for fold, folder in find_fold_folders(model, None).items():
        document = read_document(folder.folder / FILE_NAME)
        for treatment, measured in (("pred", document), ("calibrated", calibrated(document, folder))):
            for case in measured.cases:
                values = {f"{score} {mask}": case.calibration[mask][score] for mask in MASKS for score in SCORES}
                rows.append({"treatment": treatment, "network": fold, "case": case.case, **values})
    pd.DataFrame(rows).to_csv(output, index=False, float_format="%.5g")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
