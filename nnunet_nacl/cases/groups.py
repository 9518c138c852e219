"""Cases by patient, and what segmentations find by structure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.metrics.overlap import Detected


def read_groups(given: str | None, cases: Sequence[str]) -> dict[str, str]:
    """The patient of each case, by a .json file or a regular expression; each its own where none is
    given.

    The file holds ``{"case": "patient"}``; the expression is searched in the case's name, and its
    first group, or the whole match, is the patient. UserError where it cannot be used, or leaves a
    case without a patient.
    """
    if given is None:
        return {case: case for case in cases}
    if given.endswith(".json"):
        fix = "it must be an object with the patient of each case, as text"
        table = decode(dict[str, str | int], read_dict(Path(given)), given, fix=fix)
        found = {case: str(table[case]) if case in table else None for case in cases}
    else:
        try:
            pattern = re.compile(given)
        except re.error as error:
            raise UserError(
                f"-groups {given!r} is neither a .json file nor a regular expression ({error}); "
                "for patient001_frame01 it would be '^(patient[0-9]+)'."
            ) from None
        matches = {case: pattern.search(case) for case in cases}
        found = {
            case: match and match.group(1 if pattern.groups else 0)
            for case, match in matches.items()
        }
    missing = [case for case, group in found.items() if group is None]
    if missing:
        raise UserError(
            f"-groups {given!r} gives no patient for {len(missing)} cases, {one_line(missing[0])}"
            " first."
        )
    return {case: str(group) for case, group in found.items()}


def detected_in(cases: pd.DataFrame) -> dict[str, Detected]:
    """By structure, what the segmentations find of it, by the rows of
    :func:`nnunet_nacl.cases.record.table`."""
    return {str(key): Detected.of(rows) for key, rows in cases.groupby("key", sort=False)}
