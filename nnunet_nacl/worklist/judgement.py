"""What is known of the structures of scans, and of one scan whatever others there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.record import CaseRecord, table
from nnunet_nacl.cases.structure_values import MEMBER_VOLUME
from nnunet_nacl.estimators.scan_scores import structure_score
from nnunet_nacl.worklist.aims import Aims
from nnunet_nacl.worklist.reasons import Reason, find_reasons, oddities_of_image, worst_first

OF_SCAN = ["entropy", "confidence", "mutual_information", "n_members", "unit"]
"""Columns of structures that all of a scan have in common."""

# Other columns: those that are measured, and those that follow from what a map has learned.
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
    *OF_SCAN,
]
_LEARNED = ["dice_low", "dice_high", "volume_low", "volume_high", "present", "score"]


@dataclass(frozen=True, eq=False)
class JudgedScan:
    """What is known of a scan, whatever others there are.

    Attributes:
        structures: A row for each structure, see :func:`completed`; the index is the case.
        reasons: All reasons to look at it, the strongest first.
        unlike_p: How probable its image is among the calibration scans; NaN where nobody knows.
        unlike: What is odd about it then; empty for nothing.
    """

    structures: pd.DataFrame
    reasons: list[Reason]
    unlike_p: float
    unlike: str


def judge_scan(record: CaseRecord, calibrator: Calibrator, aims: Aims) -> JudgedScan:
    """What is known of a scan by its record, and by what a map has learned."""
    structures = completed(table([record]), calibrator, aims.bad).set_index("case")
    unlike_p, unlike = calibrator.quality.unlike(record.profile, aims.wanted.unlike)
    oddities = oddities_of_image(unlike, calibrator.quality.differences(record))
    reasons = find_reasons(
        structures,
        aims.flags,
        oddities={record.name: oddities},
        may_be_in_pieces=may_be_in_pieces(structures, [record], calibrator),
    )
    return JudgedScan(structures, reasons[record.name], unlike_p, unlike)


def structures_by_need(reasons: Iterable[Reason], structures: pd.DataFrame) -> list[str]:
    """Names of all structures of a scan, those first that need a look most.

    These are those that its reasons name, from the strongest reason on, then the others by their
    scores.
    """
    names = [reason.structure for reason in reasons]
    names += worst_first(structures)["name"].tolist()
    return list(dict.fromkeys(name for name in names if name))


def may_be_in_pieces(
    structures: pd.DataFrame, records: Iterable[CaseRecord], calibrator: Calibrator
) -> np.ndarray:
    """Of each row whether several components of a structure are no surprise.

    They are no surprise where the map says so, or where they are findings.
    """
    with_findings = set[tuple[str, str]]()
    for record in records:
        for structure in record.findings:
            with_findings.add((record.name, structure.name))
    case_and_name = zip(structures.index, structures["name"])
    are_findings = np.array([pair in with_findings for pair in case_and_name], bool)
    return are_findings | structures.key.isin(calibrator.quality.may_be_in_pieces).to_numpy()


def completed(
    structures: pd.DataFrame, calibrator: Calibrator, bad: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The rows of structures with what a map has learned of them, and their scores.

    :data:`~nnunet_nacl.worklist.list_files.STRUCTURE_COLUMNS` says what the new columns are; NaN
    where nothing is known. ``is_volume_a_warning`` says whether predicted volumes were closer to
    the true ones than their mean; ``number`` counts the structures of a scan from 0.

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
        is_volume_a_warning=False,
    )
    for key, rows_of_structure in rows.groupby("key", sort=False):
        is_always = _add_learned(rows, str(key), rows_of_structure, calibrator)
        present = rows.present[rows_of_structure.index]
        score = structure_score(rows_of_structure.predicted_dice, present, is_always)
        limit = bad.get(rows_of_structure["name"].iloc[0], math.nan) if bad is not None else 0.0
        rows.loc[rows_of_structure.index, "score"] = score - limit
    # by which templates choose the colour of a structure
    rows["number"] = rows.groupby("case").cumcount()
    return rows


def _volumes_of_members(structures: pd.DataFrame) -> pd.DataFrame:
    """The volumes that each of several networks segmented; no column where there is one network."""
    columns = [column for column in structures if column.startswith(MEMBER_VOLUME)]
    return structures[columns if len(columns) > 1 else []].astype(float)


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
    rows.loc[same_unit.index, "is_volume_a_warning"] = key not in learned.no_better("volume")
    if calibrator.presence is not None:
        present = calibrator.presence.present_probability(key, same_unit)
        rows.loc[same_unit.index, "present"] = present
    return key in learned.scores.always
