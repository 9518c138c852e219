"""What is said of a folder's cases, the one that needs a look most on top: a page, tables and a document."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.findings import FINDINGS, StructureFindings, findings_csv_text
from nnunet_nacl.files import is_ours, to_csv_text, write_atomically
from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.numbers.unlike import DEFAULT_UNLIKE, UnlikeScans
from nnunet_nacl.review.outcome_json import OUTCOME, OUTCOME_PAGE
from nnunet_nacl.review.predicted_quality import QualityOfMap
from nnunet_nacl.review.prediction_json import DOCUMENT
from nnunet_nacl.review.reasons import BY_SCORE, reasons_to_look
from nnunet_nacl.review.reviewed_case import FinishedCase
from nnunet_nacl.review.row import CaseReview

PAGE = "index.html"
RECORDS = "review"
"""Folder of the run's ledger, of what pages are made of, and of the scans' pages."""
REVIEW = "review.csv"
STRUCTURES = "structures.csv"
SCANS = "scans.csv"

_COLUMNS = (
    *("rank", "case", "flag", "reasons", "n_structures_with_reasons", "score"),
    *("worst_structure", "predicted_dice", "predicted_dice_low", "predicted_dice_high", "problem"),
)
"""Of review.csv."""
DRAW_SEED = 0
"""Of the scans that are drawn by chance."""
NEXT = 10
"""So many scans behind those that are flagged have a page, too."""
RESEARCH = "Research software, not for clinical use."


@dataclass(frozen=True)
class ReviewList:
    """The list of a run.

    Attributes:
        title: Of the page, such as the data set.
        finished: What is kept of each case, by name.
        structures: Their names.
        members: Names of the networks that are averaged; one if there is nothing to average.
        quality: What the calibration map has learned of Dice and volume; None where nothing is known.
        flags: By which score a scan is flagged; None: by none, they are ranked only.
        problems: By case why there is nothing of it.
        notes: What whoever uses the list must know.
        made: How the segmentations were made, for the page: text by heading.
        unlike: A scan whose image is as odd with this probability at most is unlike the calibration scans.
        run: Name of the run that marks are kept under.
        pages: Which scans have a page: ``flagged`` with the ``NEXT`` next and those drawn, ``all`` or ``none``.
        file_ending: Of the segmentations.
        also: Scans to be drawn by chance among those that are not flagged.
    """

    title: str
    finished: Mapping[str, FinishedCase]
    structures: Sequence[str]
    members: Sequence[str]
    quality: QualityOfMap | None = None
    flags: Flags | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    unlike: float = DEFAULT_UNLIKE
    run: str = ""
    pages: str = "flagged"
    file_ending: str = ".nii.gz"
    also: int = 0

    @cached_property
    def rows(self) -> list[CaseReview]:
        """Of the cases, those that need a look most first.

        They follow by their score, rising. Those without one come before all others: first empty predictions, those
        with the largest probability of any structure on top, where the network was nearest to predicting something.
        """

        def key(row: CaseReview) -> tuple:
            if math.isnan(row.score) and row.empty:
                return (0, -max(structure.max_probability for structure in row.structures), row.case)
            return (1, -math.inf if math.isnan(row.score) else row.score, row.lowest_predicted_dice, row.case)

        return sorted(map(self._completed, self.finished.values()), key=key)

    def _completed(self, case: FinishedCase) -> CaseReview:
        if self.quality is None:
            return case.row
        row = self.quality.complete(case.row, self.flags.bad if self.flags else None)
        return self.quality.compare(row, case.profile, self.unlike)

    @cached_property
    def unlike_scans(self) -> UnlikeScans | None:
        """How many scans are unlike the calibration scans; None where nobody knows what these look like."""
        if self.quality is None or (known := self.quality.of_map.profiles) is None:
            return None
        profiles = [np.array(self.finished[row.case].profile) for row in self.rows if not math.isnan(row.unlike_p)]
        return UnlikeScans.of(known, profiles, self.unlike)

    @cached_property
    def scored(self) -> bool:
        """Whether the score, which is rounded, is something else than the lowest predicted Dice."""
        known = [row for row in self.rows if not math.isnan(row.score)]
        return any(not abs(row.score - row.lowest_predicted_dice) < 1e-4 for row in known)  # NaN is

    @cached_property
    def findings(self) -> dict[str, tuple[StructureFindings, ...]]:
        """By case, in the order of the list, the components of the structures that were asked for."""
        return {row.case: self.finished[row.case].findings for row in self.rows}

    @cached_property
    def reasons(self) -> dict[str, dict[str, list[str]]]:
        """By case why it needs a look, in words, and which structures each reason is about; none for most."""
        reasons = {}
        for row in self.rows:
            case = self.finished[row.case]
            parts = {structure.name for structure in case.findings}
            if self.quality:  # or they were in parts in most calibration scans
                names = self.quality.record.names
                parts |= {names[key] for key in self.quality.torn}
            reasons[row.case] = reasons_to_look(row, self.flags, case.differences, parts)
        return reasons

    @cached_property
    def drawn(self) -> list[str]:
        """Cases drawn among those that are not flagged, by a hash: of more scans, most that were drawn stay so."""
        others = [case for case, why in self.reasons.items() if not why]
        order = {case: sha256(f"{DRAW_SEED} {case}".encode(errors="surrogateescape")).digest() for case in others}
        return sorted(sorted(others, key=order.__getitem__)[: self.also])

    def why(self, case: str) -> str:
        """Its reasons, or that it was drawn by chance, which is none; empty for most."""
        return "; ".join(self.reasons[case]) or "drawn by chance" * (case in self.drawn)

    @cached_property
    def paged(self) -> list[str]:
        """Scans that have a page of their own, in the order of the list."""
        if self.pages == "none":
            return []
        others = [row.case for row in self.rows if not self.reasons[row.case]]
        left_out = set(others[NEXT:] if self.pages == "flagged" else ()).difference(self.drawn)
        return [row.case for row in self.rows if row.case not in left_out]

    @property
    def n_to_look_at(self) -> int:
        """Cases with any reason."""
        return sum(map(bool, self.reasons.values()))

    @property
    def summary(self) -> str:
        """How many are flagged, by what, and what that aims at."""
        n, of = self.n_to_look_at, len(self.rows)
        text = f"{n} of {of} scan{'s' * (of != 1)} {'is' if n == 1 else 'are'} flagged."
        if self.flags is None or self.flags.why_not:
            how = "-bad 0.7 flags those whose Dice may be below 0.7, such that 9 of 10 bad ones are found."
            if self.quality and self.quality.why_no_flags:
                how = f"Scans cannot be flagged by a score: {self.quality.why_no_flags}"
            text += f" {self.flags.aim if self.flags else how if self.quality else ''}"
        else:
            others = sum(bool(why) and not next(iter(why)).startswith(BY_SCORE) for why in self.reasons.values())
            text += f" {self.flags.aim}"
            text += f" {others} {'is' if others == 1 else 'are'} flagged for other reasons alone." if others else ""
        return f"{text.strip()} {self.unlike_scans.text if self.unlike_scans else ''}".strip()

    @property
    def reservation(self) -> str:
        """How far the list may be relied on."""
        if self.flags is None or self.flags.why_not or self.flags.threshold is None:
            return "The order is a ranking, no threshold is validated."
        return "What flags aim at holds for patients like the calibration set's."

    def csv_texts(self) -> dict[str, str]:
        """By name the content of review.csv, structures.csv and scans.csv, in the order of the list.

        A cell is empty where a number is undefined. A case that could not be done has a row without a rank at the end
        of review.csv: whoever works through the list must not miss it.
        """
        tables: dict[str, list[dict[str, Any]]] = {REVIEW: [], STRUCTURES: [], SCANS: []}
        for rank, case in enumerate(self.rows, 1):
            why, worst = self.reasons[case.case], case.worst_first[0]
            named = {name for names in why.values() for name in names}
            reader = (rank, case.case, "yes" if why else "no", self.why(case.case), len(named), case.score)
            known = worst.pieces or not math.isnan(worst.score)
            dice = (worst.name if known else None, worst.predicted_dice, *worst.dice_interval)
            tables[REVIEW].append(dict(zip(_COLUMNS, (*reader, *dice, None))))
            tables[SCANS].append({"case": case.case, **case.columns()})
            for structure in case.structures:
                columns = structure.columns(case.unit, self.members)
                tables[STRUCTURES].append({"case": case.case, "structure": structure.name, **columns})
        nothing: dict[str, Any] = dict.fromkeys(_COLUMNS)
        tables[REVIEW] += [nothing | {"case": name, "problem": problem} for name, problem in self.problems.items()]
        return {name: _csv_text(rows) for name, rows in tables.items()}

    def write(self, output: Path, page: Pages) -> None:
        """Write all files of the list.

        Args:
            output: Folder of index.html, review.csv, structures.csv, scans.csv, and findings.csv where structures were
                asked for; pages of scans lie in ``RECORDS``, beside the pictures that they are made of.
            page: Makes the pages (:func:`nnunet_nacl.review.scan_page.all_pages`).

        Raises:
            UserError: A file cannot be written.
        """
        remove_list(output)  # another part may have written one
        for name, text in self.csv_texts().items():
            write_atomically(output / name, text)
        if any(self.findings.values()):
            write_atomically(output / FINDINGS, findings_csv_text(self.findings, self.rows[0].unit))
        for name, text in page(self, output):
            write_atomically(output / name, text)


def places_of_list(output: Path, cases: Iterable[str]) -> list[str]:
    """Files of a run beside segmentations: tables, document, page, further pages that are there, one of each case."""
    pages = [PAGE, *(path.name for path in output.glob("index_[0-9]*.html")), *map(page_of, cases)]
    return [DOCUMENT, REVIEW, STRUCTURES, SCANS, FINDINGS, *pages]


def remove_list(output: Path) -> None:
    """Remove the list of an earlier run and what came of it, before its segmentations change; files of others stay."""
    cases = [path.stem for path in (output / RECORDS).glob("*.html")]
    for name in (OUTCOME, OUTCOME_PAGE, *places_of_list(output, cases)):
        if is_ours(output / name):
            (output / name).unlink(missing_ok=True)


Pages = Callable[[ReviewList, Path], Iterable[tuple[str, str]]]
"""Given the output folder, makes each page: its place there, and its text."""


def pictures_of(case: str) -> str:
    """Place of what the page of a scan is made of, :func:`nnunet_nacl.review.scan_pictures.draw_scan`."""
    return f"{RECORDS}/{case}.pictures"


def page_of(case: str) -> str:
    """Place of the page of a scan."""
    return f"{RECORDS}/{case}.html"


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of rows that may lack columns; numbers with six digits."""
    header = list(dict.fromkeys(column for row in rows for column in row))
    cells = ([row.get(column) for column in header] for row in rows)
    return to_csv_text(header, ([float(f"{x:.6g}") if isinstance(x, float) else x for x in row] for row in cells))
