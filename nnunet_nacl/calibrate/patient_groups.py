"""To which patient each case belongs, as a user's file or expression tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.json_files import decode, read_dict


def read_groups(given: str | None, cases: Sequence[str]) -> dict[str, str]:
    """The group (patient) of each case.

    Args:
        given: A .json file with ``{"case": "patient"}``, or a regular expression that is searched in the case's name
            and whose first group, or whole match, is the patient. None makes each case its own.
        cases: Names.

    Raises:
        UserError: The file or expression cannot be used, or leaves a case without a group.
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
        found = {case: match and match.group(1 if pattern.groups else 0) for case, match in matches.items()}
    missing = [case for case, group in found.items() if group is None]
    if missing:
        raise UserError(f"-groups {given!r} gives no patient for {len(missing)} cases, {one_line(missing[0])} first.")
    return {case: str(group) for case, group in found.items()}
