"""outcome.json: what came of the flags of a list, by the marks and corrected labels of readers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import pandas as pd

import nnunet_nacl
from nnunet_nacl.estimators.intervals import Coverage
from nnunet_nacl.utilities.json_types import Number, doc

SCHEMA_VERSION = 1

# Groups of scans: those that the list flags, and of the others those that were chosen, and the
# rest.
FLAGGED = "flagged"
RANDOM = "chosen by chance"
OTHER = "other"
GROUPS = (FLAGGED, RANDOM, OTHER)


@dataclass(frozen=True)
class ScanOutcome:
    """One scan that somebody looked at."""

    case: Annotated[str, doc("Its name.")]
    group: Annotated[str, doc("flagged, chosen by chance, or other.")]
    mark: Annotated[str, doc("ok, correct or reject; empty where it has none.")]
    n_changed: Annotated[
        int | None,
        doc("Voxels with another label in the corrected labels; null where there are none."),
    ]
    bad: Annotated[
        bool | None,
        doc(
            "By the corrected labels, whether a structure has a Dice below the one called"
            " bad; without"
            " them, or where no Dice was called bad, whether the mark is correct or reject;"
            " null where there is no"
            " mark either."
        ),
    ]
    structures: Annotated[
        dict[str, tuple[Number, ...]],
        doc(
            "By name, where there are corrected labels: Dice of the delivered labels against them"
            " (0 where one of both lacks it, null where both do), predicted Dice (null where it was"
            " not segmented) and its interval."
        ),
    ]


@dataclass(frozen=True)
class PredictedOutcome:
    """How far predicted Dice of a structure agrees with the Dice in the corrected scans."""

    n: Annotated[int, doc("Scans in which it has a Dice.")]
    dice: Annotated[Number, doc("Mean Dice.")]
    predicted_dice: Annotated[Number, doc("Mean predicted Dice, where it was segmented.")]
    error: Annotated[
        Number, doc("Mean absolute difference of the two, there; null where there is none.")
    ]
    coverage: Annotated[Coverage, doc("How many lie in their intervals.")]
    width: Annotated[Number, doc("Mean width of the intervals; null where there are none.")]


@dataclass(frozen=True)
class Outcome:
    """outcome.json: what came of the flags, by `nnunet_nacl review -back`."""

    schema_version: Annotated[int, doc("Version of this format.")] = field(
        default=SCHEMA_VERSION, kw_only=True
    )
    generated_by: Annotated[str, doc("Package and version.")] = field(
        default=f"nnunet_nacl {nnunet_nacl.__version__}", kw_only=True
    )
    created: Annotated[str, doc("Time, ISO 8601.")]
    marks: Annotated[list[str], doc("Files of marks.")]
    corrected: Annotated[str | None, doc("Folder of corrected labels; null where none was given.")]
    groups: Annotated[
        dict[str, dict[str, int]],
        doc(
            "By group how many scans there are (`n`), were `looked_at` (with a mark or corrected"
            " labels), `changed` (marked correct or reject, or with other labels), `judged` (bad or"
            " not is known) and `bad`."
        ),
    ]
    unseen: Annotated[
        Number,
        doc(
            "Share of all scans that is bad and not flagged: the share not flagged, times that of"
            " bad scans among those chosen by chance, and no less than the share of those that are"
            " known to be bad; null where none of those chosen was judged."
        ),
    ]
    unseen_upper: Annotated[
        Number,
        doc(
            "Its exact upper bound (95 %, one-sided), of a draw from a finite number; no less than"
            " the known either."
        ),
    ]
    predicted: Annotated[
        dict[str, PredictedOutcome], doc("By structure how far predicted Dice agrees with Dice.")
    ]
    warnings: Annotated[list[str], doc("What must be checked before numbers are used.")]
    cases: Annotated[list[ScanOutcome], doc("Scans that were looked at, in the order of the list.")]

    @property
    def structures(self) -> pd.DataFrame:
        """A row for each structure of each scan with corrected labels."""
        return structure_rows(self.cases)


def structure_rows(cases: Iterable[ScanOutcome]) -> pd.DataFrame:
    """A row for each structure of each scan with corrected labels.

    Columns: scan, group, mark (``-`` for none), structure, Dice of the delivered labels against the
    corrected ones, predicted Dice, and low and high, the ends of its interval.
    """
    columns = ["scan", "group", "mark", "structure", "Dice", "predicted", "low", "high"]
    rows = []
    for case in cases:
        for name, values in case.structures.items():
            rows.append((case.case, case.group, case.mark or "-", name, *values))
    return pd.DataFrame(rows, columns=columns)
