"""What a model's held-out cases teach about which structures are in a scan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from nnunet_nacl.case.results import CaseResult, StructureQuality
from nnunet_nacl.numbers.presence import (
    LearnedPresence,
    LearnedProbability,
    ProbabilityCheck,
    predict_left_out,
    presence_features,
    too_few,
)

CONSTANT = "share of the other patients"
"""What knows nothing of the case: it has a Brier score, but no order."""

_IN_PIECES = 0.5  # share of the cases with a structure in which it must be in pieces: anatomy falls apart in some


def learn_presence(cases: Sequence[CaseResult], keys: Iterable[str], patients: Sequence[str]) -> LearnedPresence:
    """Learn from held-out cases as the network gave them, of structures that some of them lack.

    Args:
        cases: As they were measured, at least one.
        keys: nnU-Net's key of each structure.
        patients: To whom each case belongs.

    Returns:
        With the checks on patients that it has not seen.
    """
    found = LearnedPresence(float(np.median([case.quality.voxel for case in cases])), {}, [])
    for key in keys:
        scans = [case.quality.structures[key] for case in cases]
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
    keys: Sequence[str],
    patients: Sequence[str],
    parts: Sequence[str],
    with_ignore_label: bool,
) -> np.ndarray:
    """(n, S) probability that each structure is in a case, by what the cases of the other parts teach.

    Args:
        cases: As the network gave them.
        keys: nnU-Net's key of each structure, in order.
        patients: To whom each case belongs.
        parts: Part of each case; a patient's cases lie in one part.
        with_ignore_label: Then nothing is learned: a structure may be where nobody annotated it.

    Returns:
        NaN where nothing was learned.
    """
    present = np.full((len(cases), len(keys)), math.nan)
    for part in () if with_ignore_label else dict.fromkeys(parts):
        others = [i for i, other in enumerate(parts) if other != part]
        taught = learn_presence([cases[i] for i in others], keys, [patients[i] for i in others])
        for i in (i for i, other in enumerate(parts) if other == part):
            said = [(key, cases[i].quality.structures[key]) for key in keys]
            present[i] = [taught.present_probability(key, one.expected_volume, one.largest_dice) for key, one in said]
    return present
