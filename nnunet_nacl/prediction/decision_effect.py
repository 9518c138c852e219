"""What a decision changed in a case, and the true Dice before and after where there is ground truth."""

from __future__ import annotations

import math

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.documents.decision_json import DecidedCase, DecidedStructure
from nnunet_nacl.metrics.expected_dice import count_expected
from nnunet_nacl.metrics.overlap import count_overlap


def describe_decision(predicted: Case, decided: Case, truth: np.ndarray | None, rounds: int) -> DecidedCase:
    """Compare a case as it was predicted with the same as it was decided.

    Args:
        predicted: Before the decision.
        decided: After it, with the probabilities that it was made by.
        truth: (*spatial) ground-truth label map; None where there is none.
        rounds: Of the iteration.
    """
    labels, probs = predicted.labels, decided.probabilities.whole()
    valid = None if truth is None or labels.ignore_label is None else truth != labels.ignore_label
    both = predicted.segmentation, decided.segmentation
    before, after = (count_expected(probs, one, regions=labels.region_values) for one in both)
    structures = {}
    for i, channel in enumerate(labels.foreground):
        old, new = (labels.mask(one, channel) for one in both)
        dice = [math.nan] * 2
        if truth is not None:
            true = labels.mask(truth, channel)
            dice = [count_overlap(true, one, valid).dice for one in (old, new)]
        counts = (int(n) for n in (old.sum(), new.sum(), (new & ~old).sum(), (old & ~new).sum()))
        expected = (float(each[i]) for each in (after.expected, before.dice, after.dice))
        structures[labels.key(channel)] = DecidedStructure(*counts, *expected, *dice)
    n_changed = int(np.count_nonzero(both[0] != both[1]))
    return DecidedCase(predicted.name, structures, n_changed, rounds, truth is not None)
