"""What calibration changes: each value before and after, with intervals over cases or patients, and the table of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.calibration_map import CalibrationMap, is_certain, most_probable, probabilities
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.metrics.bootstrap import mean_interval


def changes(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    groups: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare values of the same cases, by name.

    Args:
        before: One value per case, NaN where undefined.
        after: Of the same cases in the same order, cross-fitted.
        groups: Patient of each case; None: each case its own.

    Returns:
        For each name ``before``, ``after`` and ``difference`` (after less before), each a ``mean`` over the ``n`` cases
        where both are defined with the ends ``low`` and ``high`` of its 95 % bootstrap interval.
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
        result[name] = row
    return result


@dataclass(frozen=True)
class CertainBackground:
    """What no map changes, since no structure has a probability above one in a million there.

    Attributes:
        voxels: Share of the voxels that the network saw.
        expected_volume: Share of the expected volume of all structures: what the map cannot calibrate.
    """

    voxels: float
    expected_volume: float


def certain_background(cases: Iterable[Voxels]) -> CertainBackground:
    """Shares over the (weighted) voxels of cases; 0 where there is nothing."""
    inside, total = np.zeros(2), np.zeros(2)
    for voxels in cases:
        weights, odds = voxels.all_weights, voxels.log_odds.double()
        expected = probabilities(odds, voxels.regions)[0 if voxels.regions else 1 :].sum(0) * weights
        for values, of in zip((weights, expected), (0, 1)):
            inside[of] += float(values[is_certain(odds)].sum())
            total[of] += float(values.sum())
    return CertainBackground(*(inside / np.where(total > 0, total, 1)).tolist())


@dataclass(frozen=True)
class Relabelled:
    """What a map would change in the most probable labels if it were written into the checkpoints.

    Attributes:
        n_structure: Voxels of structures in the network's labels.
        n_changed: Voxels that get another label.
        dice: Mean change of Dice over structures of cases.
    """

    n_structure: float
    n_changed: float
    dice: float


def relabelled(cases: Iterable[Voxels], calibration: CalibrationMap) -> Relabelled:
    """Count over the (weighted) voxels of cases what a map does to the most probable labels."""
    found, differences = np.zeros(2), []
    for voxels in cases:
        weights, regions = voxels.all_weights, voxels.regions
        probs = calibration.to_probabilities(voxels.log_odds.double(), voxels.label)
        labels = [voxels.label, most_probable(probs, regions), voxels.target]
        if regions:
            old, new, true = (one.bool() for one in labels)
        else:
            old, new, true = (one[None] == torch.arange(1, len(probs))[:, None] for one in labels)
        found += float(weights @ old.any(0).double()), float(weights @ (old != new).any(0).double())
        true = true.double()
        before, after = (2 * (one.double() * true) @ weights / ((one.double() + true) @ weights) for one in (old, new))
        differences += [float(one) for one in after - before if not one.isnan()]
    return Relabelled(float(found[0]), float(found[1]), float(np.mean(differences)) if differences else math.nan)
