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
"""Modules with ``HELP`` (one line), ``configure(parser)`` (arguments) and ``run(args)`` (the work;
exit status)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit status, 2 with one line on stderr where the input cannot
    be used."""
    parser = argparse.ArgumentParser(
        prog="nnunet_nacl_paper", description=__doc__.partition(":")[2].strip()
    )
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    given = list(sys.argv[1:] if argv is None else argv)
    # not all need matplotlib
    for name in given[:1] if given[:1] in [[name] for name in SUBCOMMANDS] else SUBCOMMANDS:
        module = import_module(SUBCOMMANDS[name])
        form = argparse.RawDescriptionHelpFormatter
        module.configure(subparsers.add_parser(name, help=module.HELP, formatter_class=form))
    args = parser.parse_args(given)
    try:
        return import_module(SUBCOMMANDS[args.subcommand]).run(args)
    except InputError as error:
        print(f"nnunet_nacl_paper {args.subcommand}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"\nnnunet_nacl_paper {args.subcommand}: interrupted; run it again to go on",
            file=sys.stderr,
        )
        return 130
