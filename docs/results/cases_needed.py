"""How many cases does a map take? Maps of every form fitted to few held-out cases, measured on the others.

    python docs/results/cases_needed.py MODEL VALUES.csv [-f FOLDS] [-groups FILE_OR_REGEX] [--draws 5]

MODEL is nnU-Net's model folder, whose folds kept probabilities or samples of their validation cases. For each number of
patients, that many are drawn, maps are fitted to their samples, and the cases that were not drawn are measured under
that of each form and under the one that `calibrate` would take (auto). A row of VALUES.csv is one draw: NLL over the
image and ECE of the predicted foreground, each beside that of the same cases as trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nnunet_nacl.calibration.crossfit import choose, cross_fit, parts_of
from nnunet_nacl.calibration.fitting import FORMS
from nnunet_nacl.calibration.likelihood import case_loss
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.runs.heldout import HeldOut

SIZES = (5, 10, 30)
BINS = 15


def ece_predicted(sample: Sample, calibration: LogOddsMap) -> float:
    """ECE over the voxels that are predicted as a structure, estimated from a sample; NaN if there are none."""
    voxels = sample.voxels()
    probs = calibration.to_probabilities(voxels.log_odds.double(), voxels.label).numpy()
    label = voxels.label.numpy()
    confidence = np.take_along_axis(probs, label[None], 0)[0]
    weight = sample.weights * (label != 0)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, weight * (confidence - (label == sample.target)), BINS)
    return float(np.abs(gap).sum() / weight.sum()) if weight.any() else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("-f", nargs="+", help="folds (default: all)")
    parser.add_argument("-groups", help="as `nnunet_nacl calibrate` takes them")
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    held_out = HeldOut(find_fold_folders(arguments.model, arguments.f))
    if held_out.first.labels.regions:
        parser.error("regions are not measured here")
    cases = list(held_out.files)
    samples = [held_out.sample(case) for case in tqdm(cases, "sample")]
    groups = read_groups(arguments.groups, cases) if arguments.groups else {case: case for case in cases}
    patient = np.array([groups[case] for case in cases])
    everyone = np.unique(patient)

    def measure(calibration: LogOddsMap) -> np.ndarray:
        nll = [case_loss(sample.voxels(), calibration) for sample in samples]
        return np.array([nll, [ece_predicted(sample, calibration) for sample in samples]])

    before = measure(LogOddsMap.identity(len(held_out.first.labels.foreground)))
    generator, rows = np.random.default_rng(0), []
    sizes = [size for size in SIZES if size <= 0.8 * len(everyone)]
    with tqdm(total=len(sizes) * arguments.draws, unit="draw") as bar:
        for size in sizes:
            for draw in range(arguments.draws):
                drawn = np.isin(patient, generator.permutation(everyone)[:size])
                shown, patients = [samples[i].voxels() for i in np.flatnonzero(drawn)], patient[drawn].tolist()
                tried = cross_fit(shown, parts_of(patients), groups=patients)
                for form in (*FORMS, "auto"):
                    found = measure(choose(tried, form).fit.map)
                    values = [*np.nanmean(found[:, ~drawn], 1), *np.nanmean(before[:, ~drawn], 1)]
                    names = ("NLL", "ECE predicted", "NLL as trained", "ECE predicted as trained")
                    rows.append({"patients": size, "draw": draw, "form": form, **dict(zip(names, values))})
                bar.update()
    write_atomically(arguments.values, pd.DataFrame(rows).to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
