"""What is wrong with single cases, said at the end of a subcommand."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from nnunet_nacl.errors import some
from nnunet_nacl.json_files import one_line

_SHOWN, _NAMED = 3, 20  # of problems that differ in the case's name alone


def report_problems(subcommand: str, problems: Mapping[str, str], what: str = "could not be done") -> None:
    """Lists the problems of cases on stderr, one a line, under their number and ``what``; nothing if there are none.

    Of those that differ in the name of the case alone three have a line, and the others are named.
    """
    if problems:
        print(f"\nnnunet_nacl {subcommand}: {len(problems)} {what}:", file=sys.stderr)
        alike: dict[str, list[str]] = {}
        for name, problem in problems.items():
            alike.setdefault(problem.replace(name, "CASE"), []).append(name)
        for names in alike.values():
            for name in names[:_SHOWN]:
                print(f"  {one_line(name)}: {problems[name]}", file=sys.stderr)
            if others := names[_SHOWN:]:
                print(f"  and {len(others)} more in the same way: {one_line(some(others, _NAMED))}", file=sys.stderr)
