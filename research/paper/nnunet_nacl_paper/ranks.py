"""Ranks of the methods as in the paper's fig. 2: sums over data sets, and means over cases.

(Murugesan et al., "Neighbor-Aware Calibration of Segmentation Networks with Penalty-Based
Constraints", Medical Image Analysis 2025.) Rank 1 is the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from nnunet_nacl.metrics.statistics import percentile_interval, resamples, without_noise
from nnunet_nacl_paper.comparison import RANK_METRICS, Comparison, CountedInterval
from nnunet_nacl_paper.files import write_text


def rank_values(values: np.ndarray, *, better: str, ties: Literal["min", "average"]) -> np.ndarray:
    """Rank each row's values, best first.

    Args:
        values: (n, n_methods); equal to ten decimals is equal.
        better: ``lower`` or ``higher``.
        ties: ``min`` gives equal values the lowest rank of theirs, ``average`` the mean of their
            ranks.

    Returns:
        (n, n_methods) ranks from 1; NaN throughout a row that holds a NaN.
    """
    table = pd.DataFrame(without_noise(values))
    ranks = table.rank(axis=1, method=ties, ascending=better == "lower")
    ranks[table.isna().any(axis=1)] = np.nan
    return ranks.to_numpy()


def sum_ranks(means: np.ndarray, better: str) -> np.ndarray:
    """Sum over data sets of the ranks of the data sets' means (fig. 2a); ties take the lowest rank.

    Args:
        means: (n_datasets, n_methods) of one metric. A data set in which some method has no mean is
            left out.
        better: ``lower`` or ``higher``.

    Returns:
        (n_methods,) sums; between n_datasets and n_datasets * n_methods. NaN if no data set counts.
    """
    ranks = rank_values(means, better=better, ties="min")
    ranks = ranks[~np.isnan(ranks).any(axis=1)]
    return ranks.sum(axis=0) if len(ranks) else np.full(np.shape(means)[1], np.nan)


def case_ranks(values: np.ndarray, better: str) -> np.ndarray:
    """Rank of each method in each case, (n_cases, n_methods).

    Ties are averaged; a case that lacks a value has NaN throughout.
    """
    return rank_values(values, better=better, ties="average")


def mean_case_ranks(
    ranks: Sequence[np.ndarray],
    *,
    n_bootstrap: int,
    seed: int,
    groups: Sequence[Sequence[str] | None] | None = None,
) -> list[CountedInterval]:
    """Mean case ranks over all data sets (fig. 2b), with 95 % bootstrap intervals.

    Cases are drawn with replacement within their data set, whole: all methods of a case stay
    together, and with groups all cases of a patient. Every case weighs the same, whatever the data
    set's size.

    Args:
        ranks: Per data set (n_cases, n_methods) from :func:`case_ranks`; rows with NaN are left
            out.
        n_bootstrap, seed, groups: As for :func:`~nnunet_nacl.metrics.statistics.mean_interval`;
            groups per data set.

    Returns:
        One per method; the interval is NaN with fewer than two patients.
    """
    n_methods = ranks[0].shape[1]
    sums_of_datasets = _sums_by_patient(ranks, groups or [None] * len(ranks))
    if not sums_of_datasets:
        return [CountedInterval(np.nan, np.nan, np.nan, 0)] * n_methods
    *rank_sums, n_cases = np.concatenate(sums_of_datasets).sum(axis=0)
    intervals = [(np.nan, np.nan)] * n_methods
    if sum(map(len, sums_of_datasets)) > 1:
        intervals = _bootstrap_intervals(sums_of_datasets, n_bootstrap, seed)
    means = []
    for rank_sum, (low, high) in zip(rank_sums, intervals):
        means.append(CountedInterval(float(rank_sum / n_cases), low, high, int(n_cases)))
    return means


def _sums_by_patient(
    ranks: Sequence[np.ndarray], groups: Sequence[Sequence[str] | None]
) -> list[np.ndarray]:
    """Sums of each patient's case ranks, for each data set in which any case has ranks.

    Returns:
        (n_patients, n_methods + 1) a data set; the last column is the number of cases.
    """
    sums = []
    for ranks_of_dataset, patients in zip(ranks, groups):
        table = pd.DataFrame(ranks_of_dataset).assign(n=1).dropna()
        if table.empty:
            continue
        patient_of_case = table.index if patients is None else np.asarray(patients)[table.index]
        sums.append(table.groupby(patient_of_case).sum().to_numpy())
    return sums


def _bootstrap_intervals(
    sums_of_datasets: Sequence[np.ndarray], n_bootstrap: int, seed: int
) -> list[tuple[float, float]]:
    """95 % intervals of the methods' mean ranks, patients drawn within their data set."""
    drawn = np.zeros((n_bootstrap, sums_of_datasets[0].shape[1]))
    for number, sums in enumerate(sums_of_datasets):
        drawn += resamples(len(sums), n_bootstrap, seed + number) @ sums
    n_cases = drawn[:, -1]
    return [percentile_interval(rank_sums / n_cases) for rank_sums in drawn.T[:-1]]


def ranks_of(comparison: Comparison) -> tuple[pd.DataFrame, dict[str, list[CountedInterval]]]:
    """Both rankings of a comparison's ranked methods by the four metrics, with their ``total``.

    Returns:
        Sum ranks, a row a method and a column a metric; and by metric the mean case ranks of the
        methods, whose total is the mean of the metrics' ranks of each case.
    """
    names = comparison.ranked
    datasets = comparison.datasets
    sums = {}
    ranks_within = {}
    for metric in RANK_METRICS:
        better = comparison.columns[metric].better
        means = [[dataset.mean(metric, name) for name in names] for dataset in datasets]
        sums[metric] = sum_ranks(np.array(means), better)
        tables = [dataset.table(metric, names) for dataset in datasets]
        ranks_within[metric] = [case_ranks(table, better) for table in tables]
    sums["total"] = np.sum(list(sums.values()), axis=0)
    ranks_within["total"] = [
        np.mean(of_metrics, axis=0) for of_metrics in zip(*ranks_within.values())
    ]
    means_within = {}
    for metric, ranks in ranks_within.items():
        means_within[metric] = mean_case_ranks(
            ranks,
            n_bootstrap=comparison.settings.n_bootstrap,
            seed=comparison.settings.seed,
            groups=[dataset.groups for dataset in datasets],
        )
    return pd.DataFrame(sums, index=names), means_within


def write_ranks(comparison: Comparison, folder: Path) -> None:
    """Write ranks.csv and case_ranks.csv: a row a method.

    Of case ranks there are mean, interval and number of cases.
    """
    sums, within = ranks_of(comparison)
    labels = [comparison.labels[name] for name in sums.index]
    by_label = sums.set_axis(pd.Index(labels, name="method"))
    write_text(folder / "ranks.csv", by_label.to_csv())
    columns: dict[str, Sequence] = {"method": labels, "trainer": list(sums.index)}
    for metric, intervals in within.items():
        for field in ("mean", "low", "high", "n"):
            columns[f"{metric} {field}"] = [getattr(interval, field) for interval in intervals]
    write_text(folder / "case_ranks.csv", pd.DataFrame(columns).to_csv(index=False))
