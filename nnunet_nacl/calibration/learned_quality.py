"""What a model's held-out cases taught about its Dice and volumes: an estimate a structure, for one way of deciding."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from nnunet_nacl.calibration.dice_estimate import DEFAULT_ALPHA, StructureEstimate
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import mismatch

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
        if delivered not in DELIVERED:
            raise ValueError(f"delivered must be one of {', '.join(DELIVERED)}, got {delivered!r}.")
        dice, volume = {}, {}
        for name, s in structures.items():
            dice[name] = StructureEstimate.fit(s.expected_dice, s.true_dice, patients, alpha=alpha)
            volume[name] = StructureEstimate.fit(
                s.expected_volume, s.true_volume, patients, alpha=alpha, bounds=(0, np.inf)
            )
        return cls(delivered, as_deployed, dice, volume)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        estimates = {kind: {k: e.to_json() for k, e in getattr(self, kind).items()} for kind in ("dice", "volume")}
        return {"delivered": self.delivered, "as_deployed": self.as_deployed} | estimates

    @classmethod
    def from_json(cls, content: Any, source: str = "the quality estimate") -> LearnedQuality:
        """The reverse of ``to_json``; UserError, which names ``source``, if that is no such object."""
        problem = mismatch(content, {"delivered": str, "as_deployed": bool, "dice": dict, "volume": dict})
        if not problem and content["delivered"] not in DELIVERED:
            problem = f"delivered is {content['delivered']!r}"
        if problem:
            raise UserError(f"{source} is not one of this package's quality estimates: {problem}; calibrate again.")
        values = {field.name: content[field.name] for field in fields(cls)}
        for kind in ("dice", "volume"):
            values[kind] = {
                k: StructureEstimate.from_json(e, f"{source}, {kind} of {k}") for k, e in content[kind].items()
            }
        return cls(**values)
