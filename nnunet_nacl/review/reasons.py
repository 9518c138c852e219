"""The reasons why a scan needs a look, as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.errors import some
from nnunet_nacl.numbers.flags import Flags

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement (Zijdenbos et al.,
IEEE TMI 13, 1994)."""
LIKELY = 0.5
"""From this probability on a structure is taken to be in a scan."""
BY_SCORE = "low score"
"""What the reason of a scan that is flagged by its score begins with; others flag on top."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MOST_NAMES = 5


def reasons_to_look(
    structures: pd.DataFrame, flags: Flags | None, unlike: str, differences: Sequence[str], listed: Collection[str] = ()
) -> dict[str, list[str]]:
    """All reasons, the gravest first, and the names of the structures that each is about.

    Args:
        structures: Rows of the scan, see :func:`~nnunet_nacl.review.review_list.completed`, in the structures' order.
        flags: By which score scans are flagged; None: by none.
        unlike, differences: What is odd about the image among calibration scans, and beside the training's.
        listed: Names of the structures whose pieces are findings: that there are several of them is no reason.
    """
    others = {difference: list[str]() for difference in (*filter(None, [unlike]), *differences)}
    rows: list[Any] = list(structures.itertuples())
    reasons: dict[str, list[str]] = {}
    if flags and flags.flags(structures.score.min()):
        limit = -math.inf if flags.threshold is None else flags.threshold
        low: list[Any] = list(worst_first(structures[structures.score <= limit]).itertuples())  # NaN is not
        named = some([f"{row.name} {dice_text(row)}" for row in low], _MOST_NAMES)
        reasons[f"{BY_SCORE}: {named} may be bad" if low else f"{BY_SCORE}: nothing tells how good it is"] = [
            row.name for row in low
        ]
    if not structures.pieces.any() and structures.present.isna().any():
        nearest = max(rows, key=lambda row: row.max_probability)
        nothing = f"nothing was segmented (largest probability {nearest.max_probability:.2f}, of {nearest.name})"
        return {**reasons, nothing: [], **others}
    presence, absent, disputed, torn = (dict[str, str]() for _ in range(4))  # by structure
    for row in rows:
        name, p = row.name, row.present
        if row.pieces == 0 and p >= LIKELY:
            presence[name] = f"{name} was not segmented, but is probably there ({p:.2f})"
        elif row.pieces and p < LIKELY:
            presence[name] = f"{name} is probably not there ({p:.2f})"
        elif row.pieces == 0 and math.isnan(p):
            absent[name] = name
        if row.members_dice < LOWEST_MEMBERS_DICE:  # NaN is not
            volumes = f"{volume_text(row.volume_min)} to {volume_text(row.volume_max)}"
            disputed[name] = f"{name} (Dice {row.members_dice:.2f}, {volumes} {row.unit})"
        if row.largest_piece < _LARGEST_PIECE and name not in listed:
            share = f"{100 * row.largest_piece:.0f} %"
            torn[name] = f"{name} is in {row.pieces:.0f} pieces, the largest holds {share}"
    reasons |= _few_and_rest(presence)
    for together, words in ((absent, "empty: "), (disputed, "folds disagree on ")):
        if together:
            reasons[words + some(list(together.values()), _MOST_NAMES)] = list(together)
    return reasons | _few_and_rest(torn) | others


def worst_first(structures: pd.DataFrame) -> pd.DataFrame:
    """Rows of a scan by score, those without one by predicted Dice; last those of which nothing is known."""
    return structures.sort_values(["score", "predicted_dice"])


def dice_text(row: Any) -> str:
    """``0.83 (0.70 to 0.90)``: predicted Dice with its interval, where that is known."""
    if math.isnan(row.predicted_dice):
        return "(not segmented)"
    ends = "" if math.isnan(row.dice_low) else f" ({row.dice_low:.2f} to {row.dice_high:.2f})"
    return f"{row.predicted_dice:.2f}{ends}"


def volume_text(value: float, digits: int = 3) -> str:
    """A volume, or area, with so many significant digits, and never as a power of ten: ``1040``, ``0.25``."""
    return np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")


def _few_and_rest(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """A reason for each structure, and one for all beyond the first few."""
    reasons, more = {text: [name] for name, text in list(texts.items())[:_MOST_NAMES]}, list(texts)[_MOST_NAMES:]
    return {**reasons, f"{len(more)} more structures likewise": more} if more else reasons
