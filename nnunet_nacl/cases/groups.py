"""Cases by patient, and what segmentations find by structure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnunet_nacl.metrics.overlap import Detected
from nnunet_nacl.utilities.errors import UserError, one_line
from nnunet_nacl.utilities.json_files import decode, read_dict


def read_groups(given: str | None, cases: Sequence[str]) -> dict[str, str]:
    """The patient of each case; each case is a patient where nothing is ``given``.

    Args:
        given: A .json file that holds ``{"case": "patient"}``, or a regular expression that is
            searched in a case's name: its first group, or the whole match, is the patient.
        cases: Their names.

    Raises:
        UserError: The file or the expression cannot be used, or leaves a case without a patient.
    """
    if given is None:
        return {case: case for case in cases}
    if given.endswith(".json"):
        patients = _read_patients(given)
    else:
        patients = _match_patients(given, cases)
    missing = [case for case in cases if case not in patients]
    if missing:
        raise UserError(
            f"[[groups]] {given!r} gives no patient for {len(missing)} cases,"
            f" {one_line(missing[0])}"
            " first."
        )
    return {case: patients[case] for case in cases}


def _read_patients(file: str) -> dict[str, str]:
    """The patients by case that a JSON file holds."""
    fix = "it must be an object with the patient of each case, as text"
    patients = decode(dict[str, str | int], read_dict(Path(file)), file, fix=fix)
    return {case: str(patient) for case, patient in patients.items()}


def _match_patients(expression: str, cases: Sequence[str]) -> dict[str, str]:
    """The patients by case, of those whose name a regular expression matches."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(
            f"[[groups]] {expression!r} is neither a .json file nor a regular expression"
            f" ({error}); "
            "for patient001_frame01 it would be '^(patient[0-9]+)'."
        ) from None
    group = min(pattern.groups, 1)  # 0 is the whole match
    patients: dict[str, str] = {}
    for case in cases:
        match = pattern.search(case)
        if match and match[group] is not None:
            patients[case] = match[group]
    return patients


def detected_in(cases: pd.DataFrame) -> dict[str, Detected]:
    """What the segmentations find of each structure, by its key.

    ``cases`` are rows of :func:`nnunet_nacl.cases.record.table`.
    """
    return {str(key): Detected.of(rows) for key, rows in cases.groupby("key", sort=False)}
