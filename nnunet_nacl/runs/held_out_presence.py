"""What a model's held-out cases teach about which structures are in a scan."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nnunet_nacl.calibration.presence import (
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


def learn_presence(
    cases: Sequence[CaseResult], names: Mapping[str, str], patients: Sequence[str]
) -> LearnedPresence | None:
    """Learn from held-out cases as the network gave them, of structures that some of them lack.

    Args:
        cases: As they were measured; those that were not, or through a map, are left out.
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
    found = LearnedPresence(float(np.median([block.voxel for block in blocks])), {}, [])
    for key in names:
        scans = [block.structures[key] for block in blocks]
        always_there = all(scan.true_volume > 0 for scan in scans)
        if not always_there or np.mean([scan.true_pieces > 1 for scan in scans]) > _IN_PIECES:
            found.listed.append(key)
        if not always_there:
            _learn(found, key, scans, patients)
    return found


def _learn(found: LearnedPresence, key: str, scans: Sequence[StructureQuality], patients: Sequence[str]) -> None:
    """Learn whether a structure is in a scan, check it, and keep it if it says more than what knows nothing."""
    names = ("expected_volume", "largest_dice", "max_probability", "volume", "true_volume")
    expected, dice, largest, volume, true = np.array([[getattr(scan, name) for name in names] for scan in scans]).T
    features, yes = presence_features(expected, dice, found.voxel), true > 0
    if why_not := too_few(yes):
        found.why_not[key] = why_not
        return
    kinds = {
        "learned": predict_left_out(features, yes, patients),
        "largest probability": largest,
        "any voxel predicted": (volume > 0).astype(float),
        CONSTANT: predict_left_out(np.zeros((len(yes), 1)), yes, patients),
    }
    checks = {kind: ProbabilityCheck.of(probability, yes) for kind, probability in kinds.items()}
    found.checks[key] = checks | {CONSTANT: replace(checks[CONSTANT], auroc=math.nan)}
    if checks["learned"].brier < checks[CONSTANT].brier:
        found.present[key] = LearnedProbability.fit(features, yes, patients)
    else:
        found.why_not[key] = f"no better than the {CONSTANT}"


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
    """The block of a case's entry; None where it does not tell what the network said."""
    with contextlib.suppress(UserError):
        block = decode(QualityBlock, case.blocks.get(QUALITY), QUALITY)
        if all(key in block.structures and math.isfinite(block.structures[key].largest_dice) for key in names):
            return block
    return None
