"""Sentences about the demo's table: what changed, by what, and what cannot be concluded from it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunet_nacl.demo.names import STOCK
from nnunet_nacl.registration.grammar import Variant, parse

if TYPE_CHECKING:
    from nnunet_nacl.demo.summary import Row

_WIDTH = 110


def read_table(rows: Sequence[Row], num_folds: int, same_schedule: bool) -> list[str]:
    """Reads the table: each step from one loss to the next apart, so that none is credited with another's effect.

    Args:
        rows: The table; the true probabilities' row, if any, has no trainer.
        num_folds: Number of folds in it.
        same_schedule: Whether all trainers ran on one schedule and optimiser.

    Returns:
        Lines of text.
    """
    trained = [row for row in rows if row.trainer]
    kinds = {}
    for row in trained:
        kinds.setdefault(_kind(row.trainer), row)
    remarks = []
    if "stock" in kinds and "CE" in kinds:
        remarks.append(_step("Leaving out the Dice term", kinds["stock"], kinds["CE"]))
    if "CE" in kinds and "NACL" in kinds:
        remarks.append(_step("Adding the penalty to CE", kinds["CE"], kinds["NACL"]))
    elif "stock" in kinds and "NACL" in kinds:
        remarks.append(
            _step(
                "NACL instead of Dice + CE, so leaving out the Dice term as well as adding the penalty,",
                kinds["stock"],
                kinds["NACL"],
            )
        )
    if "NACL" in kinds:
        remarks.append(
            "The penalty holds back confidence everywhere, also on plain background that deserves it: the "
            "error on the whole image may rise while that on the foreground falls."
        )
    oracle = next((row for row in rows if not row.trainer), None)
    floor = (
        ""
        if oracle is None
        else (
            f": the true label probabilities themselves have "
            f"{oracle.evaluation.mean_ece('foreground'):.3f} there and "
            f"{oracle.evaluation.mean_ece('all'):.3f} on the whole image"
        )
    )
    remarks.append(
        "The foreground is chosen by the true labels, so that even a perfectly calibrated network does not "
        f"reach 0 on it{floor}."
    )
    if not same_schedule:
        remarks.append("The trainers differ in schedule or optimiser, not only in their loss.")
    remarks.append(
        f"{len(trained[0].evaluation.cases)} cases of {num_folds} fold{'s' if num_folds > 1 else ''}, one "
        "training each, on a short schedule: this shows the workflow, it does not rank the methods."
    )
    problems = {case: text for row in rows for case, text in row.evaluation.problems.items()}
    remarks += [f"Left out: {text}" for text in problems.values()]
    return [
        line
        for remark in remarks
        for line in textwrap.wrap(remark, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    ]


def _kind(trainer: str) -> str:
    """`stock`, `CE` or `NACL` for these losses at their defaults, else the name."""
    variant = Variant("CE", dice=True) if trainer == STOCK else parse(trainer)
    if variant is None:
        return trainer
    loss = Variant(
        variant.method,
        variant.dice,
        epochs=variant.epochs,
        iterations=variant.iterations,
        adam=variant.adam,
        train_percent=variant.train_percent,
    )
    if variant != loss or variant.method not in ("CE", "NACL") or (variant.dice and variant.method == "NACL"):
        return trainer
    return "stock" if variant.dice else variant.method


def _step(change: str, before: Row, after: Row) -> str:
    pairs = [
        (a.ece("foreground"), b.ece("foreground"))
        for a, b in zip(before.evaluation.cases, after.evaluation.cases, strict=True)
    ]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    lower = sum(second < first for first, second in pairs)
    return (
        f"{change} moves DSC by {after.evaluation.mean_dice() - before.evaluation.mean_dice():+.3f} and the "
        f"foreground's ECE by {_difference(before, after, 'foreground'):+.3f} (lower in {lower} of {len(pairs)} "
        f"cases), the whole image's by {_difference(before, after, 'all'):+.3f}."
    )


def _difference(before: Row, after: Row, mask: str) -> float:
    return after.evaluation.mean_ece(mask) - before.evaluation.mean_ece(mask)
