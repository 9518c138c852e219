"""outcome.json: what came of the flags of an output folder, once somebody has looked at scans."""

from __future__ import annotations

from dataclasses import dataclass, field

import nnunet_nacl
from nnunet_nacl.json_files import Number
from nnunet_nacl.numbers.learned_quality import Coverage

OUTCOME, OUTCOME_PAGE = "outcome.json", "outcome.html"
SCHEMA_VERSION = 1
FLAGGED, DRAWN, OTHER = GROUPS = ("flagged", "drawn by chance", "other")
"""Groups of scans: those that the list flags, and of the others those that were drawn, and the rest."""


@dataclass(frozen=True)
class ScanOutcome:
    """One scan that somebody looked at.

    Attributes:
        case: Its name.
        group: flagged, drawn by chance, or other.
        mark: ok, correct or reject; empty where it has none.
        n_changed: Voxels with another label in the corrected labels; null where there are none.
        bad: By the corrected labels, whether a structure has a Dice below that of -bad; without them, or without -bad,
            whether the mark is correct or reject; null where there is no mark either.
        structures: By name, where there are corrected labels: Dice of the delivered labels against them (0 where one of
            both lacks it, null where both do), predicted Dice (null where it was not segmented) and its interval.
    """

    case: str
    group: str
    mark: str
    n_changed: int | None
    bad: bool | None
    structures: dict[str, tuple[Number, ...]]


@dataclass(frozen=True)
class PredictedOutcome:
    """How far predicted Dice of a structure holds in the corrected scans.

    Attributes:
        n: Scans in which it has a Dice.
        dice: Mean.
        predicted_dice: Mean, where it was segmented.
        error: Mean absolute difference of the two, there; null where there is none.
        coverage: How many lie in their intervals.
        width: Mean width of the intervals; null where there are none.
    """

    n: int
    dice: Number
    predicted_dice: Number
    error: Number
    coverage: Coverage
    width: Number


@dataclass(frozen=True)
class Outcome:
    """outcome.json: what came of the flags, by `nnunet_nacl review -back`.

    Attributes:
        schema_version: Of this format.
        generated_by: Package and version.
        created: Time, ISO 8601.
        marks: Files of marks.
        corrected: Folder of corrected labels; null where none was given.
        groups: By their names how many scans there are (``n``), were ``looked_at`` (with a mark or corrected labels),
            ``changed`` (marked correct or reject, or with other labels), ``judged`` (bad or not is known) and ``bad``.
        unseen: Share of all scans that is bad and not flagged: the share not flagged, times that of bad scans among
            those drawn; null where none was judged.
        unseen_upper: Its exact upper bound (one-sided, 95 %), of a draw from a finite number of scans.
        predicted: By structure.
        warnings: What must be checked before numbers are used.
        cases: Scans that were looked at, in the order of the list.
    """

    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)
    generated_by: str = field(default=f"nnunet_nacl {nnunet_nacl.__version__}", kw_only=True)
    created: str
    marks: list[str]
    corrected: str | None
    groups: dict[str, dict[str, int]]
    unseen: Number
    unseen_upper: Number
    predicted: dict[str, PredictedOutcome]
    warnings: list[str]
    cases: list[ScanOutcome]
