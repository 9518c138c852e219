"""Judges the flags of a review list by the marks and corrected labels of readers; writes
outcome.json.

Scans that were flagged are no sample of all: how many bad ones were left unseen is known from those
alone that were chosen by chance among the others.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from typing_extensions import NotRequired, TypedDict

import nnunet_nacl
from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.file_key import file_key
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.record import RECORDS, find_record
from nnunet_nacl.errors import UserError, describe, some
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.json_types import Number, doc
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.quality.intervals import Coverage, coverage
from nnunet_nacl.reports.rendering import render_page
from nnunet_nacl.reports.tables import frames, text_of
from nnunet_nacl.worklist.list_files import DOCUMENT, PAGES, ListedScan
from nnunet_nacl.worklist.slicer import TO_EDIT, cases_of_images, corrected_files, read_marks

SCHEMA_VERSION = 1
FLAGGED, RANDOM, OTHER = GROUPS = ("flagged", "chosen by chance", "other")
"""Groups of scans: those that the list flags, and of the others those that were chosen, and the
rest."""

_LEVEL = 0.95
# Dice of a label with itself, and with another one, where it seems renumbered
_NIL, _LARGE = 0.1, 0.5


@dataclass(frozen=True)
class ScanOutcome:
    """One scan that somebody looked at."""

    case: Annotated[str, doc("Its name.")]
    group: Annotated[str, doc("flagged, chosen by chance, or other.")]
    mark: Annotated[str, doc("ok, correct or reject; empty where it has none.")]
    n_changed: Annotated[
        int | None,
        doc("Voxels with another label in the corrected labels; null where there are none."),
    ]
    bad: Annotated[
        bool | None,
        doc(
            "By the corrected labels, whether a structure has a Dice below that of -bad; without"
            " them, or without -bad, whether the mark is correct or reject; null where there is no"
            " mark either."
        ),
    ]
    structures: Annotated[
        dict[str, tuple[Number, ...]],
        doc(
            "By name, where there are corrected labels: Dice of the delivered labels against them"
            " (0 where one of both lacks it, null where both do), predicted Dice (null where it was"
            " not segmented) and its interval."
        ),
    ]


@dataclass(frozen=True)
class PredictedOutcome:
    """How far predicted Dice of a structure agrees with the Dice in the corrected scans."""

    n: Annotated[int, doc("Scans in which it has a Dice.")]
    dice: Annotated[Number, doc("Mean Dice.")]
    predicted_dice: Annotated[Number, doc("Mean predicted Dice, where it was segmented.")]
    error: Annotated[
        Number, doc("Mean absolute difference of the two, there; null where there is none.")
    ]
    coverage: Annotated[Coverage, doc("How many lie in their intervals.")]
    width: Annotated[Number, doc("Mean width of the intervals; null where there are none.")]


@dataclass(frozen=True)
class Outcome:
    """outcome.json: what came of the flags, by `nnunet_nacl review -back`."""

    schema_version: Annotated[int, doc("Version of this format.")] = field(
        default=SCHEMA_VERSION, kw_only=True
    )
    generated_by: Annotated[str, doc("Package and version.")] = field(
        default=f"nnunet_nacl {nnunet_nacl.__version__}", kw_only=True
    )
    created: Annotated[str, doc("Time, ISO 8601.")]
    marks: Annotated[list[str], doc("Files of marks.")]
    corrected: Annotated[str | None, doc("Folder of corrected labels; null where none was given.")]
    groups: Annotated[
        dict[str, dict[str, int]],
        doc(
            "By group how many scans there are (`n`), were `looked_at` (with a mark or corrected"
            " labels), `changed` (marked correct or reject, or with other labels), `judged` (bad or"
            " not is known) and `bad`."
        ),
    ]
    unseen: Annotated[
        Number,
        doc(
            "Share of all scans that is bad and not flagged: the share not flagged, times that of"
            " bad scans among those chosen by chance, and no less than the share of those that are"
            " known to be bad; null where none of those chosen was judged."
        ),
    ]
    unseen_upper: Annotated[
        Number,
        doc(
            "Its exact upper bound (95 %, one-sided), of a draw from a finite number; no less than"
            " the known either."
        ),
    ]
    predicted: Annotated[
        dict[str, PredictedOutcome], doc("By structure how far predicted Dice agrees with Dice.")
    ]
    warnings: Annotated[list[str], doc("What must be checked before numbers are used.")]
    cases: Annotated[list[ScanOutcome], doc("Scans that were looked at, in the order of the list.")]

    @property
    def structures(self) -> pd.DataFrame:
        """A row for each structure of each scan with corrected labels."""
        return _structure_rows(self.cases)


def _structure_rows(cases: Iterable[ScanOutcome]) -> pd.DataFrame:
    """A row for each structure of each scan with corrected labels."""
    columns = ["scan", "group", "mark", "structure", "Dice", "predicted", "low", "high"]
    rows = []
    for case in cases:
        for name, values in case.structures.items():
            rows.append((case.case, case.group, case.mark or "-", name, *values))
    return pd.DataFrame(rows, columns=columns)


class _Bad(TypedDict):
    bad: dict[str, float]


class _Listed(TypedDict):
    """What prediction.json says of the list."""

    run: NotRequired[str]
    flags: _Bad | None
    random_check: NotRequired[list[str] | None]
    scans: dict[str, ListedScan]


@dataclass(frozen=True)
class _Correction:
    """What corrected labels of a scan say of the delivered ones.

    Attributes:
        n_changed: Voxels with another label.
        dice: Of the delivered labels against the corrected ones, by structure; NaN where both lack
            it.
    """

    n_changed: int
    dice: dict[str, float]


def read_outcome(output: Path, marks: Sequence[Path], corrected: Path | None) -> Outcome:
    """Compare an output folder of `predict` or `review` with what people made of it.

    Corrected labels are compared with what was delivered: a scan whose segmentation in the folder
    is another one by now, by the digest in its record, is named in a warning, and its corrected
    labels do not count. A scan without a record is compared all the same, with a warning.

    Args:
        output: The folder.
        marks: Files of marks, see :func:`~nnunet_nacl.worklist.slicer.read_marks`.
        corrected: Folder of corrected labels, those of some scans; None: there are none.

    Raises:
        UserError: A file cannot be read or does not belong to the list, or corrected labels do not
            fit the delivered.
    """
    listed = _read_list(output)
    groups = _group_scans(listed)
    folder = PredictionFolder.open(output, need_reference=False)
    images = cases_of_images(output / PAGES, groups, folder.file_ending)
    mark_of = read_marks(marks, groups, images, listed.get("run"))

    corrections: dict[str, _Correction] = {}
    warnings: list[str] = []
    if corrected is not None:
        files = corrected_files(corrected, groups, images, folder.file_ending)
        is_folder_of_copies = corrected.resolve() == (output / PAGES / TO_EDIT).resolve()
        corrections, warnings = _read_corrections(folder, files, is_folder_of_copies)

    cases = []
    for case, group in groups.items():
        mark = mark_of.get(case, "")
        correction = corrections.get(case)
        if mark or correction:
            cases.append(_judge(case, group, mark, correction, listed))

    counts = _count_scans(groups, cases)
    unseen, unseen_upper = unseen_bad(
        len(groups),
        counts[RANDOM]["n"] + counts[OTHER]["n"],
        counts[RANDOM]["judged"],
        counts[RANDOM]["bad"],
        n_known_bad=counts[RANDOM]["bad"] + counts[OTHER]["bad"],
    )
    return Outcome(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        marks=[str(path) for path in marks],
        corrected=None if corrected is None else str(corrected),
        groups=counts,
        unseen=unseen,
        unseen_upper=unseen_upper,
        predicted=_check_predicted(_structure_rows(cases)),
        warnings=warnings,
        cases=cases,
    )


def _read_list(output: Path) -> _Listed:
    document = read_dict(output / DOCUMENT)
    source = f"{output}: not an output folder of this version"
    return decode(_Listed, document, source, fix="make its list again")


def _group_scans(listed: _Listed) -> dict[str, str]:
    """Group of each scan of the list, in its order."""
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


def _read_corrections(
    folder: PredictionFolder, files: Mapping[str, Path], is_folder_of_copies: bool
) -> tuple[dict[str, _Correction], list[str]]:
    """Compare corrected labels, by case, with the delivered ones; and what must be checked.

    In the folder of the copies that were made for an editor, one that is as it was delivered has
    not been looked at.
    """
    corrections: dict[str, _Correction] = {}
    warnings: list[str] = []
    without_record: list[str] = []
    for case, file in files.items():
        delivered = folder.folder / f"{case}{folder.file_ending}"
        if _is_same_file(file, delivered):
            raise UserError(
                f"{file}: the delivered segmentation itself; give the folder of the corrected ones."
            )
        digest_of_record = _digest_of_record(folder.folder, delivered.name, case)
        if digest_of_record is None:
            without_record.append(case)
        elif digest_of_record != _digest(delivered):
            warnings.append(
                f"{delivered} is not what was delivered, it was changed since: the corrected labels"
                f" of {case} are not counted. Restore it, and keep corrected labels in a folder of"
                " their own."
            )
            continue
        joint = _joint_counts(folder, delivered, file)
        correction = _Correction(
            n_changed=int(joint.sum() - np.trace(joint)), dice=_dice(joint, folder.labels)
        )
        if is_folder_of_copies and correction.n_changed == 0:
            continue
        corrections[case] = correction
        warnings += _renumbered(joint, file)
    if without_record:
        warnings.append(
            f"{folder.folder / RECORDS}: no record says how {some(without_record)} was delivered. "
            "If its segmentation was changed since, its Dice is too high."
        )
    return corrections, warnings


def _is_same_file(first: Path, second: Path) -> bool:
    """Whether two names are one file, through links of any kind."""
    with contextlib.suppress(OSError):  # one of them cannot be opened, which whoever reads it says
        return os.path.samefile(first, second)
    return False


def _digest_of_record(output: Path, name: str, case: str) -> str | None:
    """Digest of a segmentation as it was written, by the case's record; None where none says it."""
    record = find_record(output / RECORDS, case)
    if record is None or name not in record.files:
        return None
    return record.files[name]["digest"]


def _digest(path: Path) -> str:
    """Digest of a file as it is now; UserError where it cannot be read."""
    try:
        return file_key(path)["digest"]
    except OSError as error:
        raise UserError(describe(error, path)) from None


def _judge(
    case: str, group: str, mark: str, correction: _Correction | None, listed: _Listed
) -> ScanOutcome:
    """What a mark, corrected labels, or both say of a scan."""
    is_bad = None
    if mark:
        is_bad = mark != "ok"
    if correction is None:
        return ScanOutcome(case, group, mark, n_changed=None, bad=is_bad, structures={})

    limits = listed["flags"]["bad"] if listed["flags"] else {}
    if limits:
        is_bad = False
        for name, limit in limits.items():
            if name in correction.dice and correction.dice[name] < limit:  # NaN is not below
                is_bad = True
    promises = listed["scans"][case]["structures"]
    unknown = (math.nan, math.nan, math.nan)
    structures = {
        name: (dice, *promises.get(name, unknown)) for name, dice in correction.dice.items()
    }
    return ScanOutcome(case, group, mark, correction.n_changed, is_bad, structures)


def _count_scans(
    groups: Mapping[str, str], cases: Sequence[ScanOutcome]
) -> dict[str, dict[str, int]]:
    """Counts by group, as outcome.json has them."""
    counts = {
        group: dict.fromkeys(("n", "looked_at", "changed", "judged", "bad"), 0) for group in GROUPS
    }
    for group in groups.values():
        counts[group]["n"] += 1
    for case in cases:
        of_group = counts[case.group]
        of_group["looked_at"] += 1
        of_group["changed"] += case.mark in ("correct", "reject") or bool(case.n_changed)
        of_group["judged"] += case.bad is not None
        of_group["bad"] += bool(case.bad)
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


def unseen_bad(
    n: int, n_not_flagged: int, n_chosen: int, n_bad: int, *, n_known_bad: int = 0
) -> tuple[float, float]:
    """Share of n scans that is bad and not flagged, and its upper bound; NaN where none was chosen
    by chance.

    Of those not flagged ``n_chosen`` were chosen by chance and judged; ``n_bad`` of these are bad.
    The bound is exact: the most bad scans among those not flagged of which a draw without
    replacement has no more than ``n_bad`` with a probability above 5 %. Of all that are not
    flagged, chosen or not, ``n_known_bad`` are known to be bad: share and bound are no less than
    theirs, whatever the draw says.
    """
    from scipy.stats import hypergeom

    if not n_chosen:
        return math.nan, math.nan
    estimate = n_not_flagged * n_bad / n_chosen
    possible = np.arange(n_bad, n_not_flagged - n_chosen + n_bad + 1)
    is_possible = hypergeom.cdf(n_bad, n_not_flagged, possible, n_chosen) > 1 - _LEVEL
    most = int(possible[is_possible].max())
    return max(estimate, n_known_bad) / n, max(most, n_known_bad) / n


def _joint_counts(folder: PredictionFolder, delivered: Path, corrected: Path) -> np.ndarray:
    """Voxels by corrected label (rows) and delivered label (columns), without those to ignore."""
    delivered_labels, properties = folder.read_labels(delivered)
    like = f"delivered {delivered}", Geometry.of(properties), delivered_labels.shape
    true_labels = folder.read_labels(corrected, is_truth=True, like=like)[0]
    n = 1 + int(max(true_labels.max(), delivered_labels.max(), *folder.labels.all_values))
    pairs = true_labels.ravel().astype(np.int64) * n + delivered_labels.ravel()
    joint = np.bincount(pairs, minlength=n * n).reshape(n, n)
    ignored = folder.labels.ignore_label
    if ignored is not None and ignored < n:
        joint[ignored] = 0
    return joint


def _dice(joint: np.ndarray, labels: Labels) -> dict[str, float]:
    """Of each structure, by name."""
    dice = {}
    for channel in labels.foreground:
        values = np.atleast_1d(labels.values[channel])
        true_positives = joint[np.ix_(values, values)].sum()
        false_positives = joint[:, values].sum() - true_positives
        false_negatives = joint[values].sum() - true_positives
        overlap = Overlap(true_positives, false_positives, false_negatives, 0)
        dice[labels.names[channel]] = float(overlap.dice)
    return dice


def _renumbered(joint: np.ndarray, path: Path) -> list[str]:
    """A warning for each label that lies where the delivered labels have another one.

    Editors number the segments from 1 when they export them: where a structure is absent, those
    behind it move up.
    """
    dice = 2 * joint / np.maximum(joint.sum(1)[:, None] + joint.sum(0), 1)
    warnings = []
    for label, row in enumerate(dice[1:, 1:], 1):
        other = int(row.argmax()) + 1
        if row[label - 1] < _NIL and row[other - 1] > _LARGE:
            warnings.append(
                f"{path}: label {label} lies where {other} was delivered (their Dice is"
                f" {row[other - 1]:.2f}). An editor may have numbered the structures anew: then put"
                " the labels right, and read them again."
            )
    return warnings


def outcome_lines(outcome: Outcome) -> list[str]:
    """For a terminal: what to check, the tables but that of single scans, and what they say
    together."""
    lines = [f"warning: {warning}" for warning in outcome.warnings]
    tables_of_groups = _tables(outcome)[:-1]
    for caption, table in tables_of_groups:
        if len(table):
            lines.append(f"{caption}:\n{text_of(table)}\n")
    return lines + _sentences(outcome)


def outcome_page(outcome: Outcome) -> str:
    """The page: what a terminal shows, and every structure of every corrected scan."""
    return render_page(
        "outcome.html",
        tables=_tables(outcome),
        notes=outcome.warnings,
        sentences=_sentences(outcome),
        made=outcome.created.partition("T")[0],
    )


def _tables(outcome: Outcome) -> list[tuple[str, pd.DataFrame]]:
    """Captions and texts."""
    names = {
        "n": "scans",
        "looked_at": "looked at",
        "changed": "changed",
        "bad": "bad",
        "judged": "of",
    }
    groups = (
        pd.DataFrame(outcome.groups).T[[*names]].rename(columns=names).reset_index(names="group")
    )

    predicted = []
    for name, structure in outcome.predicted.items():
        inside = structure.coverage
        predicted.append(
            {
                "structure": name,
                "scans": structure.n,
                "Dice": structure.dice,
                "predicted": structure.predicted_dice,
                "off by": structure.error,
                "in its interval": f"{inside.share:.2f} of {inside.n}" if inside.n else "-",
                "95 % interval of that": _range(inside.low, inside.high),
                "width": structure.width,
            }
        )

    scans = outcome.structures
    ends = zip(scans.pop("low"), scans.pop("high"))
    scans["interval"] = [_range(low, high) for low, high in ends]
    return [
        ("Scans that were looked at", groups.astype(str)),
        (
            "Dice of nnU-Net's labels against the corrected ones, and as predicted",
            frames(predicted)[1],
        ),
        ("Corrected scans", frames(scans.to_dict("records"), 2)[1]),
    ]


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def _sentences(outcome: Outcome) -> list[str]:
    flagged = outcome.groups[FLAGGED]
    chosen = outcome.groups[RANDOM]
    not_flagged = {key: chosen[key] + outcome.groups[OTHER][key] for key in chosen}
    lines = [
        f"{flagged['changed']} of {flagged['looked_at']} flagged scans that were looked at were"
        f" corrected or rejected, and {not_flagged['changed']} of {not_flagged['looked_at']}"
        " others."
    ]
    if chosen["judged"]:
        lines.append(
            _sentence_of_draw(outcome, chosen, not_flagged, flagged["n"] + not_flagged["n"])
        )
        if chosen["judged"] < chosen["n"]:
            lines.append(
                f"{chosen['n'] - chosen['judged']} of those chosen are not judged; the others are"
                " taken for a sample."
            )
    else:
        how = (
            "judge those that were chosen by chance"
            if chosen["n"]
            else "choose some by chance (predict -also)"
        )
        lines.append(f"How many bad scans are left unseen is not known: {how}.")
        if not_flagged["bad"]:
            n_scans = flagged["n"] + not_flagged["n"]
            share = 100 * not_flagged["bad"] / n_scans
            lines.append(
                f"At least {share:.1f} % of all scans are bad and not flagged: {not_flagged['bad']}"
                f" of {n_scans}, which were looked at."
            )
    if outcome.predicted:
        lines.append(
            "Flagged scans are the hard ones: their intervals may contain the true Dice less often."
        )
    return lines


def _sentence_of_draw(
    outcome: Outcome, chosen: Mapping[str, int], not_flagged: Mapping[str, int], n_scans: int
) -> str:
    """What the scans that were chosen by chance, and other known ones, say of bad scans without a
    flag."""
    text = (
        f"{not_flagged['n']} of {n_scans} scans are not flagged. Of these {chosen['judged']} were"
        f" chosen by chance and judged, and {chosen['bad']} of them are bad. "
    )
    by_draw = not_flagged["n"] * chosen["bad"] / chosen["judged"]
    least = ""
    if not_flagged["bad"] > by_draw:
        least = "at least "
        text += (
            f"With those that were looked at for other reasons {not_flagged['bad']} are known to be"
            " bad. "
        )
    return (
        text + f"So {least}{100 * outcome.unseen:.1f} % of all scans are bad and not flagged, "
        f"and with 95 % confidence at most {100 * outcome.unseen_upper:.1f} %."
    )
