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
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.recall import SensitiveAim
from nnunet_nacl.quality.scan_scores import structure_score
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE, UnlikeScans
from nnunet_nacl.worklist.reasons import reasons_to_look, worst_first

NEXT = 10
"""So many scans behind those that are flagged have a page, too."""
MEMBER = "volume "
"""Begins the column with the volumes that one network of several segmented; its name follows."""

_OF_SCAN = ["entropy", "confidence", "mutual_information", "n_members", "unit"]
_OF_WORST = ["score", "predicted_dice", "dice_low", "dice_high"]
_MEASURED = (
    *(
        "key",
        "name",
        "pieces",
        "largest_piece",
        "volume",
        "predicted_dice",
        "predicted_volume",
        "max_probability",
    ),
    *("members_dice", "network_volume", "network_dice", *_OF_SCAN),
)
_LEARNED = ("dice_low", "dice_high", "volume_low", "volume_high", "present", "score")


@dataclass(frozen=True)
class Aims:
    """What whoever looks at the list wants of it.

    Attributes:
        flags: By which score scans are flagged; None: by none, they are ranked only.
        unlike: A scan whose image is as odd with this probability at most is unlike the calibration
            scans.
        also: Scans to be chosen by chance among those that are not flagged.
        pages: Which scans have a page: ``flagged`` with the ``NEXT`` next and those chosen, ``all``
            or ``none``.
        sensitive: What labels that miss less aim at; None: there are none.
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
    """

    scans: pd.DataFrame
    structures: pd.DataFrame
    records: Mapping[str, CaseRecord]
    calibrator: Calibrator
    aims: Aims
    unlike: UnlikeScans | None
    about: About

    def cases(self, column: str) -> list[str]:
        """Names of the scans whose value in a column of truth values is true, in the order of the
        list."""
        return self.scans.index[self.scans[column].to_numpy(bool)].tolist()

    @cached_property
    def _kinds(self) -> dict[str, int]:
        """By kind of reason, in how many scans there is one."""
        return Counter(
            kind for reasons in self.scans.reasons for kind in dict.fromkeys(reasons.values())
        )

    def reasons(self, case: str) -> list[str]:
        """The reasons of a scan, but for those of a kind that every scan of a batch has: the
        summary says them."""
        shared = {kind for kind, n in self._kinds.items() if n == len(self.scans) > 1}
        return [text for text, kind in self.scans.reasons[case].items() if kind not in shared]

    @property
    def summary(self) -> str:
        """How many are flagged, by what, and what flags by predicted Dice aim at."""
        return f"{self.counts} {self.aim} {self.unlike.text if self.unlike else ''}".strip()

    @property
    def counts(self) -> str:
        """How many are flagged, and by what, and how many others were chosen by chance."""
        n, of, kinds = len(self.cases("is_flagged")), len(self.scans), self._kinds
        text = f"{n} of {of} scan{'s' * (of != 1)} {'is' if n == 1 else 'are'} flagged"
        each = " and ".join(kind for kind, number in kinds.items() if number == n)
        text += f", {'each ' * (n > 1)}because {each}" if each else ""
        text += "".join(
            f", {number} because {kind}" for kind, number in kinds.items() if number < n
        )
        chosen = len(self.cases("is_random"))
        if self.aims.also and n == of:
            return (
                f"{text}; none could be chosen by chance (-also), since no scan is without a flag."
            )
        return (
            f"{text}; {chosen} more {'was' if chosen == 1 else 'were'} chosen by chance."
            if chosen
            else f"{text}."
        )

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
        if self.calibrator.learned is not None:
            why = "-bad 0.7 turns it on"
        return f"Flagging by predicted Dice is off: {why}."


def review_list(
    records: Iterable[CaseRecord],
    calibrator: Calibrator = Calibrator(),
    aims: Aims = Aims(),
    about: About = About(),
) -> ReviewList:
    """Rank scans, and say why they need a look.

    They follow by their score, rising. Those without one, such as empty predictions, come before
    all others, the largest probability of any structure on top: there the network was nearest to
    predicting something. Columns of ``scans`` are those of :mod:`~nnunet_nacl.worklist.list_files`,
    with ``unit``; ``reasons`` to look, and the kind of each; ``is_random`` for those chosen by
    chance; and ``has_page``.
    """
    by_case = {record.case: record for record in records}
    structures = completed(
        table(by_case.values()), calibrator, aims.flags.bad if aims.flags else None
    )
    worst = worst_first(structures).drop_duplicates("case").set_index("case")
    segmented, missing = structures[structures.pieces > 0], structures[structures.pieces == 0]
    scans = worst[_OF_SCAN + _OF_WORST].assign(
        is_empty=~worst.index.isin(segmented.case),
        empty_structures=missing.groupby("case")["name"]
        .agg("; ".join)
        .reindex(worst.index, fill_value=""),
        max_probability=structures.groupby("case").max_probability.max(),
        lowest_predicted_dice=segmented.groupby("case").predicted_dice.min(),
        worst_structure=worst["name"].where((worst.pieces > 0) | worst.score.notna(), None),
    )
    order = {"score": True, "max_probability": False, "case": True}
    scans = scans.sort_values([*order], ascending=[*order.values()], na_position="first")
    structures = structures.set_index("case").loc[scans.index]
    structures["number"] = structures.groupby(level=0).cumcount()
    odd = [calibrator.unlike(by_case[case].profile, aims.unlike) for case in scans.index]
    scans["unlike_p"], scans["unlike"] = [p for p, _ in odd], [text for _, text in odd]
    fragmented = calibrator.fragmented
    reasons = []
    for case, unlike in scans.unlike.items():
        part, record = structures.loc[[case]], by_case[str(case)]
        listed = {
            *part["name"][part.key.isin(fragmented)],
            *(structure.name for structure in record.findings),
        }
        reasons.append(reasons_to_look(part, aims.flags, unlike, record.differences, listed))
    scans["reasons"], scans["is_flagged"] = (
        pd.Series(reasons, scans.index, object),
        list(map(bool, reasons)),
    )
    others = [case for case, why in zip(scans.index, reasons) if not why]
    chosen = _chosen_by_chance(others, aims.also)
    scans["is_random"] = scans.index.isin(chosen)
    scans["why"] = [
        "; ".join(why) or "chosen by chance" * chance
        for why, chance in zip(reasons, scans.is_random)
    ]
    left_out = set(others[NEXT:] if aims.pages == "flagged" else ()).difference(chosen)
    scans["has_page"] = [aims.pages != "none" and case not in left_out for case in scans.index]
    compared = [
        np.array(by_case[case].profile, float) for case in scans.index[scans.unlike_p.notna()]
    ]
    profiles = calibrator.quality.profiles if calibrator.quality is not None else None
    of_batch = UnlikeScans.of(profiles, compared, aims.unlike) if profiles else None
    return ReviewList(scans, structures, by_case, calibrator, aims, of_batch, about)


def completed(
    structures: pd.DataFrame, calibrator: Calibrator, bad: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The rows of structures with what a map has learned of them, and their scores.

    :data:`~nnunet_nacl.worklist.list_files.STRUCTURE_COLUMNS` says what the new columns are; NaN
    where nothing is known.

    Args:
        structures: See :func:`~nnunet_nacl.cases.record.table`.
        calibrator: A map, and what it has learned of such predictions.
        bad: By name of each structure that counts, the Dice below which it is bad; None: all count,
            from 0.
    """
    members = structures[[column for column in structures if column.startswith(MEMBER)]].astype(
        float
    )
    members = members if members.shape[1] > 1 else members.iloc[:, :0]
    made = structures.reindex(
        columns=list(dict.fromkeys((*structures, *_MEASURED, *_LEARNED)))
    ).assign(
        volume_min=members.min(axis=1),
        volume_max=members.max(axis=1),
        volume_sd=members.std(axis=1),
    )
    for key, rows in made.groupby("key", sort=False):
        key, index, is_always = str(key), rows.index, False
        if calibrator.learned is not None and calibrator.quality is not None:
            learned = calibrator.learned
            is_always = key in learned.scores.always
            made.loc[index, ["dice_low", "dice_high"]] = learned.dice[key].predict(
                rows.predicted_dice
            )[:, 1:]
            sized = rows[rows.unit == calibrator.quality.unit]
            volumes = learned.volume[key].predict(sized.predicted_volume)[:, 1:]
            made.loc[sized.index, ["volume_low", "volume_high"]] = volumes
            if calibrator.presence is not None:
                made.loc[sized.index, "present"] = calibrator.presence.present_probability(
                    key, sized
                )
        score = structure_score(rows.predicted_dice, made.present[index], is_always)
        made.loc[index, "score"] = score - (
            0.0 if bad is None else bad.get(rows["name"].iloc[0], math.nan)
        )
    return made


def _chosen_by_chance(cases: Sequence[str], number: int) -> set[str]:
    """So many of the cases, by a hash of their names: of more cases, most that were chosen stay
    so."""
    order = {case: sha256(f"0 {case}".encode(errors="surrogateescape")).digest() for case in cases}
    return set(sorted(sorted(cases), key=order.__getitem__)[:number])
