"""What calibration, or another decision, changes on cases that the fit has not seen: values before
and after, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.statistics import (
    Interval,
    difference_of_means,
    mean_interval,
    percentile_interval,
    resamples,
    sign_flip_p,
    verdict_of,
)
from nnunet_nacl.utilities.json_types import Number, doc

_N_BOOTSTRAP = 10_000
_N_POOLED_BOOTSTRAP = 2_000


@dataclass(frozen=True, kw_only=True)
class Change:
    """A value on cases that the fit has not seen; intervals are bootstrapped over patients."""

    before: Annotated[Interval, doc("Of the network as it was trained.")]
    after: Annotated[Interval, doc("Of the calibrated, or tuned, one.")]
    difference: Annotated[Interval, doc("After minus before.")]
    n: Annotated[NonNegativeInt, doc("Cases where both are defined.")]
    p: Annotated[
        Number,
        doc(
            "Two-sided, of the sign-flip test of the difference over patients, not corrected for"
            " the number of values; null where none was made."
        ),
    ] = math.nan

    @property
    def verdict(self) -> str:
        """What the test shows of a value of which lower is better, a key of
        :data:`~nnunet_nacl.metrics.statistics.VERDICT_TEXTS`."""
        return verdict_of(self.difference.mean, self.p)


def changes_of_means(
    before: pd.DataFrame, after: pd.DataFrame, patients: Sequence[str]
) -> dict[str, Change]:
    """As :func:`changes`, but each mean is over the cases where it is defined, as nnU-Net's;
    without a test, which takes pairs."""
    result: dict[str, Change] = {}
    for name in before:
        values_before = np.asarray(before[name], np.float64)
        values_after = np.asarray(after[name], np.float64)
        difference = difference_of_means(
            values_before, values_after, n_bootstrap=_N_BOOTSTRAP, seed=0, groups=patients
        )
        result[str(name)] = Change(
            before=_mean_with_interval(values_before, patients),
            after=_mean_with_interval(values_after, patients),
            difference=difference,
            n=int((~np.isnan(values_before) & ~np.isnan(values_after)).sum()),
        )
    return result


def changes(
    before: pd.DataFrame, after: pd.DataFrame, patients: Sequence[str] | None = None
) -> dict[str, Change]:
    """By column the change of the mean over cases; both frames have a row for each case.

    ``patients`` has the patient of each case; None: each case is a patient of its own. A case
    without one of the two values does not count; what is not defined, as the interval of one
    patient, is NaN. The difference is tested as in a comparison, by
    :func:`~nnunet_nacl.metrics.statistics.sign_flip_p`.
    """
    result: dict[str, Change] = {}
    for name in before:
        values_before = np.asarray(before[name], np.float64)
        values_after = np.asarray(after[name], np.float64)
        is_defined = ~np.isnan(values_before) & ~np.isnan(values_after)
        values_before = values_before[is_defined]
        values_after = values_after[is_defined]
        groups = np.asarray(patients)[is_defined].tolist() if patients is not None else None
        differences = values_after - values_before
        patient_of_pair = np.arange(len(differences)) if groups is None else groups
        by_patient = pd.Series(differences).groupby(patient_of_pair)
        result[str(name)] = Change(
            before=_mean_with_interval(values_before, groups),
            after=_mean_with_interval(values_after, groups),
            difference=_mean_with_interval(differences, groups),
            n=int(is_defined.sum()),
            p=sign_flip_p(by_patient.sum(), seed=0),
        )
    return result


def _mean_with_interval(values: np.ndarray, groups: Sequence[str] | None) -> Interval:
    """The mean over cases; ``groups`` has the patient of each, None: each its own."""
    return mean_interval(values, n_bootstrap=_N_BOOTSTRAP, seed=0, groups=groups)


def pooled_changes(
    before: Sequence[BinStats], after: Sequence[BinStats], patients: Sequence[str] | None = None
) -> dict[str, Change]:
    """As :func:`changes`, of confidence and accuracy over the voxels of all cases together; the
    bins are those of the mask ``predicted``, of the voxels that were segmented.

    ``pooled ECE predicted`` is the expected calibration error (eq. 10 of Murugesan et al. 2025) of
    the summed bins. Where a structure has few voxels, the ECE of a single case is mostly noise, and
    so is the mean over cases; the pooled value is not. ``confidence predicted`` is the mean
    confidence and ``accuracy predicted`` the share of right labels, which no map changes. For
    regions all are means over regions. Intervals are percentiles of a bootstrap over patients.
    """
    names = np.arange(len(before)) if patients is None else np.asarray(patients)
    patient_number = np.unique(names, return_inverse=True)[1]
    num_patients = int(patient_number.max()) + 1
    # Fewer draws than elsewhere: the sums of many regions are large.
    drawn = resamples(num_patients, _N_BOOTSTRAP, 0)[:_N_POOLED_BOOTSTRAP]
    values_before = _pool(before, patient_number, drawn)
    values_after = _pool(after, patient_number, drawn)
    num_cases = sum(stats.n_voxels > 0 for stats in before)
    result = {}
    for name in values_before:
        difference = values_after[name] - values_before[name]
        result[name] = Change(
            before=_value_with_interval(values_before[name], num_patients),
            after=_value_with_interval(values_after[name], num_patients),
            difference=_value_with_interval(difference, num_patients),
            n=num_cases,
        )
    return result


def _pool(
    cases: Sequence[BinStats], patient_number: np.ndarray, drawn: np.ndarray
) -> dict[str, np.ndarray]:
    """Values over the voxels of all cases, and of each draw of patients.

    Args:
        cases: Bins of each case.
        patient_number: (n,) to whom it belongs, numbers from 0.
        drawn: (draws, patients) how often each patient is drawn.

    Returns:
        (1 + draws,) by name: that of all patients first.
    """
    case_sums = np.stack([[stats.count, stats.confidence, stats.correct] for stats in cases])
    num_patients = drawn.shape[1]
    patient_sums = np.zeros((num_patients, *case_sums.shape[1:]))
    np.add.at(patient_sums, patient_number, case_sums.astype(float))
    each_once = np.ones((1, num_patients))
    weights = np.concatenate([each_once, drawn])
    # Each (1 + draws, T, n_bins), T as in BinStats.
    count, confidence, correct = np.moveaxis(np.tensordot(weights, patient_sums, 1), 1, 0)
    voxels = count.sum(-1)
    voxels_or_nan = np.where(voxels > 0, voxels, np.nan)
    gaps = np.abs(confidence - correct).sum(-1)
    return {
        "pooled ECE predicted": (gaps / voxels_or_nan).mean(-1),
        "confidence predicted": (confidence.sum(-1) / voxels_or_nan).mean(-1),
        "accuracy predicted": (correct.sum(-1) / voxels_or_nan).mean(-1),
    }


def _value_with_interval(values: np.ndarray, num_patients: int) -> Interval:
    """The first of the values, with the percentiles of the others, which are of draws; NaN where
    there is one patient to draw."""
    low = math.nan
    high = math.nan
    if num_patients > 1:
        low, high = percentile_interval(values[1:])
    return Interval(mean=float(values[0]), low=low, high=high)
