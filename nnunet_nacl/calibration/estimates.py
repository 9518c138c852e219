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
        Value and standard error over draws of the sample, by the names of ``case_values``. All values are ratios of two
        sums, so the error is that of their linearisation, with the finite-population correction in each stratum
        (Cochran 1977, section 5.6 and 6.3): strata that were drawn whole have none.
    """
    values = _linearised(sample, calibration, regions_order or [], keys, n_bins)
    if before is not None:
        identity = AffineMap.identity(len(sample.log_odds), calibration.regions)
        first = _linearised(sample, identity, regions_order or [], keys, n_bins)
        values = {
            name: (before[name] + (value - first[name][0]), slope - first[name][1])
            for name, (value, slope) in values.items()
        }
    return {name: (float(value), _standard_error(sample, slope)) for name, (value, slope) in values.items()}


def _linearised(
    sample: Sample, calibration: AffineMap, regions_order: list[int], keys: list[str], n_bins: int
) -> dict[str, tuple[float, np.ndarray]]:
    """Each value, and the (N,) change of it by one more voxel like each."""
    probs, truth, segmented, masks, weights = _rows(sample, calibration, regions_order, keys)
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
    values: dict[str, tuple[float, np.ndarray]] = {}

    def add(name: str, upper: np.ndarray, lower: np.ndarray) -> None:
        total = weights @ lower
        with np.errstate(invalid="ignore"):  # 0 / 0 where a mask or a structure is empty
            ratio = (weights @ upper) / total
            values[name] = ratio, (upper - ratio * lower) / total

    for name, mask in masks.items():
        gaps = (confidence - right) * mask
        side = [np.sign(np.bincount(b, weights * g, n_bins))[b] for b, g in zip(bins, gaps)]
        add(f"ECE {name}", (side * gaps).mean(0), mask)
        add(f"NLL {name}", loss * mask, mask)
        add(f"Brier {name}", squares * mask, mask)
    for key, true, found in zip(keys, truth[-len(keys) :], segmented):
        add(f"Dice {key}", 2.0 * (true & found), true.astype(float) + found)
    return values


def _standard_error(sample: Sample, slope: np.ndarray) -> float:
    """Of the sum of what each voxel changes, drawn without replacement within strata."""
    drawn, there = sample.drawn_of.astype(float).T
    of, number = sample.stratum, len(drawn)
    slope = np.where((drawn < there)[of], slope[: len(of)], 0.0)
    mean = np.bincount(of, slope, number) / np.maximum(drawn, 1)
    variance = np.bincount(of, (slope - mean[of]) ** 2, number) / np.maximum(drawn - 1, 1)
    return float(np.sqrt((there * (there - drawn) / np.maximum(drawn, 1) * variance).sum()))


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
