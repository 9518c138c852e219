"""What is said of a folder's cases, the one that needs a look most on top: a page, tables and a document."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_nacl.documents.decision_json import DecidedCase
from nnunet_nacl.documents.finding_list import FINDINGS, StructureFindings, findings_csv_text
from nnunet_nacl.files import to_csv_text, write_atomically
from nnunet_nacl.review.predicted_quality import QualityOfMap
from nnunet_nacl.review.reasons import Thresholds, ThresholdSpec, reasons_to_look
from nnunet_nacl.review.reviewed_case import FinishedCase
from nnunet_nacl.review.row import CaseReview

PAGE = "index.html"
REVIEW = "review.csv"
STRUCTURES = "structures.csv"
SCANS = "scans.csv"
LIST_FILES = (PAGE, REVIEW, STRUCTURES, SCANS, FINDINGS)
"""What :meth:`ReviewList.write` writes beside the segmentations."""

_COLUMNS = (
    *("rank", "case", "flag", "reasons", "n_structures_with_reasons", "score"),
    *("worst_structure", "predicted_dice", "predicted_dice_low", "predicted_dice_high", "problem"),
)
"""Of review.csv."""
RESEARCH = "Research software, not for clinical use. The order is a ranking; no threshold is validated."


def thresholds_of(
    given: ThresholdSpec | None, structures: Mapping[str, str], quality: QualityOfMap | None
) -> Thresholds | None:
    """Below which score, or predicted Dice, a scan is to be looked at; None where no Dice is predicted.

    What the user gives decides. Otherwise it is the score; a map of an earlier version knows none, and then it is the
    lowest tenth of each structure.

    Raises:
        UserError: See :meth:`~nnunet_nacl.review.reasons.Thresholds.of`.
    """
    if given is None or quality is None or not quality.predicts_dice:
        return None
    if not given and (scans := quality.learned.scans):
        return Thresholds({}, scans.lowest_tenth)
    return Thresholds.of(given, structures, quality.lowest_tenth)


@dataclass(frozen=True)
class ReviewList:
    """The list of a run.

    Attributes:
        title: Of the page, such as the data set.
        finished: What is kept of each case, by name.
        structures: Their names.
        members: Names of the networks or folders that are averaged; one if there is nothing to average.
        quality: What the calibration map has learned of Dice and volume; None where nothing is known.
        thresholds: A predicted Dice, or score, below is a reason to look; None: none is.
        problems: By case why there is nothing of it.
        notes: What whoever uses the list must know.
        made: How the segmentations were made, for the page: text by heading.
    """

    title: str
    finished: Mapping[str, FinishedCase]
    structures: Sequence[str]
    members: Sequence[str]
    quality: QualityOfMap | None = None
    thresholds: Thresholds | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[CaseReview]:
        """Of the cases, those that need a look most first.

        Empty predictions come before all others, those with the largest probability of any structure first: there the
        network was nearest to predicting something. The others follow by their score, rising, where the map knows
        one, then by their lowest predicted Dice. Empty predictions of scans in which nothing is to be expected come
        last.
        """

        def key(row: CaseReview) -> tuple:
            if row.empty and row.nothing_there:
                return (2, -max(structure.present for structure in row.structures), row.case)
            if row.empty:
                return (0, -max(structure.max_probability for structure in row.structures), row.case)
            return (1, math.inf if math.isnan(row.score) else row.score, row.lowest_predicted_dice, row.case)

        rows = (case.row for case in self.finished.values())
        return sorted((self.quality.complete(row) if self.quality else row for row in rows), key=key)

    @cached_property
    def scored(self) -> bool:
        """Whether the map knows how unusual a predicted Dice is."""
        return any(not math.isnan(row.score) for row in self.rows)

    @property
    def predicts_dice(self) -> bool:
        """Whether there is a predicted Dice of such segmentations."""
        return self.quality is not None and self.quality.predicts_dice

    @cached_property
    def findings(self) -> dict[str, tuple[StructureFindings, ...]]:
        """By case, in the order of the list, the components of the structures that were asked for."""
        listed = {row.case: self.finished[row.case].findings for row in self.rows}
        if self.quality is None:
            return listed
        return {case: self.quality.judge(each, self.finished[case].row.unit) for case, each in listed.items()}

    @cached_property
    def reasons(self) -> dict[str, dict[str, list[str]]]:
        """By case why it needs a look, in words, and which structures each reason is about; none for most."""
        reasons = {}
        for row in self.rows:
            case = self.finished[row.case]
            listed = [structure.name for structure in case.findings]
            reasons[row.case] = reasons_to_look(row, self.thresholds, case.differences, listed)
        return reasons

    @property
    def n_to_look_at(self) -> int:
        """Cases with any reason."""
        return sum(map(bool, self.reasons.values()))

    @property
    def decided(self) -> list[DecidedCase]:
        """What a decision did to each case, in alphabetic order, where it was looked at."""
        return [case.decided for _, case in sorted(self.finished.items()) if case.decided]

    def csv_texts(self) -> dict[str, str]:
        """By name the content of review.csv, structures.csv and scans.csv, in the order of the list.

        A cell is empty where a number is undefined. A case that could not be done has a row without a rank at the end
        of review.csv: whoever works through the list must not miss it.
        """
        tables: dict[str, list[dict[str, Any]]] = {REVIEW: [], STRUCTURES: [], SCANS: []}
        for rank, case in enumerate(self.rows, 1):
            why, worst = self.reasons[case.case], case.worst_first[0]
            named = {name for names in why.values() for name in names}
            reader = (rank, case.case, "yes" if why else "no", "; ".join(why), len(named), case.score)
            dice = (worst.name if worst.pieces else None, worst.predicted_dice, *worst.dice_interval)
            tables[REVIEW].append(dict(zip(_COLUMNS, (*reader, *dice, None))))
            tables[SCANS].append({"case": case.case, **case.columns()})
            for structure in case.structures:
                columns = structure.columns(case.unit, self.members)
                tables[STRUCTURES].append({"case": case.case, "structure": structure.name, **columns})
        nothing: dict[str, Any] = dict.fromkeys(_COLUMNS)
        tables[REVIEW] += [nothing | {"case": name, "problem": problem} for name, problem in self.problems.items()]
        return {name: _csv_text(rows) for name, rows in tables.items()}

    def write(self, output: Path, page: Callable[[ReviewList], Mapping[str, str]]) -> None:
        """Write all files of the list.

        Args:
            output: Folder of index.html, review.csv, structures.csv, scans.csv, and findings.csv where structures were
                asked for.
            page: Makes the pages, by name (:func:`nnunet_nacl.show.review_page.review_page`).

        Raises:
            UserError: A file cannot be written.
        """
        for name, text in self.csv_texts().items():
            write_atomically(output / name, text)
        (output / "review_details.csv").unlink(missing_ok=True)  # of an earlier version
        if any(self.findings.values()):
            write_atomically(output / FINDINGS, findings_csv_text(self.findings, self.rows[0].unit))
        else:
            (output / FINDINGS).unlink(missing_ok=True)  # of an earlier run
        pages = page(self)
        for name, text in pages.items():
            write_atomically(output / name, text)
        for path in output.glob("index_*.html"):  # of an earlier, longer list
            if path.name not in pages and path.stem.removeprefix("index_").isdecimal():
                path.unlink()


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of rows that may lack columns; numbers with six digits."""
    header = list(dict.fromkeys(column for row in rows for column in row))
    cells = ([row.get(column) for column in header] for row in rows)
    return to_csv_text(header, ([float(f"{x:.6g}") if isinstance(x, float) else x for x in row] for row in cells))
