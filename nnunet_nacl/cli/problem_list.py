"""What is wrong with single cases, said at the end of a subcommand."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from nnunet_nacl.json_files import one_line

__all__ = ["report_problems"]


def report_problems(subcommand: str, problems: Mapping[str, str], what: str = "could not be done") -> None:
    """Lists the problems of cases on stderr, one a line, under their number and ``what``; nothing if there are none."""
    if problems:
        print(f"\nnnunet_nacl {subcommand}: {len(problems)} {what}:", file=sys.stderr)
        for name, problem in problems.items():
            print(f"  {one_line(name)}: {problem}", file=sys.stderr)
