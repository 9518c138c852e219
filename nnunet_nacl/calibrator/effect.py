"""What calibration changes on cases that the fit has not seen: values before and after, with
intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.json_types import Number, doc
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.statistics import mean_interval, percentile_interval, resamples

_N_BOOTSTRAP = 10_000


class Interval(TypedDict):
    """A value of all cases, as a rule their mean, with the ends of its 95 % bootstrap interval over
    patients."""

    mean: Number
    low: Number
    high: Number


class Change(TypedDict):
    """A value on cases that the fit has not seen."""

    before: Annotated[Interval, doc("Of the network's probabilities.")]
    after: Annotated[Interval, doc("Of the calibrated ones.")]
    difference: Annotated[Interval, doc("After less before.")]
    n: Annotated[NonNegativeInt, doc("Cases where both are defined.")]


def changes(
    before: pd.DataFrame, after: pd.DataFrame, patients: Sequence[str] | None = None
) -> dict[str, Change]:
    """By column the change of the mean, of frames with a row for each case, which are of
    ``patients``, else its own.

    A case without one of the two values does not count; what is not defined, as the interval of one
    patient, is NaN.
    """
    result: dict[str, Change] = {}
    for name in before:
        pair = np.array([before[name], after[name]], dtype=np.float64)
        both = ~np.isnan(pair).any(0)
        old, new = pair[:, both]
        groups = None if patients is None else np.asarray(patients)[both].tolist()
        means = (
            mean_interval(each, n_bootstrap=_N_BOOTSTRAP, seed=0, groups=groups)
            for each in (old, new, new - old)
        )
        intervals = [Interval(mean=each.mean, low=each.low, high=each.high) for each in means]
        result[str(name)] = Change(
            before=intervals[0], after=intervals[1], difference=intervals[2], n=int(both.sum())
        )
    return result


def pooled_changes(
    before: Sequence[BinStats], after: Sequence[BinStats], patients: Sequence[str] | None = None
) -> dict[str, Change]:
    """As :func:`changes`, of confidence and accuracy over the voxels of all cases together, where
    all was segmented.

    ``pooled ECE predicted`` is the expected calibration error (eq. 10 of the paper) of the summed
    bins. Where a structure has few voxels, the ECE of a single case is mostly noise, and so is the
    mean over cases; the pooled value is not. ``confidence predicted`` is the mean confidence and
    ``accuracy predicted`` the share of right labels, which no map changes. For regions all are
    means over regions. Intervals are percentiles of a bootstrap over patients.
    """
    code = np.unique(
        np.arange(len(before)) if patients is None else np.asarray(patients), return_inverse=True
    )[1]
    drawn = resamples(code.max() + 1, _N_BOOTSTRAP, 0)[:2000]  # sums of many regions are large

    def replicates(cases: Sequence[BinStats]) -> np.ndarray:
        """(3, 1 + draws) the three values of all patients, and of each draw."""
        by_case = np.stack(
            [[stats.count, stats.confidence, stats.correct] for stats in cases]
        ).astype(float)
        sums = np.zeros((code.max() + 1, *by_case.shape[1:]))
        np.add.at(sums, code, by_case)
        weights = np.concatenate([np.ones((1, len(sums))), drawn])
        count, confidence, correct = np.moveaxis(np.tensordot(weights, sums, 1), 1, 0)
        total = np.where((n := count.sum(-1)) > 0, n, np.nan)
        parts = (np.abs(confidence - correct).sum(-1), confidence.sum(-1), correct.sum(-1))
        return np.stack([(part / total).mean(-1) for part in parts])

    def interval(values: np.ndarray) -> Interval:
        low, high = percentile_interval(values[1:]) if len(drawn[0]) > 1 else (np.nan, np.nan)
        return Interval(mean=float(values[0]), low=low, high=high)

    old, new = replicates(before), replicates(after)
    n = sum(stats.n_voxels > 0 for stats in before)
    names = ("pooled ECE predicted", "confidence predicted", "accuracy predicted")
    return {
        name: Change(before=interval(a), after=interval(b), difference=interval(b - a), n=n)
        for name, a, b in zip(names, old, new)
    }
