"""Ranks of the methods as in the paper's fig. 2: sums over data sets from their means, and means
over cases.

(Murugesan et al., "Neighbor-Aware Calibration of Segmentation Networks with Penalty-Based
Constraints", Medical Image Analysis 2025.) Rank 1 is the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from nnunet_nacl.metrics.statistics import Interval, percentile_interval, resamples, without_noise
from nnunet_nacl_paper.comparison import RANK_METRICS, Comparison
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
    """(n_cases, n_methods) rank of each method in each case, ties averaged; NaN in cases that lack
    a value."""
    return rank_values(values, better=better, ties="average")


def mean_case_ranks(
    ranks: Sequence[np.ndarray],
    *,
    n_bootstrap: int,
    seed: int,
    groups: Sequence[Sequence[str] | None] | None = None,
) -> list[Interval]:
    """Mean over the cases of all data sets of their case-specific ranks (fig. 2b), with 95 %
    bootstrap intervals.

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
    # of each data set with any rank, the sums over each patient's cases, and how many these are
    by_patient = []
    for rows, own in zip(ranks, groups or [None] * len(ranks)):
        table = pd.DataFrame(rows).assign(n=1).dropna()
        if len(table):
            patients = table.index if own is None else np.asarray(own)[table.index]
            by_patient.append(table.groupby(patients).sum().to_numpy())
    if not by_patient:
        return [Interval(np.nan, np.nan, np.nan, 0)] * ranks[0].shape[1]
    *sums, n = np.concatenate(by_patient).sum(axis=0)
    ends = [(np.nan, np.nan)] * len(sums)
    if sum(map(len, by_patient)) > 1:
        drawn = sum(
            resamples(len(one), n_bootstrap, seed + i) @ one for i, one in enumerate(by_patient)
        )
        ends = [percentile_interval(column / drawn[:, -1]) for column in drawn.T[:-1]]
    return [Interval(float(one / n), low, high, int(n)) for one, (low, high) in zip(sums, ends)]


def ranks_of(comparison: Comparison) -> tuple[pd.DataFrame, dict[str, list[Interval]]]:
    """Both rankings of a comparison's ranked methods by the four metrics, with their ``total``.

    Returns:
        Sum ranks, a row a method and a column a metric; and by metric the mean case ranks of the
        methods, whose total is the mean of the metrics' ranks of each case.
    """
    names, sums, within = comparison.ranked, {}, {}
    for metric in RANK_METRICS:
        better = comparison.columns[metric]["better"]
        means = [[dataset.mean(metric, name) for name in names] for dataset in comparison.datasets]
        sums[metric] = sum_ranks(np.array(means), better)
        within[metric] = [
            case_ranks(dataset.table(metric, names), better) for dataset in comparison.datasets
        ]
    sums["total"] = np.sum(list(sums.values()), axis=0)
    within["total"] = [np.mean(one, axis=0) for one in zip(*within.values())]
    groups = [dataset.groups for dataset in comparison.datasets]
    means_within = {
        key: mean_case_ranks(ranks, **comparison.draws, groups=groups)
        for key, ranks in within.items()
    }
    return pd.DataFrame(sums, index=names), means_within


def write_ranks(comparison: Comparison, folder: Path) -> None:
    """Writes ranks.csv and case_ranks.csv: a row a method; of case ranks mean, interval and number
    of cases."""
    sums, within = ranks_of(comparison)
    labels = [comparison.labels[name] for name in sums.index]
    write_text(
        folder / "ranks.csv",
        sums.reset_index(drop=True).assign(method=labels).set_index("method").to_csv(),
    )
    rows = {
        f"{metric} {key}": [getattr(interval, key) for interval in intervals]
        for metric, intervals in within.items()
        for key in ("mean", "low", "high", "n")
    }
    table = pd.DataFrame({"method": labels, "trainer": sums.index, **rows})
    write_text(folder / "case_ranks.csv", table.to_csv(index=False))
