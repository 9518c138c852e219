"""The reasons why a scan needs a look, as text of at most twelve words each.

Names of structures may have three of these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from nnunet_nacl.estimators.flags import Flags

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement
(Zijdenbos et al., IEEE TMI 13, 1994)."""
PROBABLY_PRESENT = 0.5
"""From this probability on a structure is taken to be in a scan."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MISSED = "a structure was not segmented"
_ABSENT = "a structure is probably absent"


class Reason(NamedTuple):
    """A reason to look at a scan.

    Attributes:
        text: The reason in words.
        kind: In words that scans share, such as ``folds disagree``.
        structure: Name of the structure; empty where it is about the image.
    """

    text: str
    kind: str
    structure: str = ""


class StructureRow(Protocol):
    """A row of a structure of a scan, see :func:`~nnunet_nacl.worklist.judgement.completed`."""

    name: str
    pieces: float
    largest_piece: float
    predicted_dice: float
    dice_low: float
    dice_high: float
    present: float
    members_dice: float
    unit: str
    volume: float
    predicted_volume: float
    volume_low: float
    volume_high: float
    is_volume_a_warning: bool


class _NamedRow(StructureRow, Protocol):
    """With what texts of reasons need beside it.

    Attributes:
        Index: The case.
        prefix: The name before a text; empty in scans of one structure.
        largest_of_scan: Largest probability of any structure of the scan.
    """

    Index: str
    prefix: str
    largest_of_scan: float


def find_reasons(
    structures: pd.DataFrame,
    flags: Flags | None,
    *,
    oddities: Mapping[str, Sequence[Reason]],
    may_be_in_pieces: Sequence[bool] | np.ndarray,
) -> dict[str, list[Reason]]:
    """By scan all reasons to look at it, the strongest first.

    A reason names the worst structure that it is about, of equals the first, and says how many more
    there are.

    Args:
        structures: Rows of all scans, see :func:`~nnunet_nacl.worklist.judgement.completed`; the
            index is the case.
        flags: By which score scans are flagged; None: by none.
        oddities: By case what is odd about the image, see :func:`oddities_of_image`; nothing is odd
            about those that are not named.
        may_be_in_pieces: Of each row whether several components of its structure are no reason:
            they are findings, or the map knows that calibration scans have several, too.
    """
    is_reason = _find_kinds(structures, flags, np.asarray(may_be_in_pieces, bool))
    named = _name_rows(structures)
    reasons: dict[str, list[Reason]] = {case: [] for case in structures.index.unique()}

    rows = named[is_reason.low_dice]
    _add_reasons(reasons, "predicted Dice is low", rows, "score", _low_dice_text)
    rows = named[is_reason.nothing_segmented]
    for row in _worst_rows(rows, "max_probability", ascending=False):
        text = f"nothing segmented (largest probability {row.largest_of_scan:.2f})"
        reasons[row.Index].append(Reason(text, _MISSED, row.name))
    rows = named[is_reason.missed]
    _add_reasons(reasons, _MISSED, rows, "present", _missed_text, ascending=False)
    rows = named[is_reason.absent]
    _add_reasons(reasons, _ABSENT, rows, "present", _absent_text)
    rows = named[is_reason.folds_disagree]
    _add_reasons(reasons, "folds disagree", rows, "members_dice", _disagreement_text)
    for case, reasons_of_case in reasons.items():
        reasons_of_case.extend(oddities.get(case, ()))
    rows = named[is_reason.fragmented]
    _add_reasons(reasons, "a structure is in pieces", rows, "largest_piece", _fragmented_text)
    return reasons


def _find_kinds(
    structures: pd.DataFrame, flags: Flags | None, may_be_in_pieces: np.ndarray
) -> pd.DataFrame:
    """Of each row which kinds of reason hold: a column of truth values for each kind.

    Of a scan without any segmented structure, ``nothing_segmented`` takes the place of ``missed``
    where ``present`` is NaN for any of its structures. Arguments as for :func:`find_reasons`.
    """
    limit = flags.threshold if flags is not None and flags.threshold is not None else -math.inf
    is_missing = structures.pieces == 0
    is_low = structures.score <= limit  # NaN is not low
    is_improbable = structures.present < PROBABLY_PRESENT
    is_empty_scan = is_missing.groupby(level=0).transform("all")
    is_presence_unknown = structures.present.isna().groupby(level=0).transform("any")
    nothing_segmented = is_empty_scan & is_presence_unknown
    kinds = {
        "low_dice": is_low & ~is_missing,
        "nothing_segmented": nothing_segmented,
        "missed": is_missing & (is_low | ~is_improbable) & ~nothing_segmented,
        "absent": ~is_missing & is_improbable,
        "folds_disagree": structures.members_dice < LOWEST_MEMBERS_DICE,
        "fragmented": (structures.largest_piece < _LARGEST_PIECE) & ~may_be_in_pieces,
    }
    return pd.DataFrame(kinds)


def _name_rows(structures: pd.DataFrame) -> pd.DataFrame:
    """The rows with what texts need beside them, see :class:`_NamedRow`."""
    is_only_structure = ~structures.index.duplicated(keep=False)
    return structures.assign(
        prefix=np.where(is_only_structure, "", structures["name"].astype(str) + ": "),
        largest_of_scan=structures.max_probability.groupby(level=0).transform("max"),
    )


def oddities_of_image(unlike: str, differences: Sequence[str]) -> list[Reason]:
    """What is odd about an image.

    Args:
        unlike: What is odd among the calibration scans; empty: nothing.
        differences: How it differs from the training's images.
    """
    oddities = []
    if unlike:
        oddities.append(Reason(unlike, "the image is unlike the calibration scans"))
    for difference in differences:
        oddities.append(Reason(difference, "the image differs from the training images"))
    return oddities


def _add_reasons(
    reasons: Mapping[str, list[Reason]],
    kind: str,
    rows: pd.DataFrame,
    column: str,
    text: Callable[[_NamedRow], str],
    *,
    ascending: bool = True,
) -> None:
    """Add the text of the worst row of each case, by a column, and how many more rows it has."""
    n_rows_by_case = Counter(rows.index)
    for row in _worst_rows(rows, column, ascending=ascending):
        n_more = n_rows_by_case[row.Index] - 1
        more = f", and {n_more} more" if n_more else ""
        reasons[row.Index].append(Reason(f"{text(row)}{more}", kind, row.name))


def _worst_rows(rows: pd.DataFrame, column: str, *, ascending: bool = True) -> Iterator[_NamedRow]:
    """The first row of each case in the order of a column, NaN last; of equals the first."""
    in_order = rows.sort_values(column, ascending=ascending, kind="stable")
    rows_of_worst: Iterable[Any] = in_order[~in_order.index.duplicated()].itertuples()
    yield from rows_of_worst


def _low_dice_text(row: _NamedRow) -> str:
    return f"{row.prefix}predicted Dice {dice_text(row)}"


def _missed_text(row: _NamedRow) -> str:
    return f"{row.name} not segmented{_present_text(row.present)}"


def _absent_text(row: _NamedRow) -> str:
    return f"{row.name} probably absent ({row.present:.2f})"


def _disagreement_text(row: _NamedRow) -> str:
    return f"{row.prefix}folds disagree ({row.members_dice:.2f})"


def _fragmented_text(row: _NamedRow) -> str:
    share_percent = 100 * row.largest_piece
    return f"{row.name} in {row.pieces:.0f} pieces (largest {share_percent:.0f} %)"


def worst_first(structures: pd.DataFrame) -> pd.DataFrame:
    """Rows, of one or several scans, by score, then those without one by predicted Dice.

    Those of which neither is known are last.
    """
    return structures.sort_values(["score", "predicted_dice"])


def dice_text(row: StructureRow) -> str:
    """``0.83 (0.70 to 1)``: predicted Dice with its interval, where that is known."""
    if math.isnan(row.predicted_dice):
        return "not segmented"
    dice = _share_text(row.predicted_dice)
    if math.isnan(row.dice_low):
        return dice
    return f"{dice} ({_share_text(row.dice_low)} to {_share_text(row.dice_high)})"


def _share_text(value: float) -> str:
    """``0.83``; ``0`` and ``1`` where it is just these."""
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.0f}"


def volume_text(value: float) -> str:
    """``1040``, ``0.25``: a volume, or area, with three digits, and never as a power of ten."""
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")


def volumes_text(row: StructureRow, *, is_supported: bool) -> str:
    """``segmented 2 ml, predicted 2.5 ml (1 to 3)``: the prediction where its interval is known.

    A segmented volume outside that interval is named, where intervals hold (``is_supported``) and
    predicted volumes were closer to true ones than their mean.
    """
    unit = row.unit.replace("mm2", "mm²")
    text = f"segmented {volume_text(row.volume)} {unit}"
    if math.isnan(row.volume_low):
        return text
    low = volume_text(row.volume_low)
    high = volume_text(row.volume_high)
    text += f", predicted {volume_text(row.predicted_volume)} {unit} ({low} to {high})"
    is_inside = row.volume_low <= row.volume <= row.volume_high
    if is_supported and row.is_volume_a_warning and not is_inside:
        text += "; the segmented volume lies outside this interval"
    return text


def _present_text(p: float) -> str:
    """What is known of the presence of a structure that was not segmented."""
    if math.isnan(p):
        return ""
    how_likely = "probably" if p >= PROBABLY_PRESENT else "perhaps"
    return f", {how_likely} present ({p:.2f})"
