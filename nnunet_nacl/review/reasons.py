"""Why a case needs a look, in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from nnunet_nacl.errors import some
from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.review.row import LIKELY, CaseReview, StructureReview, volume_text

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement (Zijdenbos et al.,
IEEE TMI 13, 1994)."""

BY_SCORE = "low score"
"""What the reason of a scan that is flagged by its score begins with; others flag on top."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MOST_NAMES = 5


def reasons_to_look(
    review: CaseReview,
    flags: Flags | None,
    differences: Sequence[str],
    listed: Collection[str] = (),
) -> dict[str, list[str]]:
    """All reasons, the gravest first, and the names of the structures that each is about.

    Args:
        review: The case's row, with what a map has learned of it.
        flags: By which score it is flagged; None: by none.
        differences: How the image differs from the training's.
        listed: Names of the structures whose pieces are findings: that there are several of them is no reason.
    """
    others = {difference: list[str]() for difference in (*filter(None, [review.unlike]), *differences)}
    reasons: dict[str, list[str]] = {}
    if flags and flags.flags(review.score):
        limit = -math.inf if flags.threshold is None else flags.threshold
        low = [s for s in review.worst_first if s.score <= limit]  # NaN is not
        named = some([f"{s.name} {dice_text(s)}" for s in low], _MOST_NAMES)
        reasons[f"{BY_SCORE}: {named} may be bad" if low else f"{BY_SCORE}: nothing tells how good it is"] = [
            s.name for s in low
        ]
    if review.empty and any(math.isnan(structure.present) for structure in review.structures):
        nearest = max(review.structures, key=lambda s: s.max_probability)
        nothing = f"nothing was segmented (largest probability {nearest.max_probability:.2f}, of {nearest.name})"
        return {**reasons, nothing: [], **others}
    there, absent, disputed, torn = (dict[str, str]() for _ in range(4))  # by structure
    for structure in review.structures:
        name, p = structure.name, structure.present
        if structure.pieces == 0 and p >= LIKELY:
            there[name] = f"{name} was not segmented, but is probably there ({p:.2f})"
        elif structure.pieces and p < LIKELY:
            there[name] = f"{name} is probably not there ({p:.2f})"
        elif structure.pieces == 0 and math.isnan(p):
            absent[name] = name
        if structure.members_dice < LOWEST_MEMBERS_DICE:  # NaN is not
            volumes = f"{volume_text(min(structure.member_volumes))} to {volume_text(max(structure.member_volumes))}"
            disputed[name] = f"{name} (Dice {structure.members_dice:.2f}, {volumes} {review.unit})"
        if structure.largest_piece < _LARGEST_PIECE and name not in listed:
            share = f"{100 * structure.largest_piece:.0f} %"
            torn[name] = f"{name} is in {structure.pieces} pieces, the largest holds {share}"
    reasons |= _each(there)
    for together, words in ((absent, "empty: "), (disputed, "folds disagree on ")):
        if together:
            reasons[words + some(list(together.values()), _MOST_NAMES)] = list(together)
    return reasons | _each(torn) | others


def dice_text(structure: StructureReview) -> str:
    """``0.83 (0.70 to 0.90)``: predicted Dice with its interval, where that is known."""
    if math.isnan(structure.predicted_dice):
        return "(not segmented)"
    low, high = structure.dice_interval
    return f"{structure.predicted_dice:.2f}" + ("" if math.isnan(low) else f" ({low:.2f} to {high:.2f})")


def _each(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """A reason for each structure, and one for all beyond the first few."""
    reasons, more = {text: [name] for name, text in list(texts.items())[:_MOST_NAMES]}, list(texts)[_MOST_NAMES:]
    return {**reasons, f"{len(more)} more structures likewise": more} if more else reasons
