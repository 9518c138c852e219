"""Help that fits a screen: ``-h`` shows the options that most users need, ``--help-all`` all options and explanations.

A subcommand with long help names the former in ``COMMON_FLAGS``, and :mod:`nnunet_nacl.cli.main` calls
:func:`add_brief_help` for it.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Collection, Sequence
from typing import Any


def add_brief_help(parser: argparse.ArgumentParser, flags: Collection[str]) -> None:
    """Adds ``-h``, which prints :func:`format_brief_help`, and ``--help-all``, which prints the whole help.

    Args:
        parser: Of the subcommand, without a ``-h``.
        flags: The options that the brief help shows.
    """
    brief, everything = "show the most used options and exit", "show all options, files and examples, and exit"
    parser.add_argument("-h", "--help", action=_BriefHelp, flags={*flags, "--help-all"}, help=brief)
    parser.add_argument("--help-all", action="help", help=everything)


class _BriefHelp(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, flags: Collection[str], **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **settings)
        self.flags = flags

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(format_brief_help(parser, self.flags), end="")
        parser.exit()


def format_brief_help(parser: argparse.ArgumentParser, flags: Collection[str]) -> str:
    """What must be given, the description's first paragraph, the help of some options, and the epilog's examples.

    Args:
        parser: The paragraph is wrapped to the terminal; the examples, the epilog's last part, stay as they are.
        flags: The options to show; arguments without a flag are always shown.
    """
    shown = [one for one in parser._actions if not one.option_strings or not set(flags).isdisjoint(one.option_strings)]
    choices = [group for group in parser._mutually_exclusive_groups if group.required]
    alternatives = [one for group in choices for one in group._group_actions]
    needed = [one for one in parser._actions if one.required or not one.option_strings or one in alternatives]
    usage = parser._get_formatter()
    usage.add_usage(None, needed, choices)
    body = parser._get_formatter()
    summary = " ".join((parser.description or "").partition("\n\n")[0].split())
    body.add_text(textwrap.fill(summary, shutil.get_terminal_size().columns - 2))
    for section in parser._action_groups:
        body.start_section(section.title)
        body.add_arguments([one for one in section._group_actions if one in shown])
        body.end_section()
    _, title, examples = (parser.epilog or "").partition("examples:\n")
    body.add_text(title + examples)
    return f"{usage.format_help().rstrip()} [options]\n\n{body.format_help()}"
