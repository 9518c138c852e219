"""Judges the flags of a review list by the marks and corrected labels of readers.

Scans that were flagged are no sample of all: how many bad ones were left unseen is known from those
alone that were chosen by chance among the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.estimators.intervals import coverage
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.errors import UserError, some
from nnunet_nacl.utilities.json_files import decode, read_dict
from nnunet_nacl.worklist.list_files import DOCUMENT, PAGES_FOLDER
from nnunet_nacl.worklist.outcome.corrections import Correction, Corrections, read_corrections
from nnunet_nacl.worklist.outcome.document import (
    FLAGGED,
    GROUPS,
    OTHER,
    RANDOM,
    Outcome,
    PredictedOutcome,
    ScanOutcome,
    structure_rows,
)
from nnunet_nacl.worklist.outcome.marks import read_marks
from nnunet_nacl.worklist.prediction_document import ListedScan
from nnunet_nacl.worklist.slicer import TO_EDIT, cases_of_images, corrected_files

_CONFIDENCE_LEVEL = 0.95


class _Bad(TypedDict):
    bad: dict[str, float]


class _Listed(TypedDict):
    """What prediction.json says of the list."""

    run: NotRequired[str]
    flags: _Bad | None
    random_check: NotRequired[list[str] | None]
    scans: dict[str, ListedScan]


def read_outcome(output: Path, marks: Sequence[Path], corrected: Path | None) -> Outcome:
    """Compare an output folder of `predict` or `review` with what people made of it.

    Args:
        output: The folder.
        marks: Files of marks, see :func:`~nnunet_nacl.worklist.outcome.marks.read_marks`.
        corrected: Folder of corrected labels, those of some scans, see
            :func:`~nnunet_nacl.worklist.outcome.corrections.read_corrections`; None: there are
            none.

    Raises:
        UserError: A file cannot be read or does not belong to the list, or corrected labels do not
            fit the delivered.
    """
    listed = _read_list(output)
    groups = _group_scans(listed)
    folder = PredictionFolder.open(output, need_reference=False)
    images = cases_of_images(output / PAGES_FOLDER, groups, folder.dataset.file_ending)
    mark_of_case = read_marks(marks, groups, images, listed.get("run"))
    without_mark = [case for case, mark in mark_of_case.items() if not mark]
    warnings = []
    if without_mark:
        warnings.append(
            "the files of marks name scans without a mark, which do not count:"
            f" {some(without_mark)}."
        )
    corrections = Corrections()
    if corrected is not None:
        files = corrected_files(corrected, groups, images, folder.dataset.file_ending)
        is_folder_of_copies = corrected.resolve() == (output / PAGES_FOLDER / TO_EDIT).resolve()
        corrections = read_corrections(folder, files, without_unchanged=is_folder_of_copies)

    cases = []
    for case, group in groups.items():
        mark = mark_of_case.get(case, "")
        correction = corrections.by_case.get(case)
        if mark or correction is not None:
            cases.append(_judge_scan(case, group, mark, correction, listed))

    counts = _count_scans(groups, cases)
    unseen = unseen_bad(
        n_scans=len(groups),
        n_not_flagged=counts[RANDOM]["n"] + counts[OTHER]["n"],
        n_chosen=counts[RANDOM]["judged"],
        n_bad=counts[RANDOM]["bad"],
        n_known_bad=counts[RANDOM]["bad"] + counts[OTHER]["bad"],
    )
    return Outcome(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        marks=[str(path) for path in marks],
        corrected=None if corrected is None else str(corrected),
        groups=counts,
        unseen=unseen.share,
        unseen_upper=unseen.upper,
        predicted=_check_predicted(structure_rows(cases)),
        warnings=warnings + corrections.warnings,
        cases=cases,
    )


def _read_list(output: Path) -> _Listed:
    if not (output / DOCUMENT).is_file():
        raise UserError(
            f"{output} holds no list ({DOCUMENT}); give the output folder of `nnunet_nacl predict`"
            " or `nnunet_nacl review`."
        )
    document = read_dict(output / DOCUMENT)
    source = f"{output}: not an output folder of this version"
    return decode(_Listed, document, source, fix="make its list again")


def _group_scans(listed: _Listed) -> dict[str, str]:
    chosen = set(listed.get("random_check") or ())
    groups = {}
    for case, scan in listed["scans"].items():
        if scan["flagged"]:
            groups[case] = FLAGGED
        elif case in chosen:
            groups[case] = RANDOM
        else:
            groups[case] = OTHER
    return groups


def _judge_scan(
    case: str, group: str, mark: str, correction: Correction | None, listed: _Listed
) -> ScanOutcome:
    """What a mark, corrected labels, or both say of a scan."""
    is_bad = mark != "ok" if mark else None
    if correction is None:
        return ScanOutcome(case, group, mark, n_changed=None, bad=is_bad, structures={})

    if listed["flags"] is not None:
        limits = listed["flags"]["bad"]
        if limits:
            is_bad = _is_below_any(correction.dice, limits)
    estimates = listed["scans"][case]["structures"]
    unknown = (math.nan, math.nan, math.nan)
    structures = {}
    for name, dice in correction.dice.items():
        structures[name] = (dice, *estimates.get(name, unknown))
    return ScanOutcome(case, group, mark, correction.n_changed, is_bad, structures)


def _is_below_any(dice: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Whether the Dice of a structure is below its limit; NaN is not."""
    for name, limit in limits.items():
        if name in dice and dice[name] < limit:
            return True
    return False


def _count_scans(
    groups: Mapping[str, str], cases: Sequence[ScanOutcome]
) -> dict[str, dict[str, int]]:
    """Counts by group, as outcome.json has them."""
    counts = {}
    for group in GROUPS:
        counts[group] = dict.fromkeys(("n", "looked_at", "changed", "judged", "bad"), 0)
    for group in groups.values():
        counts[group]["n"] += 1
    for case in cases:
        counts_of_group = counts[case.group]
        counts_of_group["looked_at"] += 1
        counts_of_group["changed"] += case.mark in ("correct", "reject") or bool(case.n_changed)
        counts_of_group["judged"] += case.bad is not None
        counts_of_group["bad"] += bool(case.bad)
    return counts


def _check_predicted(structures: pd.DataFrame) -> dict[str, PredictedOutcome]:
    """How far predicted Dice agrees, by structure, with a row for each structure of each scan."""
    predicted = {}
    for name, rows in structures.dropna(subset="Dice").groupby("structure", sort=False):
        predicted[str(name)] = PredictedOutcome(
            n=len(rows),
            dice=rows.Dice.mean(),
            predicted_dice=rows.predicted.mean(),
            error=(rows.predicted - rows.Dice).abs().mean(),
            coverage=coverage(rows.low, rows.high, rows.Dice),
            width=(rows.high - rows.low).mean(),
        )
    return predicted


class UnseenBad(NamedTuple):
    """Share of all scans that is bad and not flagged, and its upper bound."""

    share: float
    upper: float


def unseen_bad(
    *, n_scans: int, n_not_flagged: int, n_chosen: int, n_bad: int, n_known_bad: int
) -> UnseenBad:
    """How many scans are bad and not flagged, by those that were chosen by chance.

    The bound is exact (95 %, one-sided): the most bad scans among those not flagged of which a draw
    without replacement has no more than ``n_bad`` with a probability above 5 %. Share and bound are
    no less than what is known, whatever the draw says.

    Args:
        n_scans: All scans of the list.
        n_not_flagged: Of these, those that are not flagged.
        n_chosen: Of these, those that were chosen by chance and judged.
        n_bad: Of these, those that are bad.
        n_known_bad: Of all that are not flagged, chosen or not, those that are known to be bad.

    Returns:
        Both as shares of all scans; NaN where none was chosen and judged.
    """
    from scipy.stats import hypergeom

    if n_chosen == 0:
        return UnseenBad(math.nan, math.nan)
    estimate = n_not_flagged * n_bad / n_chosen
    possible = np.arange(n_bad, n_not_flagged - n_chosen + n_bad + 1)
    probability = hypergeom.cdf(n_bad, n_not_flagged, possible, n_chosen)
    largest_possible = int(possible[probability > 1 - _CONFIDENCE_LEVEL].max())
    return UnseenBad(
        share=max(estimate, n_known_bad) / n_scans,
        upper=max(largest_possible, n_known_bad) / n_scans,
    )
