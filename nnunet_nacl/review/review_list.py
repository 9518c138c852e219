"""Ranks scans and finds reasons to look at them, from their records and from what a map has learned."""

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

from nnunet_nacl.case.record import CaseRecord, table
from nnunet_nacl.numbers.flags import Flags, structure_score
from nnunet_nacl.numbers.recall import SensitiveAim
from nnunet_nacl.numbers.unlike import DEFAULT_UNLIKE, UnlikeScans
from nnunet_nacl.review.predicted_quality import QualityOfMap
from nnunet_nacl.review.reasons import reasons_to_look, worst_first

DRAW_SEED = 0
"""Of the choice of scans by chance."""
NEXT = 10
"""So many scans behind those that are flagged have a page, too."""
MEMBER = "volume "
"""Begins the column with the volumes that a network of an average segmented; its name follows."""


@dataclass(frozen=True)
class Aims:
    """What whoever looks at the list wants of it.

    Attributes:
        flags: By which score scans are flagged; None: by none, they are ranked only.
        unlike: A scan whose image is as odd with this probability at most is unlike the calibration scans.
        also: Scans to be chosen by chance among those that are not flagged.
        pages: Which scans have a page: ``flagged`` with the ``NEXT`` next and those chosen, ``all`` or ``none``.
        sensitive: What labels that miss less aim at; None: there are none.
    """

    flags: Flags | None = None
    unlike: float = DEFAULT_UNLIKE
    also: int = 0
    pages: str = "flagged"
    sensitive: SensitiveAim | None = None


@dataclass(frozen=True)
class About:
    """What pages and texts say beside the list.

    Attributes:
        title: Such as the data set.
        structures: Their names.
        members: Names of the networks that are averaged; one if there is nothing to average.
        problems: By case why there is nothing of it.
        notes: What whoever uses the list must know.
        made: How the segmentations were made: text by heading.
        run: Name of the run that marks are kept under.
        file_ending: Of the segmentations.
    """

    title: str = ""
    structures: Sequence[str] = ()
    members: Sequence[str] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    run: str = ""
    file_ending: str = ".nii.gz"


@dataclass(frozen=True, eq=False)
class ReviewList:
    """The list of a run, those scans first that need a look most.

    Attributes:
        scans: A row for each scan, by case, see :func:`review_list`.
        structures: The rows of each scan in that order, see :func:`completed`; the index is the case.
        records: By case.
        quality: What the calibration map has learned; None where nothing is known.
        aims, about: What was asked for, and what is said beside the list.
        unlike: How many scans are unlike the calibration scans; None where nobody knows what these look like.
    """

    scans: pd.DataFrame
    structures: pd.DataFrame
    records: Mapping[str, CaseRecord]
    quality: QualityOfMap | None
    aims: Aims
    unlike: UnlikeScans | None
    about: About

    def cases(self, column: str) -> list[str]:
        """Names of the scans whose value in a column of truth values is true, in the order of the list."""
        return self.scans.index[self.scans[column].to_numpy(bool)].tolist()

    @cached_property
    def _kinds(self) -> dict[str, int]:
        """By kind of reason, in how many scans there is one."""
        return Counter(kind for reasons in self.scans.reasons for kind in dict.fromkeys(reasons.values()))

    def reasons(self, case: str) -> list[str]:
        """The reasons of a scan, but for those of a kind that every scan of a batch has: the summary says them."""
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
        text += "".join(f", {number} because {kind}" for kind, number in kinds.items() if number < n)
        chosen = len(self.cases("is_drawn"))
        return f"{text}; {chosen} more {'was' if chosen == 1 else 'were'} chosen by chance." if chosen else f"{text}."

    @property
    def has_limit(self) -> bool:
        """Whether a limit of predicted Dice flags scans."""
        return self.aims.flags is not None and self.aims.flags.threshold is not None

    @property
    def aim(self) -> str:
        """What flags by predicted Dice aim at, or why there are none."""
        if self.aims.flags:
            return self.aims.flags.aim
        why = "-bad 0.7 turns it on" if self.quality else "it needs a calibration map"
        return f"Flagging by predicted Dice is off: {why}."


def review_list(
    records: Iterable[CaseRecord], quality: QualityOfMap | None = None, aims: Aims = Aims(), about: About = About()
) -> ReviewList:
    """Rank scans, and say why they need a look.

    They follow by their score, rising. Those without one, such as empty predictions, come before all others, the
    largest probability of any structure on top: there the network was nearest to predicting something. Columns of
    ``scans``: of the whole scan ``entropy``, ``confidence``, ``mutual_information``, ``n_members``, ``unit``;
    ``is_empty`` and ``empty_structures``; ``score`` and ``lowest_predicted_dice``; the ``worst_structure`` with its
    ``predicted_dice``, ``dice_low`` and ``dice_high``; ``unlike_p``, how probable so odd an image is among scans like
    the calibration scans, and ``unlike``, what is odd about it, empty where it is like them; ``reasons`` to look, and
    the kind of each, ``is_flagged`` where there is one, ``is_drawn`` by chance, ``why`` in words; and ``has_page``.
    """
    by_case = {record.case: record for record in records}
    structures = completed(table(by_case.values()), quality, aims.flags.bad if aims.flags else None)
    rows = [_scan_row(by_case[str(case)], part, quality, aims) for case, part in structures.groupby("case", sort=False)]
    scans = pd.DataFrame(rows, columns=_COLUMNS)
    order = {"score": True, "max_probability": False, "case": True}
    scans = scans.sort_values([*order], ascending=[*order.values()], na_position="first").set_index("case")
    scans["is_flagged"] = [bool(why) for why in scans.reasons]
    others = scans.index[~scans.is_flagged.to_numpy(bool)].tolist()
    drawn = _drawn(others, aims.also)
    scans["is_drawn"] = scans.index.isin(drawn)
    scans["why"] = ["; ".join(why) or "chosen by chance" * chance for why, chance in zip(scans.reasons, scans.is_drawn)]
    left_out = set(others[NEXT:] if aims.pages == "flagged" else ()).difference(drawn)
    scans["has_page"] = [aims.pages != "none" and case not in left_out for case in scans.index]
    compared = [np.array(by_case[case].profile, float) for case in scans.index[scans.unlike_p.notna()]]
    profiles = quality.of_map.profiles if quality else None
    unlike = UnlikeScans.of(profiles, compared, aims.unlike) if profiles else None
    return ReviewList(scans, structures.set_index("case").loc[scans.index], by_case, quality, aims, unlike, about)


_OF_SCAN = ("entropy", "confidence", "mutual_information", "n_members", "unit")
_COLUMNS = (
    *("case", *_OF_SCAN, "is_empty", "empty_structures", "max_probability", "score", "lowest_predicted_dice"),
    *("worst_structure", "predicted_dice", "dice_low", "dice_high", "unlike_p", "unlike", "reasons"),
)


def _scan_row(record: CaseRecord, part: pd.DataFrame, quality: QualityOfMap | None, aims: Aims) -> dict[str, Any]:
    """A scan's row, from the rows of its structures."""
    worst, segmented = worst_first(part).iloc[0], part[part.pieces > 0]
    p, unlike = quality.unlike(record.profile, aims.unlike) if quality else (math.nan, "")
    listed = set(part["name"][part.key.isin(quality.torn)]) if quality else set()  # in parts in most calibration scans
    listed |= {structure.name for structure in record.findings}
    return {
        "case": record.case,
        **{name: worst[name] for name in _OF_SCAN},
        "is_empty": segmented.empty,
        "empty_structures": "; ".join(part["name"][part.pieces == 0]),
        "max_probability": part.max_probability.max(),
        "score": worst.score,
        "lowest_predicted_dice": segmented.predicted_dice.min(),
        "worst_structure": worst["name"] if worst.pieces or not math.isnan(worst.score) else None,
        **{name: worst[name] for name in ("predicted_dice", "dice_low", "dice_high")},
        "unlike_p": p,
        "unlike": unlike,
        "reasons": reasons_to_look(part, aims.flags, unlike, record.differences, listed),
    }


def completed(
    structures: pd.DataFrame, quality: QualityOfMap | None, bad: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The rows of structures with what a map has learned of them, and their scores.

    New columns: ``dice_low`` and ``dice_high``, ``volume_low`` and ``volume_high``, 90 % intervals of the true values;
    ``present``, the probability that the structure is in the scan; NaN where nothing is known. ``score`` is that of the
    structure (:func:`~nnunet_nacl.numbers.flags.structure_score`) less what is ``bad``; and of the volumes that several
    networks segmented there are ``volume_min``, ``volume_max`` and the standard deviation ``volume_sd``.

    Args:
        structures: See :func:`~nnunet_nacl.case.record.table`.
        quality: What a map has learned of such predictions; None where nothing is known.
        bad: By name of each structure that counts, the Dice below which it is bad; None: all count, from 0.
    """
    members = structures[[column for column in structures if column.startswith(MEMBER)]].astype(float)
    members = members if members.shape[1] > 1 else members.iloc[:, :0]
    made = structures.reindex(columns=list(dict.fromkeys((*structures, *_NEEDED)))).assign(
        volume_min=members.min(axis=1), volume_max=members.max(axis=1), volume_sd=members.std(axis=1)
    )
    learned = quality.learned if quality else None
    in_unit = made.unit == (quality.of_map.unit if quality else None)
    for key, rows in made.groupby("key", sort=False):
        key, index = str(key), rows.index
        if quality and learned:
            made.loc[index, ["dice_low", "dice_high"]] = learned.dice[key].predict(rows.predicted_dice)[:, 1:]
            sized = index[in_unit[index]]
            volumes = learned.volume[key].predict(made.predicted_volume[sized])[:, 1:]
            made.loc[sized, ["volume_low", "volume_high"]] = volumes
            if quality.presence:
                network = zip(made.network_volume[sized], made.network_dice[sized])
                made.loc[sized, "present"] = [quality.presence.present_probability(key, *pair) for pair in network]
        is_always = learned is not None and key in learned.scores.always
        score = structure_score(rows.predicted_dice, made.present[index], is_always)
        made.loc[index, "score"] = score - (0.0 if bad is None else bad.get(rows["name"].iloc[0], math.nan))
    return made


_NEEDED = (
    *("key", "name", "pieces", "largest_piece", "volume", "predicted_dice", "predicted_volume", "max_probability"),
    *("members_dice", "network_volume", "network_dice", "dice_low", "dice_high", "volume_low", "volume_high"),
    *("present", "score", *_OF_SCAN),
)


def _drawn(cases: Sequence[str], number: int) -> set[str]:
    """Cases that are drawn, by a hash: of more cases, most that were drawn stay so."""
    order = {case: sha256(f"{DRAW_SEED} {case}".encode(errors="surrogateescape")).digest() for case in cases}
    return set(sorted(sorted(cases), key=order.__getitem__)[:number])
