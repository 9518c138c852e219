"""Overlap of two segmentations (Dice, IoU) as nnU-Net defines it, and what segmentations find of a
structure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt

from nnunet_nacl.json_types import Share


class Overlap(NamedTuple):
    """Voxels of a structure in truth and prediction, in the prediction alone, in the truth alone,
    in neither."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), as nnU-Net: NaN where the structure is in neither
        segmentation."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), NaN where the structure is in neither segmentation."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else math.nan


def count_overlap(
    truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None
) -> Overlap:
    """Count the agreement of boolean masks of one shape (ValueError if not), where ``valid`` is not
    False."""
    shapes = [mask.shape for mask in (truth, predicted, valid) if mask is not None]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"truth, predicted and valid must have one shape, got {', '.join(map(str, shapes))}."
        )
    total = truth.size
    if valid is not None:
        truth = truth & valid
        predicted = predicted & valid
        total = int(np.count_nonzero(valid))
    tp = np.count_nonzero(truth & predicted)
    fp = np.count_nonzero(predicted) - tp
    fn = np.count_nonzero(truth) - tp
    return Overlap(tp=int(tp), fp=int(fp), fn=int(fn), tn=int(total - tp - fp - fn))


@dataclass(frozen=True)
class Detected:
    """What the segmentations of some cases find of a structure.

    ``dice`` is the mean over the ``n_there`` cases whose truth has it, 0 where it was ``missed``;
    NaN without such a case. In ``invented`` of the ``n_absent`` others the segmentation has it.
    """

    dice: Share
    n_there: NonNegativeInt
    missed: NonNegativeInt
    n_absent: NonNegativeInt
    invented: NonNegativeInt

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Detected:
        """Of a row for each case, with ``TP``, ``FP``, ``FN`` and ``Dice``."""
        in_truth = rows.TP + rows.FN > 0
        in_segmentation = rows.TP + rows.FP > 0
        return cls(
            dice=float(rows.Dice[in_truth].mean()),
            n_there=int(in_truth.sum()),
            missed=int((in_truth & ~in_segmentation).sum()),
            n_absent=int((~in_truth).sum()),
            invented=int((~in_truth & in_segmentation).sum()),
        )
