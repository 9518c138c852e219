"""What a model's held-out cases teach about what is there: structures in scans, and components that are real."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nnunet_nacl.calibration.presence import (
    FEATURES,
    NOTHING_LEARNED,
    LearnedPresence,
    LearnedProbability,
    ProbabilityCheck,
    check_probabilities,
    finding_features,
    predict_left_out,
    presence_features,
)
from nnunet_nacl.cases.components import FOUND
from nnunet_nacl.cases.quality_block import QUALITY, QualityBlock
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.metrics.detection import false_alarms

CONSTANT = "share of the other patients"
"""What knows nothing of the case: it has a Brier score, but no order."""

_NO_BETTER = f"no better than the {CONSTANT}"
_IN_PIECES = 0.5  # share of the cases with a structure in which it must be in pieces: anatomy falls apart in some
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


def learn_presence(
    cases: Sequence[CaseResult],
    names: Mapping[str, str],
    patients: Sequence[str],
    *,
    only_listed: bool = False,
    findings: bool = True,
) -> HeldOutPresence:
    """Learn from held-out cases as the network gave them.

    Args:
        cases: As they were measured, those that calibration learns from without a map; those that an earlier version
            measured are left out.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.
        only_listed: Learn nothing of structures whose components are no findings unless a user asks for them.
        findings: Learn which components are real, too.
    """
    blocks: list[QualityBlock] = []
    found: list[dict[str, StructureFindings]] = []
    known: list[str] = []
    for case, patient in zip(cases, patients):
        with contextlib.suppress(UserError):  # measured by an earlier version, and the probabilities are gone
            block = decode(QualityBlock, case.blocks.get(QUALITY), QUALITY)
            pieces = decode(dict[str, StructureFindings], case.blocks.get(FOUND), FOUND) if findings else {}
            if names.keys() <= _known(block) and (not findings or names.keys() <= pieces.keys()):
                blocks.append(block)
                found.append(pieces)
                known.append(patient)
    if not known:
        return HeldOutPresence(None, names=dict(names))
    voxel = float(np.median([block.voxel for block in blocks]))
    units = {block.unit for block in blocks}
    learned = LearnedPresence(voxel, {}, {}, [], units.pop() if len(units) == 1 else "", FEATURES)
    result = HeldOutPresence(learned, names=dict(names))
    for key in names:
        scans, components = [block.structures[key] for block in blocks], [one[key] for one in found if findings]
        there = np.array([scan.true_volume > 0 for scan in scans])
        in_pieces = np.mean([(one.n_true or 0) > 1 for one in components] or [False])
        if not there.all() or in_pieces > _IN_PIECES:
            learned.listed.append(key)
        elif only_listed:
            continue
        if not there.all():
            largest = np.array([scan.max_probability for scan in scans])
            volumes, dice = ([getattr(scan, name) for scan in scans] for name in ("expected_volume", "largest_dice"))
            features = presence_features(volumes, dice, voxel)
            predicted = np.array([float(scan.volume > 0) for scan in scans])
            plain = {"largest probability": largest, "any voxel predicted": predicted}
            _learn(result, "present", key, features, there, known, plain)
        if not findings:
            continue
        rows = [
            (one, patient, i) for i, (case, patient) in enumerate(zip(components, known)) for one in case.found
            if one.real is not None
        ]  # fmt: skip
        real, who = np.array([bool(one.real) for one, _, _ in rows], bool), [patient for _, patient, _ in rows]
        columns = np.array([(one.volume, one.mean_probability, one.max_probability) for one, _, _ in rows])
        volume, mean, largest = columns.reshape(-1, 3).T
        plain = {"mean probability": mean, "largest probability": largest}
        kinds = _learn(result, "real", key, finding_features(volume, mean, largest), real, who, plain)
        kinds.pop(CONSTANT, None)
        if kinds:
            case_of = [i for _, _, i in rows]
            overlaps = [one.overlaps or () for one, _, _ in rows]
            result.alarms[key] = {
                kind: alarms_by_sensitivity(p, real, case_of, overlaps, [case.n_true or 0 for case in components])
                for kind, p in kinds.items()
            }
    return result


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
    there = {}
    for part in dict.fromkeys(parts):
        others = [i for i, own in enumerate(parts) if own != part]
        taught_by = [cases[i] for i in others], names, [patients[i] for i in others]
        learned = None if with_ignore_label else learn_presence(*taught_by, findings=False).learned
        there[part] = learned or NOTHING_LEARNED
    return [there[part] for part in parts]


def present_in_result(case: CaseResult, presence: LearnedPresence) -> list[float] | None:
    """Probability that each structure is in a case, by what was measured of the network's probabilities.

    NaN where nothing was learned of a structure; None where an earlier version measured the case.
    """
    block = case.blocks.get(QUALITY)
    if block is None:
        return None
    found = decode(QualityBlock, block, QUALITY).structures.items()
    return [presence.present_probability(key, one.expected_volume, one.largest_dice) for key, one in found]


def _known(block: QualityBlock) -> set[str]:
    """Keys of the structures of which everything was measured that is learned from."""
    return {
        key
        for key, scan in block.structures.items()
        if np.isfinite([block.voxel, scan.volume, scan.true_volume, scan.max_probability]).all()
        and np.isfinite([scan.expected_volume, scan.largest_dice]).all()
    }


def _learn(
    result: HeldOutPresence,
    what: str,
    key: str,
    features: np.ndarray,
    yes: np.ndarray,
    patients: Sequence[str],
    plain: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Learn to answer one question about a structure, and check the answers.

    What says no more than what knows nothing of the case is checked, but not delivered.

    Args:
        result: Takes what was learned.
        what: The question: ``present`` or ``real``.
        key: Of the structure.
        features: (n, F) what each scan or component is judged by.
        yes: (n,) the truth.
        patients: (n,) to whom each row belongs.
        plain: By kind, probabilities that are not learned, to compare with.

    Returns:
        By kind the probability of each row, that of what was learned from other patients; empty where there was too
        little to learn from.
    """
    assert result.learned is not None
    asked = {"present": "in the scan", "real": "real"}[what]
    learned = LearnedProbability.fit(features, yes, patients)
    kinds: dict[str, np.ndarray] = {}
    if not (why_not := learned.why_not):
        constant = predict_left_out(np.zeros((len(yes), 0)), yes, patients)
        kinds = {"learned": predict_left_out(features, yes, patients), **plain, CONSTANT: constant}
        checks = check_probabilities(kinds, yes)
        checks[CONSTANT] = replace(checks[CONSTANT], auroc=math.nan)
        getattr(result, what)[key] = checks
        if checks["learned"].brier < checks[CONSTANT].brier:
            getattr(result.learned, what)[key] = learned
        else:
            why_not = _NO_BETTER
    if why_not and key in result.learned.listed:
        result.why_not[key] = "; ".join(filter(None, (result.why_not.get(key), f"{asked}: {why_not}")))
    return kinds


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
