"""Values of one case from its sample: weighted estimates with standard errors, where the probabilities are gone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.case_voxels import MASK_BITS, unpack
from nnunet_nacl.calibration.sampling import Sample

__all__ = ["estimate_values"]

_SMALLEST = float(np.finfo(np.float32).tiny)
_GROUPS = 20


def estimate_values(
    sample: Sample,
    calibration: AffineMap,
    keys: list[str],
    regions_order: list[int] | None = None,
    n_bins: int = 15,
    *,
    before: Mapping[str, float] | None = None,
) -> dict[str, tuple[float, float]]:
    """ECE, NLL, Brier score on each mask and Dice of each structure, under a map.

    The mask ``predicted`` is that of the calibrated prediction, and so is its part of ``union``.

    Args:
        sample: Of the case.
        calibration: The map.
        keys: nnU-Net's key of each structure, in order; a region's is the text of its labels.
        regions_order: Unused for classes; for regions nnU-Net's ``regions_class_order``.
        n_bins: Confidence bins.
        before: Values of all voxels without the map, by name. With them only the change is taken from the sample, whose
            chance is nearly the same before and after: under a temperature no Dice changes, in no sample.

    Returns:
        Value and standard error, over draws of the sample (delete-a-group jackknife within strata; strata that were
        drawn whole have none), by the names of ``case_values``.
    """
    values = _replicated(sample, calibration, regions_order or [], keys, n_bins)
    if before is not None:
        identity = AffineMap.identity(len(sample.log_odds), calibration.regions)
        first = _replicated(sample, identity, regions_order or [], keys, n_bins)
        values = {name: before[name] + (after - first[name]) for name, after in values.items()}
    result = {}
    for name, (value, *others) in values.items():
        defined = np.array([one for one in others if np.isfinite(one)] or [np.nan if others else 0.0])
        spread = ((defined - defined.mean()) ** 2).sum()
        result[name] = (float(value), float(np.sqrt((_GROUPS - 1) / _GROUPS * spread)))
    return result


def _replicated(
    sample: Sample, calibration: AffineMap, regions_order: list[int], keys: list[str], n_bins: int
) -> dict[str, np.ndarray]:
    """(1 + G,) each value by the whole sample, and without each group."""
    probs, truth, segmented, masks, weights = _rows(sample, calibration, regions_order, keys)
    every = _replicates(sample, weights)
    if sample.regions:
        confidence, right = np.maximum(probs, 1 - probs), (probs > 0.5) == truth
        own = np.where(truth, probs, 1 - probs)
        squares = (2 * (probs - truth) ** 2).mean(0)
    else:
        best = probs.argmax(0)[None]
        confidence, right = np.take_along_axis(probs, best, 0), np.take_along_axis(truth, best, 0)
        own = (probs * truth).sum(0)[None]
        squares = ((probs - truth) ** 2).sum(0)
    loss = -np.log(np.maximum(own, _SMALLEST)).mean(0)
    bins = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    values = {}
    with np.errstate(invalid="ignore"):  # 0 / 0 where a mask or a structure is empty
        for name, mask in masks.items():
            w = every * mask
            gaps = [[np.bincount(b, one * g, n_bins) for b, g in zip(bins, confidence - right)] for one in w]
            values[f"ECE {name}"] = np.abs(gaps).sum(2).mean(1) / w.sum(1)
            values[f"NLL {name}"] = w @ loss / w.sum(1)
            values[f"Brier {name}"] = w @ squares / w.sum(1)
        for key, true, found in zip(keys, truth[-len(keys) :], segmented):
            values[f"Dice {key}"] = 2 * (every @ (true & found)) / (every @ true + every @ found)
    return values


def _replicates(sample: Sample, weights: np.ndarray) -> np.ndarray:
    """(1 + G, N) the weights, and those without each group of what was drawn by chance; G is 0 if nothing was."""
    drawn, there = sample.drawn_of.T
    group = np.random.default_rng(0).permutation(len(sample.stratum)) % _GROUPS
    group = np.append(np.where((drawn < there)[sample.stratum], group, -1), np.full(len(sample.outside), -1))
    chance = group >= 0
    more = np.where(chance, weights * _GROUPS / (_GROUPS - 1), weights)
    return np.stack([weights, *(np.where(group == g, 0.0, more) for g in range(_GROUPS) if chance.any())])


def _rows(sample: Sample, calibration: AffineMap, order: list[int], keys: list[str]):
    """A column for each sampled voxel, and for each kind of voxel outside the crop, which is background for certain.

    Returns:
        (C, N) probabilities and truth, (m, N) segmentation, masks by name and weights.
    """
    num = len(sample.log_odds)
    inside = calibration.to_probabilities(torch.from_numpy(sample.log_odds.astype(np.float64))).numpy()
    outside = np.zeros((len(inside), len(sample.outside)))
    outside[: 0 if sample.regions else 1] = 1
    probs = np.concatenate([inside, outside], 1)
    codes = np.concatenate([sample.target.astype(np.uint64), sample.outside[:, 0].astype(np.uint64)])
    if sample.regions:
        truth = unpack(codes, num).astype(bool)
        painted = np.zeros(probs.shape[1], dtype=np.int64)
        for row, label in zip(probs, order):
            painted[row > 0.5] = label
        members = [[int(v) for v in key.strip("()").split(",") if v.strip()] for key in keys]
        segmented = np.stack([np.isin(painted, values) for values in members])
        predicted = np.logical_or.reduce(probs > 0.5)
    else:
        truth = codes == np.arange(num + 1, dtype=np.uint64)[:, None]
        segmented = probs.argmax(0) == np.arange(1, num + 1)[:, None]
        predicted = np.logical_or.reduce(segmented)
    bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
    masks = {name: (bits >> i & 1).astype(bool) for i, name in enumerate(MASK_BITS)}
    masks |= {"predicted": predicted, "union": predicted | masks["foreground"], "all": np.ones_like(predicted)}
    return probs, truth, segmented, masks, np.concatenate([sample.weights, sample.outside[:, 2]])
