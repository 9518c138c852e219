"""What is done to a case before it is looked at: its probabilities are calibrated, its segmentation is decided anew.

A map by itself changes no label: what nnU-Net chose is delivered, and its calibrated probability is the confidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from nnunet_nacl.calibration.decision import Decision, decide
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.presence import LearnedPresence
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.case import Case
from nnunet_nacl.io.probabilities import CalibratedProbabilities
from nnunet_nacl.json_files import encode
from nnunet_nacl.metrics.expected_dice import ProbabilityHistogram

_DECISION = 4  # raise it when a decision changes for the same probabilities


@dataclass(frozen=True)
class Treatment:
    """A calibration map, a rule of decision, or both: a view of a case that computes when it is asked.

    Attributes:
        map: Of the probabilities; None leaves them.
        beta: The segmentation becomes that with the highest expected F-beta; 1 for Dice. None leaves it.
        presence: What is known of what is there, for decisions; None: nothing.
    """

    map: LogOddsMap | None = None
    beta: float | None = None
    presence: LearnedPresence | None = None

    @property
    def rule(self) -> str | None:
        """``dice``, ``fbeta 2`` and so on; None where the segmentation is left."""
        return None if self.beta is None else "dice" if self.beta == 1 else f"fbeta {self.beta:g}"

    def __call__(self, case: Case) -> Case:
        """The case so treated. Its truth stays, and so do the masks around it.

        Raises:
            ValueError: The case has no probabilities, or they are not probabilities.
        """
        case = self.before_decision(case)
        return replace(case, segmentation=decide_case(case, self.beta, self.presence)[0]) if self.beta else case

    def before_decision(self, case: Case) -> Case:
        """The case with its probabilities calibrated, and the segmentation that was predicted."""
        if self.map is None:
            return case
        return replace(case, probabilities=CalibratedProbabilities(case.probabilities, self.map))

    def to_json(self) -> dict[str, Any]:
        """What results under it depend on, in JSON values; empty where nothing is done."""
        made: dict[str, Any] = {"rule": self.rule} if self.rule else {}
        if self.presence is not None:  # but for how it does on others, which no result depends on
            learned = encode(self.presence).items()
            made["presence"] = {key: value for key, value in learned if key not in ("checks", "why_not")}
        made |= {"decision": _DECISION} if made else {}
        return made | ({} if self.map is None else {"map": [self.map.slopes.tolist(), self.map.offsets.tolist()]})


def beta_of(decide: str | None, beta: float | None = None) -> float | None:
    """Beta of a decision by its name.

    Args:
        decide: ``dice``, ``fbeta``, or None for no decision.
        beta: How many times as much recall weighs as precision, for ``fbeta``; default 2.

    Raises:
        UserError: There is no such decision, ``beta`` is no positive number, or is given without ``fbeta``.
    """
    if decide not in (None, "dice", "fbeta"):
        raise UserError(f"a decision must be dice or fbeta, got {decide!r}.")
    if beta is not None and decide != "fbeta":
        raise UserError(f"-beta {beta:g} belongs to -decide fbeta.")
    if beta is not None and not 0 < beta < math.inf:
        raise UserError(f"-beta must be a number above 0, got {beta:g}.")
    return {None: None, "dice": 1.0}.get(decide, 2.0 if beta is None else float(beta))


def decide_case(case: Case, beta: float = 1.0, presence: LearnedPresence | None = None) -> tuple[np.ndarray, Decision]:
    """(*spatial) label map with the highest expected F-beta (1: Dice), and the decision that led to it.

    Args:
        case: With its probabilities.
        beta: See :func:`~nnunet_nacl.calibration.decision.decide`.
        presence: What was learned about which structures are there; None where nothing was.

    Raises:
        ValueError: There are no probabilities, or they are not probabilities.
    """
    labels, box = case.labels, case.probabilities.box
    probs = case.probabilities.filled(box)
    decision = decide(
        probs,
        regions=labels.region_values,
        region_labels=labels.order or None,
        beta=beta,
        present=None if presence is None else present_in(case, presence),
    )
    segmentation = np.zeros(case.probabilities.shape, decision.segmentation.dtype)
    segmentation[box] = decision.segmentation
    return segmentation, decision


def present_in(case: Case, presence: LearnedPresence) -> np.ndarray:
    """(S,) probability that each structure is in a case, by what the network says of it, before any map.

    NaN where nothing was learned of a structure, or volumes have another unit than those of the cases that taught it;
    and with an ignore label, under which a structure may be where nobody annotated it.
    """
    labels = case.labels
    keys, known = [labels.key(channel) for channel in labels.foreground], presence.unit == case.geometry.unit
    if not known or labels.ignore_label is not None or not presence.present.keys() & set(keys):
        return np.full(len(keys), math.nan)
    blocks = (probs[labels.foreground[0] :] for _, probs in case.probabilities.network.blocks())
    histogram = reduce(add, map(ProbabilityHistogram.of, blocks))
    numbers = zip(keys, histogram.expected * case.geometry.voxel_size, histogram.largest_dice)
    return np.array([presence.present_probability(*each) for each in numbers])
