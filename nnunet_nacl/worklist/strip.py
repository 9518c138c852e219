"""The strip of a list's page: all scans as dots along their score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from nnunet_nacl.worklist.review_list import ReviewList

_BINS = 80  # from 0 to 1; dots of one bin lie on each other
_HEIGHT = 120  # pixels of the highest pile of dots
_DOT = 9  # pixels from one dot to the next on it
_LEFT = 4  # where the axis begins, in percent of the width
_WIDTH = 92  # of the axis, likewise
_WITHOUT_SCORE = 1.5  # where dots of scans without a score are, likewise

_Dice = TypeVar("_Dice", float, pd.Series)


class Dot(NamedTuple):
    """A scan on the strip.

    Attributes:
        scan: Row of :attr:`~nnunet_nacl.worklist.review_list.ReviewList.scans`.
        value: What the axis says of it; NaN without a score.
        x: Place across, in percent of the width.
        up: Pixels above the lowest dot.
    """

    scan: Any
    value: float
    x: float
    up: float


@dataclass(frozen=True)
class Strip:
    """Places of all that is drawn; across in percent of the width, up in pixels.

    Attributes:
        dots: Of all scans, flagged ones first.
        limit: Value and place of the limit of predicted Dice that flags; None where there is none.
        ticks: Place of each tick, by its text.
        height: Of all dots.
        is_less_bad: Whether values are predicted Dice minus the Dice below which it is bad, since
            that differs between structures.
    """

    dots: list[Dot]
    limit: tuple[float, float] | None
    ticks: dict[str, float]
    height: float
    is_less_bad: bool


def make_strip(listed: ReviewList) -> Strip:
    """The strip of a list.

    A score is shown as a predicted Dice where one Dice is bad for all structures. The limit is the
    edge of a bin.
    """
    limits_of_bad = {0.0}
    limit_of_score = 0.0
    if listed.aims.flags is not None:
        limits_of_bad = set(listed.aims.flags.bad.values())
        limit_of_score = listed.aims.flags.threshold or 0.0
    lowest = -1.0
    dice_of_zero = 0.0  # the predicted Dice that a score of 0 stands for
    if len(limits_of_bad) == 1:
        lowest = 0.0
        dice_of_zero = min(limits_of_bad)

    scans = listed.scans.sort_values(["is_flagged", "is_random"], ascending=False)
    # bins begin at the limit, so that none lies on both sides of it
    bins = np.ceil((scans.score - limit_of_score) * _BINS)
    middles = (bins - 0.5) / _BINS + limit_of_score
    n_below = scans.groupby(middles.fillna(math.inf)).cumcount()
    step = min(_DOT, _HEIGHT / max(n_below.max(), 1))
    dots = map(
        Dot,
        scans.itertuples(),
        scans.score + dice_of_zero,
        _place_across(middles + dice_of_zero, lowest).fillna(_WITHOUT_SCORE),
        n_below * step,
    )
    limit = None
    if listed.has_limit:
        value = limit_of_score + dice_of_zero
        limit = (value, _place_across(value, lowest))
    ticks = np.linspace(lowest, 1, 6).round(1).tolist()
    return Strip(
        dots=list(dots),
        limit=limit,
        ticks={f"{tick:g}": _place_across(tick, lowest) for tick in ticks},
        height=step * n_below.max() + 2 * _DOT,
        is_less_bad=len(limits_of_bad) > 1,
    )


def _place_across(dice: _Dice, lowest: float) -> _Dice:
    """Place on an axis from ``lowest`` to 1, in percent of the width."""
    return _LEFT + _WIDTH * (dice - lowest) / (1 - lowest)
