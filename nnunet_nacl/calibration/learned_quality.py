"""What a model's held-out cases taught about its Dice and volumes: an estimate a structure, for one way of deciding."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.calibration.dice_estimate import DEFAULT_ALPHA, StructureEstimate

__all__ = ["DELIVERED", "HeldOutStructure", "LearnedQuality"]

DELIVERED = ("argmax", "decided")
"""Which segmentation a quality is that of: their Dice is not the same, and neither is what it is learned from."""


@dataclass(frozen=True, eq=False)
class HeldOutStructure:
    """One structure in cases with ground truth that the network did not train on; a value a case, in one order.

    Attributes:
        expected_dice: Of the delivered segmentation; NaN where it has no such structure.
        true_dice: Likewise; 0 where the truth is empty and the segmentation is not.
        expected_volume: Sum of the probability times the voxel's volume.
        true_volume: In the same unit; 0 where the truth is empty.
    """

    expected_dice: Sequence[float]
    true_dice: Sequence[float]
    expected_volume: Sequence[float]
    true_volume: Sequence[float]


@dataclass(frozen=True, eq=False)
class LearnedQuality:
    """Estimates of Dice and volume.

    Attributes:
        delivered: ``argmax`` or ``decided``: the segmentations that it was learned from and may be asked about.
        as_deployed: Whether they were predicted as they will be in use (a held-out folder). Learned from single
            networks in cross-validation, the intervals say nothing of the prediction that averages the folds.
        dice: By structure.
        volume: By structure.
    """

    delivered: str
    as_deployed: bool
    dice: dict[str, StructureEstimate]
    volume: dict[str, StructureEstimate]

    def __post_init__(self) -> None:
        if self.delivered not in DELIVERED:
            raise ValueError(f"delivered must be one of {', '.join(DELIVERED)}, got {self.delivered!r}.")
        for what, estimates, bounds in (("dice", self.dice, (0, 1)), ("volume", self.volume, (0, np.inf))):
            for name, estimate in estimates.items():
                if estimate.bounds != bounds:
                    raise ValueError(f"{what} of {name} must lie within {bounds}, its bounds are {estimate.bounds}.")

    @classmethod
    def learn(
        cls,
        structures: Mapping[str, HeldOutStructure],
        patients: Sequence[Hashable],
        *,
        delivered: str,
        as_deployed: bool,
        alpha: float = DEFAULT_ALPHA,
    ) -> LearnedQuality:
        """Learn from held-out cases.

        Args:
            structures: Values by structure.
            patients: To whom each case belongs; the cases' names where each is a patient of its own.
            delivered: Which segmentation it is.
            as_deployed: Whether they were predicted as they will be in use.
            alpha: The intervals have level 1 - alpha.

        Raises:
            ValueError: ``delivered`` is neither, or lists differ in length.
        """
        dice, volume = {}, {}
        for name, s in structures.items():
            dice[name] = StructureEstimate.fit(s.expected_dice, s.true_dice, patients, alpha=alpha)
            volume[name] = StructureEstimate.fit(
                s.expected_volume, s.true_volume, patients, alpha=alpha, bounds=(0, np.inf)
            )
        return cls(delivered, as_deployed, dice, volume)
