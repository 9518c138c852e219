"""How many cases a subcommand handles at the same time: the option ``-np``."""

from __future__ import annotations

import argparse
import os

__all__ = ["add_processes_option", "number_of_processes"]


def add_processes_option(parser: argparse.ArgumentParser, what: str = "cases at the same time") -> None:
    """Adds ``-np``.

    Args:
        parser: Of the subcommand.
        what: What the number counts, for the help.
    """
    parser.add_argument(
        "-np", metavar="N", type=int, help=f"{what} (default: nnUNet_def_n_proc, or the number of CPU cores, at most 8)"
    )


def number_of_processes(given: int | None) -> int:
    """The value of ``-np``, or the default: nnUNet_def_n_proc, or the cores that this process may use, at most 8.

    Raises:
        UserError: The value is below 1.
    """
    from joblib import cpu_count

    from nnunet_nacl.errors import UserError

    if given is not None:
        if given < 1:
            raise UserError(f"-np must be at least 1, got {given}.")
        return given
    default = os.environ.get("nnUNet_def_n_proc", "")
    if default.isdecimal() and int(default):  # isdigit() takes "²", which int() does not
        return int(default)
    return min(cpu_count(), 8)
