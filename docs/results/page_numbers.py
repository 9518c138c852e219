"""Where numbers stand in the prose of a page, and how one is written there."""

from __future__ import annotations

import re

NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+"
"""A numeral without its sign: 5,000, 0.12, .12, 1e-6."""

MARK = re.compile(r"<!-- (?P<how>table|cells): (?P<what>[^\n]*?) -->\n\n*(?P<table>(?:\|[^\n]*\n)*)")
"""A line that says what a table is made of, and the table."""

_HIDDEN = re.compile(
    r"^(`{3,})[^\n]*\n.*?^\1[^\n]*$"  # fenced code
    r"|(?<=\n\n)(?:[ ]{4,}[^\n]*\n|\n(?=[ ]{4}))+"  # indented code
    r"|<!--.*?-->"
    r"|(`+)[^`].*?\2"  # inline code
    r"|\]\([^)\s]*\)|https?://[^\s)>]+",  # targets of links and pictures
    re.MULTILINE | re.DOTALL,
)
_NUMERAL = re.compile(rf"(?<![\w.])(?:{NUMBER})")


def prose(page: str) -> str:
    """The page with blanks in place of all that is no prose: made tables, code, link targets, comments.

    A table without a line above it that says what it is made of is prose. Places stay where they are.
    """
    for hidden in (MARK, _HIDDEN):
        page = hidden.sub(lambda part: re.sub(r"[^\n]", " ", part[0]), page)
    return page


def numerals(page: str) -> list[re.Match[str]]:
    """The numerals in the prose of a page; digits behind a letter, as in Task04, belong to a name."""
    return list(_NUMERAL.finditer(prose(page)))


def line_of(page: str, place: int) -> int:
    """Number of the line of a place."""
    return page.count("\n", 0, place) + 1


def like(shown: str, value: float) -> str:
    """A value with as many digits as a number that is shown, and with a sign, a leading 0 and commas as it has them."""
    digits = len(shown.partition("e")[0].partition(".")[2])
    sign, comma = "+" if shown.startswith("+") else "", "," if "," in shown else ""
    text = f"{value:{sign}.{digits}e}" if "e" in shown else f"{value:{sign}{comma}.{digits}f}"
    text = re.sub(r"e([+-])0(?=\d)", r"e\1", text).replace("e+", "e")
    if shown.lstrip("+-").startswith("."):
        text = re.sub(r"^([+-]?)0\.", r"\1.", text)
    return text


def number_of(cell: str, which: int = 1) -> float:
    """A number of a cell such as '0.89 (45)' or '-.011 [-.014, -.009]', counted from 1.

    Raises:
        LookupError: The cell has not so many.
    """
    numbers = re.findall(rf"(?<![\w.])[+-]?(?:{NUMBER})", cell)
    if len(numbers) < which:
        raise LookupError(f"the cell '{cell}' has no number {which}")
    return float(numbers[which - 1].replace(",", ""))
