"""What `nnunet_nacl evaluate` says of the quality that probabilities promise."""

from __future__ import annotations

import argparse
import math
from typing import Any


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``-threshold``."""
    meaning = "a case is bad, and should be found, where the Dice of some structure is below (default: %(default)s)"
    parser.add_argument("-threshold", metavar="DICE", type=float, default=0.8, help=meaning)


def check_threshold(threshold: float) -> None:
    """UserError unless it is a Dice."""
    from nnunet_nacl.errors import UserError

    if not 0 <= threshold <= 1:
        raise UserError(f"-threshold must be a Dice, from 0 to 1, got {threshold!r}.")


def quality_text(cases: list[Any], threshold: float) -> str:
    """Lines for the terminal; empty where a document does not tell it of every case.

    Args:
        cases: Of an evaluation.
        threshold: A case is bad where its lowest Dice of a structure is below.
    """
    from nnunet_nacl.evaluation.quality_block import CaseQuality
    from nnunet_nacl.evaluation.quality_report import quality_report

    found = [quality for case in cases if (quality := CaseQuality.of(case))]
    if len(found) < len(cases):
        return ""
    report = quality_report(found, threshold)
    areas = ", ".join(f"{name} {_number(values['AURC'])}" for name, values in report["orders"].items())
    caught = ", ".join(
        f"{100 * row.looked_at:g} % ({row.n_cases}) {'-' if math.isnan(row.caught) else f'{100 * row.caught:.0f} %'}"
        for row in report["workload"]
    )
    return "\n".join(
        (
            "quality as promised by the probabilities",
            f"  expected Dice: mean absolute error {_number(report['MAE expected'])}; Spearman's rho of a case's "
            f"lowest with its lowest Dice {_number(report['orders']['expected Dice']['rho'])}",
            f"  AURC by order: {areas}",
            f"  {report['n_bad']} of {report['n_cases']} cases have a Dice below {threshold:g}; found by looking at "
            f"{caught} of the cases, lowest expected Dice first",
        )
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
