"""The section of the page about the quality of each case: which tables and figures it has, and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_nacl.show.predicted_dice import PREDICTED_DICE
from nnunet_nacl.show.quality_tables import QUALITY, WORKLOAD

__all__ = ["quality_section", "without_quality"]

_PARTS = (PREDICTED_DICE, QUALITY, WORKLOAD)

_TERMS = (
    (
        "Expected Dice",
        "The Dice that a segmentation can expect by its own probabilities, before anyone knows the truth. Its error "
        "says how far a network that is used on new cases can be believed about itself.",
    ),
    (
        "Predicted Dice",
        "What the true Dice of other cases teaches about an expected one, with an interval. Coverage is how many "
        "intervals hold the true Dice: for 90 % intervals it should be about 90 %.",
    ),
    (
        "AURC",
        "Area under the risk-coverage curve: the mean risk (1 less Dice) of the most trusted cases, over all numbers "
        "of cases. The better an order tells good cases from bad ones, the nearer it comes to that of the truth "
        "(oracle), and the farther it is from random order. Lower is better.",
    ),
)


def quality_section(tables: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tables, figures and terms of the section; without tables there is none.

    Args:
        tables: Of the page.
        figures: Of the page.
    """
    predicted = [figure for figure in figures if _part(figure)]
    terms = [term for term in _TERMS if predicted or term[0] != "Predicted Dice"]
    return {"tables": [table for table in tables if _part(table)], "figures": predicted, "terms": terms}


def without_quality(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The tables or figures that stand in no section of their own."""
    return [entry for entry in entries if not _part(entry)]


def _part(entry: Mapping[str, Any]) -> bool:
    return any(entry["id"] == part or entry["id"].startswith(f"{part}_") for part in _PARTS)
