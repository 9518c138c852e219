"""What segmentations miss and invent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeInt

from nnunet_nacl.json_files import Share

Values = Sequence[float] | np.ndarray


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
    def of(cls, dice: Values, there: Sequence[bool] | np.ndarray, labelled: Sequence[bool] | np.ndarray) -> Detected:
        """Count cases.

        Args:
            dice: (n,) of each case.
            there: (n,) whether the truth has the structure.
            labelled: (n,) whether the segmentation has it.
        """
        d, y, found = np.asarray(dice, float), np.asarray(there, bool), np.asarray(labelled, bool)
        mean = float(d[y].mean()) if y.any() else math.nan
        return cls(mean, int(y.sum()), int((y & ~found).sum()), int((~y).sum()), int((~y & found).sum()))
