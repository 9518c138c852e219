"""Is Dice predicted well? What `calibrate` learned from a model's held-out cases, tested on cases that are in no fold.

    python docs/results/predicted_dice.py MODEL OUTER METHOD [--groups REGEX] [--folds 0 1 ...]

MODEL is a trainer's folder in nnUNet_results with calibration_map.json, OUTER and METHOD as for study_measure.py, which
has measured the predictions. Prints the mean absolute error of predicted Dice beside that of a constant (the mean Dice
of the calibrated held-out cases), the coverage of the 90 % intervals, pooled over structures, with 95 % bootstrap
intervals over patients, and Spearman's rho of each structure, averaged over networks: for the networks of the folds,
like those that it was learned from, and for their average, which it was not learned from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from nnunet_nacl.calibration.quality_report import QualityRows, spearman
from nnunet_nacl.cases.heldout import AFTER_FOLDER
from nnunet_nacl.cases.quality_block import quality_rows
from nnunet_nacl.documents.document import read_document
from nnunet_nacl.documents.map_file import MAP_FILE, read_record
from nnunet_nacl.documents.patient_groups import read_groups

DRAWS = 4000
FOLDERS = {"argmax": "calibrated", "decided": "calibrated_decided"}


def qualities(folder: Path) -> tuple[list[str], QualityRows]:
    """What a folder's document says of its cases: their names and rows."""
    cases = read_document(folder / "calibration.json").cases
    return [case.case for case in cases], quality_rows(cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("outer", type=Path)
    parser.add_argument("method")
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    parser.add_argument("--folds", nargs="+", default=["0", "1", "2", "3", "4"])
    arguments = parser.parse_args()
    content = json.loads((arguments.model / MAP_FILE).read_text(encoding="utf-8"))
    folders = [arguments.model / f"fold_{fold}" / AFTER_FOLDER for fold in arguments.folds]
    constant = np.nanmean(np.concatenate([qualities(folder)[1].true_dice for folder in folders]), axis=0)
    asked = {"networks of the folds": arguments.folds}
    if len(arguments.folds) > 1:
        asked["their average"] = [f"average_{'_'.join(arguments.folds)}"]
    for title, networks in asked.items():
        for delivered, kind in FOLDERS.items():
            learned = read_record(arguments.model / MAP_FILE).learned[delivered]
            rows: dict[str, list[tuple[float, float, bool]]] = {}
            rhos: dict[str, list[float]] = {structure["name"]: [] for structure in content["structures"]}
            for network in networks:
                cases, found = qualities(arguments.outer / kind / f"{arguments.method}_{network}")
                found, patients = learned.predict_dice(found), read_groups(arguments.groups, cases)
                for i, structure in enumerate(content["structures"]):
                    rhos[structure["name"]].append(spearman(found.expected_dice[:, i], found.true_dice[:, i]))
                    for case, true, (guess, low, high) in zip(cases, found.true_dice[:, i], found.predicted[:, i]):
                        if not np.isnan(guess + true):
                            values = abs(guess - true), abs(constant[i] - true), low <= true <= high
                            rows.setdefault(patients[case], []).append(values)
            sums = np.array([[len(values), *np.sum(values, 0)] for values in rows.values()], float)
            drawn = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
            n, error, flat, inside = sums.sum(0)
            draws = sums[drawn].sum(1)
            ratio_low, ratio_high = np.percentile(draws[:, 1] / draws[:, 2], [2.5, 97.5])
            low, high = np.percentile(draws[:, 3] / draws[:, 0], [2.5, 97.5])
            ratio = f"{error / flat:.2f} ({ratio_low:.2f} to {ratio_high:.2f})"
            print(f"{title}, {delivered}: error {error / n:.4f}, of a constant {flat / n:.4f}, ratio {ratio}")
            rank = ", ".join(f"{name} {np.nanmean(values):.2f}" for name, values in rhos.items())
            print(f"  inside {inside / n:.3f} ({low:.3f} to {high:.3f}) of {n:.0f}; Spearman's rho {rank}")


if __name__ == "__main__":
    main()
