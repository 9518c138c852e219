"""What calibration changes, as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_nacl.show.text_table import aligned, number


def effect_table(effect: Mapping[str, Mapping[str, Any]], structures: Mapping[str, str]) -> str:
    """A line for each value of :func:`~nnunet_nacl.calibration.effect.changes`; ``-`` where it is undefined.

    Args:
        effect: By name of the value.
        structures: Name by nnU-Net's key.
    """
    rows = [["", "before", "after", "change", "95 % interval", "cases"]]
    for name, row in effect.items():
        kind, _, which = name.partition(" ")
        change = row["difference"]
        interval = "-" if math.isnan(change["low"]) else f"{change['low']:+.4f} to {change['high']:+.4f}"
        cells = [number(row["before"]["mean"], 4), number(row["after"]["mean"], 4), number(change["mean"], 4, "+")]
        cells += [interval, str(row["n"])]
        rows.append([f"Dice {structures.get(which, which)}" if kind == "Dice" else name, *cells])
    return "\n".join(aligned(rows, indent=""))
