"""What calibration changes: sums of a case under a map, from its sample; values before and after, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.case.sampling import Sample
from nnunet_nacl.json_files import Number, Share
from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.numbers.case_voxels import MASK_BITS, Voxels, unpack
from nnunet_nacl.numbers.counting import count_masks
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, is_certain, probabilities
from nnunet_nacl.numbers.statistics import mean_interval

_FURTHER = ("dilated", "boundary", "near")  # masks that do not follow from truth and labels


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


def changes(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    groups: Sequence[str] | None = None,
) -> dict[str, Change]:
    """Compare values of the same cases, by name.

    Args:
        before: One value per case, NaN where undefined.
        after: Of the same cases in the same order, cross-fitted.
        groups: Patient of each case; None: each case its own.

    Returns:
        For each name the change; NaN for what is not defined, as the interval of a single patient.
    """
    result: dict[str, Change] = {}
    for name, first in before.items():
        pair = np.array([first, after[name]], dtype=np.float64)
        both = ~np.isnan(pair).any(0)
        old, new = pair[:, both]
        patients = None if groups is None else np.asarray(groups)[both].tolist()
        means = (mean_interval(each, n_bootstrap=10_000, seed=0, groups=patients) for each in (old, new, new - old))
        before_, after_, difference = (Interval(mean=each.mean, low=each.low, high=each.high) for each in means)
        result[name] = Change(before=before_, after=after_, difference=difference, n=int(both.sum()))
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
        for values, of in zip((weights, expected), (0, 1)):
            inside[of] += float(values[is_certain(odds)].sum())
            total[of] += float(values.sum())
    return CertainBackground(*(inside / np.where(total > 0, total, 1)).tolist())


def count_sample(
    sample: Sample, calibration: LogOddsMap | None = None, n_bins: int = DEFAULT_N_BINS
) -> dict[str, BinStats]:
    """Sums of all voxels of a case for every mask, as :func:`~nnunet_nacl.numbers.counting.count_masks` gives them.

    The confidence is that of the label that the network chose, which no map changes. Voxels outside the network's crop
    are background for certain.

    Args:
        sample: Of the case.
        calibration: Map of its probabilities; None leaves them.
        n_bins: Confidence bins.

    Returns:
        Unbiased over draws of the sample, by mask.
    """
    voxels = sample.voxels()
    odds = voxels.log_odds.double()
    inside = calibration.to_probabilities(odds, voxels.label) if calibration else probabilities(odds, sample.regions)
    n_outside = len(sample.outside)
    outside = np.zeros((len(inside), n_outside))
    outside[: 0 if sample.regions else 1] = 1
    there = sample.outside[:, 0].astype(sample.target.dtype)
    truth, label = voxels.target.numpy(), voxels.label.numpy()
    if sample.regions:
        truth = np.concatenate([truth, unpack(there, len(truth))], 1).astype(bool)
        label = np.concatenate([label, np.zeros((len(label), n_outside), label.dtype)], 1).astype(bool)
    else:
        truth, label = np.concatenate([truth, there]), np.concatenate([label, np.zeros(n_outside, label.dtype)])
    bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
    return count_masks(
        np.concatenate([inside.numpy(), outside], 1),
        truth,
        segmentation=label,
        extra_masks={name: (bits >> MASK_BITS.index(name) & 1).astype(bool) for name in _FURTHER},
        regions=sample.regions,
        n_bins=n_bins,
        check_values=False,
        weights=np.concatenate([sample.weights, sample.outside[:, 2]]),
    )
