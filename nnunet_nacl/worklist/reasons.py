"""The reasons why a scan needs a look, as text of at most twelve words each (names of structures:
up to three)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.quality.flags import Flags

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement
(Zijdenbos et al., IEEE TMI 13, 1994)."""
LIKELY = 0.5
"""From this probability on a structure is taken to be in a scan."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MISSED, _ABSENT = "a structure was not segmented", "a structure is probably absent"


def reasons_to_look(
    structures: pd.DataFrame,
    flags: Flags | None,
    unlike: str,
    differences: Sequence[str],
    listed: Collection[str] = (),
) -> dict[str, str]:
    """All reasons, the strongest first, and the kind of each in words that scans share, such as
    ``folds disagree``.

    A reason names the worst structure that it is about, and says how many more there are.

    Args:
        structures: Rows of the scan, see :func:`~nnunet_nacl.worklist.review_list.completed`.
        flags: By which score scans are flagged; None: by none.
        unlike, differences: What is odd about the image among calibration scans, and beside the
            training's.
        listed: Names of the structures whose pieces are findings: that there are several of them is
            no reason.
    """
    limit = -math.inf if flags is None or flags.threshold is None else flags.threshold
    # NaN is not low
    is_low, is_gone, p = structures.score <= limit, structures.pieces == 0, structures.present
    reasons: dict[str, str] = {}

    def add(
        kind: str, rows: pd.DataFrame, by: str, text: Callable[[Any], str], ascending: bool = True
    ) -> None:
        more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
        worst = rows.sort_values(by, ascending=ascending)[:1]
        reasons.update({f"{text(row)}{more}": kind for row in worst.itertuples()})

    def of(row: Any) -> str:
        return f"{row.name}: " if len(structures) > 1 else ""

    low, absent = structures[is_low & ~is_gone], structures[~is_gone & (p < LIKELY)]
    add(
        "predicted Dice is low",
        low,
        "score",
        lambda row: f"{of(row)}predicted Dice {dice_text(row)}",
    )
    if is_gone.all() and p.isna().any():
        reasons[
            f"nothing segmented (largest probability {structures.max_probability.max():.2f})"
        ] = _MISSED
    else:
        missed = structures[is_gone & (is_low | ~(p < LIKELY))]
        add(
            _MISSED,
            missed,
            "present",
            lambda row: f"{row.name} not segmented{_present_text(row.present)}",
            False,
        )
    add(_ABSENT, absent, "present", lambda row: f"{row.name} probably absent ({row.present:.2f})")
    apart = structures[structures.members_dice < LOWEST_MEMBERS_DICE]
    add(
        "folds disagree",
        apart,
        "members_dice",
        lambda row: f"{of(row)}folds disagree ({row.members_dice:.2f})",
    )
    reasons |= {unlike: "the image is unlike the calibration scans"} if unlike else {}
    reasons |= dict.fromkeys(differences, "the image differs from the training images")
    torn = structures[
        (structures.largest_piece < _LARGEST_PIECE) & ~structures["name"].isin(listed)
    ]
    pieces = "{0.name} in {0.pieces:.0f} pieces (largest {1:.0f} %)".format
    add(
        "a structure is in pieces",
        torn,
        "largest_piece",
        lambda row: pieces(row, 100 * row.largest_piece),
    )
    return reasons


def worst_first(structures: pd.DataFrame) -> pd.DataFrame:
    """Rows of a scan by score, those without one by predicted Dice; last those of which nothing is
    known."""
    return structures.sort_values(["score", "predicted_dice"])


def dice_text(row: Any) -> str:
    """``0.83 (0.70 to 1)``: predicted Dice with its interval, where that is known."""
    if math.isnan(row.predicted_dice):
        return "not segmented"
    dice, low, high = (
        f"{value:.2f}" if 0 < value < 1 else f"{value:.0f}"
        for value in (row.predicted_dice, row.dice_low, row.dice_high)
    )
    return dice if math.isnan(row.dice_low) else f"{dice} ({low} to {high})"


def volume_text(value: float) -> str:
    """A volume, or area, with three significant digits, and never as a power of ten: ``1040``,
    ``0.25``."""
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")


def _present_text(p: float) -> str:
    """What is known of the presence of a structure that was not segmented."""
    return (
        "" if math.isnan(p) else f", {'probably' if p >= LIKELY else 'perhaps'} present ({p:.2f})"
    )
