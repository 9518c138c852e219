"""One further slope, for a map that was fitted to other predictions than those that it will meet.

A map of single networks is used on the average of their folds, whose logits are of another size. A single number
s mends that: u' becomes s u', which s folds into the map's slopes and offsets. It is what few cases can tell, where a
whole map of their own would follow their noise.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.fitting import SMALLEST_SLOPE, covariance_of_mean
from nnunet_nacl.calibration.likelihood import Voxels, case_loss, case_terms, pool

_LEVEL = 0.95
_MOST_STEPS = 50


@dataclass(frozen=True)
class LastSlope:
    """A slope behind a map.

    Attributes:
        slope: Where the mean NLL of the cases is lowest.
        low: Lower end of its 95 % interval, over patients; NaN with a single one.
        high: Upper end.
        n_cases: It was fitted to.
        n_patients: How many patients these are.
        nll_as_predicted: Mean over the cases of the mean NLL inside nnU-Net's crop, in nats, without any map.
        nll_of_map: The same through the map.
        nll_of_slope: Through map and slope, of the cases that the slope was fitted to.
    """

    slope: float
    low: float
    high: float
    n_cases: int
    n_patients: int
    nll_as_predicted: float
    nll_of_map: float
    nll_of_slope: float

    @property
    def applied(self) -> bool:
        """Whether it belongs into the map: its interval leaves out 1."""
        return not (math.isnan(self.low) or self.low <= 1 <= self.high)


def scaled(found: CalibrationMap, slope: float) -> CalibrationMap:
    """A map with a further slope."""
    return replace(found, slopes=slope * found.slopes, offsets=slope * found.offsets)


def fit_last_slope(
    cases: Sequence[Voxels], found: CalibrationMap, groups: Sequence[Hashable] | None = None
) -> LastSlope:
    """Fit the slope, every case weighing the same: Newton's method in one dimension.

    Args:
        cases: Predicted as the map will meet them.
        found: The map.
        groups: Patient of each case; None: each its own.

    Raises:
        ValueError: There is no case.
    """
    from scipy.stats import t

    if not cases:
        raise ValueError("there is no case to fit to.")
    (slopes, offsets), pooled = found.tables(), pool(cases)
    along = np.concatenate([slopes.reshape(len(slopes), -1), offsets], 1)  # what the slope multiplies
    slope = 1.0
    for _ in range(_MOST_STEPS):
        terms = case_terms(pooled, slope * slopes, slope * offsets)
        curvature = float(np.einsum("pi,pij,pj->", along, terms.hessian, along))
        step = float((terms.gradient * along).sum()) / max(curvature, np.finfo(float).tiny)
        step = float(np.clip(step, -slope, slope / 2))  # at most twice, at least half of it
        slope = max(slope - step, SMALLEST_SLOPE)
        if abs(step) < 1e-8:
            break
    single = [case_terms(one, slope * slopes, slope * offsets, curvature=False).gradient for one in cases]
    gradients = np.array([[(one * along).sum()] for one in single])
    n_patients = len(cases) if groups is None else len(set(groups))
    error = float(np.sqrt(covariance_of_mean(gradients, groups)[0, 0])) / curvature
    reach = float(t.ppf((1 + _LEVEL) / 2, n_patients - 1)) * error if n_patients > 1 else math.nan
    identity = CalibrationMap.identity(found.num_structures, found.regions).tables()
    losses = (case_loss(pooled, *tables) for tables in (identity, (slopes, offsets), (slope * slopes, slope * offsets)))
    return LastSlope(slope, slope - reach, slope + reach, len(cases), n_patients, *losses)
