"""Overlap of segmentations, in nnU-Net's definition, and what they miss and invent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import NonNegativeInt

from nnunet_nacl.json_files import Share


class Overlap(NamedTuple):
    """Voxels of a structure in truth and prediction, in the prediction alone, in the truth alone, in neither."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), as nnU-Net: NaN where the structure is in neither segmentation."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), NaN where the structure is in neither segmentation."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else math.nan


def count_overlap(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None) -> Overlap:
    """Count the agreement of two boolean masks of one shape, where ``valid`` is not False.

    Raises:
        ValueError: The shapes differ.
    """
    shapes = [mask.shape for mask in (truth, predicted, valid) if mask is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"truth, predicted and valid must have one shape, got {', '.join(map(str, shapes))}.")
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    total = truth.size if valid is None else np.count_nonzero(valid)
    tp = np.count_nonzero(truth & predicted)
    fp, fn = np.count_nonzero(predicted) - tp, np.count_nonzero(truth) - tp
    return Overlap(int(tp), int(fp), int(fn), int(total - tp - fp - fn))


@dataclass(frozen=True)
class Detected:
    """What the segmentations of some cases find of a structure.

    Attributes:
        dice: Mean Dice of the cases whose truth has it, 0 where it was missed; NaN without such a case.
        n_there: How many these are.
        missed: In how many of them the segmentation lacks it.
        n_absent: Cases whose truth lacks it.
        invented: In how many of them the segmentation has it.
    """

    dice: Share
    n_there: NonNegativeInt
    missed: NonNegativeInt
    n_absent: NonNegativeInt
    invented: NonNegativeInt

    @classmethod
    def of(cls, dice: Sequence[float], there: Sequence[bool], labelled: Sequence[bool]) -> Detected:
        """Count cases by the Dice of each, whether its truth has the structure, and whether its segmentation has."""
        d, y, found = np.asarray(dice, float), np.asarray(there, bool), np.asarray(labelled, bool)
        mean = float(d[y].mean()) if y.any() else math.nan
        return cls(mean, int(y.sum()), int((y & ~found).sum()), int((~y).sum()), int((~y & found).sum()))
