"""A map fitted to arrays in memory: for probabilities that nnU-Net's folders do not hold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.case.sampling import draw_sample
from nnunet_nacl.numbers.case_voxels import HeldOutCase, pack
from nnunet_nacl.numbers.crossfit import CrossFit, choose, cross_fit, parts_of
from nnunet_nacl.numbers.fitting import case_loss
from nnunet_nacl.numbers.log_odds_map import log_odds, most_probable, network_box


@dataclass(frozen=True)
class ArrayFit:
    """What came of a fit.

    Attributes:
        tried: Each form and ridge.
        chosen: That in use.
        patients: Of each case, as text.
        parts: Part of each case in the cross-fit.
        nll: Mean over cases under the chosen map, in nats per voxel.
    """

    tried: list[CrossFit]
    chosen: CrossFit
    patients: list[str]
    parts: list[str]
    nll: float


def fit_arrays(
    probabilities: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    groups: Sequence[Hashable] | None,
    form: str,
    regions: bool,
) -> ArrayFit:
    """See :meth:`nnunet_nacl.calibrate.calibration_map.CalibrationMap.fit`."""
    if len(probabilities) != len(labels) or groups is not None and len(groups) != len(labels):
        raise ValueError(f"one label map, and group, is needed for each of {len(probabilities)} cases.")
    voxels = [draw_sample(_case(np.asarray(p), np.asarray(y), regions)).voxels() for p, y in zip(probabilities, labels)]
    patients = [str(group) for group in (range(len(labels)) if groups is None else groups)]
    parts = parts_of(patients)
    tried = cross_fit(voxels, parts, groups=patients)
    chosen = choose(tried, form)
    nll = float(np.mean([case_loss(case, chosen.map) for case in voxels]))
    return ArrayFit(tried, chosen, patients, parts, nll)


def _case(probs: np.ndarray, labels: np.ndarray, regions: bool) -> HeldOutCase:
    """The voxels of a case inside the network's crop."""
    expected = probs.shape if regions else probs.shape[1:]
    highest = 1 if regions else len(probs) - 1
    if labels.shape != expected or labels.min(initial=0) < 0 or labels.max(initial=0) > highest:
        raise ValueError(
            f"labels must have the shape {expected} and values from 0 to {highest}, got {labels.shape} with "
            f"{labels.min(initial=0)} to {labels.max(initial=0)}."
        )
    if (box := network_box(probs, regions)) is None:
        raise ValueError("nothing but certain background; leave this case out.")
    odds = log_odds(probs[(slice(None), *box)], regions).flatten(1)
    inside = probs[(slice(None), *box)].reshape(len(probs), -1)
    chosen: np.ndarray = np.asarray(most_probable(_tensor(inside), regions))
    if regions:
        target = pack(labels[(slice(None), *box)].reshape(len(labels), -1).astype(bool), len(labels))
        label = pack(chosen, len(labels))
    else:
        kind = np.uint8 if len(probs) <= 256 else np.uint16
        target, label = labels[box].ravel().astype(kind), chosen.astype(kind)
    masks, outside = np.zeros(len(target), np.uint8), np.zeros((0, 3), np.int64)
    return HeldOutCase(target, label, masks, outside, regions, lambda: iter([odds]))


def _tensor(values: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))
