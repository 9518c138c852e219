"""One epoch of the record in a line of text, and in numbers for experiment trackers."""

from __future__ import annotations

from typing import Any

from nnunet_nacl.training_record.epoch_sums import MASKS

__all__ = ["describe_epoch", "tracked_values"]


def describe_epoch(entry: dict[str, Any]) -> str:
    """A line for the training log."""
    parts = [f"{mask} {_number(entry['calibration'][mask]['ECE'])}" for mask in MASKS]
    logits = _number(entry["max_logit"]["foreground"]["mean"], 2)
    line = f"Calibration on validation batches: ECE {', '.join(parts)}; mean maximum logit in the foreground {logits}"
    if entry["n_not_finite"]:
        line += f"; {entry['n_not_finite']} voxels left out whose logits are not finite"
    return line


def tracked_values(entry: dict[str, Any]) -> dict[str, float]:
    """Values by key, such as ``calibration/ECE_foreground``; what is undefined is left out."""
    values = {f"calibration/ECE_{mask}": entry["calibration"][mask]["ECE"] for mask in MASKS}
    values |= {f"calibration/mean_max_logit_{mask}": entry["max_logit"][mask]["mean"] for mask in MASKS}
    values |= {
        f"calibration/{name}_foreground": entry["calibration"]["foreground"][name]
        for name in ("accuracy", "confidence")
    }
    return {key: value for key, value in values.items() if value is not None}


def _number(value: float | None, decimals: int = 4) -> str:
    return "undefined" if value is None else f"{value:.{decimals}f}"
