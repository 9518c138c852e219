"""What calibration changes on cases that the fit has not seen: values before and after, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.json_types import Number, Share
from nnunet_nacl.numbers.fitting import Voxels
from nnunet_nacl.numbers.log_odds_map import is_certain, probabilities
from nnunet_nacl.numbers.statistics import mean_interval


class Interval(TypedDict):
    """A mean over cases with the ends of its 95 % bootstrap interval over patients."""

    mean: Number
    low: Number
    high: Number


class Change(TypedDict):
    """A value on cases that the fit has not seen.

    Attributes:
        before: Of the network's probabilities.
        after: Of the calibrated ones.
        difference: After less before.
        n: Cases where both are defined.
    """

    before: Interval
    after: Interval
    difference: Interval
    n: NonNegativeInt


def changes(before: pd.DataFrame, after: pd.DataFrame, patients: Sequence[str] | None = None) -> dict[str, Change]:
    """Compare values of the same cases, by column.

    Args:
        before: A row a case, NaN where a value is undefined.
        after: Of the same cases in the same order, cross-fitted.
        patients: Of each case; None: each case its own.

    Returns:
        For each column the change; NaN for what is not defined, as the interval of a single patient.
    """
    result: dict[str, Change] = {}
    for name in before:
        pair = np.array([before[name], after[name]], dtype=np.float64)
        both = ~np.isnan(pair).any(0)
        old, new = pair[:, both]
        groups = None if patients is None else np.asarray(patients)[both].tolist()
        means = (mean_interval(each, n_bootstrap=10_000, seed=0, groups=groups) for each in (old, new, new - old))
        intervals = [Interval(mean=each.mean, low=each.low, high=each.high) for each in means]
        result[str(name)] = Change(before=intervals[0], after=intervals[1], difference=intervals[2], n=int(both.sum()))
    return result


@dataclass(frozen=True)
class CertainBackground:
    """What no map changes, since no structure has a probability above one in a million there.

    Attributes:
        voxels: Share of the voxels that the network saw.
        expected_volume: Share of the expected volume of all structures: what the map cannot calibrate.
    """

    voxels: Share
    expected_volume: Share


def certain_background(cases: Iterable[Voxels]) -> CertainBackground:
    """Shares over the (weighted) voxels of cases; 0 where there is nothing."""
    inside, total = np.zeros(2), np.zeros(2)
    for voxels in cases:
        weights, odds = voxels.all_weights, voxels.log_odds.double()
        expected = probabilities(odds, voxels.regions)[0 if voxels.regions else 1 :].sum(0) * weights
        for i, values in enumerate((weights, expected)):
            inside[i] += float(values[is_certain(odds)].sum())
            total[i] += float(values.sum())
    return CertainBackground(*(inside / np.where(total > 0, total, 1)).tolist())
