"""What is done to a case before it is looked at: its probabilities are calibrated, its segmentation is decided anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.decision import Decision, decide
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.probabilities import CalibratedProbabilities

__all__ = ["RULES", "Treatment", "decide_case"]

RULES = ("argmax", "dice")
"""Of decision: the most probable labels, or the segmentation with the highest expected Dice."""

_DECISION = 1  # raise it when a decision changes for the same probabilities


@dataclass(frozen=True)
class Treatment:
    """A calibration map, a rule of decision, or both: a view of a case that computes when it is asked.

    Attributes:
        map: Of the probabilities; None leaves them.
        rule: One of ``RULES``; None leaves the segmentation, unless a map changes what it follows from: then the most
            probable labels.
    """

    map: AffineMap | None = None
    rule: str | None = None

    def __call__(self, case: Case) -> Case:
        """The case so treated. Its truth stays, and so do the masks around it.

        Raises:
            ValueError: The case has no probabilities, or they are not probabilities.
        """
        case = self.before_decision(case)
        return replace(case, segmentation=decide_case(case)[0]) if self.rule == "dice" else case

    def before_decision(self, case: Case) -> Case:
        """The case as a decision for Dice finds it; else :meth:`__call__`'s."""
        if self.map is not None:
            case = replace(case, probabilities=CalibratedProbabilities(case.probabilities, self.map))
        if self.rule == "dice" or (self.rule is None and self.map is None):
            return case
        return replace(case, segmentation=case.labels.label_map(case.probabilities.whole()))

    def to_json(self) -> dict[str, Any]:
        """What results under it depend on, in JSON values; empty where nothing is done."""
        made: dict[str, Any] = {"decision": _DECISION} if self.rule == "dice" else {}
        return made | ({} if self.map is None else {"map": [self.map.slopes.tolist(), self.map.offsets.tolist()]})


def decide_case(case: Case) -> tuple[np.ndarray, Decision]:
    """(*spatial) label map with the highest expected Dice, and the decision that led to it.

    Raises:
        ValueError: There are no probabilities, or they are not probabilities.
    """
    box, probs = case.probabilities.inside()
    labels = case.labels
    decision = decide(probs, regions=labels.values if labels.regions else None, region_labels=labels.order or None)
    segmentation = np.zeros(case.probabilities.shape, decision.segmentation.dtype)
    segmentation[box] = decision.segmentation
    return segmentation, decision
