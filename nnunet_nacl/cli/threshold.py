"""The option ``-threshold``: below which Dice a case is bad."""

from __future__ import annotations

import argparse


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``-threshold``."""
    meaning = "a case is bad, and should be found, where the Dice of some structure is below (default: %(default)s)"
    parser.add_argument("-threshold", metavar="DICE", type=float, default=0.8, help=meaning)


def check_threshold(threshold: float) -> None:
    """UserError unless it is a Dice."""
    from nnunet_nacl.errors import UserError

    if not 0 <= threshold <= 1:
        raise UserError(f"-threshold must be a Dice, from 0 to 1, got {threshold!r}.")
