"""What is said of a folder's cases, in the order in which to look at them: a page, tables and a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import nnunet_nacl
from nnunet_nacl.cases.dice_thresholds import DiceThresholds, Given
from nnunet_nacl.cases.predicted_quality import QualityOfMap
from nnunet_nacl.cases.review_list import FinishedCase, PredictedCase, in_order, review_csv_texts
from nnunet_nacl.cases.review_row import CaseReview
from nnunet_nacl.documents.decision_json import DecidedCase
from nnunet_nacl.documents.finding_list import FINDINGS, StructureFindings, findings_csv_text
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.prediction.reasons import LOWEST_MEMBERS_DICE, reasons_to_look

DOCUMENT = "prediction.json"
RECORDS = "review"
"""Folder of the run's ledger."""
PAGE = "index.html"
REVIEW = "review.csv"
DETAILS = "review_details.csv"
LIST_FILES = (PAGE, REVIEW, DETAILS, FINDINGS)
"""What :meth:`ReviewList.write` writes beside the segmentations."""

_RESEARCH = "Research software, not for clinical use. The order is a ranking; no threshold is validated."


def thresholds_of(
    given: Given | None, structures: Mapping[str, str], quality: QualityOfMap | None
) -> DiceThresholds | None:
    """Below which predicted Dice a structure is a reason to look; None where none is predicted.

    Raises:
        UserError: See :meth:`~nnunet_nacl.cases.dice_thresholds.DiceThresholds.of`.
    """
    if given is None or quality is None or not quality.predicts_dice:
        return None
    return DiceThresholds.of(given, structures, quality.lowest_tenth)


@dataclass(frozen=True)
class ReviewList:
    """The list of a run.

    Attributes:
        title: Of the page, such as the data set.
        finished: What is kept of each case, by name.
        structures: Their names.
        members: Names of the networks or folders that are averaged; one if there is nothing to average.
        quality: What the calibration map has learned of Dice and volume; None where nothing is known.
        thresholds: A predicted Dice below is a reason to look; None: no predicted Dice is.
        problems: By case why there is nothing of it.
        notes: What whoever uses the list must know.
        made: How the segmentations were made, for the page: text by heading.
        compared_with: What of the training the images were compared with; empty if they were not.
        decided: What a decision did to each case, in alphabetic order, where it was looked at.
    """

    title: str
    finished: Mapping[str, FinishedCase]
    structures: Sequence[str]
    members: Sequence[str]
    quality: QualityOfMap | None = None
    thresholds: DiceThresholds | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    compared_with: str = ""
    decided: Sequence[DecidedCase] = ()

    @cached_property
    def rows(self) -> list[CaseReview]:
        """Of the cases, in the order in which to look at them."""
        return in_order([case.row for case in self.finished.values()], self.predicted)

    @property
    def predicts_dice(self) -> bool:
        """Whether there is a predicted Dice of such segmentations."""
        return self.quality is not None and self.quality.predicts_dice

    @cached_property
    def predicted(self) -> dict[str, PredictedCase] | None:
        """By case what the map predicts; None where nothing is known."""
        if self.quality is None:
            return None
        return {case: self.quality.predict(finished.row) for case, finished in self.finished.items()}

    @cached_property
    def findings(self) -> dict[str, tuple[StructureFindings, ...]]:
        """By case, in the order of the list, the components of the structures that were asked for."""
        found = {row.case: self.finished[row.case].findings for row in self.rows}
        if self.quality is None:
            return found
        return {case: self.quality.judge(one, self.finished[case].row.unit) for case, one in found.items()}

    @cached_property
    def reasons(self) -> dict[str, list[str]]:
        """By case why it needs a look, in words; none for most."""
        predicted, found = self.predicted or {}, {}
        for row in self.rows:
            finished = self.finished[row.case]
            listed = [structure.name for structure in finished.findings]
            found[row.case] = reasons_to_look(
                row, predicted.get(row.case), self.thresholds, finished.differences, listed
            )
        return found

    @property
    def n_to_look_at(self) -> int:
        """Cases with any reason."""
        return sum(map(bool, self.reasons.values()))

    def write(self, output: Path, content: Mapping[str, Any], page: Callable[[ReviewList], str]) -> None:
        """Write all files of the list.

        Args:
            output: Folder of index.html, review.csv, review_details.csv, findings.csv where structures were asked for,
                and prediction.json.
            content: What that says beside the list.
            page: Makes the page (:func:`nnunet_nacl.show.review_page.review_page`).

        Raises:
            UserError: A file cannot be written.
        """
        texts = review_csv_texts(self.rows, self.members, self.problems, self.predicted, self.reasons)
        for name, text in zip((REVIEW, DETAILS), texts):
            write_atomically(output / name, text)
        if any(self.findings.values()):
            write_atomically(output / FINDINGS, findings_csv_text(self.findings, self.rows[0].unit))
        else:
            (output / FINDINGS).unlink(missing_ok=True)  # of an earlier run
        write_atomically(output / PAGE, page(self))
        whole = {
            "schema_version": 1,
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **content,
            "threshold": self.thresholds and self.thresholds.to_json(),
            "members_dice_threshold": LOWEST_MEMBERS_DICE if len(self.members) > 1 else None,
            "notes": [*self.notes, _RESEARCH],
            "n_cases": len(self.rows),
            "n_to_look_at": self.n_to_look_at,
        }
        write_atomically(output / DOCUMENT, to_json_text(whole))
