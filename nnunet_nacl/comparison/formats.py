"""Tables as text: CSV in full precision, Markdown, LaTeX, and aligned for a terminal. All text is escaped."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from nnunet_nacl.comparison.cells import Cell, Table

__all__ = ["csv_text", "escape_latex", "escape_markdown", "latex_text", "markdown_text", "terminal_text"]


def csv_text(table: Table) -> str:
    """Every number in full precision (``repr``, read back bit by bit); undefined ones are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.csv_columns or table.columns)
    for row in table.rows if table.csv_rows is None else table.csv_rows:
        writer.writerow([_full(cell) for cell in row])
    return stream.getvalue()


def _full(cell: Any) -> Any:
    value = cell.value if isinstance(cell, Cell) else cell
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return int(value) if value.is_integer() and abs(value) < 2**53 and _is_count(cell) else repr(value)
    return value


def _is_count(cell: Any) -> bool:
    return isinstance(cell, Cell) and re.fullmatch(r"\d+", cell.text) is not None


def markdown_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Best bold, second underlined by ``<u>``; the caption and the notes below."""
    header = [escape_markdown(name) for name in table.columns]
    right = _numeric_columns(table)
    lines = [f"## {escape_markdown(table.title)}", "", f"| {' | '.join(header)} |"]
    lines.append("|" + "|".join(" ---: " if is_number else " :--- " for is_number in right) + "|")
    for row in table.rows:
        cells = [_marked(cell, escape_markdown, "**{}**", "<u>{}</u>") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", escape_markdown(table.caption)]
    for note in notes:
        lines += ["", f"**Note:** {escape_markdown(note)}"]
    return "\n".join(lines) + "\n"


def latex_text(table: Table, notes: Sequence[str] = ()) -> str:
    r"""A ``table`` float for ``\usepackage{booktabs}``: best bold, second underlined."""
    right = _numeric_columns(table)
    caption = " ".join(escape_latex(text) for text in (table.caption, *notes))
    label = re.sub(r"[^A-Za-z0-9]+", "-", table.id)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption}}}",
        f"  \\label{{tab:{label}}}",
        f"  \\begin{{tabular}}{{{''.join('r' if is_number else 'l' for is_number in right)}}}",
        r"    \toprule",
        f"    {' & '.join(escape_latex(name) for name in table.columns)} \\\\",
        r"    \midrule",
    ]
    previous = None
    for row in table.rows:
        group = row[0] if len(row) > 1 and isinstance(row[1], str) else None
        if previous is not None and group != previous:
            lines.append(r"    \midrule")
        previous = group
        cells = [_marked(cell, escape_latex, r"\textbf{{{}}}", r"\underline{{{}}}") for cell in row]
        lines.append(f"    {_MINUS.sub('$-$', ' & '.join(cells))} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def terminal_text(table: Table) -> str:
    """Aligned columns; ``*`` follows the best and ``+`` the second."""
    rows = [list(table.columns)]
    marks = any(isinstance(cell, Cell) and (cell.best or cell.second) for row in table.rows for cell in row)
    for row in table.rows:
        shown = []
        for cell in row:
            mark = (" *" if cell.best else " +" if cell.second else "  ") if marks and isinstance(cell, Cell) else ""
            shown.append((cell.text if isinstance(cell, Cell) else cell) + mark)
        rows.append(shown)
    right = _numeric_columns(table)
    if marks:
        rows[0] = [name + ("  " if is_number else "") for name, is_number in zip(rows[0], right)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(right))]
    lines = [table.title + ("   (* best, + second)" if marks else "")]
    for i, row in enumerate(rows):
        previous = rows[i - 1][0] if i > 1 else row[0]
        if i > 1 and row[0] != previous and not isinstance(table.rows[0][1], Cell):
            lines.append("")
        cells = [cell.rjust(width) if is_number else cell.ljust(width)
                 for cell, width, is_number in zip(row, widths, right)]  # fmt: skip
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _numeric_columns(table: Table) -> list[bool]:
    return [any(isinstance(row[i], Cell) for row in table.rows) for i in range(len(table.columns))]


def _marked(cell: Cell | str, escape: Callable[[str], str], bold: str, underlined: str) -> str:
    if isinstance(cell, str):
        return escape(cell)
    text = escape(cell.text)
    return bold.format(text) if cell.best else underlined.format(text) if cell.second else text


_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$&])")


def escape_markdown(text: str) -> str:
    """Text as it is, whatever Markdown makes of its characters; one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text as it is, whatever LaTeX makes of its characters; one line."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
