"""Tables of what the package costs, from study/performance/NAME.csv.

    python docs/results/tables_performance.py PAGE.md

PAGE.md is what the scripts in benchmarks/ write with `--output PAGE.md`. The tables of each section become NAME.csv,
numbers as the script printed them; tables with one header are joined, and then the first column says what each is of.
A further header is in NAME_2.csv. `notes.csv` has the other lines of each section, such as the machine. Not from there
is what was taken of whole commands with `time -v` and written down: commands.csv, pages.csv and
tutorial.csv.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nnunet_nacl.files import write_atomically

FOLDER = Path(__file__).resolve().parent / "study" / "performance"

_SECTION = re.compile(r"<!-- begin ([^\n]*) -->\n(.*?)<!-- end", re.DOTALL)


def _cells(line: str) -> list[str]:
    return [re.sub(r"\*\*|`", "", cell).strip() for cell in line.strip()[1:-1].split("|")]


def _tables(text: str) -> tuple[list[list[list[str]]], list[str]]:
    """Tables of a section, joined by header and with what each row is of in front, and the other lines."""
    by_header: dict[str, list[list[str]]] = {}
    notes, of, header = [], "", ""
    for line in text.split("\n"):
        if not line.startswith("|"):
            header = ""
            if line and not line.startswith("#"):
                notes.append(line)
                of = re.sub(r"[*`]", "", line.partition(";")[0]) if "**" in line or "voxels;" in line else of
        elif not header:
            header = line
            by_header.setdefault(header, [["of", *_cells(line)]])
        elif not set(line) <= set("|:- "):
            by_header[header].append([of, *_cells(line)])
    tables = []
    for rows in by_header.values():
        joined = len({row[0] for row in rows[1:]}) > 1
        tables.append(rows if joined else [row[1:] for row in rows])
    return tables, notes


def _write(name: str, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(FOLDER / f"{name}.csv", text.getvalue())


def keep(page: str) -> None:
    """Write the tables of a page of the benchmarks as CSVs; what other sections have stays."""
    old = _read(FOLDER / "notes") if (FOLDER / "notes.csv").is_file() else [["section", "line"]]
    notes: dict[str, list[str]] = {}
    for name, line in old:
        notes.setdefault(name, []).append(line)
    for title, text in _SECTION.findall(page):
        name = re.sub(r"\W+", "_", title)
        tables, notes[name] = _tables(text)
        for number, rows in enumerate(tables, 1):
            _write(name if number == 1 else f"{name}_{number}", rows)
    _write("notes", [[name, line] for name, lines in notes.items() for line in lines])


def _read(path: Path) -> list[list[str]]:
    with open(f"{path}.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("  ", " ") for line in lines)


def performance(paths: Sequence[Path]) -> str:
    """A CSV as it is."""
    (path,) = paths
    header, *rows = _read(path)
    return _table(header, rows)


def side_by_side(paths: Sequence[Path]) -> str:
    """A CSV of joined tables, these side by side."""
    (path,) = paths
    (_, first, *header), *rows = _read(path)
    parts = list(dict.fromkeys(row[0] for row in rows))
    cells = {(of, name): values for of, name, *values in rows}
    names = dict.fromkeys(row[1] for row in rows)
    titles = [f"{title}, {of}" for of in parts for title in header]
    body = [[name, *(x for of in parts for x in cells.get((of, name), [""] * len(header)))] for name in names]
    return _table([first, *titles], body)


TABLES: dict[str, Callable[[Sequence[Path]], str]] = {"performance": performance, "side_by_side": side_by_side}


if __name__ == "__main__":
    keep(Path(sys.argv[1]).read_text(encoding="utf-8"))
