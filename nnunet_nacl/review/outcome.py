"""Judges the flags of a review list by the marks and corrected labels of readers; writes outcome.json.

Scans that were flagged are no sample of all: how many bad ones were left unseen is known from those alone that were
chosen by chance among the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import NotRequired, TypedDict

import nnunet_nacl
from nnunet_nacl.case.case import Labels
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.json_types import Number, doc
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.calibration_error import nanmean
from nnunet_nacl.numbers.learned_quality import Coverage, coverage
from nnunet_nacl.numbers.overlap import Overlap
from nnunet_nacl.review.list_files import DOCUMENT, PAGES, Drawn, ListedScan
from nnunet_nacl.review.slicer import TO_EDIT, cases_of_images, corrected_files, read_marks
from nnunet_nacl.show.rendering import render_page
from nnunet_nacl.show.tables import Rows, frames, number, text_of

SCHEMA_VERSION = 1
FLAGGED, DRAWN, OTHER = GROUPS = ("flagged", "chosen by chance", "other")
"""Groups of scans: those that the list flags, and of the others those that were chosen, and the rest."""

_LEVEL = 0.95
_NIL, _LARGE = 0.1, 0.5  # Dice of a label with itself, and with another one, where it seems renumbered


@dataclass(frozen=True)
class ScanOutcome:
    """One scan that somebody looked at."""

    case: Annotated[str, doc("Its name.")]
    group: Annotated[str, doc("flagged, chosen by chance, or other.")]
    mark: Annotated[str, doc("ok, correct or reject; empty where it has none.")]
    n_changed: Annotated[
        int | None, doc("Voxels with another label in the corrected labels; null where there are none.")
    ]
    bad: Annotated[
        bool | None,
        doc(
            "By the corrected labels, whether a structure has a Dice below that of -bad; without them, or without "
            "-bad, whether the mark is correct or reject; null where there is no mark either."
        ),
    ]
    structures: Annotated[
        dict[str, tuple[Number, ...]],
        doc(
            "By name, where there are corrected labels: Dice of the delivered labels against them (0 where one of both "
            "lacks it, null where both do), predicted Dice (null where it was not segmented) and its interval."
        ),
    ]


@dataclass(frozen=True)
class PredictedOutcome:
    """How far predicted Dice of a structure agrees with the Dice in the corrected scans."""

    n: Annotated[int, doc("Scans in which it has a Dice.")]
    dice: Annotated[Number, doc("Mean Dice.")]
    predicted_dice: Annotated[Number, doc("Mean predicted Dice, where it was segmented.")]
    error: Annotated[Number, doc("Mean absolute difference of the two, there; null where there is none.")]
    coverage: Annotated[Coverage, doc("How many lie in their intervals.")]
    width: Annotated[Number, doc("Mean width of the intervals; null where there are none.")]


@dataclass(frozen=True)
class Outcome:
    """outcome.json: what came of the flags, by `nnunet_nacl review -back`."""

    schema_version: Annotated[int, doc("Version of this format.")] = field(default=SCHEMA_VERSION, kw_only=True)
    generated_by: Annotated[str, doc("Package and version.")] = field(
        default=f"nnunet_nacl {nnunet_nacl.__version__}", kw_only=True
    )
    created: Annotated[str, doc("Time, ISO 8601.")]
    marks: Annotated[list[str], doc("Files of marks.")]
    corrected: Annotated[str | None, doc("Folder of corrected labels; null where none was given.")]
    groups: Annotated[
        dict[str, dict[str, int]],
        doc(
            "By group how many scans there are (`n`), were `looked_at` (with a mark or corrected labels), `changed` "
            "(marked correct or reject, or with other labels), `judged` (bad or not is known) and `bad`."
        ),
    ]
    unseen: Annotated[
        Number,
        doc(
            "Share of all scans that is bad and not flagged: the share not flagged, times that of bad scans among "
            "those chosen by chance; null where none was judged."
        ),
    ]
    unseen_upper: Annotated[Number, doc("Its exact upper bound (95 %, one-sided), of a draw from a finite number.")]
    predicted: Annotated[dict[str, PredictedOutcome], doc("By structure how far predicted Dice agrees with Dice.")]
    warnings: Annotated[list[str], doc("What must be checked before numbers are used.")]
    cases: Annotated[list[ScanOutcome], doc("Scans that were looked at, in the order of the list.")]


def read_outcome(output: Path, marks: Sequence[Path], corrected: Path | None) -> Outcome:
    """Compare an output folder of `predict` or `review` with what people made of it.

    Args:
        output: The folder.
        marks: Files of marks, see :func:`~nnunet_nacl.review.slicer.read_marks`.
        corrected: Folder of corrected labels, those of some scans; None: there are none.

    Raises:
        UserError: A file cannot be read or does not belong to the list, or corrected labels do not fit the delivered.
    """
    fix = "make its list again"
    listed = decode(_Listed, read_dict(output / DOCUMENT), f"{output}: not an output folder of this version", fix=fix)
    drawn, limits = (listed.get("drawn") or {"cases": []})["cases"], (listed["flags"] or {"bad": {}})["bad"]
    groups = {case: FLAGGED if scan["flagged"] else OTHER for case, scan in listed["scans"].items()}
    groups |= {case: DRAWN for case in groups if case in drawn}
    folder = PredictionFolder.open(output, need_reference=False)
    images = cases_of_images(output / PAGES, groups, folder.file_ending)
    marked = read_marks(marks, groups, images, listed.get("run"))
    files = {} if corrected is None else corrected_files(corrected, groups, images, folder.file_ending)
    copies = corrected is not None and corrected.resolve() == (output / PAGES / TO_EDIT).resolve()
    warnings, cases = list[str](), []
    for case, group in groups.items():
        mark, n_changed, structures = marked.get(case, ""), None, dict[str, tuple[float, ...]]()
        if case in files:
            joint = _joint_counts(folder, case, files[case])
            n_changed = int(joint.sum() - np.trace(joint))
            if copies and not n_changed:  # nobody has edited this copy
                n_changed = None
            else:
                warnings += _renumbered(joint, files[case])
                promised = listed["scans"][case]["structures"]
                structures = {
                    name: (value, *promised.get(name, (math.nan, math.nan, math.nan)))
                    for name, value in _dice(joint, folder.labels).items()
                }
        if mark or structures:
            bad = None if not mark else mark != "ok"
            if structures and limits:  # NaN is not below
                bad = any(structures[name][0] < limit for name, limit in limits.items() if name in structures)
            cases.append(ScanOutcome(case, group, mark, n_changed, bad, structures))
    counts = {group: _counts(group, groups, cases) for group in GROUPS}
    of_drawn, n_not_flagged = counts[DRAWN], counts[DRAWN]["n"] + counts[OTHER]["n"]
    return Outcome(
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        [str(path) for path in marks],
        None if corrected is None else str(corrected),
        counts,
        *unseen_bad(len(groups), n_not_flagged, of_drawn["judged"], of_drawn["bad"]),
        _predicted(cases),
        warnings,
        cases,
    )


class _Bad(TypedDict):
    bad: dict[str, float]


class _Listed(TypedDict):
    """What prediction.json says of the list."""

    run: NotRequired[str]
    flags: _Bad | None
    drawn: NotRequired[Drawn | None]
    scans: dict[str, ListedScan]


def unseen_bad(n: int, n_not_flagged: int, n_drawn: int, n_bad: int) -> tuple[float, float]:
    """Share of n scans that is bad and not flagged, and its upper bound; NaN where none was drawn.

    Of those not flagged ``n_drawn`` were chosen by chance and judged; ``n_bad`` of these are bad. The bound is exact:
    the most bad scans among those not flagged of which a draw without replacement has no more than ``n_bad`` with
    a probability above 5 %.
    """
    from scipy.stats import hypergeom

    if not n_drawn:
        return math.nan, math.nan
    possible = np.arange(n_bad, n_not_flagged - n_drawn + n_bad + 1)
    most = possible[hypergeom.cdf(n_bad, n_not_flagged, possible, n_drawn) > 1 - _LEVEL].max()
    return n_not_flagged / n * n_bad / n_drawn, float(most / n)


def _joint_counts(folder: PredictionFolder, case: str, file: Path) -> np.ndarray:
    """Voxels by corrected label (rows) and delivered label (columns), without those to ignore."""
    path, ignored = folder.folder / f"{case}{folder.file_ending}", folder.labels.ignore_label
    if file.resolve() == path.resolve():
        raise UserError(f"{file}: the delivered segmentation itself; give the folder of the corrected ones.")
    delivered, place = folder.read_labels(path)
    like = f"delivered {path}", Geometry.of(place), delivered.shape
    true = folder.read_labels(file, is_truth=True, like=like)[0]
    n = int(max(true.max(), delivered.max(), *folder.labels.all_values)) + 1
    joint = np.bincount(true.ravel().astype(np.int64) * n + delivered.ravel(), minlength=n * n).reshape(n, n)
    if ignored is not None and ignored < n:
        joint[ignored] = 0
    return joint


def _dice(joint: np.ndarray, labels: Labels) -> dict[str, float]:
    """Of each structure, by name."""
    values = {}
    for channel in labels.foreground:
        of = np.atleast_1d(labels.values[channel])
        tp = joint[np.ix_(of, of)].sum()
        values[labels.names[channel]] = float(Overlap(tp, joint[:, of].sum() - tp, joint[of].sum() - tp, 0).dice)
    return values


def _renumbered(joint: np.ndarray, path: Path) -> list[str]:
    """A warning for each label that lies where the delivered labels have another one.

    Editors number the segments from 1 when they export them: where a structure is absent, those behind it move up.
    """
    overlap = 2 * joint / np.maximum(joint.sum(1)[:, None] + joint.sum(0), 1)
    foreground, warnings = overlap[1:, 1:], []
    for label, row in enumerate(foreground, 1):
        other = int(row.argmax()) + 1
        if row[label - 1] < _NIL and row[other - 1] > _LARGE:
            warnings.append(
                f"{path}: label {label} lies where {other} was delivered (their Dice is {row[other - 1]:.2f}). An "
                "editor may have numbered the structures anew: then put the labels right, and read them again."
            )
    return warnings


def _counts(group: str, groups: Mapping[str, str], cases: Sequence[ScanOutcome]) -> dict[str, int]:
    """How many scans of a group there are, and what became of them."""
    members = [case for case in cases if case.group == group]
    changed = sum(case.mark in ("correct", "reject") or bool(case.n_changed) for case in members)
    judged = [case.bad for case in members if case.bad is not None]
    counts = {"n": [*groups.values()].count(group), "looked_at": len(members), "changed": changed}
    return counts | {"judged": len(judged), "bad": sum(judged)}


def _predicted(cases: Sequence[ScanOutcome]) -> dict[str, PredictedOutcome]:
    """By structure how far its predicted Dice holds."""
    result = {}
    for name in dict.fromkeys(name for case in cases for name in case.structures):
        table = np.array([case.structures[name] for case in cases if case.structures])
        true, predicted, low, high = table[~np.isnan(table[:, 0])].T
        error, width, inside = nanmean(np.abs(predicted - true)), nanmean(high - low), coverage(low, high, true)
        result[name] = PredictedOutcome(len(true), nanmean(true), nanmean(predicted), error, inside, width)
    return result


def outcome_lines(outcome: Outcome) -> list[str]:
    """For a terminal: what to check, the tables but that of single scans, and what they say together."""
    lines = [f"warning: {warning}" for warning in outcome.warnings]
    for caption, rows in _tables(outcome)[:-1]:
        lines += [f"{caption}:", text_of(rows), ""]
    return [*lines, *_sentences(outcome)]


def outcome_page(outcome: Outcome) -> str:
    """The page: what a terminal shows, and every structure of every corrected scan."""
    texts = {"notes": outcome.warnings, "sentences": _sentences(outcome), "made": outcome.created.partition("T")[0]}
    return render_page("outcome.html", tables=[(name, frames(rows)[1]) for name, rows in _tables(outcome)], **texts)


def _tables(outcome: Outcome) -> list[tuple[str, Rows]]:
    """Captions and rows."""
    groups = [
        {"group": name, "scans": group["n"], "looked at": group["looked_at"], "changed": group["changed"]}
        | {"bad": group["bad"], "of": group["judged"]}
        for name, group in outcome.groups.items()
    ]
    predicted = [
        {"structure": name, "scans": held.n, "Dice": held.dice, "predicted": held.predicted_dice, "off by": held.error}
        | {"in its interval": f"{held.coverage.share:.2f} of {held.coverage.n}" if held.coverage.n else "-"}
        | {"95 % interval of that": _range(held.coverage.low, held.coverage.high), "width": held.width}
        for name, held in outcome.predicted.items()
    ]
    scans = [
        {"scan": case.case, "group": case.group, "mark": case.mark or "-", "structure": name, "Dice": number(dice, 2)}
        | {"predicted": number(predicted_dice, 2), "interval": _range(low, high)}
        for case in outcome.cases
        for name, (dice, predicted_dice, low, high) in case.structures.items()
    ]
    caption = "Dice of the delivered against the corrected labels, and as predicted"
    tables = (("Scans that were looked at", groups), (caption, predicted), ("Corrected scans", scans))
    return [(name, rows) for name, rows in tables if rows or rows is not predicted]


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def _sentences(outcome: Outcome) -> list[str]:
    flagged, drawn, other = (outcome.groups[name] for name in (FLAGGED, DRAWN, OTHER))
    n, looked_at, changed = (drawn[key] + other[key] for key in ("n", "looked_at", "changed"))
    judged, upper = drawn["judged"], 100 * outcome.unseen_upper
    lines = [
        f"{flagged['changed']} of {flagged['looked_at']} flagged scans that were looked at were corrected or "
        f"rejected, and {changed} of {looked_at} others."
    ]
    if judged:
        lines.append(
            f"Bad and not flagged: {100 * outcome.unseen:.1f} % of all scans (not flagged: {n} of {flagged['n'] + n}; "
            f"bad: {drawn['bad']} of {judged} chosen by chance), with 95 % confidence at most {upper:.1f} % (exact for "
            f"a draw from {n})."
        )
        if judged < drawn["n"]:
            lines.append(f"{drawn['n'] - judged} of those chosen are not judged; the others are taken for a sample.")
    else:
        how = "judge those that were chosen by chance" if drawn["n"] else "choose some by chance (predict -also)"
        lines.append(f"How many bad scans are left unseen is not known: {how}.")
    if outcome.predicted:
        lines.append("Flagged scans are no sample of all: intervals may hold less often in them.")
    return lines
