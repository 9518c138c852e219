"""Ranks scans and finds reasons to look at them, from their records and from what a map has
learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd

from nnunet_nacl.cases.record import CaseRecord, table
from nnunet_nacl.estimators.unlike_batch import UnlikeBatch, UnlikeScans, find_unlike_batch
from nnunet_nacl.utilities.command_lines import calibrate_images_command, predict_with_map
from nnunet_nacl.worklist.judgement import (
    OF_SCAN,
    completed,
    may_be_in_pieces,
    structures_by_need,
)
from nnunet_nacl.worklist.reasons import Reason, find_reasons, oddities_of_image, worst_first
from nnunet_nacl.worklist.run import Run

NEXT = 10
"""So many scans behind those that are flagged have a page, too."""

_WHY_NO_FLAG = "such a Dice is possible there, but not so likely that the aim needs a flag"
"""Why a scan whose interval reaches below a bad Dice has none."""

_OF_WORST = ["score", "predicted_dice", "dice_low", "dice_high"]
"""Columns that a scan has of its worst structure."""


@dataclass(frozen=True, eq=False)
class ReviewList:
    """The list of a run, those scans first that need a look most.

    Attributes:
        scans: A row for each scan, by case, see :func:`review_list`.
        structures: The rows of each scan in that order, see
            :func:`~nnunet_nacl.worklist.judgement.completed`; the index is the case.
        records: By case.
        run: What was asked for, and what is said beside the list.
        unlike: How many scans are unlike the calibration scans; None where nobody knows what these
            look like.
        unlike_batch: How the whole batch differs from the calibration scans; None where it does
            not, or nobody knows.
    """

    scans: pd.DataFrame
    structures: pd.DataFrame
    records: Mapping[str, CaseRecord]
    run: Run
    unlike: UnlikeScans | None
    unlike_batch: UnlikeBatch | None

    def cases(self, column: str) -> list[str]:
        """Names of the scans for which a column of truth values is true, in the list's order."""
        return self.scans.index[self.scans[column].to_numpy(bool)].tolist()

    @cached_property
    def _kinds(self) -> dict[str, int]:
        """By kind of reason, in how many scans there is one."""
        n_scans_of_kind = Counter[str]()
        for reasons in self.scans.reasons:
            kinds = [reason.kind for reason in reasons]
            n_scans_of_kind.update(dict.fromkeys(kinds, 1))
        return n_scans_of_kind

    def reasons(self, case: str) -> list[str]:
        """The texts of a scan's reasons, but for those of a kind that every one of several scans
        has.

        The summary says these.
        """
        reasons = self.scans.reasons[case]
        n_scans = len(self.scans)
        if n_scans == 1:
            return _texts(reasons)
        return _texts(reason for reason in reasons if self._kinds[reason.kind] < n_scans)

    def structures_by_need(self, case: str) -> list[str]:
        """Names of all structures of a scan, those first that need a look most."""
        return structures_by_need(self.scans.reasons[case], self.structures.loc[[case]])

    @property
    def summary(self) -> str:
        """How many are flagged, by what, and what flags by predicted Dice aim at."""
        return " ".join(text for text in (self.counts, self.aim, self.unlike_text) if text)

    @property
    def unlike_text(self) -> str:
        """How many scans are unlike the calibration scans; empty where none is, or where the whole
        batch is and :meth:`elsewhere_text` says it."""
        if self.unlike is None or self.unlike_batch is not None:
            return ""
        return self.unlike.text

    @property
    def elsewhere_text(self) -> str:
        """What holds in a batch unlike the calibration scans, as of another scanner; else empty."""
        if self.unlike_batch is None:
            return ""
        of_reports = ""
        if self.run.dicom is not None:
            of_reports = " DICOM reports were written scan by scan and do not say this."
        return (
            f"These scans differ from the calibration scans ({self.unlike_batch.differences}),"
            " as scans of another scanner do. Predicted Dice still orders them, as far as we have"
            " seen; intervals of Dice and volume do not hold, and sensitive labels may miss"
            f" more than their aim.{of_reports}"
        )

    @property
    def remedy_text(self) -> str:
        """How to calibrate for a batch that is unlike the calibration scans."""
        model = self.run.document.get("model", {})
        dataset = model.get("dataset") or "DATASET"  # it is not known of every folder
        configuration = model.get("configuration", "CONFIGURATION")
        trainer = model.get("trainer", "TRAINER")
        new_map = "this_scanner.json"
        calibrate = calibrate_images_command(dataset, trainer, configuration, new_map)
        predict = predict_with_map(new_map)
        return (
            "Calibrate with labelled scans of this scanner, of ten patients or more (flags need"
            f" nine patients with a bad scan): `{calibrate}`, then `{predict}`."
        )

    def is_supported(self, case: str) -> bool:
        """Whether intervals hold for a scan, as far as is known: neither it nor the batch is unlike
        the calibration scans."""
        return self.unlike_batch is None and not self.scans.unlike[case]

    @property
    def counts(self) -> str:
        """How many are flagged, and by what, and how many others were chosen by chance."""
        n_scans = len(self.scans)
        n_flagged = len(self.cases("is_flagged"))
        scans = "scan" if n_scans == 1 else "scans"
        are = "is" if n_flagged == 1 else "are"
        text = f"{n_flagged} of {n_scans} {scans} {are} flagged"
        shared_by_flagged = [kind for kind, n in self._kinds.items() if n == n_flagged]
        also = ""
        if shared_by_flagged:
            each = "each " if n_flagged > 1 else ""
            text += f", {each}because {' and '.join(shared_by_flagged)}"
            also = "also "
        for kind, n in self._kinds.items():
            if n < n_flagged:
                text += f", {n} {also}because {kind}"

        if self.run.aims.wanted.also and n_flagged == n_scans:
            return f"{text}; none could be chosen by chance, since no scan is without a flag."
        n_chosen = len(self.cases("is_random"))
        if n_chosen == 0:
            return f"{text}."
        were = "was" if n_chosen == 1 else "were"
        return f"{text}; {n_chosen} more {were} chosen by chance."

    @property
    def has_limit(self) -> bool:
        """Whether a limit of predicted Dice flags scans."""
        flags = self.run.aims.flags
        return flags is not None and flags.threshold is not None

    @cached_property
    def may_be_bad(self) -> set[str]:
        """Scans without a flag whose interval reaches below a bad Dice; none where intervals do not
        hold."""
        if self.run.aims.bad is None:
            return set()
        limits = self.structures["name"].map(self.run.aims.bad)
        reaching = self.structures.index[self.structures.dice_low < limits]
        without_flag = self.scans.index[~self.scans.is_flagged.to_numpy(bool)]
        return {case for case in without_flag.intersection(reaching) if self.is_supported(case)}

    @property
    def may_be_bad_text(self) -> str:
        """Why these have no flag; empty where there are none, or where no limit flags."""
        if not self.has_limit or not self.may_be_bad:
            return ""
        n = len(self.may_be_bad)
        have = "scan without a flag has" if n == 1 else "scans without a flag have"
        return f"{n} {have} an interval that reaches below a bad Dice: {_WHY_NO_FLAG}."

    def text_of_unflagged(self, case: str) -> str:
        """What the page of a scan without a flag says of that."""
        if not self.has_limit:
            return self.aim
        if case in self.may_be_bad:
            return f"Not flagged, though an interval reaches below a bad Dice: {_WHY_NO_FLAG}."
        return "Not flagged."

    @property
    def has_members(self) -> bool:
        """Whether several networks predicted, which may disagree."""
        return bool((self.scans.n_members > 1).any())

    @property
    def aim(self) -> str:
        """What flags by predicted Dice aim at, or why there are none."""
        if self.run.aims.flags:
            return self.run.aims.flags.aim
        if self.run.calibrator.quality.learned is None:
            return "Flagging by predicted Dice is off: it needs a calibration map."
        return "Flagging by predicted Dice is off: a Dice below which a scan is bad turns it on."


def review_list(records: Iterable[CaseRecord], run: Run) -> ReviewList:
    """Rank scans, and say why they need a look.

    They follow by their score, rising. Those without one, such as empty predictions, come before
    all others, the largest probability of any structure on top: there the network was nearest to
    predicting something. Columns of ``scans`` are those of
    :mod:`~nnunet_nacl.worklist.list_files`, with ``unit``; ``reasons`` to look, and what each is
    about; ``is_random`` for those chosen by chance; and ``has_page``.

    Where the batch as a whole is unlike the calibration scans, as of another scanner, its scans are
    compared with each other: the only oddity of an image that flags a scan is then that it stands
    out of the batch.
    """
    by_case = {record.name: record for record in records}
    structures = completed(table(by_case.values()), run.calibrator, run.aims.bad)
    scans = _rank_scans(structures)
    structures = structures.set_index("case").loc[scans.index]
    records_in_order = [by_case[case] for case in scans.index]

    level = run.aims.wanted.unlike
    unlike = [run.calibrator.quality.unlike(each.profile, level) for each in records_in_order]
    scans["unlike_p"] = [p_value for p_value, _ in unlike]
    scans["unlike"] = [text for _, text in unlike]
    compared = scans.index[scans.unlike_p.notna()].tolist()
    unlike_scans, unlike_batch = _compare_batch([by_case[case] for case in compared], run)
    reasons = find_reasons(
        structures,
        run.aims.flags,
        oddities=_find_oddities(scans, records_in_order, run, unlike_batch),
        may_be_in_pieces=may_be_in_pieces(structures, records_in_order, run.calibrator),
    )
    scans["reasons"] = pd.Series([reasons[case] for case in scans.index], scans.index, object)
    _choose_scans(scans, run)
    return ReviewList(scans, structures, by_case, run, unlike_scans, unlike_batch)


def _find_oddities(
    scans: pd.DataFrame,
    records: Iterable[CaseRecord],
    run: Run,
    unlike_batch: UnlikeBatch | None,
) -> dict[str, list[Reason]]:
    """By case what is odd about its image; beside its batch where that as a whole is unlike."""
    if unlike_batch is not None:
        text = "unlike the other scans of this batch"
        oddity = Reason(text, "the image is unlike the other scans")
        return {case: [oddity] for case in unlike_batch.stand_outs}
    oddities = {}
    for record in records:
        differences = run.calibrator.quality.differences(record)
        oddities[record.name] = oddities_of_image(scans.unlike[record.name], differences)
    return oddities


def _choose_scans(scans: pd.DataFrame, run: Run) -> None:
    """Write into ``scans`` which are flagged or chosen by chance, why, and which have a page."""
    scans["is_flagged"] = [bool(reasons) for reasons in scans.reasons]
    without_flag = scans.index[~scans.is_flagged.to_numpy(bool)].tolist()
    # by a hash of their names: of more cases, most chosen ones stay so
    by_hash = sorted(sorted(without_flag), key=_hash_of_name)
    scans["is_random"] = scans.index.isin(by_hash[: run.aims.wanted.also])
    why = ["; ".join(_texts(reasons)) for reasons in scans.reasons]
    scans["why"] = np.where(scans.is_random, "chosen by chance", np.array(why, object))

    pages = run.aims.wanted.pages
    if pages == "flagged":
        scans["has_page"] = ~scans.index.isin(without_flag[NEXT:]) | scans.is_random
    else:
        scans["has_page"] = pages != "none"


def _rank_scans(structures: pd.DataFrame) -> pd.DataFrame:
    """A row for each scan with what follows from its structures, in the order of the list."""
    worst = worst_first(structures).drop_duplicates("case").set_index("case")
    segmented = structures[structures.pieces > 0]
    missing = structures[structures.pieces == 0]
    names_of_missing = missing.groupby("case")["name"].agg("; ".join)
    has_worst = (worst.pieces > 0) | worst.score.notna()
    scans = worst[OF_SCAN + _OF_WORST].assign(
        is_empty=~worst.index.isin(segmented.case),
        empty_structures=names_of_missing.reindex(worst.index, fill_value=""),
        max_probability=structures.groupby("case").max_probability.max(),
        lowest_predicted_dice=segmented.groupby("case").predicted_dice.min(),
        worst_structure=worst["name"].where(has_worst, None),
    )
    is_ascending = {"score": True, "max_probability": False, "case": True}
    return scans.sort_values(
        list(is_ascending), ascending=list(is_ascending.values()), na_position="first"
    )


def _compare_batch(
    records: Sequence[CaseRecord], run: Run
) -> tuple[UnlikeScans | None, UnlikeBatch | None]:
    """How many scans are unlike the calibration scans, and how the whole batch is.

    ``records`` are those of scans that can be compared. The batch is compared by the patients of
    the run; without, each scan is of a patient of its own.
    """
    known = run.calibrator.quality.profiles
    if known is None:
        return None, None
    cases = [record.name for record in records]
    profiles = [np.array(record.profile, float) for record in records]
    patients = cases if run.patients is None else [run.patients[case] for case in cases]
    unlike_scans = UnlikeScans.of(known, profiles, patients, run.aims.wanted.unlike)
    unlike_batch = find_unlike_batch(
        known, np.array(profiles), cases, patients, unlike_scans.two_sample
    )
    return unlike_scans, unlike_batch


def _texts(reasons: Iterable[Reason]) -> list[str]:
    return [reason.text for reason in reasons]


def _hash_of_name(case: str) -> bytes:
    return sha256(f"0 {case}".encode(errors="surrogateescape")).digest()
