"""Rows of four other data sets, from the values of each case that an earlier commit of this repository holds.

    python research/results/earlier.py

The commands of that commit and of today give equal values on the same networks. Five folds of nnU-Net's loss, cases in
no fold by the five-fold ensemble; scans whose patient has another scan in a fold that their network was trained on are
left out. Writes other_scans.csv, from which `measure.py scans` makes rows, and the rows on calibration.
"""

from __future__ import annotations

import io
import json
import subprocess
from fractions import Fraction

import numpy as np
import pandas as pd
from measure import ORDERS, orders_of
from rows import HERE, mean_row, put, write_csv

from nnunet_nacl.numbers.crossfit import by_others, parts_of
from nnunet_nacl.numbers.flags import smallest_threshold

COMMIT, TRAINER = "c0cbf9c4", "DiceCE_100epochs_50iters"
BAD = {"Hippocampus": 0.8, "ACDC": 0.8, "EMIDEC": 0.3, "DRIVE": 0.75}
"""Dice below which a scan is bad; networks hardly ever find EMIDEC's no-reflow, which does not count."""
FOLDERS = {"Hippocampus": "Dataset004", "ACDC": "Dataset027", "EMIDEC": "Dataset028", "DRIVE": "Dataset030"}
COLUMNS = {
    "structure": "structure",
    "Dice": "dice",
    "volume": "volume",
    "true volume": "true_volume",
    "predicted Dice": "predicted_dice",
    "Dice low": "dice_low",
    "Dice high": "dice_high",
    "volume low": "volume_low",
    "volume high": "volume_high",
    "predicted Dice as trained": "predicted_dice_as_trained",
    "present probability": "present",
    "entropy": "entropy",
    "members Dice": "members_dice",
}


def read(dataset: str, cases: str, name: str) -> pd.DataFrame:
    """NAME.csv of one set of predictions, with the patient of each case."""
    place = f"{COMMIT}:docs/results/study/{FOLDERS[dataset]}_{dataset}/{TRAINER}/{cases}/{name}.csv"
    text = subprocess.run(["git", "show", place], cwd=HERE, check=True, capture_output=True, text=True).stdout
    rows = pd.read_csv(io.StringIO(text), dtype={"case": str, "network": str})
    rows = rows[rows.network.str.startswith("fold_" if cases == "folds" else "average")]
    if "case" not in rows:
        return rows
    splits, known = HERE / "splits" / f"{FOLDERS[dataset]}_{dataset}", {}
    if (path := splits / "patients.json").is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
    rows = rows.assign(patient=[known.get(case, case) for case in rows["case"]])
    folds = json.loads((splits / "splits_final.json").read_text(encoding="utf-8"))
    fold = {case: number for number, split in enumerate(folds) for case in split["val"]}
    of_patient = pd.Series(fold).groupby([known.get(case, case) for case in fold]).agg(set)
    own = [of_patient.get(patient, set()) - {fold.get(case)} for case, patient in zip(rows["case"], rows.patient)]
    return rows[[not others for others in own]]


def flagged(scans: pd.DataFrame, taught: pd.DataFrame | None, bad: float) -> np.ndarray:
    """(n,) scans that `-find 0.9` flags by limits of others: of other patients, or of the cases `taught`."""

    def flag(others: pd.DataFrame, left: pd.DataFrame) -> np.ndarray:
        patient = pd.factorize(others.patient)[0]
        score = others[ORDERS[0]].to_numpy()
        limit = smallest_threshold(score, (others.Dice < bad).to_numpy(), patient, Fraction(1, 10), of_bad=True)
        return (left[ORDERS[0]] <= limit).to_numpy(float) if not np.isnan(limit) else np.full(len(left), np.nan)

    if taught is not None:
        return flag(taught, scans)
    return by_others(parts_of(scans.patient.tolist()), lambda others, left: flag(scans[others], scans[left]))


def main() -> None:
    """Write all rows."""
    found = []
    for dataset, bad in BAD.items():
        taught = None
        for cases in ("folds", "outer"):
            rows = read(dataset, cases, "structures").merge(
                read(dataset, cases, "scans")[["case", "entropy"]], on="case"
            )
            if cases == "outer":
                rows = rows.merge(read(dataset, cases, "scans")[["case", "members Dice"]], on="case")
            keys = {"dataset": dataset, "trainer": TRAINER, "configuration": "2d_small", "training": "folds 0 1 2 3 4"}
            keys |= {"cases": cases, "case": rows["case"], "patient": rows.patient, "bad": bad}
            rows = rows.reindex(columns=list(COLUMNS)).rename(columns=COLUMNS).assign(**keys)
            rows = rows[rows.structure != "no-reflow"]
            scans = orders_of(rows)
            flags = pd.Series(flagged(scans, taught, bad), scans.index)
            taught = scans if cases == "folds" else None
            found.append(rows[[*keys, *COLUMNS.values()]].assign(**{"flagged": rows["case"].map(flags)}))
            forms, common = read(dataset, cases, "forms"), {k: v for k, v in keys.items() if isinstance(v, str)}
            put(
                (
                    mean_row(values[name], values.patient, method=form, quantity=name)
                    for form, values in forms[
                        forms.form.isin(["as trained", "map", "temperature", "CDC", "CMSop"])
                    ].groupby("form")
                    for name in ("NLL predicted", "NLL all", "Brier predicted", "Brier all", "ECE predicted")
                ),
                **common,
            )
            bins = read(dataset, cases, "bins").groupby(["form", "bin"])[["count", "confidence", "correct"]].sum()
            gap = (bins.confidence - bins.correct).abs().groupby("form").sum() / bins["count"].groupby("form").sum()
            put(
                ({"method": form, "quantity": "pooled ECE predicted", "value": gap[form]} for form in gap.index),
                **common,
            )
    write_csv("other_scans.csv", pd.concat(found), 4)


if __name__ == "__main__":
    main()
