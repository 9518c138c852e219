"""Tables and their forms: CSV in full precision, Markdown, LaTeX, and aligned for a terminal. All text is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_nacl.files import to_csv_text

__all__ = ["Cell", "Table", "latex_text", "mark", "markdown_text", "number", "table_csv_text", "terminal_text"]

_LONG = 30  # rows that fit a page together with a caption of some lines
_TEXT_WIDTH = 345  # points, of LaTeX's article


@dataclass(frozen=True)
class Cell:
    """A number, as shown and in full; ``best`` and ``second`` of its group."""

    text: str
    value: float
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class Table:
    """A table: header, rows of texts and numbers, and what has to be said about it.

    Attributes:
        id: Name of its files.
        title: One line.
        caption: What the numbers are, over how many cases, what is left out.
        columns: Header.
        rows: Texts and cells.
        dataset: Name of the data set, None if it is about several.
        csv: Header and rows of the CSV where it has more numbers than the table.
    """

    id: str
    title: str
    caption: str
    columns: list[str]
    rows: list[list[Cell | str]]
    dataset: str | None = None
    csv: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers: they are set flush right."""
        return [any(isinstance(row[i], Cell) for row in self.rows) for i in range(len(self.columns))]

    @property
    def texts(self) -> list[list[str]]:
        """The rows as shown."""
        return [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in self.rows]

    def starts_group(self, i: int) -> bool:
        """Whether row ``i`` begins another group of rows: two columns are text, and the first one's repeats change."""
        first = [row[0] for row in self.rows]
        grouped = self.numeric[:2] == [False, False] and len(set(first)) < len(first)
        return grouped and i > 0 and first[i] != first[i - 1]


def mark(values: Sequence[float], texts: Sequence[str], better: str) -> list[Cell]:
    """Cells with the best and the second-best marked, all of them where they are equal as shown.

    What is rounded to the same text counts as equal: a reader sees no difference. Where all are equal nothing is
    marked; of two methods only the best; where two or more are best, the next is no second.
    """
    sign = -1 if better == "higher" else 1
    order = {text: sign * value for value, text in sorted(zip(values, texts)) if not math.isnan(value)}
    ranked = sorted(order, key=order.__getitem__)
    best = ranked[0] if len(ranked) > 1 else None
    second = ranked[1] if len(ranked) > 1 and len(texts) > 2 and texts.count(best) == 1 else None
    return [Cell(text, value, text == best, text == second) for value, text in zip(values, texts)]


def number(value: float, decimals: int) -> str:
    """As tables show it."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def table_csv_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Every number in full precision, undefined ones empty; names that a spreadsheet would run are quoted.

    Notes stand in a last column, in every row, so that no row loses them when rows are sorted or taken elsewhere.
    """
    values = [[cell.value if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]
    header, rows = table.csv or (table.columns, values)
    note = [" ".join(notes)] if notes else []
    return to_csv_text([*header, *["note"] * len(note)], [[*row, *note] for row in rows])


def markdown_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Best bold, second underlined by ``<u>``; the caption and the notes below."""
    rows = [map(escape_markdown, table.columns), ("---:" if numeric else ":---" for numeric in table.numeric)]
    rows += [(_marked(cell, escape_markdown, "**{}**", "<u>{}</u>") for cell in row) for row in table.rows]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    below = [escape_markdown(table.caption), *(f"**Note:** {escape_markdown(note)}" for note in notes)]
    return "\n\n".join([f"## {escape_markdown(table.title)}", body, *below]) + "\n"


def _marked(cell: Cell | str, escape: Callable[[str], str], bold: str, underlined: str, plain: str = "{}") -> str:
    if isinstance(cell, str):
        return escape(cell)
    return (bold if cell.best else underlined if cell.second else plain).format(escape(cell.text))


_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&])")


def escape_markdown(text: str) -> str:
    """Text as it is, whatever Markdown makes of its characters; one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def latex_text(table: Table, notes: Sequence[str] = ()) -> str:
    r"""With booktabs, as it is pasted into a manuscript: best bold, second underlined; packages in the first line.

    A ``table`` float, shrunk to the width of the text where it would be wider; a ``longtable``, which goes on over
    pages, where it has more rows than a page.
    """
    caption = " ".join(escape_latex(text) for text in (table.caption, *notes))
    label = f"tab:{re.sub('[^A-Za-z0-9]+', '-', table.id)}"
    if len(table.rows) > _LONG:
        lines = _tabular(table, r"\endlastfoot", environment="longtable", caption=caption, label=label)
        start = [r"% needs \usepackage{booktabs,longtable}", r"\begingroup\footnotesize\setlength{\tabcolsep}{2pt}"]
        return "\n".join([*start, *lines, r"\endgroup"]) + "\n"
    wide = _width_in_points(table) > _TEXT_WIDTH
    start = [r"% needs \usepackage{booktabs" + ",graphicx" * wide + "}", r"\begin{table}", r"\centering"]
    start += [rf"\caption{{{caption}}}", rf"\label{{{label}}}", *[r"\resizebox{\textwidth}{!}{%"] * wide]
    return "\n".join([*start, *_tabular(table, r"\midrule"), *["}"] * wide, r"\end{table}"]) + "\n"


def _tabular(table: Table, end_of_header: str, **arguments: Any) -> list[str]:
    """Lines of LaTeX by pandas, with a rule between groups of rows."""
    from pandas import DataFrame

    looks = {(True, False): "textbf:--rwrap;", (False, True): "underline:--rwrap;"}
    styles = [[looks.get((c.best, c.second), "") if isinstance(c, Cell) else "" for c in row] for row in table.rows]
    style = (
        DataFrame(table.texts)
        .style.hide(axis="index")
        .format(lambda text: _MINUS.sub("$-$", escape_latex(text)))
        .format_index(lambda i: escape_latex(table.columns[i]), axis="columns")
        .apply(lambda _: DataFrame(styles), axis=None)
    )
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    lines = style.to_latex(hrules=True, column_format=columns, **arguments).splitlines()
    first = len(lines) - lines[::-1].index(end_of_header)
    for i in reversed(range(len(table.rows))):
        if table.starts_group(i):
            lines.insert(first + i, r"\midrule")
    return lines


def _width_in_points(table: Table) -> float:
    """Of the table in ten-point type, about: five points a character, twelve between columns."""
    return sum(5 * max(map(len, column)) + 12 for column in zip(table.columns, *table.texts))


_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "*": "{*}"}  # after a row's end, these two would be its options
)


def escape_latex(text: str) -> str:
    """Text as it is, whatever LaTeX makes of its characters; one line."""
    return " ".join(text.split()).translate(_LATEX)


def terminal_text(table: Table) -> str:
    """Aligned columns; ``*`` follows the best and ``+`` the second."""
    marks = any(isinstance(cell, Cell) and (cell.best or cell.second) for row in table.rows for cell in row)
    plain = "{}  " if marks else "{}"
    rows = [[plain.format(name) if right else name for name, right in zip(table.columns, table.numeric)]]
    rows += [[_marked(cell, str, "{} *", "{} +", plain) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [table.title + "   (* best, + second)" * marks]
    for i, row in enumerate(rows):
        if i > 0 and table.starts_group(i - 1):
            lines.append("")
        cells = [cell.rjust(n) if right else cell.ljust(n) for cell, n, right in zip(row, widths, table.numeric)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
