"""How a subcommand ends: what could not be done is listed, and is in the exit status."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["end_with"]


def end_with(command: str, problems: Mapping[str, str], what: str) -> int:
    """List on stderr what is wrong with each case; the exit status, 1 if anything is.

    Args:
        command: Name of the subcommand.
        problems: What is wrong, by name of the case.
        what: Of these cases: "could not be done".
    """
    import sys

    from nnunet_nacl.json_files import one_line

    if problems:
        print(f"\nnnunet_nacl {command}: {len(problems)} {what}:", file=sys.stderr)
    for name, problem in problems.items():
        print(f"  {one_line(name)}: {problem}", file=sys.stderr)
    return 1 if problems else 0
