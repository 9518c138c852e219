"""What `nnunet_nacl evaluate` says of the quality that probabilities promise."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_nacl.cases.predicted_quality import QualityOfMap


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``-threshold``."""
    meaning = "a case is bad, and should be found, where the Dice of some structure is below (default: %(default)s)"
    parser.add_argument("-threshold", metavar="DICE", type=float, default=0.8, help=meaning)


def check_threshold(threshold: float) -> None:
    """UserError unless it is a Dice."""
    from nnunet_nacl.errors import UserError

    if not 0 <= threshold <= 1:
        raise UserError(f"-threshold must be a Dice, from 0 to 1, got {threshold!r}.")


def case_report(cases: list[Any], threshold: float, asked: QualityOfMap | None) -> dict[str, Any] | None:
    """See :func:`~nnunet_nacl.comparison.quality_report.quality_report`; None where not every case tells of it.

    Args:
        cases: Of an evaluation.
        threshold: A case is bad where its lowest Dice of a structure is below.
        asked: What a map has learned, to predict Dice by.
    """
    from nnunet_nacl.cases.quality_block import CaseQuality
    from nnunet_nacl.comparison.quality_report import quality_report

    found = [quality for case in cases if (quality := CaseQuality.of(case))]
    if len(found) < len(cases):
        return None
    predicted = None if asked is None else asked.predict_dice([case.expected for case in found])
    return quality_report(found, threshold, predicted)


def report_to_json(report: dict[str, Any], threshold: float) -> dict[str, Any]:
    """What a document says of it."""
    rows = {"coverage": asdict(report["coverage"]), "workload": [asdict(row) for row in report["workload"]]}
    return {"threshold": threshold} | report | rows


def quality_text(report: dict[str, Any], threshold: float) -> str:
    """Lines for the terminal."""
    areas = ", ".join(f"{name} {_number(values['AURC'])}" for name, values in report["orders"].items())
    caught = ", ".join(
        f"{100 * row.looked_at:g} % ({row.n_cases}) {'-' if math.isnan(row.caught) else f'{100 * row.caught:.0f} %'}"
        for row in report["workload"]
    )
    lines = [
        "quality as promised by the probabilities",
        f"  expected Dice: mean absolute error {_number(report['MAE expected'])}; Spearman's rho of a case's "
        f"lowest with its lowest Dice {_number(report['orders']['expected Dice']['rho'])}",
    ]
    if "coverage" in report:
        c = report["coverage"]
        held = f"{100 * c.share:.0f} % ({100 * c.low:.0f} to {100 * c.high:.0f} %) of {c.n} intervals hold"
        lines.append(
            f"  predicted Dice: mean absolute error {_number(report['MAE predicted'])}; "
            + (held if c.n else "no intervals")
        )
    lines += [
        f"  AURC by order: {areas}",
        f"  {report['n_bad']} of {report['n_cases']} cases have a Dice below {threshold:g}; found by looking at "
        f"{caught} of the cases, lowest expected Dice first",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
