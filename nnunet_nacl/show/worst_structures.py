"""Which of a hundred structures a table for the eye shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from nnunet_nacl.errors import some
from nnunet_nacl.json_files import one_line

_MOST_STRUCTURES = 10


def worst_of(values: Iterable[tuple[str, float]], every: bool = False) -> tuple[list[str], list[str]]:
    """The ten with the lowest values in the order of a table, NaN last; and a line on how many more there are.

    Args:
        values: Name, such as a structure's, and value of each row.
        every: Name them all.
    """
    lowest: dict[str, float] = {}
    for name, value in values:
        lowest[name] = min(lowest.get(name, math.inf), math.inf if math.isnan(value) else value)
    shown, more = set(sorted(lowest, key=lowest.__getitem__)[:_MOST_STRUCTURES]), len(lowest) - _MOST_STRUCTURES
    if every or more <= 0:
        return list(lowest), []
    return [name for name in lowest if name in shown], [f"the {_MOST_STRUCTURES} worst, and {more} more (--verbose)"]


def named_together(reasons: Mapping[str, str]) -> list[str]:
    """``liver, spleen and 3 more: why`` for each reason, given by name."""
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return [one_line(f"{some(alike, _MOST_STRUCTURES)}: {why}") for why, alike in names.items()]
