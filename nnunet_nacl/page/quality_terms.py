"""The words of the tables about the quality that probabilities promise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["quality_terms"]

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


def quality_terms(tables: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Terms and what they mean, as far as the tables of a comparison use them.

    Args:
        tables: Of comparison.json.
    """
    headers = [" ".join(table["columns"]) for table in tables if table["id"].split("_")[0] == "quality"]
    learned = any("MAE predicted" in header for header in headers)
    return [term for term in _TERMS if headers and (learned or term[0] != "Predicted Dice")]
