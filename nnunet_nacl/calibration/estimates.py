"""Values of one case from its sample: weighted estimates with standard errors, where the probabilities are gone."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.sampling import MASK_BITS, Sample, unpack

__all__ = ["estimate_values"]

_SMALLEST = float(np.finfo(np.float32).tiny)
_GROUPS = 20


def estimate_values(
    sample: Sample, calibration: AffineMap, keys: list[str], regions_order: list[int] | None = None, n_bins: int = 15
) -> dict[str, tuple[float, float]]:
    """ECE, NLL, Brier score on each mask and Dice of each structure, under a map.

    The mask ``predicted`` is that of the calibrated prediction, and so is its part of ``union``.

    Args:
        sample: Of the case.
        calibration: The map.
        keys: nnU-Net's key of each structure, in order; a region's is the text of its labels.
        regions_order: Unused for classes; for regions nnU-Net's ``regions_class_order``.
        n_bins: Confidence bins.

    Returns:
        Value and standard error, over draws of the sample (delete-a-group jackknife within strata; strata that were
        drawn whole have none), by the names of ``case_values``.
    """
    table = _Table.of(sample, calibration, regions_order, keys)
    values = table.values(table.weights, keys, n_bins)
    group = np.random.default_rng(0).permutation(len(sample.stratum)) % _GROUPS
    drawn, there = sample.drawn_of.T
    random = np.concatenate([(drawn < there)[sample.stratum], np.zeros(len(sample.outside), dtype=bool)])
    group = np.concatenate([group, np.full(len(sample.outside), -1)])
    replicates = []
    if random.any():
        for number in range(_GROUPS):
            gone = random & (group == number)
            weights = np.where(gone, 0.0, np.where(random, table.weights * _GROUPS / (_GROUPS - 1), table.weights))
            replicates.append(table.values(weights, keys, n_bins))
    result = {}
    for name, value in values.items():
        each = np.array([one[name] for one in replicates]) if replicates else np.array([value])
        spread = np.nansum((each - np.nanmean(each)) ** 2) if np.isfinite(each).any() else float("nan")
        result[name] = (value, float(np.sqrt((_GROUPS - 1) / _GROUPS * spread)))
    return result


class _Table:
    """One row per sampled voxel, and one per kind of voxel outside the crop, which stays background for certain."""

    def __init__(self, probs, truth, bits, weights, segmented, regions: bool) -> None:
        self.probs, self.truth, self.bits, self.weights, self.segmented = probs, truth, bits, weights, segmented
        self.regions = regions

    @classmethod
    def of(cls, sample: Sample, calibration: AffineMap, order: list[int] | None, keys: list[str]) -> _Table:
        num, regions = len(sample.log_odds), sample.regions
        inside = calibration.to_probabilities(torch.from_numpy(sample.log_odds.astype(np.float64))).numpy()
        outside = np.zeros((len(inside), len(sample.outside)))
        if not regions:
            outside[0] = 1
        probs = np.concatenate([inside, outside], 1)
        codes = np.concatenate([sample.target.astype(np.uint64), sample.outside[:, 0].astype(np.uint64)])
        if regions:
            truth = unpack(codes, num).astype(bool)
            painted = np.zeros(probs.shape[1], dtype=np.int64)
            for row, label in zip(probs, order or []):
                painted[row > 0.5] = label
            members = [[int(v) for v in key.strip("()").split(",") if v.strip()] for key in keys]
            segmented = np.stack([np.isin(painted, values) for values in members])
            predicted = (probs > 0.5).any(0)
        else:
            truth = codes[None] == np.arange(num + 1, dtype=np.uint64)[:, None]
            best = probs.argmax(0)
            segmented = best[None] == np.arange(1, num + 1)[:, None]
            predicted = best != 0
        bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
        place = {name: np.uint8(1 << i) for i, name in enumerate(MASK_BITS)}
        foreground = (bits & place["foreground"]) != 0
        masks = {name: (bits & bit) != 0 for name, bit in place.items()}
        masks |= {"predicted": predicted, "union": predicted | foreground, "all": np.ones_like(foreground)}
        weights = np.concatenate([sample.weights, sample.outside[:, 2].astype(np.float64)])
        return cls(probs, truth, masks, weights, segmented, regions)

    def values(self, weights: np.ndarray, keys: list[str], n_bins: int) -> dict[str, float]:
        probs, truth = self.probs, self.truth
        if self.regions:
            confidence, right = np.maximum(probs, 1 - probs), (probs > 0.5) == truth
            own = np.where(truth, probs, 1 - probs)
            squares = 2 * (probs - truth) ** 2
        else:
            best = probs.argmax(0)
            confidence = np.take_along_axis(probs, best[None], 0)
            right = np.take_along_axis(truth, best[None], 0)
            own = (probs * truth).sum(0)[None]
            squares = ((probs - truth) ** 2).sum(0)[None]
        loss = -np.log(np.maximum(own, _SMALLEST))
        bins = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
        result = {}
        for name, mask in self.bits.items():
            w = weights * mask
            total = w.sum()
            rows = [np.abs(np.bincount(b, w * (c - r), n_bins)).sum() for b, c, r in zip(bins, confidence, right)]
            for value, sums in (("ECE", np.mean(rows)), ("NLL", (loss @ w).mean()), ("Brier", (squares @ w).mean())):
                result[f"{value} {name}"] = float(sums / total) if total else float("nan")
        inside = truth if self.regions else truth[1:]
        for key, true, found in zip(keys, inside, self.segmented):
            size = weights @ true + weights @ found
            result[f"Dice {key}"] = float(2 * (weights @ (true & found)) / size) if size else float("nan")
        return result
