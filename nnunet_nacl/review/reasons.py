"""Why a case needs a look, in words: one clause a reason, none where there is none."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from nnunet_nacl.review.dice_thresholds import DiceThresholds
from nnunet_nacl.review.row import LIKELY, CaseReview, volume_text

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement (Zijdenbos et al.,
IEEE TMI 13, 1994)."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MOST_NAMES = 5


def reasons_to_look(
    review: CaseReview,
    thresholds: DiceThresholds | None,
    differences: Sequence[str],
    listed: Collection[str] = (),
) -> list[str]:
    """All reasons, the gravest first.

    Args:
        review: The case's row, with what a map has learned of it.
        thresholds: A lower predicted Dice is a reason; None: none is.
        differences: How the image differs from the training's.
        listed: Names of the structures whose pieces are findings: that there are several of them is no reason.
    """
    if review.empty and any(math.isnan(structure.present) for structure in review.structures):
        nearest = max(review.structures, key=lambda s: s.max_probability)
        nothing = f"nothing was segmented (largest probability {nearest.max_probability:.2f}, of {nearest.name})"
        return [nothing, *differences]
    reasons = []
    if thresholds is not None:
        for structure, threshold in zip(review.structures, thresholds.values):
            dice, (low, high) = structure.predicted_dice, structure.dice_interval
            if dice < threshold - 1e-9:  # NaN is not; where all are alike, rounding is no reason
                interval = "" if math.isnan(low) else f" ({low:.2f} to {high:.2f})"
                reasons.append(f"predicted Dice of {structure.name} {dice:.2f}{interval}, below {threshold:.3g}")
    absent = []
    for structure in review.structures:
        p = structure.present
        if structure.pieces == 0 and p >= LIKELY:
            reasons.append(f"{structure.name} was not segmented, but is probably there ({p:.2f})")
        elif structure.pieces and p < LIKELY:
            reasons.append(f"{structure.name} is probably not there ({p:.2f})")
        elif structure.pieces == 0 and math.isnan(p):
            absent.append(structure.name)
    if absent:
        reasons.append(f"empty: {_first_of(absent)}")
    disputed = []
    for structure in review.structures:
        if structure.members_dice < LOWEST_MEMBERS_DICE:  # NaN is not
            low, high = min(structure.member_volumes), max(structure.member_volumes)
            volumes = f"{volume_text(low)} to {volume_text(high)} {review.unit}"
            disputed.append(f"{structure.name} (Dice {structure.members_dice:.2f}, {volumes})")
    if disputed:
        reasons.append(f"folds disagree on {_first_of(disputed)}")
    for structure in review.structures:
        if structure.largest_piece < _LARGEST_PIECE and structure.name not in listed:
            share = f"{100 * structure.largest_piece:.0f} %"
            reasons.append(f"{structure.name} is in {structure.pieces} pieces, the largest holds {share}")
    return [*reasons, *differences]


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
