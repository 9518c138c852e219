"""results.csv, the one table of what was measured, and the numbers that its rows are made of.

A row is one value. What a row is of: `dataset`, `trainer` (without `nnUNetTrainer`), `configuration`, `training` (which
folds), `cases` (`folds`: validation cases by single networks; `outer`: cases in no fold by the five-fold ensemble),
`method`, `structure` and `quantity`. Then its `value`, `low` and `high`, a 95 % interval over patients unless the
quantity says otherwise, and how many patients and cases it is of. Rows of the same keys are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from nnunet_nacl.files import write_atomically
from nnunet_nacl.metrics.statistics import mean_interval, percentile_interval, resamples

HERE = Path(__file__).resolve().parent
KEYS = ["dataset", "trainer", "configuration", "training", "cases", "method", "structure", "quantity"]
VALUES = ["value", "low", "high", "n_patients", "n_cases"]
DRAWS = 2000


def read_csv(name: str) -> pd.DataFrame:
    """A table of this folder, texts as texts; empty where there is none."""
    path = HERE / name
    texts = dict.fromkeys([*KEYS, "case", "patient"], str)
    return pd.read_csv(path, dtype=texts, keep_default_na=True) if path.is_file() else pd.DataFrame()


def write_csv(name: str, table: pd.DataFrame, digits: int = 5) -> None:
    """Write a table of this folder."""
    write_atomically(HERE / name, table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n"))


def results() -> pd.DataFrame:
    """results.csv; a missing text is an empty one."""
    found = read_csv("results.csv").reindex(columns=[*KEYS, *VALUES])
    return found.assign(**{key: found[key].fillna("") for key in KEYS})


def put(rows: Iterable[Mapping[str, Any]], **common: Any) -> None:
    """Write rows into results.csv in place of those of the same keys; `common` are values that all of them have."""
    new = pd.DataFrame([common | dict(row) for row in rows]).reindex(columns=[*KEYS, *VALUES])
    new[KEYS], new[VALUES[:3]] = new[KEYS].astype(object).fillna(""), new[VALUES[:3]].astype(float).round(9)
    every = pd.concat([results(), new]) if len(results()) else new
    write_results(every.drop_duplicates(KEYS, keep="last"))
    print(new[["cases", "method", "quantity", *VALUES]].to_string(index=False), flush=True)


def remove(trainers: Sequence[str]) -> None:
    """Remove the rows of trainers from results.csv."""
    found = results()
    write_results(found[~found.trainer.isin(trainers)])


def write_results(table: pd.DataFrame) -> None:
    """Write results.csv, sorted by its keys."""
    table = table.sort_values(KEYS, kind="stable", ignore_index=True)
    write_csv("results.csv", table.assign(**{name: table[name].astype("Int64") for name in VALUES[3:]}))


def mean_row(values: Sequence[float], patients: Sequence[str], *, exact: bool = True, **keys: Any) -> dict[str, Any]:
    """The mean over cases where a value is defined, with an interval by drawing patients, each with all its cases.

    Of shares of nothing, or of all, Clopper and Pearson's interval (1934) for as many patients, if it is `exact`.
    """
    values, patients = np.asarray(values, float), np.asarray(patients, str)
    found = mean_interval(values, n_bootstrap=DRAWS, seed=0, groups=patients.tolist())
    n, low, high = len(set(patients[~np.isnan(values)])), found.low, found.high
    if (
        exact and n and found.mean in (0, 1) and np.isin(values[~np.isnan(values)], (0, 1)).all()
    ):  # all draws are the same
        ends = binomtest(round(found.mean * n), n).proportion_ci(method="exact")
        low, high = ends.low, ends.high
    return keys | {"value": found.mean, "low": low, "high": high, "n_patients": n, "n_cases": found.n}


def statistic_row(
    statistic: Callable[..., np.ndarray], patients: Sequence[str], *values: Any, **keys: Any
) -> dict[str, Any]:
    """A statistic of weighted cases, with an interval by drawing patients.

    Args:
        statistic: Takes (draws, n) how often each case counts, then `values`, and gives (draws,).
        patients: (n,) of each case.
        *values: Of the cases.
        **keys: Of the row.
    """
    code = np.unique(np.asarray(patients, str), return_inverse=True)[1]
    counts = np.concatenate([np.ones((1, code.max() + 1)), resamples(code.max() + 1, DRAWS, 0)])
    found = statistic(counts[:, code], *values)
    low, high = percentile_interval(found[1:])
    return keys | {"value": found[0], "low": low, "high": high, "n_patients": code.max() + 1, "n_cases": len(code)}


def pooled_gap_row(
    count: np.ndarray, confidence: np.ndarray, correct: np.ndarray, patients: Sequence[str], **keys: Any
) -> dict[str, Any]:
    """Gap between mean confidence and share right, by bins of the voxels of all cases together, weighted by voxels.

    The sum of absolute gaps is above 0 by chance alone. How much that is, the bootstrap over patients tells: what its
    draws lie above the value is taken off (never below 0), and the interval is turned about the value in the same way.

    Args:
        count, confidence, correct: (n, bins) sums of each case.
        patients: (n,)
        **keys: Of the row.
    """
    code = np.unique(np.asarray(patients, str), return_inverse=True)[1]
    sums = np.zeros((3, code.max() + 1, np.shape(count)[1]))
    for total, values in zip(sums, (count, confidence, correct)):
        np.add.at(total, code, values)
    weights = np.concatenate([np.ones((1, len(sums[0]))), resamples(len(sums[0]), DRAWS, 0)])
    n, sure, right = weights @ sums
    gaps = np.abs(sure - right).sum(1) / n.sum(1)
    (low, high), value = percentile_interval(gaps[1:]), gaps[0]
    ends = {"value": 2 * value - gaps[1:].mean(), "low": 2 * value - high, "high": 2 * value - low}
    return keys | {k: max(0.0, v) for k, v in ends.items()} | {"n_patients": len(sums[0]), "n_cases": len(code)}
