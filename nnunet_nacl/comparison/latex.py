r"""Tables for LaTeX with booktabs, as they are pasted into a manuscript. All text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nnunet_nacl.comparison.cells import Cell, Table, marked, numeric_columns

__all__ = ["escape_latex", "latex_text"]

_LONG = 30  # rows that fit a page together with a caption of some lines
_TEXT_WIDTH = 345  # points, of LaTeX's article


def latex_text(table: Table, notes: Sequence[str] = ()) -> str:
    r"""Best bold, second underlined; the first line names the packages that the preamble needs.

    A ``table`` float, shrunk to the width of the text where it would be wider; a ``longtable``, which goes on over
    pages, where it has more rows than a page.
    """
    caption = " ".join(escape_latex(text) for text in (table.caption, *notes))
    label = f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', table.id)}}}"
    columns = "".join("r" if is_number else "l" for is_number in numeric_columns(table))
    make = _long_table if len(table.rows) > _LONG else _float
    return "\n".join(make(table, caption, label, columns)) + "\n"


def _float(table: Table, caption: str, label: str, columns: str) -> list[str]:
    wide = _width_in_points(table) > _TEXT_WIDTH
    return [
        rf"% needs \usepackage{{booktabs{',graphicx' if wide else ''}}}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption}}}",
        f"  {label}",
        *([r"  \resizebox{\textwidth}{!}{%"] if wide else []),
        f"  \\begin{{tabular}}{{{columns}}}",
        *(f"    {line}" for line in (*_header(table), *_body(table), r"\bottomrule")),
        r"  \end{tabular}" + ("}" if wide else ""),
        r"\end{table}",
    ]


def _long_table(table: Table, caption: str, label: str, columns: str) -> list[str]:
    header = _header(table)
    ends = (*header, r"\endfirsthead", *header, r"\endhead", r"\bottomrule", r"\endlastfoot")
    return [
        r"% needs \usepackage{booktabs,longtable}",
        r"\begingroup\footnotesize\setlength{\tabcolsep}{2pt}",
        f"\\begin{{longtable}}{{{columns}}}",
        f"  \\caption{{{caption}}}{label} \\\\",
        *(f"  {line}" for line in (*ends, *_body(table))),
        r"\end{longtable}",
        r"\endgroup",
    ]


def _width_in_points(table: Table) -> float:
    """Of the table in ten-point type, about: five points a character, twelve between columns."""
    texts = [table.columns, *([cell.text if isinstance(cell, Cell) else cell for cell in row] for row in table.rows)]
    return sum(5 * max(map(len, column)) + 12 for column in zip(*texts))


def _header(table: Table) -> list[str]:
    return [r"\toprule", f"{' & '.join(escape_latex(name) for name in table.columns)} \\\\", r"\midrule"]


def _body(table: Table) -> list[str]:
    """Rows; a rule parts groups, rows of the same first text where the second column is text too."""
    lines, previous = [], None
    groups = [row[0] if len(row) > 1 and isinstance(row[1], str) else None for row in table.rows]
    for row, group in zip(table.rows, groups):
        if previous not in (None, group) and len(set(groups)) < len(groups):
            lines.append(r"\midrule")
        previous = group
        cells = [marked(cell, escape_latex, r"\textbf{{{}}}", r"\underline{{{}}}") for cell in row]
        lines.append(f"{_MINUS.sub('$-$', ' & '.join(cells))} \\\\")
    return lines


_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "*": "{*}",  # after a row's end, these two would be its options
}


def escape_latex(text: str) -> str:
    """Text as it is, whatever LaTeX makes of its characters; one line."""
    return "".join(_ESCAPED.get(character, character) for character in " ".join(text.split()))
