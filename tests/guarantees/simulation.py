"""What the simulations of guarantees share: patients with several scans, and three standard errors.

Each test draws calibration patients and new ones of one kind, learns from the first what a command
would learn, and looks what comes of the others. Scans of a patient are alike, and how many there
are depends on what is measured: to count scans for patients then gives wrong values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 400


def mean_over_patients(values: np.ndarray, patients: np.ndarray) -> float:
    """Mean over patients of the mean of each patient's values; NaN without any."""
    number = np.unique(patients, return_inverse=True)[1]
    if not len(number):
        return math.nan
    return float(np.mean(np.bincount(number, values) / np.bincount(number)))


def is_at_least(by_draw: ArrayLike, bound: ArrayLike) -> bool:
    """Whether the mean over draws reaches the bound, which may vary by draw, minus three standard
    errors."""
    excess = np.asarray(by_draw, float) - np.asarray(bound, float)
    assert len(excess) >= DRAWS
    return bool(excess.mean() >= -3 * excess.std() / math.sqrt(len(excess)))


def is_at_most(by_draw: ArrayLike, bound: ArrayLike) -> bool:
    """Whether the mean over draws keeps to the bound plus three standard errors."""
    return is_at_least(-np.asarray(by_draw, float), -np.asarray(bound, float))
