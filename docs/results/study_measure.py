"""Measures every prediction of one method on the outer test cases, and keeps the values in one small document.

    python docs/results/study_measure.py OUTER METHOD DOCUMENT.csv [--folds 0 1 ...] [-np N]

OUTER holds `labels/` and, made by calibration_study.sh, `pred/`, `calibrated/`, `pred_decided/` and
`calibrated_decided/`, with one folder METHOD_FOLD of each training and METHOD_average_FOLDS of the average of all.
A row of the document is one case of one folder; study_tables.py needs nothing else, so that networks and predictions
may be deleted, and methods measured on other days and machines stand in one table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_nacl.comparison.columns import column_values
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.files import to_csv_text, write_atomically
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.quality_block import quality_rows

TREATMENTS = {
    "pred": "",
    "pred_decided": "decided",
    "calibrated": "calibrated",
    "calibrated_decided": "calibrated, decided",
}
"""Folder of OUTER -> what was done to the prediction."""

OF_SEGMENTATION = ("Dice", "HD95_mm", "expected")
"""What a decision changes."""

OF_PROBABILITIES = (
    *(f"ECE:{mask}" for mask in ("foreground", "union", "dilated", "predicted", "all")),
    *("NLL:dilated", "NLL:all", "Brier:dilated", "Brier:all"),
)


def values_of(case: CaseResult, treatment: str) -> list[float | str]:
    """The columns' values in a case; what tells of probabilities stands beside the undecided segmentation."""
    found: dict[str, float | str] = {**column_values(case)}
    rows = quality_rows([case])
    errors = [] if rows is None else abs(rows.predicted[..., 0] - rows.true_dice)
    expected = np.nanmean(errors) if np.isfinite(errors).any() else ""
    probabilities = ["" if "decided" in treatment else found.get(column, "") for column in OF_PROBABILITIES]
    return [found["Dice"], found["HD95_mm"], expected, *probabilities]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outer", type=Path)
    parser.add_argument("method")
    parser.add_argument("document", type=Path)
    parser.add_argument("--folds", nargs="+", default=["0", "1", "2", "3", "4"])
    parser.add_argument("-np", type=int, default=1, help="cases measured at the same time")
    arguments = parser.parse_args()
    average = [f"average_{'_'.join(arguments.folds)}"] if len(arguments.folds) > 1 else []
    folders = [(treatment, network) for treatment in TREATMENTS for network in (*arguments.folds, *average)]
    rows = []
    for treatment, network in tqdm(folders, f"measure {arguments.method}", unit="folder"):
        folder = arguments.outer / treatment / f"{arguments.method}_{network}"
        evaluation = evaluate_folder(
            folder, arguments.outer / "labels", output=folder / "calibration.json", num_processes=arguments.np
        )
        if evaluation.problems:
            parser.error(f"{folder}: {next(iter(evaluation.problems.values()))}")
        for case in sorted(evaluation.cases, key=lambda case: case.case):
            values = values_of(case, treatment)
            network_name = "average" if network in average else network
            cells = [value if isinstance(value, str) else f"{value:.5g}" for value in values]
            rows.append([treatment, network_name, case.case, *cells])
    arguments.document.parent.mkdir(parents=True, exist_ok=True)
    header = ["treatment", "network", "case", *OF_SEGMENTATION, *OF_PROBABILITIES]
    write_atomically(arguments.document, to_csv_text(header, rows))


if __name__ == "__main__":
    main()
