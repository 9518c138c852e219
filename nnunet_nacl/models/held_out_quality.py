"""What a model's held-out cases teach about its Dice and volumes, each case under a map that was fitted without it.

What is learned is written into calibration_map.json under ``quality`` and read back from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.learned_quality import DELIVERED, EstimateCheck, LearnedQuality, check_rows
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.cases.held_out_case import measure_held_out
from nnunet_nacl.cases.heldout import HeldOut
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.worker_processes import guarded, run_in_workers
from nnunet_nacl.documents.map_file import structures_of
from nnunet_nacl.documents.results import EvaluationSettings
from nnunet_nacl.json_files import encode, one_line

__all__ = ["HeldOutQuality", "learn_quality"]


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
        problems: Why the others could not be used.
        n_sampled: How many of the cases are estimates from samples.
        why_not: Why nothing was learned; empty if something was.
    """

    learned: dict[str, LearnedQuality]
    checks: dict[str, dict[str, dict[str, EstimateCheck]]]
    unit: str
    names: dict[str, str]
    n_cases: int
    n_patients: int
    problems: dict[str, str]
    n_sampled: int = 0
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """Content of ``quality`` in calibration_map.json."""
        return {
            "unit": self.unit,
            "n_cases": self.n_cases,
            "n_patients": self.n_patients,
            "n_estimated_from_samples": self.n_sampled,
            "problems": self.problems,
            "why_not": self.why_not,
            "learned": encode(self.learned),
            "checks": encode(self.checks),
        }

    def table(self) -> str:
        """For the terminal: a line for each delivered segmentation and structure."""
        if self.why_not:
            return f"nothing was learned about Dice and volumes: {self.why_not}"
        head = f"{'predicted':<32}{'mean abs. error':>16}{'of a constant':>15}{'ratio':>7}"
        lines = [f"{head}  cases  90 % interval covers"]
        shown = [(delivered, "dice") for delivered in DELIVERED] + [(DELIVERED[0], "volume")]  # decisions keep volumes
        for delivered, kind in shown:
            what = f"Dice, {delivered}" if kind == "dice" else f"volume ({self.unit})"
            for key, check in self.checks[delivered][kind].items():
                c, why = check.coverage, getattr(self.learned[delivered], kind)[key].why_no_interval
                numbers = f"{check.error:>16.4g}{check.error_of_constant:>15.4g}{check.ratio:>7.2f}  {check.n:>5}"
                covers = f"{c.share:.2f} ({c.low:.2f} to {c.high:.2f})" if c.n else why or "too few patients to tell"
                lines.append(f"{f'{what}, {self.names[key]}':<32}{numbers}  {covers}")
        if any(check.ratio > 1 for by_kind in self.checks.values() for check in by_kind["dice"].values()):
            lines.append(
                "Where the ratio is above 1, the mean Dice of these cases predicts better than what was learned."
            )
        if self.n_sampled:
            lines.append(f"Of {self.n_sampled} of {self.n_cases} cases these are estimates from samples of the voxels.")
        if self.problems:
            case, problem = next(iter(self.problems.items()))
            lines.append(f"{len(self.problems)} cases were not learned from, {one_line(case)} first: {problem}")
        if not self.learned[DELIVERED[0]].as_deployed:
            lines.append(
                "Learned from single networks: these estimates are not for the average of several folds. For those "
                "learn from a folder\nthat was predicted as in use (-i PREDICTIONS -gt LABELS)."
            )
        return "\n".join(lines)


def learn_quality(
    held_out: HeldOut,
    maps: Mapping[str, AffineMap],
    *,
    groups: Mapping[str, str] | None = None,
    as_deployed: bool,
    num_processes: int = 1,
    progress: bool = False,
) -> HeldOutQuality:
    """Learn from held-out cases how expected Dice and volume relate to the true ones.

    Args:
        held_out: The cases; those that have neither probabilities nor a sample are left out.
        maps: Of each case the map that was fitted without it.
        groups: Patient of each case; None: each case its own.
        as_deployed: Whether they were predicted as the model is used.
        num_processes: Cases at the same time.
        progress: Show a progress bar on stderr.

    Returns:
        With ``why_not`` where no case can be used or their volumes have different units: calibration does not fail
        by it.
    """
    from tqdm import tqdm

    items = [
        (held_out.folders[held_out.fold[case]], held_out.files[case], maps[case], held_out.settings) for case in maps
    ]
    several = min(num_processes, len(items)) > 1
    outcomes = run_in_workers(_guarded_case, items, num_processes) if several else zip(items, map(_guarded_case, items))
    measured: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for (_, files, *_), outcome in tqdm(outcomes, "quality", len(items), unit="case", disable=not progress):
        if isinstance(outcome, dict):
            measured[files.case] = outcome
        else:
            problems[files.case] = outcome or f"{files.probabilities}: not enough memory; run with a smaller -np."
    cases = [case for case in maps if case in measured]
    units = {measured[case]["unit"] for case in cases}
    patients = [groups[case] if groups else case for case in cases]
    names = structures_of(held_out.first.labels)
    if len(units) != 1:
        why = f"volumes are in {' and '.join(sorted(units))}" if units else next(iter(problems.values()), "no case")
        return HeldOutQuality({}, {}, "", names, len(cases), len(set(patients)), problems, why_not=why)
    learned, checks = {}, {}
    for delivered in DELIVERED:
        rows = _rows([measured[case][delivered] for case in cases], tuple(names))
        learned[delivered] = LearnedQuality.learn(rows, patients, delivered=delivered, as_deployed=as_deployed)
        checks[delivered] = check_rows(rows, patients)
    sampled = sum(measured[case]["sampled"] for case in cases)
    return HeldOutQuality(learned, checks, units.pop(), names, len(cases), len(set(patients)), problems, sampled)


def _rows(cases: Sequence[Mapping[str, Sequence[float]]], keys: tuple[str, ...]) -> QualityRows:
    values = np.array([[case[key] for key in keys] for case in cases])
    unknown = np.full(len(cases), math.nan)
    return QualityRows(keys, *values.transpose(2, 0, 1), unknown, unknown)


def _guarded_case(item: tuple[PredictionFolder, CaseFiles, AffineMap, EvaluationSettings]) -> dict[str, Any] | str:
    return guarded(item[1].probabilities, lambda: measure_held_out(*item))
