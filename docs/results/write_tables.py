"""Writes the tables and numbers of pages anew from the values of the studies.

    python docs/results/write_tables.py [--check] [PAGE.md ...]

A table stands in a page below a line that says what it is made of (table_kinds.py):

    <!-- table: KIND FOLDER [FOLDER ...] -->     the whole table
    <!-- cells: KIND FOLDER [FOLDER ...] -->     some rows and columns of it

FOLDER lies in study/; `{CE,NACL}_30epochs` stands for both. A number in prose, or in another table, stands in
claims.py with its source, or fits an expression of exceptions.py. Without PAGE: README and all pages of docs/, and the
checksums of the files in study/, study/SHA256SUMS. With --check nothing is written, and the exit status is 1 if a cell
or a number is not that of its source, a number has none, a file in study/ has changed, is missing or is read by no
table or claim, or an exception is used by nothing. Without --check only what cannot be written is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import check_numbers
import page_tables
import study_files
from claims import CLAIMS
from exceptions import EXCEPTIONS, FILES, NOT_YET

from nnunet_nacl.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]


def of_page(name: str) -> list[str]:
    """The exceptions of a page."""
    return [pattern for page, pattern, _ in EXCEPTIONS if page in ("*", name)]


def renew(path: Path, check: bool, used: set[tuple[str, str]]) -> list[str]:
    """Write a page anew unless ``check``, and say what is wrong with it (then): file, line and fault."""
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    claims, text = CLAIMS.get(name, []), path.read_text(encoding="utf-8")
    new, problems = page_tables.renew(text)
    new, more = check_numbers.renew(new, claims)
    if not check:
        if new != text:
            write_atomically(path, new)
            print(f"{name}: written")
        problems, more = page_tables.renew(new)[1], check_numbers.renew(new, claims)[1]
    patterns: set[str] = set()
    if name not in NOT_YET:
        more += check_numbers.without_source(text if check else new, claims, of_page(name), patterns)
    used |= {(page, pattern) for page, pattern, _ in EXCEPTIONS if page in ("*", name) and pattern in patterns}
    return [f"{name}:{line}: {fault}" for line, fault in sorted(problems + more, key=lambda problem: problem[0])]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE.md")
    parser.add_argument("--check", action="store_true", help="write nothing, say what would change")
    arguments = parser.parse_args(argv)
    pages = arguments.pages or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    used: set[tuple[str, str]] = set()
    with study_files.recorded():
        problems = [fault for page in pages for fault in renew(page.resolve(), arguments.check, used)]
    if not arguments.pages:
        names = {page.relative_to(ROOT).as_posix() for page in pages}
        problems += [f"claims.py: there is no page {name}" for name in CLAIMS if name not in names]
        problems += [f"exceptions.py: there is no page {name}" for name in NOT_YET if name not in names]
        unused = [(page, pattern) for page, pattern, _ in EXCEPTIONS if (page, pattern) not in used]
        problems += [f"exceptions.py: nothing in {page} uses '{pattern}'" for page, pattern in unused]
        if not arguments.check:
            study_files.write_checksums()
        problems += study_files.changed_files() + study_files.unread_files(FILES)
    for problem in problems:
        print(problem)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
