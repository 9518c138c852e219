"""Ranks scans and finds reasons to look at them, from their records and from what a map has
learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.cases.record import CaseRecord, table
from nnunet_nacl.command_lines import calibrate_images_command, predict_with_map
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.recall import SensitiveAim
from nnunet_nacl.quality.scan_scores import structure_score
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE
from nnunet_nacl.quality.unlike_batch import UnlikeBatch, UnlikeScans, find_unlike_batch
from nnunet_nacl.worklist.reasons import (
    find_reasons,
    oddities_in_batch,
    oddities_of_image,
    worst_first,
)

NEXT = 10
"""So many scans behind those that are flagged have a page, too."""
MEMBER = "volume "
"""Begins the column with the volumes that one network of several segmented; its name follows."""

# Columns of structures: those that a scan has in common, those that a scan has of its worst
# structure, those that are measured, and those that follow from what a map has learned.
_OF_SCAN = ["entropy", "confidence", "mutual_information", "n_members", "unit"]
_OF_WORST = ["score", "predicted_dice", "dice_low", "dice_high"]
_MEASURED = [
    "key",
    "name",
    "pieces",
    "largest_piece",
    "volume",
    "predicted_dice",
    "predicted_volume",
    "max_probability",
    "members_dice",
    "network_volume",
    "network_dice",
    *_OF_SCAN,
]
_LEARNED = ["dice_low", "dice_high", "volume_low", "volume_high", "present", "score"]


@dataclass(frozen=True)
class Aims:
    """What whoever looks at the list wants of it.

    Attributes:
        flags: By which score scans are flagged; None: by none, they are ranked only.
        unlike: A scan is unlike the calibration scans if the p-value of its image, tested against
            theirs, is at most this.
        also: Scans to be chosen by chance among those that are not flagged.
        pages: Which scans have a page: ``flagged`` with the ``NEXT`` next and those chosen, ``all``
            or ``none``.
        sensitive: What sensitive labels aim at; None: there are none.
    """

    flags: Flags | None = None
    unlike: float = DEFAULT_UNLIKE
    also: int = 0
    pages: str = "flagged"
    sensitive: SensitiveAim | None = None


@dataclass(frozen=True)
class About:
    """What is said beside the list.

    Attributes:
        title: Such as the data set.
        file_ending: Of the segmentations.
        run: Name of the run that marks are kept under.
        problems: By case why there is nothing of it.
        notes: What whoever uses the list must know.
        document: What prediction.json says of cases, networks, map and settings.
    """

    title: str = ""
    file_ending: str = ".nii.gz"
    run: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReviewList:
    """The list of a run, those scans first that need a look most.

    Attributes:
        scans: A row for each scan, by case, see :func:`review_list`.
        structures: The rows of each scan in that order, see :func:`completed`; the index is the
            case, and ``number`` counts structures from 0.
        records: By case.
        calibrator: The calibration map, and what it has learned.
        aims, about: What was asked for, and what is said beside the list.
        unlike: How many scans are unlike the calibration scans; None where nobody knows what these
            look like.
        unlike_batch: How the whole batch differs from the calibration scans; None where it does
            not, or nobody knows.
    """

    scans: pd.DataFrame
    structures: pd.DataFrame
    records: Mapping[str, CaseRecord]
    calibrator: Calibrator
    aims: Aims
    unlike: UnlikeScans | None
    unlike_batch: UnlikeBatch | None
    about: About

    def cases(self, column: str) -> list[str]:
        """Names of the scans for which a column of truth values is true, in the list's order."""
        return self.scans.index[self.scans[column].to_numpy(bool)].tolist()

    @cached_property
    def _kinds(self) -> dict[str, int]:
        """By kind of reason, in how many scans there is one."""
        n_scans_of_kind = Counter[str]()
        for reasons in self.scans.reasons:
            kinds = [reason.kind for reason in reasons.values()]
            n_scans_of_kind.update(dict.fromkeys(kinds, 1))
        return n_scans_of_kind

    def reasons(self, case: str) -> list[str]:
        """The reasons of a scan, but for those of a kind that every one of several scans has.

        The summary says these.
        """
        reasons = self.scans.reasons[case]
        n_scans = len(self.scans)
        if n_scans == 1:
            return list(reasons)
        return [text for text, reason in reasons.items() if self._kinds[reason.kind] < n_scans]

    def structures_to_look_at(self, case: str) -> list[str]:
        """Names of all structures of a scan, those first that need a look most.

        These are those that its reasons name, from the strongest reason on, then the others by
        their scores.
        """
        names = [reason.structure for reason in self.scans.reasons[case].values()]
        names += worst_first(self.structures.loc[[case]])["name"].tolist()
        return list(dict.fromkeys(name for name in names if name))

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
        return (
            f"These scans differ from the calibration scans ({self.unlike_batch.differences}),"
            " as scans of another scanner do. Predicted Dice still orders them, as far as we have"
            " seen; intervals of Dice and volume do not hold, and sensitive labels may miss"
            " more than their"
            " aim."
        )

    @property
    def remedy_text(self) -> str:
        """How to calibrate for a batch that is unlike the calibration scans."""
        model = self.about.document.get("model", {})
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

        if self.aims.also and n_flagged == n_scans:
            return f"{text}; none could be chosen by chance, since no scan is without a flag."
        n_chosen = len(self.cases("is_random"))
        if n_chosen == 0:
            return f"{text}."
        were = "was" if n_chosen == 1 else "were"
        return f"{text}; {n_chosen} more {were} chosen by chance."

    @property
    def has_limit(self) -> bool:
        """Whether a limit of predicted Dice flags scans."""
        return self.aims.flags is not None and self.aims.flags.threshold is not None

    @property
    def has_members(self) -> bool:
        """Whether several networks predicted, which may disagree."""
        return bool((self.scans.n_members > 1).any())

    @property
    def aim(self) -> str:
        """What flags by predicted Dice aim at, or why there are none."""
        if self.aims.flags:
            return self.aims.flags.aim
        why = "it needs a calibration map"
        if self.calibrator.quality.learned is not None:
            why = "a Dice below which a scan is bad turns it on"
        return f"Flagging by predicted Dice is off: {why}."


def review_list(
    records: Iterable[CaseRecord],
    calibrator: Calibrator = Calibrator(),
    aims: Aims = Aims(),
    about: About = About(),
    patients: Mapping[str, str] | None = None,
) -> ReviewList:
    """Rank scans, and say why they need a look.

    They follow by their score, rising. Those without one, such as empty predictions, come before
    all others, the largest probability of any structure on top: there the network was nearest to
    predicting something. Columns of ``scans`` are those of
    :mod:`~nnunet_nacl.worklist.list_tables`, with ``unit``; ``reasons`` to look, and what each is
    about; ``is_random`` for those chosen by chance; and ``has_page``.

    Where the batch as a whole is unlike the calibration scans, as of another scanner, its scans are
    compared with each other: the only oddity of an image that flags a scan is then that it stands
    out of the batch. The batch is compared by the ``patients`` of its scans; None: each scan is of
    a patient of its own.
    """
    by_case = {record.case: record for record in records}
    bad = None if aims.flags is None else aims.flags.bad
    structures = completed(table(by_case.values()), calibrator, bad)
    scans = _rank_scans(structures)
    structures = structures.set_index("case").loc[scans.index]
    # by which templates choose the colour of a structure
    structures["number"] = structures.groupby(level=0).cumcount()
    records_in_order = [by_case[case] for case in scans.index]

    unlike = [calibrator.quality.unlike(record.profile, aims.unlike) for record in records_in_order]
    scans["unlike_p"] = [p_value for p_value, _ in unlike]
    scans["unlike"] = [text for _, text in unlike]
    compared = scans.index[scans.unlike_p.notna()].tolist()
    unlike_scans, unlike_batch = _compare_batch(
        {case: by_case[case].profile for case in compared}, calibrator, aims.unlike, patients
    )
    reasons = find_reasons(
        structures,
        aims.flags,
        oddities=_find_oddities(scans, records_in_order, calibrator, unlike_batch),
        may_be_in_pieces=_may_be_in_pieces(structures, by_case, calibrator),
    )
    scans["reasons"] = pd.Series([reasons[case] for case in scans.index], scans.index, object)
    _choose_scans(scans, aims)
    return ReviewList(
        scans, structures, by_case, calibrator, aims, unlike_scans, unlike_batch, about
    )


def _find_oddities(
    scans: pd.DataFrame,
    records: Iterable[CaseRecord],
    calibrator: Calibrator,
    unlike_batch: UnlikeBatch | None,
) -> dict[str, dict[str, str]]:
    """By case what is odd about its image: beside its batch where that as a whole is unlike."""
    if unlike_batch is not None:
        return {case: oddities_in_batch() for case in unlike_batch.stand_outs}
    oddities = {}
    for record in records:
        differences = calibrator.quality.differences(record)
        oddities[record.case] = oddities_of_image(scans.unlike[record.case], differences)
    return oddities


def _choose_scans(scans: pd.DataFrame, aims: Aims) -> None:
    """Write into ``scans`` which are flagged or chosen by chance, why, and which have a page."""
    scans["is_flagged"] = [bool(reasons) for reasons in scans.reasons]
    without_flag = scans.index[~scans.is_flagged.to_numpy(bool)].tolist()
    chosen = _choose_by_chance(without_flag, aims.also)
    scans["is_random"] = scans.index.isin(chosen)
    why = ["; ".join(reasons) for reasons in scans.reasons]
    scans["why"] = np.where(scans.is_random, "chosen by chance", np.array(why, object))
    scans["has_page"] = _have_page(scans.index, without_flag, chosen, aims.pages)


def _rank_scans(structures: pd.DataFrame) -> pd.DataFrame:
    """A row for each scan with what follows from its structures, in the order of the list."""
    worst = worst_first(structures).drop_duplicates("case").set_index("case")
    segmented = structures[structures.pieces > 0]
    missing = structures[structures.pieces == 0]
    names_of_missing = missing.groupby("case")["name"].agg("; ".join)
    has_worst = (worst.pieces > 0) | worst.score.notna()
    scans = worst[_OF_SCAN + _OF_WORST].assign(
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


def _may_be_in_pieces(
    structures: pd.DataFrame, records: Mapping[str, CaseRecord], calibrator: Calibrator
) -> np.ndarray:
    """Of each row whether several components are no surprise.

    They are none where the map says so, or where they are findings.
    """
    with_findings = set[tuple[str, str]]()
    for case, record in records.items():
        for structure in record.findings:
            with_findings.add((case, structure.name))
    case_and_name = zip(structures.index, structures["name"])
    are_findings = np.array([pair in with_findings for pair in case_and_name], bool)
    return are_findings | structures.key.isin(calibrator.quality.fragmented).to_numpy()


def _have_page(
    cases: Iterable[str], without_flag: Sequence[str], chosen: set[str], pages: str
) -> list[bool]:
    """Whether each scan has a page, see :class:`Aims`."""
    left_out = set[str]()
    if pages == "none":
        left_out = set(cases)
    elif pages == "flagged":
        left_out = set(without_flag[NEXT:]) - chosen
    return [case not in left_out for case in cases]


def _compare_batch(
    profiles: Mapping[str, Sequence[float]],
    calibrator: Calibrator,
    level: float,
    patients: Mapping[str, str] | None,
) -> tuple[UnlikeScans | None, UnlikeBatch | None]:
    """How many scans are unlike the calibration scans, and how the whole batch is.

    Args:
        profiles: Of the scans that can be compared, by case.
        calibrator: Which may know the calibration scans.
        level: Of a single scan.
        patients: Of the scans; None: each is of its own.
    """
    known = calibrator.quality.profiles
    if known is None:
        return None, None
    cases = list(profiles)
    of_scans = [np.array(profile, float) for profile in profiles.values()]
    of_patients = cases if patients is None else [patients[case] for case in cases]
    unlike_scans = UnlikeScans.of(known, of_scans, of_patients, level)
    unlike_batch = find_unlike_batch(
        known, np.array(of_scans), cases, of_patients, unlike_scans.two_sample
    )
    return unlike_scans, unlike_batch


def completed(
    structures: pd.DataFrame, calibrator: Calibrator, bad: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The rows of structures with what a map has learned of them, and their scores.

    :data:`~nnunet_nacl.worklist.list_tables.STRUCTURE_COLUMNS` says what the new columns are; NaN
    where nothing is known.

    Args:
        structures: See :func:`~nnunet_nacl.cases.record.table`.
        calibrator: A map, and what it has learned of such predictions.
        bad: By name of each structure that counts, the Dice below which it is bad; None: all count,
            from 0.
    """
    columns = dict.fromkeys([*structures, *_MEASURED, *_LEARNED])
    volumes = _volumes_of_members(structures)
    rows = structures.reindex(columns=list(columns)).assign(
        volume_min=volumes.min(axis=1),
        volume_max=volumes.max(axis=1),
        volume_sd=volumes.std(axis=1),
    )
    for key, rows_of_structure in rows.groupby("key", sort=False):
        is_always = _add_learned(rows, str(key), rows_of_structure, calibrator)
        present = rows.present[rows_of_structure.index]
        score = structure_score(rows_of_structure.predicted_dice, present, is_always)
        limit = bad.get(rows_of_structure["name"].iloc[0], math.nan) if bad is not None else 0.0
        rows.loc[rows_of_structure.index, "score"] = score - limit
    return rows


def _volumes_of_members(structures: pd.DataFrame) -> pd.DataFrame:
    """The volumes that each of several networks segmented; no column where there is one network."""
    columns = [column for column in structures if column.startswith(MEMBER)]
    if len(columns) < 2:
        columns = []
    return structures[columns].astype(float)


def _add_learned(
    rows: pd.DataFrame, key: str, rows_of_structure: pd.DataFrame, calibrator: Calibrator
) -> bool:
    """Write into ``rows`` what a map has learned of one structure.

    Volumes and presence are written only where they are in the unit that the map has learned.

    Returns:
        Whether the structure was in all calibration scans.
    """
    learned = calibrator.quality.learned
    if learned is None:
        return False
    dice = learned.dice[key].predict(rows_of_structure.predicted_dice)
    rows.loc[rows_of_structure.index, ["dice_low", "dice_high"]] = dice[:, 1:]
    same_unit = rows_of_structure[rows_of_structure.unit == calibrator.quality.unit]
    volumes = learned.volume[key].predict(same_unit.predicted_volume)
    rows.loc[same_unit.index, ["volume_low", "volume_high"]] = volumes[:, 1:]
    if calibrator.presence is not None:
        present = calibrator.presence.present_probability(key, same_unit)
        rows.loc[same_unit.index, "present"] = present
    return key in learned.scores.always


def _choose_by_chance(cases: Sequence[str], number: int) -> set[str]:
    """So many of the cases, by a hash of their names: of more cases, most chosen ones stay so."""
    return set(sorted(sorted(cases), key=_hash_of_name)[:number])


def _hash_of_name(case: str) -> bytes:
    return sha256(f"0 {case}".encode(errors="surrogateescape")).digest()
