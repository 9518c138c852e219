"""`nnunet_nacl_paper`: parses the command line and hands it to the module of the subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from nnunet_nacl_paper.files import InputError

SUBCOMMANDS = {
    "prepare": "nnunet_nacl_paper.datasets.command",
    "evaluate": "nnunet_nacl_paper.protocol",
    "figures": "nnunet_nacl_paper.figures.command",
}
"""Modules with ``HELP`` (one line), ``configure(parser)`` and ``run(args)`` (exit status)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        Its exit status; 2, with one line on stderr, where the input cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="nnunet_nacl_paper", description=__doc__.partition(":")[2].strip()
    )
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    words = list(sys.argv[1:] if argv is None else argv)
    names = list(SUBCOMMANDS)
    if words and words[0] in SUBCOMMANDS:
        names = [words[0]]  # the others need not be imported: not all need matplotlib
    for name in names:
        module = import_module(SUBCOMMANDS[name])
        subparser = subparsers.add_parser(
            name, help=module.HELP, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.configure(subparser)
    args = parser.parse_args(words)
    try:
        return import_module(SUBCOMMANDS[args.subcommand]).run(args)
    except InputError as error:
        print(f"nnunet_nacl_paper {args.subcommand}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        message = f"nnunet_nacl_paper {args.subcommand}: interrupted; run it again to go on"
        print(f"\n{message}", file=sys.stderr)
        return 130
