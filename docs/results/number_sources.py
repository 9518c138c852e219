"""What the numbers in prose are taken from.

A source is a text whose parts `|` divides:

    KIND FOLDER ... | ROW | COLUMN [| WORDS]    cells of a table (table_kinds.py)
    FILE.csv | VALUE [| WORDS [| CONDITION]]    rows of a file in study/: expressions of columns (pandas)
    code: MODULE: EXPRESSION                    a value of the code
    option: COMMAND OPTION                      its default
    text: FILE | EXPRESSION                     the group of a regular expression in a file of the repository
    = EXPRESSION                                arithmetic, with `[[SOURCE]]` for other sources

ROW is the first cell of a row; `SECTION > ROW` looks below the row SECTION alone, `ROW & TEXT` asks for a cell TEXT in
the row; `*` stands for anything. WORDS: which number of a cell (`2`, else the first); of several values `mean`, `sum`,
`count`, `least` or `most`; `percent`, `negated`, `magnitude`.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache

import numpy as np
import pandas as pd
from page_numbers import NUMBER, number_of
from table_kinds import STUDY, rows_made

from nnunet_nacl.cli.main import build_parser

ROOT = STUDY.parents[2]
OF_SEVERAL: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
    "count": len,
    "least": min,
    "most": max,
}
OF_ONE: dict[str, Callable[[float], float]] = {
    "percent": lambda value: 100 * value,
    "negated": lambda value: -value,
    "magnitude": abs,
}


def _fits(cell: str, pattern: str) -> bool:
    escaped = pattern.strip().replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(cell.strip("* "), escaped)


def _cells(line: str, row: str, column: str) -> list[str]:
    section, _, row = row.rpartition(" > ")
    title, *texts = row.split(" & ")
    header, *rows = rows_made(line)
    if column not in header:
        raise LookupError(f"the table '{line}' has no column '{column}', but {header}")
    inside, chosen = not section, []
    for cells in rows:
        if section and cells[0].startswith("**"):
            inside = _fits(cells[0], section)
        elif inside and _fits(cells[0], title) and all(any(_fits(cell, text) for cell in cells) for text in texts):
            chosen.append(cells[header.index(column)])
    return chosen


@cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(STUDY / name)


def _values(name: str, column: str, condition: str) -> list[float]:
    rows = _read(name).query(condition) if condition else _read(name)
    return [float(value) for value in np.atleast_1d(rows.eval(column)) if not pd.isna(value)]


def _reduce(values: Sequence[float], words: Sequence[str]) -> float:
    statistic = [OF_SEVERAL[word] for word in words if word in OF_SEVERAL]
    if not statistic and len(values) != 1:
        raise LookupError(f"{len(values)} values are not one; name a statistic, one of {', '.join(OF_SEVERAL)}")
    if not values and statistic != [len]:
        raise LookupError("there is no such row")
    value = statistic[0](values) if statistic else values[0]
    for word in words:
        value = OF_ONE[word](value) if word in OF_ONE else value
    return float(value)


def _default(command: str, option: str) -> object:
    parser = build_parser([command])._subparsers._group_actions[0].choices[command]  # argparse has no public way
    return parser._option_string_actions[option].default


def value_of(source: str) -> float:
    """The number that a source gives.

    Raises:
        LookupError, OSError, ValueError: It gives none, or not one alone.
    """
    if source.startswith("="):
        if re.fullmatch(rf"=\s*(?:{NUMBER})", source):
            raise LookupError("a number is no source of itself")
        expression = re.sub(r"\[\[(.*?)\]\]", lambda inner: repr(value_of(inner[1])), source[1:])
        return float(eval(expression, vars(math).copy()))
    kind, _, rest = source.partition(": ")
    if kind == "code":
        module, _, expression = rest.partition(": ")
        return float(eval(expression, vars(importlib.import_module(module))))
    if kind == "option":
        return number_of(str(_default(*rest.split())))
    first, *parts = (part.strip() for part in re.split(r" \|(?= |$)", source))
    if kind == "text":
        text = re.search(parts[0], (ROOT / first.removeprefix("text: ")).read_text(encoding="utf-8"), re.MULTILINE)
        if not text:
            raise LookupError(f"{first} has nothing that {parts[0]} fits")
        return number_of(text[1])
    if first.endswith(".csv"):
        column, words, condition = [*parts, "", ""][:3]
        return _reduce(_values(first, column, condition), words.split())
    row, column, words = [*parts, ""][:3]
    which = next((int(word) for word in words.split() if word.isdigit()), 1)
    return _reduce([number_of(cell, which) for cell in _cells(first, row, column)], words.split())
