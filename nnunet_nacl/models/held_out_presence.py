"""What a model's held-out cases teach about what is there: structures in scans, and components that are real."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nnunet_nacl.calibration.presence import (
    LearnedPresence,
    LearnedProbability,
    ProbabilityCheck,
    check_probabilities,
    finding_features,
    predict_left_out,
    presence_features,
)
from nnunet_nacl.cases.components import FOUND
from nnunet_nacl.cases.quality_block import QUALITY
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.metrics.detection import false_alarms

__all__ = ["HeldOutPresence", "learn_presence"]

CONSTANT = "share of the other patients"
"""What knows nothing of the case: it has a Brier score, but no order."""

_NO_BETTER = f"no better than the {CONSTANT}"
_OFTEN = 0.05  # share of the cases with a structure in which it is in pieces
_SENSITIVITIES = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class HeldOutPresence:
    """What was learned, and how it does on patients that it has not seen.

    Attributes:
        learned: None where the cases do not tell.
        present: By structure and kind of probability, the check of whether it is in the scan.
        real: By structure and kind of probability, the check of whether a component is real.
        alarms: By structure and kind of probability, false alarms a scan by sensitivity.
        names: Name of each structure by nnU-Net's key.
        why_not: By structure why nothing was learned of its components or presence, though it is listed.
    """

    learned: LearnedPresence | None
    present: dict[str, dict[str, ProbabilityCheck]] = field(default_factory=dict)
    real: dict[str, dict[str, ProbabilityCheck]] = field(default_factory=dict)
    alarms: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any] | None:
        """Content of ``presence`` in calibration_map.json; None where nothing was learned."""
        if self.learned is None:
            return None
        checks = {"present": self.present, "real": self.real, "false_alarms": self.alarms}
        return {**encode(self.learned), "checks": encode(checks), "why_not": self.why_not}

    def table(self) -> str:
        """For the terminal; empty where there is nothing to say."""
        if not self.present and not self.real:
            return ""
        checks = [(f"{self.names[key]} in the scan", by_kind) for key, by_kind in self.present.items()]
        checks += [(f"finding of {self.names[key]} real", by_kind) for key, by_kind in self.real.items()]
        rows = [["is it there, is it real", "Brier", "AUROC", "ECE", "n"]]
        for what, by_kind in checks:
            for kind, one in by_kind.items():
                numbers = (f"{x:.3f}" if not math.isnan(x) else "-" for x in (one.brier, one.auroc, one.ece))
                rows.append([f"{what}, {kind}", *numbers, str(one.n)])
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        for key, alarms in self.alarms.items():
            reached = [f"{value:.2f} at {share}" for share, value in alarms["learned"].items() if not math.isnan(value)]
            if reached:
                lines.append(
                    f"{self.names[key]}: false alarms a scan {', '.join(reached)} of the true components found"
                )
        lines += [f"{self.names[key]}: nothing is said of it ({why})" for key, why in self.why_not.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Scan:
    """What the network said of a structure in a case."""

    expected_volume: float
    volume: float
    true_volume: float
    max_probability: float


@dataclass(frozen=True)
class _Block:
    structures: dict[str, _Scan]
    voxel: float


def learn_presence(cases: Sequence[CaseResult], names: Mapping[str, str], patients: Sequence[str]) -> HeldOutPresence:
    """Learn from held-out cases as the network gave them.

    Args:
        cases: As they were measured, without a map; those that an earlier version measured are left out.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.
    """
    blocks: list[_Block] = []
    found: list[dict[str, StructureFindings]] = []
    known: list[str] = []
    for case, patient in zip(cases, patients):
        with contextlib.suppress(UserError):  # measured by an earlier version, and the probabilities are gone
            block, pieces = (case.blocks.get(name) for name in (QUALITY, FOUND))
            read = decode(_Block, block, QUALITY), decode(dict[str, StructureFindings], pieces, FOUND)
            blocks.append(read[0])
            found.append(read[1])
            known.append(patient)
    if not known:
        return HeldOutPresence(None, names=dict(names))
    patients, voxel = known, float(np.median([block.voxel for block in blocks]))
    result = HeldOutPresence(LearnedPresence(voxel, {}, {}, []), names=dict(names))
    learned = result.learned
    assert learned is not None
    for key in names:
        scans, components = [block.structures[key] for block in blocks], [one[key] for one in found]
        numbers = np.array([scan.true_volume > 0 for scan in scans])
        in_pieces = np.mean([(one.n_true or 0) > 1 for one in components])
        if numbers.all() and in_pieces <= _OFTEN * numbers.mean():
            continue
        learned.listed.append(key)
        _learn_present(result, key, scans, numbers, patients)
        _learn_real(result, key, components, patients)
    return result


def _learn_present(
    result: HeldOutPresence, key: str, scans: Sequence[_Scan], there: np.ndarray, patients: Sequence[str]
) -> None:
    assert result.learned is not None
    if there.all():
        return  # in pieces, but never absent
    largest = np.array([scan.max_probability for scan in scans])
    features = presence_features([scan.expected_volume for scan in scans], largest, result.learned.voxel)
    one = LearnedProbability.fit(features, there, patients)
    if one.why_not:
        _say(result, key, f"in the scan: {one.why_not}")
        return
    kinds = {
        "learned": predict_left_out(features, there, patients),
        "largest probability": largest,
        "any voxel predicted": np.array([float(scan.volume > 0) for scan in scans]),
        CONSTANT: predict_left_out(np.zeros((len(there), 0)), there, patients),
    }
    result.present[key] = _check(kinds, there)
    if _is_better(result.present[key]):
        result.learned.present[key] = one
    else:
        _say(result, key, f"in the scan: {_NO_BETTER}")


def _learn_real(result: HeldOutPresence, key: str, cases: Sequence[StructureFindings], patients: Sequence[str]) -> None:
    assert result.learned is not None
    rows = [
        (one, patient, i) for i, (case, patient) in enumerate(zip(cases, patients)) for one in case.found
        if one.real is not None
    ]  # fmt: skip
    real = np.array([bool(one.real) for one, _, _ in rows], bool)
    columns = np.array([(one.volume, one.mean_probability, one.max_probability) for one, _, _ in rows]).reshape(-1, 3)
    who = [patient for _, patient, _ in rows]
    features = finding_features(*columns.T)
    learned = LearnedProbability.fit(features, real, who)
    if learned.why_not:
        _say(result, key, f"real: {learned.why_not}")
        return
    kinds = {
        "learned": predict_left_out(features, real, who),
        "mean probability": columns[:, 1],
        "largest probability": columns[:, 2],
        CONSTANT: predict_left_out(np.zeros((len(real), 0)), real, who),
    }
    result.real[key] = _check(kinds, real)
    if _is_better(result.real[key]):
        result.learned.real[key] = learned
    else:
        _say(result, key, f"real: {_NO_BETTER}")
    result.alarms[key] = {}
    for kind in ("learned", "mean probability", "largest probability"):
        best = {(i, lesion): math.nan for i, case in enumerate(cases) for lesion in range(1, (case.n_true or 0) + 1)}
        for (one, _, i), p in zip(rows, kinds[kind]):
            for lesion in one.overlaps or ():
                best[i, lesion] = np.fmax(best[i, lesion], p)
        alarms = false_alarms(list(best.values()), kinds[kind][~real], len(cases), _SENSITIVITIES)
        result.alarms[key][kind] = {str(share): value for share, value in alarms.items()}


def _check(kinds: Mapping[str, np.ndarray], yes: np.ndarray) -> dict[str, ProbabilityCheck]:
    checks = check_probabilities(kinds, yes)
    return checks | {CONSTANT: replace(checks[CONSTANT], auroc=math.nan)}


def _is_better(checks: Mapping[str, ProbabilityCheck]) -> bool:
    """Whether what was learned says more than what knows nothing of the case; else it is not delivered."""
    return checks["learned"].brier < checks[CONSTANT].brier


def _say(result: HeldOutPresence, key: str, why: str) -> None:
    result.why_not[key] = "; ".join(filter(None, (result.why_not.get(key), why)))
