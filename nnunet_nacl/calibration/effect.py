"""What calibration changes: each value before and after, with intervals over cases, and the table of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.comparison.statistics import mean_interval, paired_difference

__all__ = ["Change", "changes", "effect_table"]

_DRAWS, _SEED = 10_000, 0


@dataclass(frozen=True)
class Change:
    """A value before and after; means over the ``n`` cases where both are defined, with 95 % bootstrap intervals.

    Attributes:
        before: Mean, lower and upper end.
        after: Likewise, cross-fitted.
        difference: After less before, likewise.
        n: Number of cases.
        sampling_error: Standard error of ``after`` that comes from samples; None where it is exact.
    """

    before: tuple[float, float, float]
    after: tuple[float, float, float]
    difference: tuple[float, float, float]
    n: int
    sampling_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        result = {
            name: dict(zip(("mean", "low", "high"), getattr(self, name))) for name in ("before", "after", "difference")
        }
        extra = {} if self.sampling_error is None else {"sampling_error": self.sampling_error}
        return result | {"n": self.n} | extra


def changes(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    errors: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Change]:
    """Compare values of the same cases, by name.

    Args:
        before: One value per case, NaN where undefined.
        after: Of the same cases in the same order.
        errors: Standard error of each value after, where they are estimates.
    """
    result = {}
    for name, first in before.items():
        pair = np.array([first, after[name]], dtype=np.float64)
        both = ~np.isnan(pair).any(0)
        options = {"n_bootstrap": _DRAWS, "seed": _SEED}
        old, new = (mean_interval(row[both], **options) for row in pair)
        paired = paired_difference(pair[0], pair[1], **options)
        error = None
        if errors is not None:
            error = float(np.sqrt((np.asarray(errors[name])[both] ** 2).sum()) / max(1, both.sum()))
        result[name] = Change(
            (old.mean, old.low, old.high),
            (new.mean, new.low, new.high),
            (paired.difference, paired.low, paired.high),
            paired.n,
            error,
        )
    return result


def effect_table(effect: Mapping[str, Change], structures: Mapping[str, str]) -> str:
    """Text for a terminal: a line for each value."""
    lines = [f"{'':<24}{'before':>9}{'after':>9}{'change':>10}  {'95 % interval':<20} cases"]
    for name, change in effect.items():
        kind, _, which = name.partition(" ")
        shown = f"Dice {structures[which]}" if kind == "Dice" else name
        low, high = change.difference[1:]
        error = "" if change.sampling_error is None else f"  (sampling error {change.sampling_error:.4f})"
        lines.append(
            f"{shown:<24}{change.before[0]:>9.4f}{change.after[0]:>9.4f}{change.difference[0]:>+10.4f}  "
            f"{f'{low:+.4f} to {high:+.4f}':<20} {change.n}{error}"
        )
    return "\n".join(lines)
