"""What a segmentation finds of the connected components of a structure, such as lesions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage


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
    """How many different numbers, from 1 to the largest, there are."""
    occurs = np.zeros(1 + largest, bool)
    occurs[numbers] = True
    return int(np.count_nonzero(occurs))
