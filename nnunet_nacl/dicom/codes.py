"""Codes of structures, which a user gives, and codes of what is reported of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import decode, read_dict

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

SCHEME = "99NNUNETNACL"
"""Private coding scheme: there is no standard code for what is predicted of a segmentation."""

_EXAMPLE = '{"liver": {"code": "10200004", "meaning": "Liver"}}'
_PRINTABLE = r"^[^\\\x00-\x1f]*$"  # and no backslash
_Short = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=_PRINTABLE),
]
_Long = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=_PRINTABLE),
]


class StructureCode(TypedDict):
    """What a structure is.

    Unless it says otherwise, an AnatomicalStructure in SNOMED CT (SCT).
    """

    code: _Short
    meaning: _Long
    category: NotRequired[str]
    scheme: NotRequired[_Short]


def read_codes(path: Path, structures: Sequence[str]) -> dict[str, StructureCode]:
    """Codes of structures by name, from a JSON file.

    Raises:
        UserError: A structure has no code, one that DICOM cannot hold, or an unknown category.
    """
    from pydicom.sr.codedict import codes

    content = read_dict(path)
    missing = [name for name in structures if name not in content]
    if missing:
        raise UserError(
            f"{path} has no code for {', '.join(missing)}; add each by its name, such as"
            f" {_EXAMPLE}."
        )
    code_by_structure = decode(
        dict[str, StructureCode],
        {name: content[name] for name in structures},
        path,
        fix=f"as in {_EXAMPLE}",
    )
    categories = codes.cid7150.dir()
    for name, code in code_by_structure.items():
        category = code.setdefault("category", "AnatomicalStructure")
        if category not in categories:
            raise UserError(
                f"{path}: {name} has the category {category!r}; there are {', '.join(categories)}."
            )
    return code_by_structure


def private_code(code: str, meaning: str) -> CodedConcept:
    """A concept of our own scheme."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code, SCHEME, meaning)
