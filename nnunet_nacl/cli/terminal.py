"""Makes text safe to print on a terminal, and reports the problems of single cases at the end of a command."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from nnunet_nacl.errors import list_problems, printable


class PrintableStream:
    """A text stream, around another, that shows what cannot be printed as its escape.

    Names of files and structures, and the text of documents, may hold what moves the cursor, hides lines or turns text
    around. Line breaks, tabs, and the return before a progress bar's line pass.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; its length."""
        line = text.removeprefix("\r")
        self._stream.write(text[: len(text) - len(line)] + printable(line))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def report_problems(subcommand: str, problems: Mapping[str, str], what: str = "could not be done") -> None:
    """Lists the problems of cases on stderr under their number and ``what``; nothing if there are none."""
    if problems:
        print(f"\nnnunet_nacl {subcommand}: {len(problems)} {what}:{list_problems(problems)}", file=sys.stderr)
