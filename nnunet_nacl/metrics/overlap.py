"""Overlap of two segmentations (Dice, IoU) as nnU-Net defines it, and what segmentations find of a
structure and of its connected components, such as lesions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from scipy import ndimage

from nnunet_nacl.utilities.json_types import Share


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


class FoundComponents(NamedTuple):
    """Components of a truth and of a segmentation, and how many of them touch each other.

    A component is touched where it shares a voxel with the other side.

    Attributes:
        true: Components of the truth.
        touched: Those of them that the segmentation touches.
        false: Components of the segmentation that the truth does not touch.
    """

    true: int
    touched: int
    false: int

    @property
    def recall(self) -> float:
        """touched / true, the share of the true components that is found; NaN without any."""
        return self.touched / self.true if self.true else math.nan

    @property
    def f1(self) -> float:
        """2 touched / (2 touched + missed + false), missed = true - touched.

        It is 0 where one side alone is empty, and NaN where both are, as Dice.
        """
        total = self.true + self.touched + self.false
        return 2 * self.touched / total if total else math.nan


def number_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected components of a mask; voxels that touch at a corner are connected.

    These are 26 neighbours in 3D and 8 in 2D.

    Args:
        mask: Booleans of any shape.

    Returns:
        int32 of that shape: the component that a voxel lies in, from 1 in the order of their first
        voxels; 0 outside the mask. And how many components there are.
    """
    component_map, n_components = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return component_map, n_components


def count_found(
    true_components: np.ndarray, predicted_components: np.ndarray, n_true: int, n_predicted: int
) -> FoundComponents:
    """Count which components touch one of the other side.

    Args:
        true_components: Numbers of the components of the truth, as :func:`number_components` gives
            them, in a part of the image that holds every voxel that both sides have.
        predicted_components: The same of the segmentation, in the same part.
        n_true: How many components the whole truth has.
        n_predicted: How many the whole segmentation has.
    """
    is_shared = (true_components > 0) & (predicted_components > 0)
    return FoundComponents(
        true=n_true,
        touched=_count_different(true_components[is_shared], n_true),
        false=n_predicted - _count_different(predicted_components[is_shared], n_predicted),
    )


def _count_different(numbers: np.ndarray, largest: int) -> int:
    occurs = np.zeros(1 + largest, bool)
    occurs[numbers] = True
    return int(np.count_nonzero(occurs))
