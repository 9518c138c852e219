"""Is Dice predicted well? Learns from the held-out cases of a network, tests on cases that are in no fold.

    python docs/results/predicted_dice.py VALIDATION LABELS OUTER_PREDICTIONS OUTER_LABELS [--groups REGEX]

The map (form ``shift``, fitted to samples) is cross-fitted for what is learned, and fitted to all validation cases for
the test. Prints the mean absolute error of predicted Dice beside that of a constant (the mean of the validation cases)
and the coverage of the 90 % intervals, pooled over structures, with 95 % bootstrap intervals over patients, and
Spearman's rho of each structure.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from nnunet_nacl.calibration.crossfit import left_out_masks, parts_of, read_groups
from nnunet_nacl.calibration.fitting import fit
from nnunet_nacl.calibration.heldout import HeldOut
from nnunet_nacl.calibration.map_file import structures_of
from nnunet_nacl.evaluation.prediction_folder import PredictionFolder
from nnunet_nacl.quality.dice_estimate import StructureEstimate
from nnunet_nacl.quality.estimate_report import spearman
from nnunet_nacl.quality.held_out_case import measure_case
from nnunet_nacl.quality.learned_quality import DELIVERED

DRAWS = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("validation", "labels", "outer_predictions", "outer_labels"):
        parser.add_argument(name)
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    arguments = parser.parse_args()
    held_out = HeldOut({"": PredictionFolder.open(arguments.validation, arguments.labels)})
    outer = PredictionFolder.open(arguments.outer_predictions, arguments.outer_labels)
    outer_files = outer.cases()[0]
    patients = list(read_groups(arguments.groups, list(held_out.files)).values())
    outer_patients = np.array(list(read_groups(arguments.groups, [files.case for files in outer_files]).values()))

    voxels = [held_out.sample(case).voxels() for case in held_out.files]
    parts = parts_of(patients)
    masks = left_out_masks(parts)
    whole, *others = fit(lambda: voxels, "shift", left_out=[None, *masks.values()])
    maps = {part: one.map for part, one in zip(masks, others)}
    pairs = zip(held_out.files.values(), parts)
    learned = [measure_case(held_out.first, files, maps[part]) for files, part in tqdm(list(pairs), "learn")]
    tested = [measure_case(outer, files, whole.map) for files in tqdm(outer_files, "test")]

    generator = np.random.default_rng(0)
    for delivered in DELIVERED:
        rows, rhos = [], []
        for key, name in structures_of(outer).items():
            first, second = (np.array([case[delivered][key][:2] for case in cases]).T for cases in (learned, tested))
            estimate = StructureEstimate.fit(*first, patients)
            rhos.append(f"{name} {spearman(*second):.2f}")
            for expected, true, patient in zip(*second, outer_patients):
                if not np.isnan(expected + true):
                    found = estimate.predict(expected)
                    inside = found.low <= true <= found.high
                    rows.append((patient, abs(found.estimate - true), abs(np.nanmean(first[1]) - true), inside))
        of = np.array([row[0] for row in rows])
        values = np.array([row[1:] for row in rows], float)
        where = [np.flatnonzero(of == patient) for patient in np.unique(of)]
        draws = []
        for _ in range(DRAWS):
            drawn = np.concatenate([where[i] for i in generator.integers(0, len(where), len(where))])
            error, constant, inside = values[drawn].mean(0)
            draws.append((error / constant, inside))
        (ratio_low, low), (ratio_high, high) = np.percentile(draws, [2.5, 97.5], axis=0)
        error, constant, inside = values.mean(0)
        ratio = f"{error / constant:.2f} ({ratio_low:.2f} to {ratio_high:.2f})"
        print(f"{delivered}: error {error:.4f}, of a constant {constant:.4f}, ratio {ratio}")
        print(f"  inside {inside:.3f} ({low:.3f} to {high:.3f}) of {len(values)}; Spearman's rho {', '.join(rhos)}")


if __name__ == "__main__":
    main()
