"""What calibration changes: each value before and after, with intervals over cases or patients, and the table of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.metrics.bootstrap import mean_interval

__all__ = ["CONFIDENT", "changes", "confident_changes"]

CONFIDENT = 0.9


def changes(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    errors: Mapping[str, Sequence[float]] | None = None,
    groups: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare values of the same cases, by name.

    Args:
        before: One value per case, NaN where undefined.
        after: Of the same cases in the same order, cross-fitted.
        errors: Standard error of each value after, where they are estimates from samples.
        groups: Patient of each case; None: each case its own.

    Returns:
        For each name ``before``, ``after`` and ``difference`` (after less before), each a ``mean`` over the ``n`` cases
        where both are defined with the ends ``low`` and ``high`` of its 95 % bootstrap interval; and, with ``errors``,
        ``sampling_error``, the standard error of the mean after that comes from samples.
    """
    result = {}
    for name, first in before.items():
        pair = np.array([first, after[name]], dtype=np.float64)
        both = ~np.isnan(pair).any(0)
        old, new = pair[:, both]
        patients = None if groups is None else np.asarray(groups)[both].tolist()
        row: dict[str, Any] = {}
        for kind, values in (("before", old), ("after", new), ("difference", new - old)):
            found = mean_interval(values, n_bootstrap=10_000, seed=0, groups=patients)
            row[kind] = {"mean": found.mean, "low": found.low, "high": found.high}
        row["n"] = int(both.sum())
        if errors is not None:
            row["sampling_error"] = float(np.linalg.norm(np.asarray(errors[name])[both]) / max(1, row["n"]))
        result[name] = row
    return result


def confident_changes(cases: Iterable[Voxels], calibration: AffineMap) -> tuple[float, float]:
    """Foreground voxels with a probability above ``CONFIDENT``, and how many of them have another label under a map."""
    found = np.zeros(2)
    for voxels in cases:
        odds = voxels.log_odds.double()
        weights = torch.ones(odds.shape[1]) if voxels.weights is None else voxels.weights
        identity = AffineMap.identity(len(odds), calibration.regions)
        first, second = identity.to_probabilities(odds), calibration.to_probabilities(odds)
        if calibration.regions:
            sure, other = (first > CONFIDENT).any(0), ((first > CONFIDENT) & (second <= 0.5)).any(0)
        else:
            sure = (first.max(0)[0] > CONFIDENT) & (first.argmax(0) != 0)
            other = sure & (first.argmax(0) != second.argmax(0))
        found += float(weights[sure].sum()), float(weights[other].sum())
    return float(found[0]), float(found[1])
