"""Reads CSV files as our pages, the extension of 3D Slicer or a spreadsheet saved them.

Spreadsheets save tables with the separator of their country, some with a first line ``sep=;`` that
says it, and some as UTF-16 with tabs.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import regular_only

_STATED_DELIMITER = re.compile(r'"?sep=(.)"?\s*')
_HEADER_OF_OUR_TABLES = re.compile(
    "(?:img_path|mask_path|run|rank|case|mark)([;\t])", re.IGNORECASE
)


class CsvLine(NamedTuple):
    """A row of a CSV file, and the number of the line where it begins, from 1."""

    number: int
    cells: list[str]


def read_csv(path: Path) -> list[CsvLine]:
    """The rows of a CSV file that hold something.

    Raises:
        UserError: It cannot be read, or is no CSV file; with the line.
    """
    file = io.StringIO(_read_text(path), newline="")
    first_line = file.readline()
    delimiter = ","
    number_of_first = 1
    stated = _STATED_DELIMITER.fullmatch(first_line)
    of_our_table = _HEADER_OF_OUR_TABLES.match(first_line.replace('"', ""))
    if stated:
        delimiter = stated[1]
        number_of_first = 2
    else:
        file.seek(0)
        if of_our_table:
            delimiter = of_our_table[1]

    lines = []
    number = number_of_first
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                lines.append(CsvLine(number, cells))
            number = number_of_first + reader.line_num
    except csv.Error as error:
        why = f"{error}; is a quote not closed?"
        raise UserError(
            f"{path}: line {number} cannot be read as CSV ({why}); correct it."
        ) from None
    return lines


def rows_by_column(
    lines: Sequence[CsvLine], columns: Iterable[str], path: Path
) -> list[dict[str, str]]:
    """The cells of the rows below a header, by column.

    Raises:
        UserError: One of ``columns`` stands twice in the header.
    """
    if not lines:
        return []
    header = lines[0]
    for column in columns:
        if header.cells.count(column) > 1:
            raise UserError(
                f"{path}: line {header.number}: the column {column} stands twice; remove or rename"
                " one."
            )
    return [dict(zip(header.cells, line.cells)) for line in lines[1:]]


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 that says so by its first bytes; UserError for
    others."""
    fix = "save it as CSV in UTF-8, or give the file as it was exported"
    try:
        with open(path, "rb", opener=regular_only) as file:
            content = file.read()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give the file as it was exported."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error.reason}); {fix}.") from None
    if "\0" in text:  # UTF-16 that does not say so, or no text at all
        raise UserError(f"{path}: cannot be read as text (it holds zero bytes); {fix}.")
    return text
