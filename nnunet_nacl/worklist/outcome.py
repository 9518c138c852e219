"""Judges the flags of a review list by the marks and corrected labels of readers; writes outcome.json.

Scans that were flagged are no sample of all: how many bad ones were left unseen is known from those alone that were
chosen by chance among the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from typing_extensions import NotRequired, TypedDict

import nnunet_nacl
from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.json_types import Number, doc
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.quality.learned_quality import Coverage, coverage
from nnunet_nacl.reports.rendering import render_page
from nnunet_nacl.reports.tables import frames, text_of
from nnunet_nacl.worklist.list_files import DOCUMENT, PAGES, ListedScan
from nnunet_nacl.worklist.slicer import TO_EDIT, cases_of_images, corrected_files, read_marks

SCHEMA_VERSION = 1
FLAGGED, RANDOM, OTHER = GROUPS = ("flagged", "chosen by chance", "other")
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

    @property
    def structures(self) -> pd.DataFrame:
        """A row for each structure of each scan with corrected labels."""
        columns = ["scan", "group", "mark", "structure", "Dice", "predicted", "low", "high"]
        rows = [
            (case.case, case.group, case.mark or "-", name, *values)
            for case in self.cases
            for name, values in case.structures.items()
        ]
        return pd.DataFrame(rows, columns=columns)


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
        marks: Files of marks, see :func:`~nnunet_nacl.worklist.slicer.read_marks`.
        corrected: Folder of corrected labels, those of some scans; None: there are none.

    Raises:
        UserError: A file cannot be read or does not belong to the list, or corrected labels do not fit the delivered.
    """
    fix = "make its list again"
    listed = decode(_Listed, read_dict(output / DOCUMENT), f"{output}: not an output folder of this version", fix=fix)
    chosen, limits = listed.get("random_check") or (), (listed["flags"] or {"bad": {}})["bad"]
    groups = {
        case: FLAGGED if scan["flagged"] else RANDOM if case in chosen else OTHER
        for case, scan in listed["scans"].items()
    }
    folder = PredictionFolder.open(output, need_reference=False)
    images = cases_of_images(output / PAGES, groups, folder.file_ending)
    marked = read_marks(marks, groups, images, listed.get("run"))
    files = {} if corrected is None else corrected_files(corrected, groups, images, folder.file_ending)
    copies = corrected is not None and corrected.resolve() == (output / PAGES / TO_EDIT).resolve()
    warnings, cases = list[str](), []
    for case, group in groups.items():
        mark, n_changed, structures = marked.get(case, ""), None, dict[str, tuple[float, ...]]()
        joint = _joint_counts(folder, case, files[case]) if case in files else np.zeros((1, 1))
        if case in files and (joint.sum() > np.trace(joint) or not copies):  # else nobody has edited this copy
            n_changed, promised = int(joint.sum() - np.trace(joint)), listed["scans"][case]["structures"]
            warnings += _renumbered(joint, files[case])
            for name, dice in _dice(joint, folder.labels).items():
                structures[name] = (dice, *promised.get(name, (math.nan, math.nan, math.nan)))
        bad = mark != "ok" if mark else None
        if structures and limits:  # NaN is not below
            bad = any(structures[name][0] < limit for name, limit in limits.items() if name in structures)
        if mark or structures:
            cases.append(ScanOutcome(case, group, mark, n_changed, bad, structures))
    counts = {group: dict.fromkeys(("n", "looked_at", "changed", "judged", "bad"), 0) for group in GROUPS}
    for group in groups.values():
        counts[group]["n"] += 1
    for each in cases:
        changed = each.mark in ("correct", "reject") or bool(each.n_changed)
        now = {"looked_at": True, "changed": changed, "judged": each.bad is not None, "bad": bool(each.bad)}
        counts[each.group] |= {what: counts[each.group][what] + is_so for what, is_so in now.items()}
    chance, n_not_flagged = counts[RANDOM], counts[RANDOM]["n"] + counts[OTHER]["n"]
    outcome = Outcome(
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        [str(path) for path in marks],
        None if corrected is None else str(corrected),
        counts,
        *unseen_bad(len(groups), n_not_flagged, chance["judged"], chance["bad"]),
        {},
        warnings,
        cases,
    )
    for name, rows in outcome.structures.dropna(subset="Dice").groupby("structure", sort=False):
        outcome.predicted[str(name)] = PredictedOutcome(
            len(rows),
            rows.Dice.mean(),
            rows.predicted.mean(),
            (rows.predicted - rows.Dice).abs().mean(),
            coverage(rows.low, rows.high, rows.Dice),
            (rows.high - rows.low).mean(),
        )
    return outcome


def unseen_bad(n: int, n_not_flagged: int, n_chosen: int, n_bad: int) -> tuple[float, float]:
    """Share of n scans that is bad and not flagged, and its upper bound; NaN where none was chosen by chance.

    Of those not flagged ``n_chosen`` were chosen by chance and judged; ``n_bad`` of these are bad. The bound is exact:
    the most bad scans among those not flagged of which a draw without replacement has no more than ``n_bad`` with
    a probability above 5 %.
    """
    from scipy.stats import hypergeom

    if not n_chosen:
        return math.nan, math.nan
    possible = np.arange(n_bad, n_not_flagged - n_chosen + n_bad + 1)
    most = possible[hypergeom.cdf(n_bad, n_not_flagged, possible, n_chosen) > 1 - _LEVEL].max()
    return n_not_flagged / n * n_bad / n_chosen, float(most / n)


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


def outcome_lines(outcome: Outcome) -> list[str]:
    """For a terminal: what to check, the tables but that of single scans, and what they say together."""
    tables = [f"{caption}:\n{text_of(table)}\n" for caption, table in _tables(outcome)[:-1] if len(table)]
    return [*(f"warning: {warning}" for warning in outcome.warnings), *tables, *_sentences(outcome)]


def outcome_page(outcome: Outcome) -> str:
    """The page: what a terminal shows, and every structure of every corrected scan."""
    texts = {"notes": outcome.warnings, "sentences": _sentences(outcome), "made": outcome.created.partition("T")[0]}
    return render_page("outcome.html", tables=_tables(outcome), **texts)


def _tables(outcome: Outcome) -> list[tuple[str, pd.DataFrame]]:
    """Captions and texts."""
    names = {"n": "scans", "looked_at": "looked at", "changed": "changed", "bad": "bad", "judged": "of"}
    groups = pd.DataFrame(outcome.groups).T[[*names]].rename(columns=names).reset_index(names="group")
    predicted = [
        {"structure": name, "scans": its.n, "Dice": its.dice, "predicted": its.predicted_dice, "off by": its.error}
        | {"in its interval": f"{its.coverage.share:.2f} of {its.coverage.n}" if its.coverage.n else "-"}
        | {"95 % interval of that": _range(its.coverage.low, its.coverage.high), "width": its.width}
        for name, its in outcome.predicted.items()
    ]
    scans = outcome.structures
    scans["interval"] = [_range(*ends) for ends in zip(scans.pop("low"), scans.pop("high"))]
    caption = "Dice of nnU-Net's labels against the corrected ones, and as predicted"
    return [
        ("Scans that were looked at", groups.astype(str)),
        (caption, frames(predicted)[1]),
        ("Corrected scans", frames(scans.to_dict("records"), 2)[1]),
    ]


def _range(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.2f} to {high:.2f}"


def _sentences(outcome: Outcome) -> list[str]:
    flagged, chance, other = (outcome.groups[name] for name in GROUPS)
    n, looked_at, changed = (chance[key] + other[key] for key in ("n", "looked_at", "changed"))
    judged, upper = chance["judged"], 100 * outcome.unseen_upper
    lines = [
        f"{flagged['changed']} of {flagged['looked_at']} flagged scans that were looked at were corrected or "
        f"rejected, and {changed} of {looked_at} others."
    ]
    if judged:
        lines.append(
            f"{n} of {flagged['n'] + n} scans are not flagged. Of these {judged} were chosen by chance and judged, and "
            f"{chance['bad']} of them are bad. So {100 * outcome.unseen:.1f} % of all scans are bad and not flagged, "
            f"and with 95 % confidence at most {upper:.1f} %."
        )
        if judged < chance["n"]:
            lines.append(f"{chance['n'] - judged} of those chosen are not judged; the others are taken for a sample.")
    else:
        how = "judge those that were chosen by chance" if chance["n"] else "choose some by chance (predict -also)"
        lines.append(f"How many bad scans are left unseen is not known: {how}.")
    if outcome.predicted:
        lines.append("Flagged scans are the hard ones: their intervals may contain the true Dice less often.")
    return lines
