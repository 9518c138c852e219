"""Which scans are unusual: predicted Dice of each structure among that of held-out scans, and the worst of a scan.

The rank of a structure's predicted Dice x is F(x), the share of the held-out patients with a lower or equal one. The
score of a scan is the smallest rank of its structures. Many structures make a low rank likely, so the score itself is
judged among those of the held-out scans, each ranked among the other patients.

Between held-out values F is linear. At a distance d below the lowest it is F(lowest) s / (s + d), with their standard
deviation s: else every scan that is the lowest in some structure had the score 0, and with many structures and few
patients no scan could be lower than nine in ten.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np

from nnunet_nacl.calibration.dice_estimate import quantile
from nnunet_nacl.json_files import Array

_LEAST = 1e-3  # of the standard deviation: where all are alike, rounding is no difference


@dataclass(frozen=True, eq=False)
class ScanScores:
    """Predicted Dice of held-out scans, of the structures whose predicted Dice tells more than a constant.

    Attributes:
        predicted: By structure (n,) predicted Dice of each scan; NaN where the structure was not segmented.
        patient: (n,) to whom each scan belongs, numbers from 0. Patients weigh the same.
    """

    predicted: dict[str, list[float]]
    patient: Annotated[np.ndarray, Array(np.int64)]

    def __post_init__(self) -> None:
        if any(len(values) != len(self.patient) for values in self.predicted.values()):
            raise ValueError("predicted and patient must be of the same scans")

    @classmethod
    def learn(cls, predicted: Mapping[str, np.ndarray], patients: Sequence[Hashable]) -> ScanScores:
        """Of (n,) predicted Dice by structure, and to whom each of the n held-out scans belongs."""
        number = {name: i for i, name in enumerate(dict.fromkeys(patients))}
        rounded = {key: np.round(values, 4).tolist() for key, values in predicted.items()}  # the file stays small
        return cls(rounded, np.array([number[name] for name in patients], int))

    def rank(self, key: str, predicted: float) -> float:
        """Share of the held-out patients with a lower or equal predicted Dice; NaN where nothing is known."""
        return float(_share(predicted, *self._curves[key])) if key in self._curves else math.nan

    @cached_property
    def _curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {key: _curve(np.array(values), self.patient) for key, values in self.predicted.items()}

    @cached_property
    def lowest_tenth(self) -> float:
        """Score that a tenth of the held-out patients do not exceed; NaN with fewer than two, or no structure."""
        scores = np.full(len(self.patient), math.nan)
        for number in np.unique(self.patient):
            own = self.patient == number
            for values in map(np.array, self.predicted.values()):
                scores[own] = np.fmin(scores[own], _share(values[own], *_curve(values[~own], self.patient[~own])))
        known = ~np.isnan(scores)
        return quantile(scores[known], _weights(self.patient[known]), 0.1) if known.any() else math.nan


def _weights(patient: np.ndarray) -> np.ndarray:
    """(n,) of each scan: patients weigh the same, together 1."""
    return 1 / np.bincount(patient)[patient] / len(np.unique(patient))


def _curve(values: np.ndarray, patient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of (n,) values, rising, and F there; NaN without any value, whatever the place."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(1), np.full(1, math.nan)
    nodes, which = np.unique(values[known], return_inverse=True)
    return nodes, np.cumsum(np.bincount(which, _weights(patient[known])))


def _share(x: Any, nodes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """F(x), see above; NaN where x is."""
    mass = np.diff(shares, prepend=0)
    spread = _LEAST + np.sqrt(mass @ (nodes - mass @ nodes) ** 2)
    return np.interp(x, nodes, shares) * spread / (spread + np.maximum(nodes[0] - x, 0))
