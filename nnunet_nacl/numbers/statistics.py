"""Tests: paired differences, Wilcoxon's test, Holm's correction. The unit is the patient, never the voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_nacl.numbers.bootstrap import mean_interval, without_noise
from nnunet_nacl.numbers.calibration_error import nanmean

FEWEST_FOR_A_TEST = 6
"""With five cases the smallest possible two-sided p of Wilcoxon's test is 2 / 2**5 = 0.0625: it cannot reach 0.05."""


@dataclass(frozen=True)
class PairedDifference:
    """A trainer less the reference, over the ``n`` cases in which both have a value.

    Attributes:
        n: Number of these cases.
        n_patients: To how many patients they belong; ``n`` where each case is its own.
        mean_reference: Mean of the reference over them.
        mean: Mean of the trainer over them.
        difference: Mean of the paired differences.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n_lower: Patients in whose cases the trainer's value is on average lower than the reference's.
        n_higher: Patients for whom it is higher.
        rank_biserial: (W+ - W-) / (W+ + W-) of the signed ranks without zeros, -1 to 1 (Kerby 2014): the direction that
            Wilcoxon's test sees, and how clear it is; 0 if all differences are 0.
        p: Two-sided p of Wilcoxon's signed-rank test; NaN with fewer than ``FEWEST_FOR_A_TEST`` patients.
    """

    n: int
    n_patients: int
    mean_reference: float
    mean: float
    difference: float
    low: float
    high: float
    n_lower: int
    n_higher: int
    rank_biserial: float
    p: float


def paired_difference(
    reference: Sequence[float] | np.ndarray,
    values: Sequence[float] | np.ndarray,
    *,
    n_bootstrap: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> PairedDifference:
    """Compare two methods case by case.

    Means are over cases. Cases of one patient are alike, so patients are drawn for the interval, each with all its
    cases, and the test takes one value of each patient, the mean over its cases: otherwise a patient with two images
    would count as two, and differences would be found where there are none.

    Args:
        reference: One value per case; NaN is undefined.
        values: Of the same cases in the same order.
        n_bootstrap, seed, groups: As for :func:`~nnunet_nacl.numbers.bootstrap.mean_interval`.
    """
    from scipy.stats import rankdata

    old, new = np.asarray(reference, np.float64), np.asarray(values, np.float64)
    both = ~(np.isnan(old) | np.isnan(new))
    old, new = old[both], new[both]
    groups = None if groups is None else np.asarray(groups)[both].tolist()
    differences = new - old
    interval = mean_interval(differences, n_bootstrap=n_bootstrap, seed=seed, groups=groups)
    of_patients = differences
    if groups is not None:
        patient = np.unique(groups, return_inverse=True)[1]
        of_patients = np.bincount(patient, differences) / np.bincount(patient)
    of_patients = without_noise(of_patients)
    signs, ranks = np.sign(of_patients), rankdata(np.abs(of_patients[of_patients != 0]))
    return PairedDifference(
        n=interval.n,
        n_patients=len(of_patients),
        mean_reference=nanmean(old),
        mean=nanmean(new),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        n_lower=int((signs < 0).sum()),
        n_higher=int((signs > 0).sum()),
        rank_biserial=float(signs[signs != 0] @ ranks / ranks.sum()) if len(ranks) else 0.0,
        p=wilcoxon_p(of_patients),
    )


def wilcoxon_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (scipy): are the differences symmetric about 0?

    Differences of exactly 0 say nothing about a direction and are dropped, as Wilcoxon (1945) did. scipy takes the
    exact distribution for up to 50 differences without ties or zeros, else the normal approximation with its
    correction for ties (small samples with ties: the permutation distribution).

    Args:
        differences: One per patient, or per case where each is its own; NaN is undefined and left out.

    Returns:
        1 if all differences are 0; NaN with fewer than ``FEWEST_FOR_A_TEST`` cases.
    """
    from scipy.stats import wilcoxon

    values = without_noise(np.asarray(differences, dtype=np.float64))
    values = values[~np.isnan(values)]
    if values.size < FEWEST_FOR_A_TEST:
        return float("nan")
    if not values.any():
        return 1.0
    return float(wilcoxon(values, zero_method="wilcox", alternative="two-sided").pvalue)


def holm(p_values: Sequence[float] | pd.Series) -> list[float]:
    """Holm's (1979) step-down correction: p of rank i becomes max over j <= i of min(1, (m - j) p_j), j from 0.

    Controls the chance of one false finding in the whole family at the level to which the result is compared.

    Args:
        p_values: The family; NaN stands for a test that was not made and is not counted.

    Returns:
        Corrected p in the same order, NaN where it was.
    """
    p = pd.Series(p_values, dtype=np.float64)
    rising = p.dropna().sort_values(kind="stable")
    corrected = (rising * np.arange(len(rising), 0, -1)).clip(upper=1).cummax()
    return corrected.reindex(p.index).tolist()
