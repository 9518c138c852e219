"""What a model's held-out cases teach about which structures are in a scan."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nnunet_nacl.calibration.presence import (
    FEATURES,
    LearnedPresence,
    LearnedProbability,
    ProbabilityCheck,
    predict_left_out,
    presence_features,
    too_few,
)
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode
from nnunet_nacl.runs.quality_block import QUALITY, QualityBlock, StructureQuality

CONSTANT = "share of the other patients"
"""What knows nothing of the case: it has a Brier score, but no order."""

_IN_PIECES = 0.5  # share of the cases with a structure in which it must be in pieces: anatomy falls apart in some
_LEARNED_FROM = ("voxel", "volume", "true_volume", "max_probability", "expected_volume", "largest_dice")


def learn_presence(
    cases: Sequence[CaseResult], names: Mapping[str, str], patients: Sequence[str]
) -> LearnedPresence | None:
    """Learn from held-out cases as the network gave them, of structures that some of them lack.

    Args:
        cases: As they were measured, those that calibration learns from without a map; those that an earlier version
            measured are left out.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.

    Returns:
        With the checks on patients that it has not seen; None where the cases do not tell.
    """
    read = [_read(case, names) for case in cases]
    known = [(block, patient) for block, patient in zip(read, patients) if block]
    if not known:
        return None
    blocks, patients = zip(*known)
    voxel, units = float(np.median([block.voxel for block in blocks])), {block.unit for block in blocks}
    listed: list[str] = []
    present: dict[str, _Answer] = {}
    for key in names:
        scans = [block.structures[key] for block in blocks]
        if not (always_there := all(scan.true_volume > 0 for scan in scans)):
            present[key] = _is_present(scans, patients, voxel)
        if not always_there or np.mean([scan.true_pieces > 1 for scan in scans]) > _IN_PIECES:
            listed.append(key)
    learned, checks, why_not = (
        {key: value for key, answer in present.items() if (value := getattr(answer, name))}
        for name in ("learned", "checks", "why_not")
    )
    return LearnedPresence(voxel, learned, listed, units.pop() if len(units) == 1 else "", FEATURES, checks, why_not)


def present_by_others(
    cases: Sequence[CaseResult],
    names: Mapping[str, str],
    patients: Sequence[str],
    parts: Sequence[str],
    with_ignore_label: bool,
) -> np.ndarray:
    """(n, S) probability that each structure is in a case, by what the cases of the other parts teach.

    Args:
        cases: As the network gave them.
        names: Name of each structure by nnU-Net's key.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
        with_ignore_label: Then nothing is learned: a structure may be where nobody annotated it.

    Returns:
        NaN where nothing was learned.
    """
    present = np.full((len(cases), len(names)), math.nan)
    for part in () if with_ignore_label else dict.fromkeys(parts):
        others = [i for i, other in enumerate(parts) if other != part]
        taught_by = [cases[i] for i in others], names, [patients[i] for i in others]
        if (taught := learn_presence(*taught_by)) is None:
            continue
        for i in (i for i, other in enumerate(parts) if other == part):
            said = decode(QualityBlock, cases[i].blocks.get(QUALITY), QUALITY).structures
            numbers = [(key, said[key].expected_volume, said[key].largest_dice) for key in names]
            present[i] = [taught.present_probability(*each) for each in numbers]
    return present


def _read(case: CaseResult, names: Mapping[str, str]) -> QualityBlock | None:
    """The block of a case's entry; None where an earlier version measured less, and the probabilities are gone."""
    with contextlib.suppress(UserError):
        block = decode(QualityBlock, case.blocks.get(QUALITY), QUALITY)
        scans = [{"voxel": block.voxel, **vars(block.structures[key])} for key in names if key in block.structures]
        measured = np.isfinite([[scan[name] for name in _LEARNED_FROM] for scan in scans]).all()
        if measured and len(scans) == len(names):
            return block
    return None


@dataclass(frozen=True, eq=False)
class _Answer:
    """Whether a structure is there.

    Attributes:
        learned: None where there was too little to learn from, or it says no more than what knows nothing of the case.
        why_not: Then the reason, in words.
        checks: By kind of probability, against the truth; empty where there was too little.
    """

    learned: LearnedProbability | None
    why_not: str = ""
    checks: dict[str, ProbabilityCheck] = field(default_factory=dict)


def _is_present(scans: Sequence[StructureQuality], patients: Sequence[str], voxel: float) -> _Answer:
    """Learn whether a structure is in a scan, and check it."""
    names = ("expected_volume", "largest_dice", "max_probability", "volume", "true_volume")
    expected, dice, largest, volume, true = np.array([[getattr(scan, name) for name in names] for scan in scans]).T
    features, yes = presence_features(expected, dice, voxel), true > 0
    if why_not := too_few(yes):
        return _Answer(None, why_not)
    kinds = {
        "learned": predict_left_out(features, yes, patients),
        "largest probability": largest,
        "any voxel predicted": (volume > 0).astype(float),
        CONSTANT: predict_left_out(np.zeros((len(yes), 1)), yes, patients),
    }
    checks = {kind: ProbabilityCheck.of(probability, yes) for kind, probability in kinds.items()}
    checks[CONSTANT] = replace(checks[CONSTANT], auroc=math.nan)
    if checks["learned"].brier < checks[CONSTANT].brier:
        return _Answer(LearnedProbability.fit(features, yes, patients), "", checks)
    return _Answer(None, f"no better than the {CONSTANT}", checks)
