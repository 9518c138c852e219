"""What a model's held-out cases teach about its Dice and volumes, each case under a map that was fitted without it.

What is learned is written into calibration_map.json under ``quality`` and read back from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_nacl.calibration.learned_quality import (
    DELIVERED,
    SEGMENTATIONS,
    SINGLE_NETWORKS,
    EstimateCheck,
    LearnedQuality,
    check_rows,
)
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.json_files import encode
from nnunet_nacl.runs.held_out_presence import HeldOutPresence, learn_presence


@dataclass(frozen=True)
class HeldOutQuality:
    """What was learned, and how it does on cases that it has not seen.

    Attributes:
        learned: By delivered segmentation.
        checks: By delivered segmentation, ``dice`` or ``volume``, and structure.
        unit: Of the volumes.
        names: Name of each structure by nnU-Net's key.
        n_cases: Cases that it was learned from.
        n_patients: How many patients these are.
        why_not: Why nothing was learned; empty if something was.
        presence: What was learned about what is there.
    """

    learned: dict[str, LearnedQuality]
    checks: dict[str, dict[str, dict[str, EstimateCheck]]]
    unit: str
    names: dict[str, str]
    n_cases: int
    n_patients: int
    why_not: str = ""
    presence: HeldOutPresence = HeldOutPresence(None)

    def to_json(self) -> dict[str, Any]:
        """Content of ``quality`` in calibration_map.json."""
        return {
            "unit": self.unit,
            "n_cases": self.n_cases,
            "n_patients": self.n_patients,
            "why_not": self.why_not,
            "learned": encode(self.learned),
            "checks": encode(self.checks),
            "presence": self.presence.to_json(),
        }

    def table(self) -> str:
        """For the terminal: a line for each delivered segmentation and structure."""
        if self.why_not:
            return f"nothing was learned about Dice and volumes: {self.why_not}"
        head = f"{'predicted':<32}{'mean abs. error':>16}{'of a constant':>15}{'ratio':>7}"
        lines = [f"{head}  cases  90 % interval covers"]
        shown = [(delivered, "dice") for delivered in DELIVERED] + [(DELIVERED[0], "volume")]  # decisions keep volumes
        for delivered, kind in shown:
            what = f"Dice, {SEGMENTATIONS[delivered]}" if kind == "dice" else f"volume ({self.unit})"
            for key, check in self.checks[delivered][kind].items():
                c, why = check.coverage, getattr(self.learned[delivered], kind)[key].why_no_interval
                numbers = f"{check.error:>16.4g}{check.error_of_constant:>15.4g}{check.ratio:>7.2f}  {check.n:>5}"
                covers = f"{c.share:.2f} ({c.low:.2f} to {c.high:.2f})" if c.n else why or "too few patients to tell"
                lines.append(f"{f'{what}, {self.names[key]}':<32}{numbers}  {covers}")
        if any(check.ratio > 1 for by_kind in self.checks.values() for check in by_kind["dice"].values()):
            lines.append(
                "Where the ratio is above 1, the mean Dice of these cases predicts better than what was learned."
            )
        if not self.learned[DELIVERED[0]].as_deployed:
            lines.append(f"Learned {SINGLE_NETWORKS}.")
        return "\n".join(lines)


def learn_quality(
    rows: Sequence[QualityRows],
    names: Mapping[str, str],
    patients: Sequence[str],
    *,
    as_deployed: bool,
    before: Sequence[CaseResult] = (),
) -> HeldOutQuality:
    """Learn from held-out cases how expected Dice and volume relate to the true ones.

    Args:
        rows: Of the cases, each under a map that was fitted without it: for every one of ``DELIVERED``.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.
        as_deployed: Whether they were predicted as the model is used.
        before: The cases as the network gave them, from which follows what is there.

    Returns:
        With ``why_not`` where the volumes of the cases have different units: calibration does not fail by it.
    """
    n_cases, n_patients, units = len(patients), len(set(patients)), rows[0].units
    if len(units) != 1:
        why = f"volumes are in {' and '.join(units)}"
        return HeldOutQuality({}, {}, "", dict(names), n_cases, n_patients, why)
    learned = {
        delivered: LearnedQuality.learn(own, patients, delivered=delivered, as_deployed=as_deployed)
        for delivered, own in zip(DELIVERED, rows)
    }
    checks = {delivered: check_rows(own, patients) for delivered, own in zip(DELIVERED, rows)}
    presence = learn_presence(before, names, patients) if before else HeldOutPresence(None)
    return HeldOutQuality(learned, checks, units[0], dict(names), n_cases, n_patients, presence=presence)
