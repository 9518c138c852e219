"""Why a case needs a look, in words: one clause a reason, none where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunet_nacl.documents.review_list import LIKELY, CaseReview, PredictedCase, volume_text

__all__ = ["LOWEST_MEMBERS_DICE", "reasons_to_look"]

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement (Zijdenbos et al.,
IEEE TMI 13, 1994)."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MOST_NAMES = 5


def reasons_to_look(
    review: CaseReview, predicted: PredictedCase | None, threshold: float | None, unlike: Sequence[str]
) -> list[str]:
    """All reasons, the gravest first.

    Args:
        review: The case's row.
        predicted: Its predicted Dice, and what is probably in it; None where nothing is known.
        threshold: A predicted Dice below is a reason; None: no predicted Dice is.
        unlike: How the image differs from the training's.
    """
    present = predicted.present if predicted is not None and predicted.present else [math.nan] * len(review.structures)
    if review.empty and any(map(math.isnan, present)):
        nearest = max(review.structures, key=lambda s: s.max_probability)
        nothing = f"nothing was segmented (largest probability {nearest.max_probability:.2f}, of {nearest.name})"
        return [nothing, *unlike]
    reasons = []
    if predicted is not None and threshold is not None:
        for structure, dice in zip(review.structures, predicted.dice):
            if dice.estimate < threshold:  # NaN is not
                interval = "" if math.isnan(dice.low) else f" ({dice.low:.2f} to {dice.high:.2f})"
                reasons.append(f"predicted Dice of {structure.name} {dice.estimate:.2f}{interval}, below {threshold:g}")
    absent = []
    for structure, p in zip(review.structures, present):
        if structure.pieces == 0 and p >= LIKELY:
            reasons.append(f"{structure.name} was not segmented, but is probably there ({p:.2f})")
        elif structure.pieces and p < LIKELY:
            reasons.append(f"{structure.name} is probably not there ({p:.2f})")
        elif structure.pieces == 0 and math.isnan(p):
            absent.append(structure.name)
    if absent:
        reasons.append(f"empty: {_listed(absent)}")
    disputed = []
    for structure in review.structures:
        if structure.members_dice < LOWEST_MEMBERS_DICE:  # NaN is not
            low, high = min(structure.member_volumes), max(structure.member_volumes)
            volumes = f"{volume_text(low)} to {volume_text(high)} {review.unit}"
            disputed.append(f"{structure.name} (Dice {structure.members_dice:.2f}, {volumes})")
    if disputed:
        reasons.append(f"folds disagree on {_listed(disputed)}")
    for structure in review.structures:
        if structure.largest_piece < _LARGEST_PIECE:
            share = f"{100 * structure.largest_piece:.0f} %"
            reasons.append(f"{structure.name} is in {structure.pieces} pieces, the largest holds {share}")
    return [*reasons, *unlike]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
