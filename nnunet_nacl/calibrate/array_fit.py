"""A map fitted to arrays in memory: for probabilities that nnU-Net's folders do not hold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.case.probabilities import SavedProbabilities
from nnunet_nacl.case.sample import draw_sample
from nnunet_nacl.numbers.case_voxels import Voxels, pack
from nnunet_nacl.numbers.crossfit import CrossFit, choose, cross_fit, parts_of
from nnunet_nacl.numbers.fitting import case_loss


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
    voxels = [_voxels(np.asarray(p), np.asarray(y), regions) for p, y in zip(probabilities, labels)]
    patients = [str(group) for group in (range(len(labels)) if groups is None else groups)]
    parts = parts_of(patients)
    tried = cross_fit(voxels, parts, groups=patients)
    chosen = choose(tried, form)
    nll = float(np.mean([case_loss(case, chosen.map) for case in voxels]))
    return ArrayFit(tried, chosen, patients, parts, nll)


def _voxels(probs: np.ndarray, labels: np.ndarray, regions: bool) -> Voxels:
    """A sample of a case's voxels."""
    expected = probs.shape if regions else probs.shape[1:]
    highest = 1 if regions else len(probs) - 1
    if labels.shape != expected or labels.min(initial=0) < 0 or labels.max(initial=0) > highest:
        raise ValueError(
            f"labels must have the shape {expected} and values from 0 to {highest}, got {labels.shape} with "
            f"{labels.min(initial=0)} to {labels.max(initial=0)}."
        )
    if regions:
        target = pack(labels.astype(bool), len(labels))
    else:
        target = labels.astype(np.uint8 if len(probs) <= 256 else np.uint16)
    return draw_sample(SavedProbabilities(probs, regions), target).voxels()
