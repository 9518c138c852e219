"""Writes the tables of pages anew from the documents of the studies.

    python docs/results/write_tables.py [--check] [PAGE.md ...]

A table stands in a page below a line that says what it is made of:

    <!-- table: KIND NETWORKS DATASET/DOCUMENT [DATASET/DOCUMENT ...] -->

KIND is one of TABLES, or of those of deployed_tables.py and deployed_flags.py, whose NETWORKS is `deployed`, and which
are made of folders DATASET/deployed_LOSS, or of those of start_tables.py, whose NETWORKS is `start`, of folders
DATASET/start/TRAINER. Of the others NETWORKS is `single`, `average` or the number of one fold (of `forms` also `fold`
and `ensemble`, of `near` `folds`), and a DATASET/DOCUMENT a file in study/, without .csv; `{CE,NACL}_30epochs` stands
for both. The first one is what the others are compared with; only `beside` has several data sets. Without PAGE, all
pages in this folder and the README. With --check, nothing is written, and the exit status is 1 if a table is not what
its documents give.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import deployed_flags
import deployed_tables
import map_tables
import start_tables
import study_shares
import unlike
from study_tables import GROUPS, Study, beside

from nnunet_nacl.files import write_atomically

HERE = Path(__file__).resolve().parent
TABLES = ("forms", "means", "differences", "decisions", "summary", "beside", "share_means", "share_differences", "near")
BLOCK = re.compile(r"(?P<line><!-- table: (?P<what>[^\n]*) -->\n)\n*(?P<table>(?:\|[^\n]*\n)*)")


def expand(pattern: str) -> list[str]:
    """The names that `{a,b}` stands for."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    rest = pattern[found.end() :]
    return [name for one in found[1].split(",") for name in expand(pattern[: found.start()] + one + rest)]


def make_table(what: str) -> str:
    """The table that the line of a page asks for.

    Raises:
        ValueError: The line asks for what there is not.
    """
    words = what.split()
    of_folders = deployed_tables.TABLES | deployed_flags.TABLES | start_tables.TABLES | unlike.TABLES
    if len(words) < 3 or words[0] not in (*TABLES, *of_folders):
        raise ValueError(f"'table: {what}' is none; one is 'table: means average DATASET/DOCUMENT', see --help")
    kind, networks, *patterns = words
    if kind in of_folders:
        return of_folders[kind]([HERE / "study" / name for pattern in patterns for name in expand(pattern)])
    of_dataset: dict[str, list[Path]] = {}
    for name in (name for pattern in patterns for name in expand(pattern)):
        path = HERE / "study" / f"{name}.csv"
        if not path.is_file():
            raise ValueError(f"'table: {what}': there is no study/{name}.csv")
        of_dataset.setdefault(path.relative_to(HERE / "study").parts[0], []).append(path)
    if kind == "beside":
        return beside([Study(paths, GROUPS.get(name)) for name, paths in of_dataset.items()], networks)
    if len(of_dataset) > 1:
        raise ValueError(f"'table: {what}': documents of several data sets stand together in 'beside' alone")
    ((dataset, paths),) = of_dataset.items()
    if kind in ("forms", "near"):
        return getattr(map_tables, kind)(paths[0], networks)
    groups = GROUPS.get(dataset)
    if kind.startswith("share_"):
        return getattr(study_shares, kind.removeprefix("share_"))(study_shares.by_share(paths, groups), networks)
    study = Study(paths, groups)
    return getattr(study, kind)(study.networks(networks))


def renew(text: str) -> str:
    """A page with its tables made anew."""

    def made(found: re.Match[str]) -> str:
        gap = "" if found["table"] or found.end() == len(text) else "\n"  # before what follows a first table
        return f"{found['line']}\n{make_table(found['what'])}\n{gap}"

    return BLOCK.sub(made, text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE.md")
    parser.add_argument("--check", action="store_true", help="write nothing, say which pages would change")
    arguments = parser.parse_args(argv)
    stale = 0
    for page in arguments.pages or [*sorted(HERE.glob("*.md")), HERE.parents[1] / "README.md"]:
        text = page.read_text(encoding="utf-8")
        new = renew(text)
        if new != text:
            stale = 1
            print(f"{page}: {'tables are not of their documents' if arguments.check else 'written'}")
            if not arguments.check:
                write_atomically(page, new)
    return stale if arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
