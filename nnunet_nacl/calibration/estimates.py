"""Values of one case from its sample: weighted estimates with standard errors, where the probabilities are gone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnunet_nacl.calibration.calibration_map import CalibrationMap, probabilities
from nnunet_nacl.calibration.case_voxels import MASK_BITS, unpack
from nnunet_nacl.calibration.sampling import Sample

_SMALLEST = float(np.finfo(np.float32).tiny)


def estimate_values(
    sample: Sample,
    calibration: CalibrationMap,
    n_bins: int = 15,
    *,
    before: Mapping[str, float] | None = None,
) -> dict[str, tuple[float, float]]:
    """ECE of the label that the network chose, NLL and Brier score on each mask, under a map, which changes no label.

    Args:
        sample: Of the case.
        calibration: The map.
        n_bins: Confidence bins.
        before: Values of all voxels without the map, by name. With them only the change is taken from the sample, whose
            chance is nearly the same before and after.

    Returns:
        Value and standard error over draws of the sample, by the names of ``case_values``. All values are ratios of two
        sums, so the error is that of their linearisation, with the finite-population correction in each stratum
        (Cochran 1977, section 5.6 and 6.3): strata that were drawn whole have none.
    """
    values = _linearised(sample, calibration, n_bins)
    if before is not None:
        first = _linearised(sample, None, n_bins)
        values = {
            name: (before[name] + (value - first[name][0]), slope - first[name][1])
            for name, (value, slope) in values.items()
        }
    return {name: (float(value), _standard_error(sample, slope)) for name, (value, slope) in values.items()}


def _linearised(sample: Sample, calibration: CalibrationMap | None, n_bins: int) -> dict[str, tuple[float, np.ndarray]]:
    """Each value, and the (N,) change of it by one more voxel like each."""
    probs, truth, label, masks, weights = _rows(sample, calibration)
    if sample.regions:
        confidence, right = np.where(label, probs, 1 - probs), label == truth
        own = np.where(truth, probs, 1 - probs)
        squares = (2 * (probs - truth) ** 2).mean(0)
    else:
        confidence, right = (np.take_along_axis(table, label[None], 0) for table in (probs, truth))
        own = (probs * truth).sum(0)[None]
        squares = ((probs - truth) ** 2).sum(0)
    loss = -np.log(np.maximum(own, _SMALLEST)).mean(0)
    bins = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    values: dict[str, tuple[float, np.ndarray]] = {}

    def add(name: str, upper: np.ndarray, lower: np.ndarray) -> None:
        total = weights @ lower
        with np.errstate(invalid="ignore"):  # 0 / 0 where a mask is empty
            ratio = (weights @ upper) / total
            values[name] = ratio, (upper - ratio * lower) / total

    for name, mask in masks.items():
        gaps = (confidence - right) * mask
        side = [np.sign(np.bincount(b, weights * g, n_bins))[b] for b, g in zip(bins, gaps)]
        add(f"ECE {name}", (side * gaps).mean(0), mask)
        add(f"NLL {name}", loss * mask, mask)
        add(f"Brier {name}", squares * mask, mask)
    return values


def _standard_error(sample: Sample, slope: np.ndarray) -> float:
    """Of the sum of what each voxel changes, drawn without replacement within strata."""
    drawn, there = sample.drawn_of.astype(float).T
    of, number = sample.stratum, len(drawn)
    slope = np.where((drawn < there)[of], slope[: len(of)], 0.0)
    mean = np.bincount(of, slope, number) / np.maximum(drawn, 1)
    variance = np.bincount(of, (slope - mean[of]) ** 2, number) / np.maximum(drawn - 1, 1)
    return float(np.sqrt((there * (there - drawn) / np.maximum(drawn, 1) * variance).sum()))


def _rows(sample: Sample, calibration: CalibrationMap | None):
    """A column for each sampled voxel, and for each kind of voxel outside the crop, which is background for certain.

    Returns:
        (C, N) probabilities and truth, (N,) or (m, N) chosen label, masks by name and weights.
    """
    voxels = sample.voxels()
    odds = voxels.log_odds.double()
    mapped = calibration.to_probabilities(odds, voxels.label) if calibration else probabilities(odds, sample.regions)
    inside = mapped.numpy()
    outside = np.zeros((len(inside), len(sample.outside)))
    outside[: 0 if sample.regions else 1] = 1
    target, there = voxels.target.numpy(), sample.outside[:, 0].astype(sample.target.dtype)
    if sample.regions:
        truth = np.concatenate([target, unpack(there, len(target))], 1).astype(bool)
        label = np.concatenate([voxels.label.numpy(), np.zeros((len(target), len(there)), np.uint8)], 1).astype(bool)
        predicted = np.logical_or.reduce(label)
    else:
        truth = np.concatenate([target, there]) == np.arange(len(inside))[:, None]
        label = np.concatenate([voxels.label.numpy(), np.zeros(len(there), np.int64)])
        predicted = label > 0
    bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
    masks = {name: (bits >> i & 1).astype(bool) for i, name in enumerate(MASK_BITS)}
    masks |= {"predicted": predicted, "union": predicted | masks["foreground"], "all": np.ones_like(predicted)}
    probs = np.concatenate([inside, outside], 1)
    return probs, truth, label, masks, np.concatenate([sample.weights, sample.outside[:, 2]])
