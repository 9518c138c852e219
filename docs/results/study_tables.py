"""The tables of a study with several trainings of each loss, on cases that none of them has seen.

    python docs/results/study_tables.py OUTER [--folds 0 1 ...] [--methods DiceCE CE ...] [--groups REGEX] [--csv FILE]

OUTER holds `labels/` and, made by calibration_study.sh, `pred/`, `calibrated/`, `pred_decided/` and
`calibrated_decided/`, with one folder METHOD_FOLD of each training and METHOD_average_FOLDS of the average of all.
Every folder is measured once (calibration.json in it). Prints Markdown: means of single networks, of the average, and
differences to stock. Intervals of single networks count cases and trainings as random (crossed), those of the average
cases alone; with --groups a patient's cases are averaged first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_nacl.calibration.crossfit import read_groups
from nnunet_nacl.comparison.columns import case_value, make_columns
from nnunet_nacl.comparison.crossed import crossed_mean
from nnunet_nacl.comparison.entries import short_labels
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from nnunet_nacl.evaluation.quality_block import CaseQuality
from nnunet_nacl.evaluation.results import CaseResult
from nnunet_nacl.files import to_csv_text, write_atomically

TREATMENTS = {
    "pred": "",
    "pred_decided": "decided",
    "calibrated": "calibrated",
    "calibrated_decided": "calibrated, decided",
}
COLUMNS = {
    "Dice": "Dice",
    "HD95_mm": "HD95 (mm)",
    "ECE:foreground": "ECE foreground",
    "ECE:union": "ECE union",
    "ECE:dilated": "ECE dilated",
    "ECE:predicted": "ECE predicted",
    "ECE:all": "ECE all",
    "NLL:dilated": "NLL dilated",
    "NLL:all": "NLL all",
    "Brier:dilated": "Brier dilated",
    "Brier:all": "Brier all",
    "expected": "error of expected Dice",
}
OF_SEGMENTATION = ("Dice", "HD95_mm", "expected")
COMPARED = ("Dice", "ECE:foreground", "ECE:union", "ECE:dilated", "ECE:predicted", "ECE:all", "NLL:all", "Brier:all")


def values_of(case: CaseResult) -> list[float]:
    """The columns' values in a case."""
    known = make_columns([dict.fromkeys(case.structures, "")])
    quality = CaseQuality.of(case)
    errors = [] if quality is None else [abs(quality.expected[key] - quality.true[key]) for key in quality.true]
    errors = [error for error in errors if not np.isnan(error)]
    return [*(case_value(case, known[c]) for c in COLUMNS if c in known), float(np.mean(errors)) if errors else np.nan]


def decimals(column: str) -> int:
    """Digits after the point."""
    return {"HD95_mm": 2, "ECE:all": 4, "NLL:all": 4, "Brier:all": 4, "Dice": 4}.get(column, 3)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, numbers to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outer", type=Path)
    parser.add_argument("--folds", nargs="+", default=["0", "1", "2", "3", "4"])
    parser.add_argument("--methods", nargs="+", default=["DiceCE", "CE", "NACL", "DiceCE_anneal"])
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    parser.add_argument("--csv", type=Path, help="also write every value of every case there")
    parser.add_argument("-np", type=int, default=1, help="cases measured at the same time")
    arguments = parser.parse_args()
    average = f"average_{'_'.join(arguments.folds)}"
    networks = [*arguments.folds, *([average] if len(arguments.folds) > 1 else [])]
    keys = [(method, treatment, one) for method in arguments.methods for treatment in TREATMENTS for one in networks]
    measured: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for method, treatment, network in tqdm(keys, "measure", unit="folder"):
        folder = arguments.outer / treatment / f"{method}_{network}"
        evaluation = evaluate_folder(
            folder, arguments.outer / "labels", output=folder / "calibration.json", num_processes=arguments.np
        )
        if evaluation.problems:
            parser.error(f"{folder}: {next(iter(evaluation.problems.values()))}")
        measured[method, treatment, network] = {case.case: values_of(case) for case in evaluation.cases}
    cases = sorted(next(iter(measured.values())))
    if arguments.csv:
        rows = [[*key, case, *found[case]] for key, found in measured.items() for case in cases]
        rounded = [[f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows]
        write_atomically(arguments.csv, to_csv_text(["method", "treatment", "network", "case", *COLUMNS], rounded))
    labels = dict(zip(arguments.methods, short_labels([f"nnUNetTrainer{method}" for method in arguments.methods])))
    patients = np.array(list(read_groups(arguments.groups, cases).values()))

    def values(method: str, treatment: str, network: str) -> np.ndarray:
        """(patients, columns)"""
        found = np.array([measured[method, treatment, network][case] for case in cases])
        return np.array([np.nanmean(found[patients == patient], axis=0) for patient in np.unique(patients)])

    for title, chosen in (("single networks", arguments.folds), ("average of the folds", networks[-1:])):
        if title != "single networks" and len(networks) == 1:
            continue
        stock = np.array([values("DiceCE", "pred", network) for network in chosen])
        means, differences = [], []
        for method in arguments.methods:
            for treatment, name in TREATMENTS.items():
                found = np.array([values(method, treatment, network) for network in chosen])
                label = f"... {name}" if name else labels[method]
                cells = [label]
                for i, column in enumerate(COLUMNS):
                    repeated = "decided" in treatment and column not in OF_SEGMENTATION
                    cells.append("" if repeated else f"{np.nanmean(found[..., i]):.{decimals(column)}f}")
                means.append(cells)
                cells = [label]
                for column in COMPARED:
                    i = list(COLUMNS).index(column)
                    if ("decided" in treatment and column != "Dice") or (method, treatment) == ("DiceCE", "pred"):
                        cells.append("")
                        continue
                    one, n = crossed_mean(found[..., i] - stock[..., i]), decimals(column)
                    cells.append(f"{one.mean:+.{n}f} [{one.low:+.{n}f}, {one.high:+.{n}f}]")
                differences.append(cells)
        print(f"\n{title}: {len(chosen)} of each loss, {len(np.unique(patients))} patients, {len(cases)} cases\n")
        print(table(["loss", *COLUMNS.values()], means))
        print(f"\n{title}, difference to DiceCE as it is\n")
        print(table(["loss", *(COLUMNS[column] for column in COMPARED)], differences))


if __name__ == "__main__":
    main()
