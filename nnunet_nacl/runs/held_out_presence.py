"""What a model's held-out cases teach about what is there: structures in scans, and components that are real."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nnunet_nacl.calibration.presence import (
    FEATURES,
    NOTHING_LEARNED,
    LearnedPresence,
    LearnedProbability,
    PresenceChecks,
    ProbabilityCheck,
    finding_features,
    predict_left_out,
    presence_features,
    too_few,
)
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode
from nnunet_nacl.metrics.detection import false_alarms
from nnunet_nacl.runs.components import FOUND
from nnunet_nacl.runs.quality_block import QUALITY, QualityBlock, StructureQuality

CONSTANT = "share of the other patients"
"""What knows nothing of the case: it has a Brier score, but no order."""

_IN_PIECES = 0.5  # share of the cases with a structure in which it must be in pieces: anatomy falls apart in some
_SENSITIVITIES = (0.5, 0.7, 0.8, 0.9)
_LEARNED_FROM = ("voxel", "volume", "true_volume", "max_probability", "expected_volume", "largest_dice")


def learn_presence(
    cases: Sequence[CaseResult],
    names: Mapping[str, str],
    patients: Sequence[str],
    *,
    findings: bool = True,
) -> LearnedPresence | None:
    """Learn from held-out cases as the network gave them, of structures whose components are findings.

    Args:
        cases: As they were measured, those that calibration learns from without a map; those that an earlier version
            measured are left out.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.
        findings: Learn which components are real, too.

    Returns:
        With the checks on patients that it has not seen; None where the cases do not tell.
    """
    read = [_read(case, names, findings) for case in cases]
    known = [(*row, patient) for row, patient in zip(read, patients) if row]
    if not known:
        return None
    blocks, components, patients = zip(*known)
    voxel, units = float(np.median([block.voxel for block in blocks])), {block.unit for block in blocks}
    unit = units.pop() if len(units) == 1 else ""
    listed: list[str] = []
    present: dict[str, _Answer] = {}
    real: dict[str, _Answer] = {}
    for key in names:
        scans = [block.structures[key] for block in blocks]
        parts = [by_key[key] for by_key in components if findings]
        always_there = all(scan.true_volume > 0 for scan in scans)
        if not always_there or np.mean([(scan.n_true or 0) > 1 for scan in parts] or [False]) > _IN_PIECES:
            listed.append(key)
            if not always_there:
                present[key] = _is_present(scans, patients, voxel)
            if findings:
                real[key] = _is_real(parts, patients)
    asked, why_not = {"in the scan": present, "real": real}, dict[str, str]()
    for key in listed:
        reasons = [f"{question}: {of[key].why_not}" for question, of in asked.items() if key in of and of[key].why_not]
        why_not |= {key: "; ".join(reasons)} if reasons else {}
    checks = PresenceChecks(_given(present, "checks"), _given(real, "checks"), _given(real, "alarms"))
    taught = _given(present, "learned"), _given(real, "learned")
    return LearnedPresence(voxel, *taught, listed, unit, FEATURES, checks, why_not)


def _given(answers: Mapping[str, _Answer], name: str) -> dict[str, Any]:
    """By structure an attribute of the answers, where it is not empty."""
    return {key: value for key, answer in answers.items() if (value := getattr(answer, name))}


def presence_of_others(
    cases: Sequence[CaseResult],
    names: Mapping[str, str],
    patients: Sequence[str],
    parts: Sequence[str],
    with_ignore_label: bool,
) -> list[LearnedPresence]:
    """Of each case what the cases of the other parts teach about which structures are there, of findings nothing.

    Args:
        cases: As the network gave them.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
        with_ignore_label: Then nothing is learned: a structure may be where nobody annotated it.
    """
    if with_ignore_label:
        return [NOTHING_LEARNED] * len(cases)
    taught = {}
    for part in dict.fromkeys(parts):
        others = [i for i, other in enumerate(parts) if other != part]
        taught_by = [cases[i] for i in others], names, [patients[i] for i in others]
        taught[part] = learn_presence(*taught_by, findings=False) or NOTHING_LEARNED
    return [taught[part] for part in parts]


def _read(
    case: CaseResult, names: Mapping[str, str], findings: bool
) -> tuple[QualityBlock, dict[str, StructureFindings]] | None:
    """The blocks of a case's entry; None where an earlier version measured less, and the probabilities are gone."""
    with contextlib.suppress(UserError):
        block = decode(QualityBlock, case.blocks.get(QUALITY), QUALITY)
        components = decode(dict[str, StructureFindings], case.blocks.get(FOUND), FOUND) if findings else {}
        scans = [{"voxel": block.voxel, **vars(block.structures[key])} for key in names if key in block.structures]
        measured = np.isfinite([[scan[name] for name in _LEARNED_FROM] for scan in scans]).all()
        if measured and len(scans) == len(names) and (not findings or names.keys() <= components.keys()):
            return block, components
    return None


@dataclass(frozen=True, eq=False)
class _Answer:
    """To one question about a structure.

    Attributes:
        learned: None where there was too little to learn from, or it says no more than what knows nothing of the case.
        why_not: Then the reason, in words.
        checks: By kind of probability, against the truth; empty where there was too little.
        alarms: By kind, false alarms a scan by sensitivity, of findings.
    """

    learned: LearnedProbability | None
    why_not: str = ""
    checks: dict[str, ProbabilityCheck] = field(default_factory=dict)
    alarms: dict[str, dict[str, float]] = field(default_factory=dict)


def _answer(
    features: np.ndarray,
    yes: np.ndarray,
    patients: Sequence[str],
    plain: Mapping[str, np.ndarray],
    alarms: Callable[[np.ndarray], dict[str, float]] | None = None,
) -> _Answer:
    """Learn to answer a question, and check the answers.

    Args:
        features: (n, F) what each scan or component is judged by.
        yes: (n,) the truth.
        patients: (n,) to whom each row belongs.
        plain: By kind, (n,) probabilities that are not learned, to compare with.
        alarms: Counts the false alarms of (n,) probabilities by sensitivity.
    """
    if why_not := too_few(yes):
        return _Answer(None, why_not)
    kinds = {"learned": predict_left_out(features, yes, patients), **plain}
    counted = {kind: alarms(probability) for kind, probability in kinds.items()} if alarms else {}
    kinds[CONSTANT] = predict_left_out(np.zeros((len(yes), 1)), yes, patients)
    checks = {kind: ProbabilityCheck.of(probability, yes) for kind, probability in kinds.items()}
    checks[CONSTANT] = replace(checks[CONSTANT], auroc=math.nan)
    if checks["learned"].brier < checks[CONSTANT].brier:
        return _Answer(LearnedProbability.fit(features, yes, patients), "", checks, counted)
    return _Answer(None, f"no better than the {CONSTANT}", checks, counted)


def _is_present(scans: Sequence[StructureQuality], patients: Sequence[str], voxel: float) -> _Answer:
    """Whether a structure is in a scan."""
    names = ("expected_volume", "largest_dice", "max_probability", "volume", "true_volume")
    expected, dice, largest, volume, true = np.array([[getattr(scan, name) for name in names] for scan in scans]).T
    plain = {"largest probability": largest, "any voxel predicted": (volume > 0).astype(float)}
    return _answer(presence_features(expected, dice, voxel), true > 0, patients, plain)


def _is_real(scans: Sequence[StructureFindings], patients: Sequence[str]) -> _Answer:
    """Whether a component overlaps the truth."""
    rows = [(i, part) for i, scan in enumerate(scans) for part in scan.found if part.real is not None]
    real = np.array([bool(part.real) for _, part in rows], bool)
    columns = np.array([(part.volume, part.mean_probability, part.max_probability) for _, part in rows])
    volume, mean, largest = columns.reshape(-1, 3).T
    plain = {"mean probability": mean, "largest probability": largest}
    truth = [i for i, _ in rows], [part.overlaps or () for _, part in rows], [scan.n_true or 0 for scan in scans]
    whose = [patients[i] for i, _ in rows]
    return _answer(
        finding_features(volume, mean, largest), real, whose, plain, lambda p: alarms_by_sensitivity(p, real, *truth)
    )


def alarms_by_sensitivity(
    probability: np.ndarray,
    real: np.ndarray,
    case_of: Sequence[int],
    overlaps: Sequence[Sequence[int]],
    n_true: Sequence[int],
) -> dict[str, float]:
    """False alarms a scan by sensitivity, of findings by their probability.

    Args:
        probability: Of each finding.
        real: Whether it overlaps the truth.
        case_of: Number of its case.
        overlaps: The true components of the case that it overlaps, from 1.
        n_true: By case how many there are.
    """
    best = {(i, lesion): math.nan for i, number in enumerate(n_true) for lesion in range(1, number + 1)}
    for i, lesions, p in zip(case_of, overlaps, probability):
        for lesion in lesions:
            best[i, lesion] = np.fmax(best[i, lesion], p)
    alarms = false_alarms(list(best.values()), probability[~real], len(n_true), _SENSITIVITIES)
    return {str(share): value for share, value in alarms.items()}
