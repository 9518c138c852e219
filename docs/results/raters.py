"""Is confidence the share of raters who agree? Probabilities of a structure against two raters' labels.

    python docs/results/raters.py MODEL PREDICTIONS LABELS OTHER_LABELS VALUES.csv

PREDICTIONS are nnU-Net's with probabilities (--save_probabilities), of images that both raters labelled; MODEL's
calibration_map.json calibrates them. A row each image, form (as trained, map) and bin of the probability that a voxel
is a structure: voxels, sum of the probability, and how many of them the first, the second and both raters labelled so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_nacl.documents.map_file import MAP_FILE, read_record
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import Treatment

N_BINS = 15


def main(model: Path, predictions: Path, labels: Path, other: Path, output: Path) -> None:
    treatments = {"as trained": Treatment(), "map": Treatment(read_record(model / MAP_FILE).calibration())}
    folder, rows = PredictionFolder.open(predictions, labels), []
    for files in folder.cases()[0]:
        case = folder.load(files)
        second = folder.read_labels(other / files.segmentation.name)[0] > 0
        first = case.truth > 0
        for form, treatment in treatments.items():
            probability = 1 - treatment(case).probabilities.whole()[0]
            place = np.clip(np.ceil(probability * N_BINS).astype(int) - 1, 0, N_BINS - 1).ravel()
            ones = {"count": 1.0, "probability": probability, "first": first, "second": second, "both": first & second}
            sums = {
                name: np.bincount(place, np.broadcast_to(values, first.shape).ravel(), N_BINS)
                for name, values in ones.items()
            }
            for i in range(N_BINS):
                row = {"network": "average", "case": files.case, "form": form, "bin": i}
                rows.append(row | {name: values[i] for name, values in sums.items()})
    write_atomically(output, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
