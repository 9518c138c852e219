"""Options that mean the same in every command that has them."""

from __future__ import annotations

import argparse

__all__ = ["add_trust"]


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust_checkpoint``, which :func:`nnunet_nacl.cli.main.main` heeds."""
    parser.add_argument(
        "--trust_checkpoint", action="store_true", help="load checkpoints that hold more than weights and numbers"
    )
