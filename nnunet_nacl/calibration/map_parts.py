"""What calibration_map.json holds, part by part.

A map is stored as slopes and offsets that are common to all labels, and rows where a label differs
from them. The coefficients a, g and b, and the total v, are those of the formulas at the top of
:mod:`nnunet_nacl.estimators.log_odds_map`: c is the label, k and j are structures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import FiniteFloat, NonNegativeInt
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibration.effect import Change
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.estimators.crossfit import FormScore
from nnunet_nacl.estimators.learned_quality import LearnedQuality
from nnunet_nacl.estimators.log_odds_map import (
    LogOddsMap,
    check_tables,
    count_map_labels,
    map_from_tables,
)
from nnunet_nacl.estimators.presence import LearnedPresence
from nnunet_nacl.estimators.recall import LearnedRecall
from nnunet_nacl.estimators.unlike import ROUNDING, CalibrationProfiles
from nnunet_nacl.metrics.overlap import Detected
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_types import Coefficient, Size, doc

MOST_COEFFICIENTS = 1 << 28
"""Of the table of a map: 2 GiB, which 640 classes take."""

_BYTES_OF_COEFFICIENT = 8

SCOPE = "for patients like these: scanner, protocol, disease and networks as in the calibration set"


class MapRow(TypedDict):
    """What a map does with one structure where the network chose one label."""

    label: Annotated[NonNegativeInt, doc("Index c of the label (regions: 1 in, 0 out).")]
    structure: Annotated[NonNegativeInt, doc("Index k of the structure.")]
    slope: Annotated[Coefficient, doc("a_ckk, of the structure's own log-odds.")]
    total: Annotated[Coefficient, doc("g_ck, of v.")]
    offset: Annotated[Coefficient, doc("b_ck.")]
    others: NotRequired[
        Annotated[
            dict[NonNegativeInt, Coefficient],
            doc("a_ckj by index j, of other structures' log-odds."),
        ]
    ]


class StoredMap(TypedDict):
    """A map: rows by label that differ from what is common to all."""

    slopes: Annotated[
        list[list[Coefficient]], doc("One row for all labels: a_ckk of each structure.")
    ]
    offsets: Annotated[
        list[list[Coefficient]], doc("One row for all labels: b_ck of each structure.")
    ]
    rows: NotRequired[
        Annotated[list[MapRow], doc("Where a label and structure differ from these.")]
    ]
    ridge: NotRequired[Annotated[Size, doc("Penalty of the fit; null for none.")]]


class NamedStructure(TypedDict):
    """A structure."""

    key: Annotated[str, doc("nnU-Net's key.")]
    name: Annotated[str, doc("Its name.")]


class Inference(TypedDict):
    """How the cases were predicted; empty where it is not known."""

    step_size: NotRequired[
        Annotated[FiniteFloat, doc("Step of the sliding window, as a share of the patch.")]
    ]
    mirroring: NotRequired[Annotated[bool, doc("Whether mirrored copies were predicted, too.")]]


@dataclass(frozen=True, eq=False, kw_only=True)
class MapPart:
    """A part of the cross-fit."""

    cases: Annotated[list[str], doc("Cases of the part.")]
    map: Annotated[StoredMap, doc("The map that was fitted without them.")]


@dataclass(frozen=True, eq=False, kw_only=True)
class MapQuality:
    """What held-out cases taught of Dice, volumes, presence, missed voxels and what scans look
    like."""

    unit: Annotated[str, doc("Unit of the volumes: ml, mm2 or pixels.")] = ""
    why_not: Annotated[str, doc("Why Dice, volumes and presence were not learned; else empty.")] = (
        ""
    )
    learned: Annotated[
        LearnedQuality | None, doc("Of Dice and volume of nnU-Net's labels; null if nothing was.")
    ] = None
    presence: Annotated[
        LearnedPresence | None, doc("What was learned about which structures are present.")
    ] = None
    recall: Annotated[
        dict[str, LearnedRecall], doc("By structure, what labels miss at each threshold.")
    ] = field(default_factory=dict)
    profiles: Annotated[
        CalibrationProfiles | None, doc("How the scans look; null if there were no images.")
    ] = None

    @property
    def may_be_in_pieces(self) -> list[str]:
        """nnU-Net's keys of the structures that can be absent, or are in pieces in most calibration
        scans."""
        return [] if self.presence is None else self.presence.listed

    @property
    def with_findings(self) -> list[str]:
        """nnU-Net's keys of the structures whose components are findings: those that can be absent
        from a scan.

        Pieces alone make no lesion: cerebrospinal fluid is in all scans, in hundreds.
        """
        if self.learned is None:
            return []
        return [key for key in self.may_be_in_pieces if key not in self.learned.scores.always]

    def unlike(self, profile: Sequence[float], level: float) -> tuple[float, str]:
        """How probable an image with such a profile is; and, where that is at most the level, what
        is odd about it.

        NaN and no text where that is not known.
        """
        scans = self.profiles
        values = np.array(profile, float)
        if scans is None or len(values) != len(scans.names) or scans.n_patients < 2:
            return math.nan, ""
        p_value = scans.p_value(values)
        if p_value > level + ROUNDING or scans.why_not(level):
            return p_value, ""
        return p_value, f"unlike: {scans.stands_out(values)}"

    def differences(self, record: CaseRecord) -> list[str]:
        """How an image differs from the training's, but for what calibration scans have, too.

        Each difference begins with the number that differs, such as ``size along y``.
        """
        scans = self.profiles
        if scans is None or len(record.profile) != len(scans.names):
            return list(record.differences)
        profile = np.array(record.profile, float)
        differences = []
        for difference in record.differences:
            number = " ".join(difference.split()[:3])  # as "size along y"
            if not scans.has(number, profile):
                differences.append(difference)
        return differences


@dataclass(frozen=True, eq=False, kw_only=True)
class Fitted:
    """How the map was fitted, and what it changes on cases that the fit has not seen."""

    groups: Annotated[
        dict[str, str], doc("Patient of each case; a case that is missing is its own patient.")
    ] = field(default_factory=dict)
    forms: Annotated[list[FormScore], doc("Each form and ridge that was tried.")] = field(
        default_factory=list
    )
    cross_fit: Annotated[
        dict[str, MapPart],
        doc("Parts of the cases, each with the map that was fitted to the rest."),
    ] = field(default_factory=dict)
    effect: Annotated[
        dict[str, Change], doc("By value, such as `NLL all` or `pooled ECE predicted`.")
    ] = field(default_factory=dict)
    detected: Annotated[dict[str, Detected], doc("By structure.")] = field(default_factory=dict)

    @property
    def part_of(self) -> dict[str, str]:
        """Part of each case that the map was fitted to."""
        return {case: name for name, part in self.cross_fit.items() for case in part.cases}

    @property
    def patients(self) -> list[str]:
        """Patient of each case that the map was fitted to."""
        return [self.groups.get(case, case) for case in self.part_of]


@dataclass(frozen=True, eq=False, kw_only=True)
class Origin:
    """Where the cases come from, and for whom the map holds."""

    source: Annotated[str, doc("Model folder, or folder of predictions.")] = ""
    folds: Annotated[list[str], doc("Folds whose validation cases they are.")] = field(
        default_factory=list
    )
    checkpoint_sha256: Annotated[
        dict[str, str], doc("SHA-256 of each fold's checkpoint, as far as it is known.")
    ] = field(default_factory=dict)
    inference: Annotated[Inference, doc("How the cases were predicted.")] = field(
        default_factory=Inference
    )
    settings: Annotated[EvaluationSettings, doc("What was measured before and after.")] = (
        EvaluationSettings()
    )
    scope: Annotated[str, doc("For whom the map holds.")] = ""
    versions: Annotated[dict[str, str], doc("Versions of the packages that made it.")] = field(
        default_factory=dict
    )
    notes: Annotated[list[str], doc("Caveats.")] = field(default_factory=list)
    problems: Annotated[dict[str, str], doc("By case why it could not be used.")] = field(
        default_factory=dict
    )


class UsedMap(TypedDict):
    """The calibration map that was applied."""

    file: Annotated[str, doc("The map's file.")]
    sha256: Annotated[str, doc("SHA-256 of the file.")]
    form: Annotated[
        str,
        doc(
            "temperature, conditional, or given (a prior map, kept as it is), of earlier versions"
            " also shift; empty for a map that was made by hand."
        ),
    ]
    n_cases: Annotated[
        NonNegativeInt, doc("Cases that it was fitted to; 0 where that is not known.")
    ]
    n_patients: Annotated[NonNegativeInt, doc("Patients that they are of.")]
    effect: Annotated[
        dict[str, Change], doc("NLL and ECE before and after, on cases that its fit has not seen.")
    ]
    scope: Annotated[str, doc("For whom it holds.")]


def stored_map(log_odds_map: LogOddsMap, ridge: float | None = None) -> StoredMap:
    """A map as files hold it: of a map that differs by label the most frequent slope, and the rows
    that differ from it; with the ``ridge`` of its fit where it is given."""
    own_slopes = log_odds_map.own_slopes
    if log_odds_map.is_affine:
        stored: StoredMap = {
            "slopes": own_slopes.tolist(),
            "offsets": log_odds_map.offsets.tolist(),
        }
    else:
        # what stays as a prior map of one slope has it
        values, counts = np.unique(own_slopes, return_counts=True)
        common_slope = float(values[counts.argmax()])
        stored = {
            "slopes": [[common_slope] * log_odds_map.num_structures],
            "offsets": [[0.0] * log_odds_map.num_structures],
            "rows": _rows_that_differ(log_odds_map, common_slope),
        }
    if ridge is not None:
        stored["ridge"] = ridge
    return stored


def _rows_that_differ(log_odds_map: LogOddsMap, common_slope: float) -> list[MapRow]:
    """The rows that are more than a slope that is common to all labels and structures."""
    rows: list[MapRow] = []
    for label, coefficients_of_label in enumerate(log_odds_map.coefficients):
        for structure, coefficients in enumerate(coefficients_of_label):
            row = _stored_row(coefficients, label, structure, log_odds_map.regions)
            is_common = row["slope"] == common_slope and row["total"] == 0 and row["offset"] == 0
            if not is_common or "others" in row:
                rows.append(row)
    return rows


def _stored_row(coefficients: np.ndarray, label: int, structure: int, regions: bool) -> MapRow:
    """The coefficients by which a structure's log-odds change at a label, as files hold them.

    ``coefficients`` are the slopes of all structures' log-odds, then g and b; of regions there is
    one slope, that of the region's own.
    """
    *slopes, total, offset = coefficients.tolist()
    own_position = 0 if regions else structure
    row: MapRow = {
        "label": label,
        "structure": structure,
        "slope": slopes[own_position],
        "total": total,
        "offset": offset,
    }
    others = {
        position: slope
        for position, slope in enumerate(slopes)
        if slope and position != own_position
    }
    if others:
        row["others"] = others
    return row


def check_stored_map(stored: StoredMap, num_structures: int, regions: bool) -> None:
    """ValueError where a stored map is malformed, or not of so many structures.

    It makes no table: a small file can ask for one whose size is the cube of the number of
    structures, and only a map of the structures at hand is worth that.
    """
    num_slopes = len(stored["slopes"][0]) if stored["slopes"] else 0
    if num_slopes != num_structures:
        raise ValueError(f"{num_slopes} slopes for {num_structures} structures")
    slopes = np.array(stored["slopes"])
    check_tables(slopes, np.array(stored["offsets"]), regions)
    if slopes.min() <= 0:
        raise ValueError(f"slopes must be above 0, got {slopes}")

    num_labels = count_map_labels(num_structures, regions)
    for row in stored.get("rows", []):
        structures = [row["structure"], *row.get("others", {})]
        if row["label"] >= num_labels or max(structures) >= num_structures:
            raise ValueError(f"no label {row['label']}, or no structure {structures}")
        if regions and "others" in row:
            raise ValueError("the log-odds of a region depend on no other region")
        own_slope = row["slope"]
        if own_slope <= 0 or (regions and own_slope + row["total"] <= 0):
            with_total = f" and {own_slope + row['total']:g} with `total`" if regions else ""
            raise ValueError(
                f"slopes must be above 0, of label {row['label']} and structure {row['structure']}"
                f" it is {own_slope:g}{with_total}"
            )


def loaded_map(stored: StoredMap, regions: bool) -> LogOddsMap:
    """Inverse of :func:`stored_map`, of what :func:`check_stored_map` accepts; UserError where it
    is too large."""
    if not is_affine(stored):
        check_table_size(len(stored["slopes"][0]), regions)
    common = map_from_tables(stored["slopes"], stored["offsets"], regions)
    if "rows" not in stored:
        return common
    table = common.of_every_label()
    for row in stored["rows"]:
        of_structure = table[row["label"], row["structure"]]
        of_structure[:] = 0
        for other, slope in row.get("others", {}).items():
            of_structure[other] = slope
        of_structure[0 if regions else row["structure"]] = row["slope"]
        of_structure[-2:] = row["total"], row["offset"]
    return LogOddsMap(table, regions)


def is_affine(stored: StoredMap) -> bool:
    """Whether a stored map is the same for all labels, so that its table is a small one."""
    return "rows" not in stored and len(stored["slopes"]) == 1


def check_table_size(num_structures: int, regions: bool, num_maps: int = 1) -> None:
    """UserError where the tables of maps of so many structures have more than ``MOST_COEFFICIENTS``
    numbers."""
    if regions:
        coefficients_of_map = 2 * num_structures * 3
    else:
        coefficients_of_map = (num_structures + 1) * num_structures * (num_structures + 2)
    num_coefficients = num_maps * coefficients_of_map
    if num_coefficients > MOST_COEFFICIENTS:
        gib = _BYTES_OF_COEFFICIENT / 2**30
        raise UserError(
            f"a map of {num_structures} structures (times {num_maps}) takes"
            f" {num_coefficients * gib:.3g} GiB of memory, more than the"
            f" {MOST_COEFFICIENTS * gib:g} that are allowed; calibrate with the form temperature."
        )
