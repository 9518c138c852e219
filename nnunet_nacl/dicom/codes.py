"""Codes of structures, which say in DICOM objects what these are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.json_files import decode, read_dict

EXAMPLE = '{"liver": {"code": "10200004", "meaning": "Liver", "category": "AnatomicalStructure"}}'


class StructureCode(TypedDict):
    """What a structure is, in a coding scheme; SNOMED CT (SCT) unless it says another."""

    code: str
    meaning: str
    category: str
    scheme: NotRequired[str]


def read_codes(path: Path, structures: Sequence[str]) -> dict[str, StructureCode]:
    """Codes of structures, by name.

    Args:
        path: JSON file, such as ``EXAMPLE``.
        structures: That need one.

    Raises:
        UserError: The file is missing or damaged; a structure has no code, or a category that DICOM does not know.
    """
    from pydicom.sr.codedict import codes

    content = read_dict(path)
    if missing := [name for name in structures if name not in content]:
        raise UserError(f"{path} has no code for {', '.join(missing)}; add each by its name, such as {EXAMPLE}.")
    read = decode(dict[str, StructureCode], {name: content[name] for name in structures}, path, fix=f"as in {EXAMPLE}")
    known = codes.cid7150.dir()
    for name, code in read.items():
        if code["category"] not in known:
            raise UserError(f"{path}: {name} has the category {code['category']!r}; there are {', '.join(known)}.")
        for value, most in (
            (code["code"], 16),
            (code.get("scheme", "SCT"), 16),
            (code["meaning"], 64),
            (name[:64], 64),
        ):
            if not 0 < len(value.strip()) <= most or not value.isprintable() or "\\" in value:
                raise UserError(
                    f"{path}: {one_line(name)} has {value!r}, which DICOM wants to have 1 to {most} printable "
                    "characters, and no backslash."
                )
    return read
