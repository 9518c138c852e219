"""Tables as text: aligned for a terminal, Markdown, LaTeX, and CSV in full precision. All text is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_nacl.files import to_csv_text
from nnunet_nacl.json_files import one_line

NOT_TESTED = "not tested"
_LONG = 30  # rows that fit a page together with a caption of some lines


@dataclass(frozen=True)
class Cell:
    """A number, as shown and in full; ``best`` and ``second`` of its group."""

    text: str
    value: float
    best: bool = False
    second: bool = False


@dataclass(frozen=True)
class Table:
    """A table: header, rows of texts and numbers, and its caption.

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

    def grouped(self, lines: Sequence[str], before: str) -> list[str]:
        """The rows' lines, with ``before`` in front of each group but the first.

        Groups are there where two columns are text and the first one repeats: it changes between groups.
        """
        first = [row[0] for row in self.rows]
        if self.numeric[:2] != [False, False] or len(set(first)) == len(first):
            return list(lines)
        starts = [i > 0 and first[i] != first[i - 1] for i in range(len(first))]
        return [before + line if start else line for line, start in zip(lines, starts)]


def texts_of(
    rows: Sequence[Sequence[Cell | str]],
    escape: Callable[[str], str] = str,
    best: str = "{}",
    second: str = "{}",
    plain: str = "{}",
) -> list[list[str]]:
    """Rows as shown.

    Args:
        rows: Texts and numbers.
        escape: Of each text.
        best: Format of the best numbers.
        second: Of the second-best ones.
        plain: Of all other numbers.
    """

    def show(cell: Cell | str) -> str:
        if isinstance(cell, str):
            return escape(cell)
        return (best if cell.best else second if cell.second else plain).format(escape(cell.text))

    return [[show(cell) for cell in row] for row in rows]


def mark(
    values: Sequence[float], texts: Sequence[str], better: str, ranked: Sequence[bool] | None = None
) -> list[Cell]:
    """Cells with the best and the second-best marked, all of them where they are equal as shown.

    What is rounded to the same text counts as equal: a reader sees no difference. Where all are equal nothing is
    marked; of two methods only the best; where two or more are best, the next is no second.

    Args:
        values: One a method; NaN is undefined.
        texts: The same as shown.
        better: ``lower`` or ``higher``.
        ranked: Which methods can be best or second; None: all.
    """
    ranked = ranked or [True] * len(values)
    sign = -1 if better == "higher" else 1
    shown = [text for text, counts in zip(texts, ranked) if counts]
    order = {text: sign * value for value, text, counts in zip(values, texts, ranked) if counts and value == value}
    first, second, *_ = [*sorted(order, key=order.__getitem__), None, None]
    best = first if second is not None else None
    second = second if len(shown) > 2 and shown.count(str(first)) == 1 else None
    return [
        Cell(t, value, counts and t == best, counts and t == second) for value, t, counts in zip(values, texts, ranked)
    ]


def number(value: float, decimals: int = 3, sign: str = "") -> str:
    """As tables show it: ``-`` where it is undefined, no sign before what is 0 as shown; ``sign`` is ``+`` or empty."""
    if math.isnan(value):
        return "-"
    text = f"{value:{sign}.{decimals}f}"
    return text if float(text) or not sign else text[1:]


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), indent: str = "  ") -> list[str]:
    """Lines for a terminal, the columns flush right but for some; a name with line breaks stays in its cell.

    Args:
        rows: The header first.
        left: Columns that are flush left.
        indent: Before each line.
    """
    rows = [list(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        (
            indent + "  ".join(c.ljust(n) if i in left else c.rjust(n) for i, (c, n) in enumerate(zip(row, widths)))
        ).rstrip()
        for row in rows
    ]


def effect_table(effect: Mapping[str, Mapping[str, Any]], structures: Mapping[str, str]) -> str:
    """A line for each value of :func:`~nnunet_nacl.calibration.effect.changes`; ``-`` where it is undefined.

    Args:
        effect: By name of the value.
        structures: Name by nnU-Net's key.
    """
    rows = [["", "before", "after", "change", "95 % interval", "cases"]]
    for name, row in effect.items():
        kind, _, key = name.partition(" ")
        change = row["difference"]
        low, high = (number(change[end], 4, "+") for end in ("low", "high"))
        cells = [number(row["before"]["mean"], 4), number(row["after"]["mean"], 4), number(change["mean"], 4, "+")]
        cells += ["-" if low == "-" else f"{low} to {high}", str(row["n"])]
        rows.append([f"Dice {structures.get(key, key)}" if kind == "Dice" else name, *cells])
    return "\n".join(aligned(rows, indent=""))


def terminal_text(table: Table) -> str:
    """Title and aligned columns; ``*`` follows the best and ``+`` the second."""
    marks = any(isinstance(cell, Cell) and (cell.best or cell.second) for row in table.rows for cell in row)
    room = "  " if marks else ""
    header = [name + room if right else name for name, right in zip(table.columns, table.numeric)]
    left = [i for i, right in enumerate(table.numeric) if not right]
    head, *lines = aligned([header, *texts_of(table.rows, str, "{} *", "{} +", "{}" + room)], left)
    title = f"{table.title}   (* best, + second)" if marks else table.title
    return "\n".join([title, head, *table.grouped(lines, "\n")])


def csv_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Every number in full precision, undefined ones empty; names that a spreadsheet would run are quoted.

    Notes stand in a last column, in every row, so that no row loses them when rows are sorted or taken elsewhere.
    """
    values = [[cell.value if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]
    header, rows = table.csv or (table.columns, values)
    note = [" ".join(notes)] if notes else []
    return to_csv_text([*header, *["note"] * len(note)], [[*row, *note] for row in rows])


def markdown_text(table: Table, notes: Sequence[str] = ()) -> str:
    """Best bold, second underlined by ``<u>``; the caption and the notes below."""
    rows = [[escape_markdown(name) for name in table.columns], ["---:" if right else ":---" for right in table.numeric]]
    rows += texts_of(table.rows, escape_markdown, "**{}**", "<u>{}</u>")
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    below = [escape_markdown(table.caption), *(f"**Note:** {escape_markdown(note)}" for note in notes)]
    return "\n\n".join([f"## {escape_markdown(table.title)}", body, *below]) + "\n"


def escape_markdown(text: str) -> str:
    """Text as it is, whatever Markdown makes of its characters; one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", " ".join(text.split()))


def latex_text(table: Table, notes: Sequence[str] = ()) -> str:
    r"""With booktabs, as it is pasted into a manuscript: best bold, second underlined; packages in the first line.

    A ``table`` float, shrunk to the width of the text where it would be wider; a ``longtable``, which goes on over
    pages, where it has more rows than a page.
    """
    import pandas as pd  # not at the top: other commands print tables without it

    texts = texts_of(table.rows, _latex_cell, r"\textbf{{{}}}", r"\underline{{{}}}")
    firsts = table.grouped([row[0] for row in texts], "\\midrule\n")
    frame = pd.DataFrame([[first, *row[1:]] for first, row in zip(firsts, texts)])
    header = list(map(escape_latex, table.columns))
    style = frame.style.hide(axis="index").format_index(header.__getitem__, axis=1)
    settings: dict[str, Any] = {
        "hrules": True,
        "column_format": "".join("r" if right else "l" for right in table.numeric),
        "caption": " ".join(escape_latex(text) for text in (table.caption, *notes)),
        "label": f"tab:{re.sub('[^A-Za-z0-9]+', '-', table.id)}",
    }
    if len(table.rows) > _LONG:
        text = style.to_latex(environment="longtable", **settings)
        text = rf"\begingroup\footnotesize\setlength{{\tabcolsep}}{{2pt}}{text}\endgroup" + "\n"
        return r"% needs \usepackage{booktabs,longtable}" + f"\n{text}"
    text = style.to_latex(position_float="centering", **settings)
    text = text.replace(r"\begin{tabular}", r"\begin{adjustbox}{max width=\textwidth}\begin{tabular}")
    return (
        r"% needs \usepackage{booktabs,adjustbox}"
        + "\n"
        + text.replace(r"\end{tabular}", r"\end{tabular}\end{adjustbox}")
    )


def _latex_cell(text: str) -> str:
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escape_latex(text))


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "*": "{*}"}  # after a row's end, these two would be its options
)


def escape_latex(text: str) -> str:
    """Text as it is, whatever LaTeX makes of its characters; one line."""
    return " ".join(text.split()).translate(_LATEX)
