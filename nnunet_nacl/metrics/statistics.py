"""Bootstrap intervals over cases (Efron 1979), paired differences, the sign-flip and Wilcoxon's
test, Holm's correction, and the verdict that follows.

The unit is the case, or the patient where several cases are of one, never the voxel. Whatever
varies between trainings (seed, order of the batches) is in none of these intervals: every trainer
stands for one training per fold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.utilities.json_types import Number, doc

CONFIDENCE = 0.95
ALPHA = 0.05
"""Level of the tests."""
FEWEST_FOR_A_TEST = 6
"""With five cases the smallest possible two-sided p of either test is 2 / 2**5 = 0.0625: it cannot
reach 0.05."""
MOST_ENUMERATED = 13
"""Patients of whom the sign-flip test goes through all 2**n flips; of more it draws."""
N_FLIPS = 10_000
"""Flips that the sign-flip test draws."""
VERDICT_TEXTS = {
    "better": "better",
    "worse": "worse",
    "none": "no difference shown",
    "equal": "equal in every case",
    "untested": "not tested",
}
"""What a test can show, and the words for it."""

_BLOCK = 1 << 20  # cases drawn at a time


@dataclass(frozen=True)
class Interval:
    """A value of several cases, as a rule their mean, with the ends of its 95 % interval; NaN where
    undefined."""

    mean: Number
    low: Number
    high: Number


def without_noise(values: np.ndarray) -> np.ndarray:
    """Values to ten decimals: what is equal but for floating-point rounding (1e-15) is a tie, and
    no case wins it."""
    return np.round(values, 10)


@lru_cache(maxsize=8)
def resamples(n: int, n_bootstrap: int, seed: int) -> np.ndarray:
    """(n_bootstrap, n) float64: how often each of n cases is drawn, n draws with replacement, which
    the seed fixes.

    All metrics and trainers of a comparison share them, so the last used ones are kept.
    """
    counts = np.empty((n_bootstrap, n))
    rng = np.random.default_rng([seed, n])
    rows_at_a_time = max(1, _BLOCK // max(n, 1))
    for start in range(0, n_bootstrap, rows_at_a_time):
        rows = counts[start : start + rows_at_a_time]
        drawn_cases = rng.integers(0, n, rows.shape)
        flat_index = drawn_cases + n * np.arange(len(rows))[:, None]  # rows, one after the other
        rows[:] = np.bincount(flat_index.ravel(), minlength=rows.size).reshape(rows.shape)
    counts.setflags(write=False)
    return counts


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap replicates; NaN replicates are left out, and NaN is the answer
    without any."""
    values = values[~np.isnan(values)]
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return low, high


def mean_interval(
    values: ArrayLike, *, n_bootstrap: int, seed: int, groups: Sequence[str] | None = None
) -> Interval:
    """Mean over the cases where a value is defined, with its percentile bootstrap interval.

    Cases are drawn with replacement, and the 2.5th and 97.5th percentile of the draws' means are
    the interval. With groups, such as the patient of each case, these are drawn instead, each with
    all its cases (the cluster bootstrap); the mean stays one over cases. All is NaN without a
    defined case, the interval with one case or group.
    """
    all_values = np.asarray(values, dtype=np.float64)
    is_defined = ~np.isnan(all_values)
    defined = all_values[is_defined]
    if not defined.size:
        return Interval(math.nan, math.nan, math.nan)
    names = np.arange(len(all_values)) if groups is None else np.asarray(groups)
    group_number = np.unique(names[is_defined], return_inverse=True)[1]
    group_sizes = np.bincount(group_number)
    mean = float(defined.mean())
    if len(group_sizes) == 1:
        return Interval(mean, math.nan, math.nan)
    drawn = resamples(len(group_sizes), n_bootstrap, seed)
    # Deviations are drawn: so a shift of all values shifts the interval by as much.
    group_sums = np.bincount(group_number, defined - mean)
    low, high = percentile_interval(drawn @ group_sums / (drawn @ group_sizes))
    return Interval(mean, mean + low, mean + high)


def difference_of_means(
    before: ArrayLike, after: ArrayLike, *, n_bootstrap: int, seed: int, groups: Sequence[str]
) -> Interval:
    """Mean of ``after`` less that of ``before``, of the same cases, with its interval.

    Each mean is over the cases where it is defined, which need not be the same: a structure that is
    invented where there is none has a Dice of 0 in place of none. Groups, such as the patient of
    each case, are drawn with all their cases, as in :func:`mean_interval`.
    """
    group_number = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(group_number.max()) + 1
    drawn = resamples(n_groups, n_bootstrap, seed)
    means = []
    drawn_means = []
    for values in (np.asarray(before, float), np.asarray(after, float)):
        is_defined = ~np.isnan(values)
        sums = np.bincount(group_number, np.where(is_defined, values, 0), n_groups)
        counts = np.bincount(group_number, is_defined, n_groups)
        total = drawn @ counts
        drawn_means.append(drawn @ sums / np.where(total > 0, total, np.nan))
        means.append(nanmean(values))
    difference = means[1] - means[0]
    if n_groups == 1:
        return Interval(difference, math.nan, math.nan)
    return Interval(difference, *percentile_interval(drawn_means[1] - drawn_means[0]))


def bin_accuracy_bands(
    count: np.ndarray, correct: np.ndarray, *, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of each confidence bin's accuracy, cases drawn with replacement: (n_bins,)
    lower and upper ends.

    ``count`` and ``correct`` are (n_cases, n_bins) voxels of each case, or patient, in each bin,
    and how many of them are right. NaN in bins that are empty, or with a single case.
    """
    count = np.asarray(count, np.float64)
    num_cases, n_bins = count.shape
    if num_cases < 2:
        undefined = np.full(n_bins, np.nan)
        return undefined, undefined.copy()
    drawn = resamples(num_cases, n_bootstrap, seed)
    total = drawn @ count
    total_correct = drawn @ np.asarray(correct, np.float64)
    accuracy = total_correct / np.where(total > 0, total, np.nan)
    intervals = [percentile_interval(drawn_accuracies) for drawn_accuracies in accuracy.T]
    low, high = np.array(intervals).T
    return low, high


class PairedDifference(TypedDict):
    """A method minus the reference, over the cases in which both have a value."""

    n: Annotated[NonNegativeInt, doc("Cases where both are defined.")]
    n_patients: Annotated[NonNegativeInt, doc("Their patients.")]
    mean_reference: Annotated[Number, doc("Mean of the reference.")]
    mean: Annotated[Number, doc("Mean of the method.")]
    difference: Annotated[Number, doc("Mean of the paired differences.")]
    low: Annotated[Number, doc("Lower end of its 95 % interval.")]
    high: Annotated[Number, doc("Upper end.")]
    p: Annotated[
        Number,
        doc(
            "Two-sided, of the sign-flip test of this mean over patients; null with fewer than"
            f" {FEWEST_FOR_A_TEST} patients."
        ),
    ]
    p_wilcoxon: Annotated[
        Number,
        doc("Likewise, of Wilcoxon's signed-rank test: a second look, on which no verdict rests."),
    ]
    n_better: Annotated[NonNegativeInt, doc("Patients in whose cases the method is better.")]
    n_worse: Annotated[NonNegativeInt, doc("Patients in whom it is worse.")]
    n_equal: Annotated[NonNegativeInt, doc("Patients in whom both are equal.")]


def paired_difference(
    reference: ArrayLike,
    values: ArrayLike,
    *,
    n_bootstrap: int,
    seed: int,
    groups: Sequence[str] | None = None,
    higher_is_better: bool = False,
) -> PairedDifference:
    """Compare two methods by the values of each case, in one order; NaN is undefined.

    Means are over cases, and of the mean difference are interval and test: for the one patients are
    drawn, each with all its cases (:func:`mean_interval`), for the other the differences of a
    patient's cases change their sign together (:func:`sign_flip_p`). Wilcoxon's test takes one
    value of each patient, the mean over its cases. The cases of a patient are alike.
    """
    cases = pd.DataFrame(
        {"reference": np.asarray(reference, float), "value": np.asarray(values, float)}
    )
    cases["patient"] = range(len(cases)) if groups is None else list(groups)
    cases = cases.dropna()
    differences = cases["value"] - cases["reference"]
    interval = mean_interval(
        differences, n_bootstrap=n_bootstrap, seed=seed, groups=list(cases["patient"])
    )
    by_patient = differences.groupby(cases["patient"])
    patient_differences = without_noise(by_patient.mean().to_numpy())
    gains = patient_differences if higher_is_better else -patient_differences
    return PairedDifference(
        n=len(cases),
        n_patients=len(patient_differences),
        mean_reference=nanmean(cases["reference"]),
        mean=nanmean(cases["value"]),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p=sign_flip_p(by_patient.sum(), seed=seed),
        p_wilcoxon=wilcoxon_p(patient_differences),
        n_better=int((gains > 0).sum()),
        n_worse=int((gains < 0).sum()),
        n_equal=int((gains == 0).sum()),
    )


@lru_cache(maxsize=8)
def _sign_flips(n: int, seed: int) -> np.ndarray:
    """(flips, n) float64 of -1 and 1: all 2**n of up to ``MOST_ENUMERATED`` patients, otherwise
    ``N_FLIPS`` that the seed fixes."""
    if n <= MOST_ENUMERATED:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng([seed, n]).integers(0, 2, (N_FLIPS, n), dtype=np.int8)
    flips = np.where(bits, 1.0, -1.0)
    flips.setflags(write=False)
    return flips


def sign_flip_p(patient_sums: ArrayLike, *, seed: int) -> float:
    """Two-sided p of the sign-flip permutation test (Fisher 1935): is the mean difference 0?

    If the two methods can be exchanged, a patient's differences are as likely with the other sign.
    p is the share of flips, one sign for each patient, under which the mean over cases is at least
    as far from 0: of all 2**n, or (1 + k) / (1 + B) where k of B drawn flips are (Phipson and Smyth
    2010). The number of cases stays as it is, so the sum over patients does for the mean.

    It is :func:`scipy.stats.permutation_test` of ``abs(sum)`` with ``permutation_type="samples"``,
    which takes seconds for each test where the flips here are drawn once for all metrics.

    Args:
        patient_sums: (patients,) sum of the differences of each patient's cases. NaN is left out.
            A sum of 0 has no sign: it is as if the patient were not there.
        seed: Of the flips of more than ``MOST_ENUMERATED`` patients.

    Returns:
        1 if all sums are 0, NaN with fewer than ``FEWEST_FOR_A_TEST`` patients.
    """
    sums = without_noise(np.asarray(patient_sums, dtype=np.float64))
    sums = sums[~np.isnan(sums)]
    if sums.size < FEWEST_FOR_A_TEST:
        return math.nan
    nonzero = sums[sums != 0]
    flipped_totals = without_noise(np.abs(_sign_flips(nonzero.size, seed) @ nonzero))
    n_as_far = int((flipped_totals >= without_noise(np.abs(nonzero.sum()))).sum())
    if nonzero.size <= MOST_ENUMERATED:
        return n_as_far / len(flipped_totals)
    return (1 + n_as_far) / (1 + N_FLIPS)


def smallest_sign_flip_p(n_patients: int) -> float:
    """The smallest p that :func:`sign_flip_p` can have: both ends of all flips, or none that was
    drawn."""
    return 2.0 ** (1 - n_patients) if n_patients <= MOST_ENUMERATED else 1 / (1 + N_FLIPS)


def verdict_of(difference: float, p: float, *, higher_is_better: bool = False) -> str:
    """What a test shows, a key of :data:`VERDICT_TEXTS`.

    Args:
        difference: Mean of the method less that of the reference.
        p: Of its test, corrected where it is one of several; NaN: no test was made.
        higher_is_better: Of the value.

    Returns:
        ``better`` or ``worse`` where p is below 0.05, else ``none``; ``untested`` without p.
    """
    if math.isnan(p):
        return "untested"
    if p >= ALPHA:
        return "none"
    return "better" if (difference > 0) == higher_is_better else "worse"


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (scipy): are the patients' differences symmetric
    about 0?

    Zeros say nothing about a direction and are dropped, as Wilcoxon (1945) did. The distribution is
    exact for up to 50 differences without ties or zeros, otherwise approximated with a correction
    for ties (permuted in small samples). NaN is left out; p is 1 if all differences are 0, NaN with
    fewer than ``FEWEST_FOR_A_TEST``.
    """
    from scipy.stats import wilcoxon

    values = without_noise(np.asarray(differences, dtype=np.float64))
    values = values[~np.isnan(values)]
    if values.size < FEWEST_FOR_A_TEST:
        return math.nan
    if not values.any():
        return 1.0
    return float(wilcoxon(values, zero_method="wilcox", alternative="two-sided").pvalue)


def holm(p_values: Sequence[float] | pd.Series) -> list[float]:
    """Holm's (1979) step-down correction: p of rank i becomes max over j <= i of min(1, (m - j)
    p_j), j from 0.

    Controls the chance of one false finding in the whole family at the level to which the result is
    compared. NaN stands for a test that was not made: it is not counted, and stays.
    """
    p = pd.Series(p_values, dtype=np.float64)
    smallest_first = p.dropna().sort_values(kind="stable")
    factors = np.arange(len(smallest_first), 0, -1)
    corrected = (smallest_first * factors).clip(upper=1).cummax()
    return corrected.reindex(p.index).tolist()
