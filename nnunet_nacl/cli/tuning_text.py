"""What `nnunet_nacl tune` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_nacl.calibration.effect import Change
from nnunet_nacl.calibration.tune import ALL, TuneResult
from nnunet_nacl.estimators.decision import GRID
from nnunet_nacl.settings import TUNED
from nnunet_nacl.utilities.tables import number, text_of, wrap_text

_TITLES = {
    "Dice": "Dice",
    "HD95_mm": "HD95 (mm)",
    "missed": "missed",
    "invented": "invented",
    "volume": "volume / true",
}
_DECIMALS = {"HD95_mm": 2, "volume": 2}


def tuning_text(result: TuneResult, written: Sequence[str]) -> str:
    """A table of what the biases change, where each structure is cut, and what was written."""
    names = result.model.labels.structures
    lines = []
    if result.effect:
        n_parts = len(result.biases_of_parts)
        counted = "truth or labels, so an invented one counts 0"
        if result.metric == "present":
            counted = "the truth"
        lines += [
            wrap_text(
                f"{_size(result)}, in {n_parts} parts; each part is measured with biases that were"
                " chosen on the others. Intervals are 95 %, over patients; that a structure was"
                f" kept for its interval makes it a little optimistic. Dice is the mean over cases"
                f" with the structure in {counted}."
            ),
            text_of(_rows(result)),
        ]
    regions = result.model.labels.regions
    for index, (key, bias) in enumerate(result.biases.items()):
        lines.append(_decision_line(names[key], bias, result, index, regions))
    lines += _warnings(result)
    if not written:
        lines.append("argmax stays for every structure: no network was written.")
        lines += [
            f"still there, from an earlier run: {path}; remove it, or -chk {TUNED} cuts as it did"
            for path in result.earlier_networks
        ]
        return "\n".join(lines)
    if result.effect:
        change = result.effect[ALL]["NLL all"]
        lines.append(
            f"NLL of all voxels {number(change.before.mean, 4)} -> {number(change.after.mean, 4)}:"
            " a bias decalibrates, so calibrate the tuned networks"
        )
    lines += [f"written: {path}" for path in written]
    return "\n".join(lines)


def _warnings(result: TuneResult) -> list[str]:
    """What may be missed in the table: a structure that loses by another's bias, and a bias at the
    end of what is tried."""
    names = result.model.labels.structures
    lines = []
    for key, name in names.items():
        if result.effect and result.changes_labels:
            difference = result.effect[key]["Dice"].difference
            if difference.high < 0:
                lines.append(f"{name}: its Dice falls by {number(-difference.mean, 3)}")
        if result.effect and abs(result.biases[key]) >= GRID[-1]:
            lines.append(
                f"{name}: a bias of {result.biases[key]:+.0f} is as far as is tried; look at its"
                " labels"
            )
    return lines


def _size(result: TuneResult) -> str:
    n_cases = len(result.cases)
    if result.n_patients == n_cases:
        return f"{n_cases} cases, each taken for a patient (-groups says otherwise)"
    return f"{n_cases} cases of {result.n_patients} patients"


def _rows(result: TuneResult) -> list[dict[str, Any]]:
    rows = []
    structures = result.model.labels.structures
    for key, name in structures.items():
        for value, title in _TITLES.items():
            change = result.effect[key][value]
            if change.n or value == "Dice":
                rows.append(_row(name, title, change, _DECIMALS.get(value, 3)))
    if len(structures) > 1:
        rows.append(_row("all structures", "mean Dice", result.effect[ALL]["Dice"], 3))
    return rows


def _row(structure: str, title: str, change: Change, decimals: int) -> dict[str, Any]:
    difference = change.difference
    interval = f"[{number(difference.low, decimals)}, {number(difference.high, decimals)}]"
    return {
        "structure": structure,
        "value": title,
        "cases": (change.n, str(change.n)),
        "argmax": (change.before.mean, number(change.before.mean, decimals)),
        "with biases": (change.after.mean, number(change.after.mean, decimals)),
        "difference": (
            difference.mean,
            f"{number(difference.mean, decimals, '+')} {interval}",
        ),
    }


def _decision_line(name: str, bias: float, result: TuneResult, index: int, regions: bool) -> str:
    """Where a structure is cut, and how far parts of the cases agree on that."""
    if not bias:
        return f"{name}: argmax is as good" if result.effect else f"{name}: argmax stays"
    threshold = result.thresholds[list(result.biases)[index]]
    cut = f"cut where the network's own probability is {threshold:.2f}"
    if not regions and len(result.biases) > 1:
        cut = f"cut where its own probability against the background is {threshold:.2f}"
    text = f"{name}: {cut} (bias {bias:+.2f}"
    if result.biases_of_parts.size:
        of_parts = result.biases_of_parts[:, index]
        text += f"; chosen without one part {of_parts.min():+.2f} to {of_parts.max():+.2f}"
    return wrap_text(f"{text})")
