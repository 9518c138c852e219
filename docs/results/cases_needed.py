"""How many cases does calibration after training take? Maps fitted to few held-out cases, measured on the others.

    python docs/results/cases_needed.py PREDICTIONS LABELS [PREDICTIONS LABELS ...] [--groups REGEX] [--form FORM]

Every pair is a folder of predictions with probabilities by one network, of cases that it was not trained on, and their
ground truth. For each number of patients, that many are drawn (``--draws`` times), a map is fitted to them, and the
cases that were not drawn are measured under it. Prints a Markdown table; slope and offsets are those of the label
background where they differ by label. Draws from a finite set overlap, so standard errors are divided by
sqrt(1 - n / N).
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.fitting import AFFINE_FORMS, FORMS, RIDGE, fit
from nnunet_nacl.calibration.likelihood import case_loss
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.cases.heldout import HeldOut
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.documents.map_file import structures_of
from nnunet_nacl.documents.patient_groups import read_groups

SIZES = (5, 8, 10, 15, 20, 30)
BINS = 15


def ece_predicted(sample: Sample, calibration: CalibrationMap) -> float:
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
    parser.add_argument("folders", nargs="+", metavar="PREDICTIONS LABELS")
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    parser.add_argument("--form", choices=FORMS, default="shift")
    parser.add_argument("--ridge", type=float, help="default: 1e-6; of conditional and matrix 1e-3")
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    pairs = list(zip(arguments.folders[::2], arguments.folders[1::2]))
    held_out = HeldOut({str(i): PredictionFolder.open(*pair) for i, pair in enumerate(pairs)})
    if held_out.first.labels.regions:
        parser.error("regions are not measured here")
    cases = list(held_out.files)
    samples = [held_out.sample(case) for case in tqdm(cases, "sample")]
    patient = np.array(list(read_groups(arguments.groups, cases).values()))
    everyone = np.unique(patient)
    names = list(structures_of(held_out.first.labels).values())
    ridge = arguments.ridge or (RIDGE if arguments.form in AFFINE_FORMS else 1e-3)

    def measure(calibration: CalibrationMap, where: np.ndarray) -> tuple[float, float]:
        measured = [samples[i] for i in np.flatnonzero(where)]
        nll = np.mean([case_loss(sample.voxels(), *calibration.tables()) for sample in measured])
        return float(np.nanmean([ece_predicted(sample, calibration) for sample in measured])), float(nll)

    print(f"{len(everyone)} patients, {len(cases)} cases, form {arguments.form}, {arguments.draws} draws\n")
    offsets = [f"offset {name}" for name in names]
    print("| patients | " + " | ".join(["slope", *offsets, "ECE predicted", "worst draw", "NLL", "worst draw"]) + " |")
    print("| --: |" + " --: |" * (5 + len(names)))
    before = measure(CalibrationMap.identity(len(names)), np.ones(len(cases), bool))
    row = ["0 (before)", "1", *["0"] * len(names), f"{before[0]:.4f}", "", f"{before[1]:.5f}", ""]
    print("| " + " | ".join(row) + " |")
    generator = np.random.default_rng(0)
    for size in SIZES:
        if size > len(everyone) / 2:
            break
        drawn = [np.isin(patient, generator.permutation(everyone)[:size]) for _ in range(arguments.draws)]
        shown = [[samples[i].voxels() for i in np.flatnonzero(where)] for where in drawn]
        maps = [fit(voxels, arguments.form, ridge=ridge).map for voxels in shown]
        values = np.array([[one.slopes[0].flat[0], *one.offsets[0]] for one in maps])
        spread = values.std(0, ddof=1) / np.sqrt(1 - size / len(everyone))
        ece, nll = np.array([measure(one, ~where) for one, where in zip(maps, drawn)]).T
        centre = values.mean(0)
        row = [str(size), f"{centre[0]:.2f} ± {spread[0]:.3f}"]
        row += [f"{c:+.2f} ± {s:.2f}" for c, s in zip(centre[1:], spread[1:])]
        row += [f"{ece.mean():.4f} ± {ece.std(ddof=1):.4f}", f"{ece.max():.4f}"]
        row += [f"{nll.mean():.5f} ± {nll.std(ddof=1):.5f}", f"{nll.max():.5f}"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
