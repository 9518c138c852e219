"""results.csv, the one table of what was measured, and the numbers that its rows are made of.

A row is one value. What a row is of: `dataset`, `trainer` (without `nnUNetTrainer`),
`configuration`, `training` (which folds), `cases` (`folds`: validation cases by single networks;
`each fold`: the same, with a map of their own fold; `outer`: cases in no fold by the ensemble of
the folds; `slices`: slices of the validation cases; or a scanner, whose cases the ensemble
predicts), `method`, `structure` and `quantity`.
Then its `value`, `low` and `high`, a 95 % interval over patients unless the quantity says
otherwise, and how many patients and cases it is of. Rows of the same keys are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from nnunet_nacl.metrics.statistics import mean_interval, percentile_interval, resamples
from nnunet_nacl.utilities.files import write_atomically

HERE = Path(__file__).resolve().parent
KEYS = [
    "dataset",
    "trainer",
    "configuration",
    "training",
    "cases",
    "method",
    "structure",
    "quantity",
]
ENDS = ["value", "low", "high"]
COUNTS = ["n_patients", "n_cases"]
VALUES = [*ENDS, *COUNTS]
DRAWS = 2000
"""Of the bootstrap over patients."""

Row = dict[str, Any]
"""Some of the columns of results.csv by name; those that are missing are empty."""


def read_csv(name: str) -> pd.DataFrame:
    """A table of this folder, texts as texts; empty where there is none."""
    path = HERE / name
    if not path.is_file():
        return pd.DataFrame()
    texts = dict.fromkeys([*KEYS, "case", "patient"], str)
    return pd.read_csv(path, dtype=texts, keep_default_na=True)


def write_csv(name: str, table: pd.DataFrame, digits: int = 5) -> None:
    """Write a table of this folder."""
    write_atomically(
        HERE / name, table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n")
    )


def results() -> pd.DataFrame:
    """results.csv; a missing text is an empty one."""
    table = read_csv("results.csv").reindex(columns=[*KEYS, *VALUES])
    table[KEYS] = table[KEYS].fillna("")
    return table


def put(rows: Iterable[Row], **common: str) -> None:
    """Write rows into results.csv in place of those of the same keys, whatever their training:
    after another fold was trained, a value is that of all.

    Args:
        rows: Keys and values of each.
        **common: Keys that all of them have.
    """
    new = pd.DataFrame([common | row for row in rows]).reindex(columns=[*KEYS, *VALUES])
    new[KEYS] = new[KEYS].astype(object).fillna("")
    new[ENDS] = new[ENDS].astype(float).round(9)
    before = results()
    table = pd.concat([before, new]) if len(before) else new
    but_training = [key for key in KEYS if key != "training"]
    write_results(table.drop_duplicates(but_training, keep="last"))
    print(new[["cases", "method", "quantity", *VALUES]].to_string(index=False), flush=True)


def write_results(table: pd.DataFrame) -> None:
    """Write results.csv, sorted by its keys."""
    table = table.sort_values(KEYS, kind="stable", ignore_index=True)
    for column in COUNTS:
        table[column] = table[column].astype("Int64")
    write_csv("results.csv", table)


def mean_row(values: ArrayLike, patients: Iterable[str], *, exact: bool = True, **keys: str) -> Row:
    """The mean over cases where a value is defined, with an interval by drawing patients, each with
    all its cases.

    Args:
        values: (n,) of the cases, NaN where it is undefined.
        patients: (n,) of each case.
        exact: Of shares of nothing, or of all, where all draws are the same, give Clopper and
            Pearson's interval (1934) for as many patients.
        **keys: Of the row.
    """
    of_case = np.asarray(values, float)
    patient_of_case = np.asarray(list(patients), str)
    defined = of_case[~np.isnan(of_case)]
    n_patients = len(set(patient_of_case[~np.isnan(of_case)]))
    mean = mean_interval(of_case, n_bootstrap=DRAWS, seed=0, groups=patient_of_case.tolist())
    low, high = mean.low, mean.high
    is_share_of_nothing_or_all = mean.mean in (0, 1) and np.isin(defined, (0, 1)).all()
    if exact and n_patients and is_share_of_nothing_or_all:
        ends = binomtest(round(mean.mean * n_patients), n_patients).proportion_ci(method="exact")
        low, high = ends.low, ends.high
    return {
        **keys,
        "value": mean.mean,
        "low": low,
        "high": high,
        "n_patients": n_patients,
        "n_cases": len(defined),
    }


def statistic_row(
    statistic: Callable[..., np.ndarray], patients: Iterable[str], *values: np.ndarray, **keys: str
) -> Row:
    """A statistic of weighted cases, with an interval by drawing patients.

    Args:
        statistic: Takes (draws, n) how often each case counts, then `values`, and gives (draws,).
        patients: (n,) of each case.
        *values: Of the cases.
        **keys: Of the row.
    """
    patient_of_case = list(patients)
    return drawn_row(statistic(draw_cases(patient_of_case), *values), patient_of_case, **keys)


def draw_cases(patients: Iterable[str]) -> np.ndarray:
    """(1 + draws, n) how often each case counts: once, then as often as its patient is drawn."""
    patient_of_case = number_patients(patients)
    n_patients = patient_of_case.max() + 1
    times_drawn = np.concatenate([np.ones((1, n_patients)), resamples(n_patients, DRAWS, 0)])
    return times_drawn[:, patient_of_case]


def drawn_row(of_draw: np.ndarray, patients: Iterable[str], **keys: str) -> Row:
    """A value of cases as :func:`draw_cases` draws them, with its interval.

    Args:
        of_draw: (1 + draws,) the value.
        patients: (n,) of each case.
        **keys: Of the row.
    """
    patient_of_case = list(patients)
    low, high = percentile_interval(of_draw[1:])
    counts = {"n_patients": len(set(patient_of_case)), "n_cases": len(patient_of_case)}
    return {**keys, "value": of_draw[0], "low": low, "high": high, **counts}


def pooled_gap_row(
    count: np.ndarray,
    confidence: np.ndarray,
    correct: np.ndarray,
    patients: Iterable[str],
    **keys: str,
) -> Row:
    """Gap between mean confidence and share right, by bins of the voxels of all cases together,
    weighted by voxels.

    The sum of absolute gaps is above 0 by chance alone. How much that is, the bootstrap over
    patients tells: what its draws lie above the value is taken off (never below 0), and the
    interval is turned about the value in the same way.

    Args:
        count, confidence, correct: (n, bins) sums of each case.
        patients: (n,) of each case.
        **keys: Of the row.
    """
    patient_of_case = number_patients(patients)
    n_patients = patient_of_case.max() + 1
    sums = np.zeros((3, n_patients, count.shape[1]))
    for total, of_case in zip(sums, (count, confidence, correct)):
        np.add.at(total, patient_of_case, of_case)
    times_drawn = np.concatenate([np.ones((1, n_patients)), resamples(n_patients, DRAWS, 0)])
    voxels, total_confidence, total_correct = times_drawn @ sums
    gap = np.abs(total_confidence - total_correct).sum(1) / voxels.sum(1)
    value, of_draw = gap[0], gap[1:]
    low, high = percentile_interval(of_draw)
    return {
        **keys,
        "value": max(0.0, 2 * value - of_draw.mean()),
        "low": max(0.0, 2 * value - high),
        "high": max(0.0, 2 * value - low),
        "n_patients": n_patients,
        "n_cases": len(patient_of_case),
    }


def number_patients(patients: Iterable[str]) -> np.ndarray:
    """(n,) a number from 0 for the patient of each case."""
    return np.unique(np.asarray(list(patients), str), return_inverse=True)[1]
