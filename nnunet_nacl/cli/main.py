"""`nnunet_nacl`: parses the command line and hands it to the module of the subcommand.

A subcommand is a module of this package with `HELP` (one line), `configure(parser)` (its arguments)
and `run(args)` (the work; returns the exit status). Its help has a line an option and at most 45
lines; all else is a page of docs/. Heavy imports belong inside `run`: the help of the whole needs
every module.
"""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any, NoReturn, TextIO

import nnunet_nacl
from nnunet_nacl.cli.argument_names import option_of
from nnunet_nacl.cli.options import HELP_WIDTH, check_environment, fill_paragraphs
from nnunet_nacl.utilities.errors import UserError, describe, name_arguments, printable

_NAMES = "calibrate compare demo doctor evaluate predict review trainers tune"
SUBCOMMANDS = {name: f"nnunet_nacl.cli.{name}" for name in _NAMES.split()}

DESCRIPTION = """\
Calibrated confidence for nnU-Net v2: calibrate trained models, list the scans to check, train and
compare losses.

Training and prediction stay nnU-Net's own commands, for example
  nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerNACL"""

EPILOG = """\
`nnunet_nacl <subcommand> -h` lists a subcommand's options.
Research software: not for clinical use."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lines as wide as the terminal, and no narrower than :data:`HELP_WIDTH`."""

    def __init__(self, prog: str) -> None:
        width = max(HELP_WIDTH, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, max_help_position=34, width=width)


class _Parser(argparse.ArgumentParser):
    """Answers what cannot be read in one line, and not with a screen of usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        if not message.endswith((".", "?")):
            message += f"; `{self.prog} -h` says what to type."
        self.exit(2, f"{self.prog}: error: {message}\n")


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for a command line; where it begins with a subcommand that one's module alone is
    imported."""
    parser = _Parser(
        "nnunet_nacl",
        description=fill_paragraphs(DESCRIPTION),
        epilog=EPILOG,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"nnunet_nacl {nnunet_nacl.__version__}"
    )
    subparsers = parser.add_subparsers(dest="subcommand", metavar="<subcommand>", required=True)
    first = next(iter(argv), "")
    if first and first[0] != "-" and first not in SUBCOMMANDS:
        alike = difflib.get_close_matches(first, SUBCOMMANDS, 1)
        near = f"did you mean {alike[0]}?" if alike else f"there are {', '.join(SUBCOMMANDS)}."
        parser.error(f"there is no subcommand {first}; {near}")
    names = [first] if first in SUBCOMMANDS else list(SUBCOMMANDS)
    for name in names:
        module = import_module(SUBCOMMANDS[name])
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        subparser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        module.configure(subparser)
        if name == first:
            _check_flags(subparser, argv[1:])
        subparser.set_defaults(run=module.run, argv=list(argv))
    return parser


def _check_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Exit with an error for a flag that there is not: argparse takes ``-overwrite`` for ``-o
    verwrite``.

    UserError for an empty argument, as a variable of the shell leaves that is not set: as a path it
    is this folder.
    """
    flags = parser._option_string_actions
    for before, argument in zip(["the subcommand", *arguments], arguments):
        flag, equals, value = argument.partition("=")
        if equals and flag in flags:
            before = flag
            argument = value
        if not argument.strip():
            raise UserError(f"the argument after {before} is empty; give a value, or leave it out.")
        if re.fullmatch(r"--?[A-Za-z][\w-]+", flag) and flag not in flags:
            alike = difflib.get_close_matches(flag, flags, 1)
            hint = f"; did you mean {alike[0]}?" if alike else ""
            parser.error(f"there is no flag {flag}{hint}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand that the arguments name; its exit status, 2 for bad input, 128 and more
    if interrupted.

    Without arguments it shows the help.
    """
    if argv is None:
        argv = sys.argv[1:]
    if not argv:
        argv = ["--help"]
    # names of structures and files may be more than the terminal can show
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    with (
        redirect_stdout(_PrintableStream(sys.stdout)),
        redirect_stderr(_PrintableStream(sys.stderr)),
    ):
        return _run(argv)


class _PrintableStream:
    """Names options in place of the arguments that messages mark, and shows what moves a
    terminal's cursor, hides lines or turns text around, as names of files may, as its escape.

    Line breaks, tabs, and the return before a progress bar's line pass.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text; its length."""
        line = text.removeprefix("\r")
        start = text[: len(text) - len(line)]
        self._stream.write(start + printable(name_arguments(line, option_of)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _run(argv: Sequence[str]) -> int:
    log = logging.getLogger("nnunet_nacl")
    handler = logging.StreamHandler()
    log.addHandler(handler)
    try:
        args = build_parser(argv).parse_args(argv)
        quiet = getattr(args, "quiet", False)
        log.setLevel(logging.ERROR if quiet else logging.INFO)
        if getattr(args, "trust_checkpoint", False):
            from nnunet_nacl.nnunet.trust import TRUSTED

            TRUSTED.set(True)
        check_environment()
        if quiet:
            with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()):
                status = args.run(args)
            print(*said.getvalue().splitlines()[-1:])
        else:
            status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): no error of ours. Python would complain once
        # more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(f"nnunet_nacl {argv[0]}: error: {error.marked}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"nnunet_nacl {argv[0]}: error: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"nnunet_nacl {argv[0]}: interrupted", file=sys.stderr)
        return 128 + (interrupt.args or (signal.SIGINT,))[0]
    finally:
        log.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
