"""Sensitive labels: what is added, and what conformal risk control keeps to."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.estimators.recall import (
    THRESHOLDS,
    LearnedRecall,
    SensitiveAim,
    count_addable,
    learn_recall,
    sensitive_labels,
)
from nnunet_nacl.utilities.errors import UserError
from tests.reference import decision as slow

SIZE = len(THRESHOLDS)
# Places in THRESHOLDS; SIZE is where nothing is added. As log-odds, just below each threshold.
LOWEST_LOG_ODDS = [*(np.arange(-184, 1) / 20 - 1e-6), math.inf]
LIMITS = [*THRESHOLDS, math.inf]


class Block(NamedTuple):
    """Voxels of three structures; labels need not be those of the largest probability."""

    probs: np.ndarray
    delivered: np.ndarray
    truth: np.ndarray
    valid: np.ndarray


def draw_block(seed: int, regions: bool) -> Block:
    rng = np.random.default_rng(seed)
    shape = (3, 5, 4)
    dirichlet = rng.dirichlet([2, 0.3, 0.3, 0.3], shape)
    probs = dirichlet.transpose(3, 0, 1, 2).astype(np.float32)
    if regions:
        overlap = rng.choice([0, 1, 0.5], (3, *shape)).astype(np.float32)
        probs = probs[1:] + probs[0] * overlap
        labels = [rng.random((3, *shape)) < 0.3 for _ in range(2)]
    else:
        labels = [rng.choice(4, shape, p=[0.7, 0.1, 0.1, 0.1]) for _ in range(2)]
    probs = np.clip(probs, 0, 1).astype(["f2", "f4", "f8"][seed % 3])  # as files may hold them
    probs.flat[-1] = 1.01e-4  # which is no half
    return Block(probs, *labels, rng.random(shape) < 0.8)


def by_structure(labels: np.ndarray, regions: bool) -> np.ndarray:
    """(3, *block) whether a voxel is in each structure."""
    if regions:
        return labels
    return np.stack([labels == number for number in (1, 2, 3)])


@pytest.mark.parametrize("places", [(0, 100, 184), (150, 30, SIZE), (SIZE, SIZE, SIZE)])
@pytest.mark.parametrize("regions", [False, True])
def test_labels_and_counts_agree_with_loops_over_voxels(regions, places):
    for seed in range(5):
        block = draw_block(seed, regions)
        delivered = by_structure(block.delivered, regions)
        truth = by_structure(block.truth, regions)
        log_odds = [LOWEST_LOG_ODDS[place] for place in places]
        expected = slow.sensitive(block.probs, delivered, log_odds, regions)
        limits = [LIMITS[place] for place in places]
        labels = sensitive_labels(block.probs, block.delivered, limits, regions)
        np.testing.assert_array_equal(by_structure(labels, regions), expected)

        counts = count_addable(block.probs, block.delivered, block.truth, regions, block.valid)
        assert counts.shape == (2, 3, SIZE)
        true_counts, all_counts = counts
        for structure, place in enumerate(places):
            added = expected[structure] & ~delivered[structure] & block.valid
            num_true = (added & truth[structure]).sum()
            assert true_counts[structure, place:].sum() == num_true
            assert all_counts[structure, place:].sum() == added.sum()


@pytest.fixture
def five_scans() -> pd.DataFrame:
    """Of patient a two scans. In each scan with the structure nnU-Net finds one voxel of ten."""
    rows = [
        {"case": "a1", "TP": 1, "FP": 0, "FN": 9},
        {"case": "a2", "TP": 1, "FP": 0, "FN": 9},
        {"case": "b", "TP": 1, "FP": 1, "FN": 9},
        {"case": "c", "TP": 0, "FP": 0, "FN": 0},
        {"case": "d", "TP": 0, "FP": 2, "FN": 0},
    ]
    return pd.DataFrame(rows).assign(key="1")


def learn_from(cases: pd.DataFrame) -> dict[str, LearnedRecall]:
    """At place 5 all that nnU-Net misses can be added in a1, about half in b, nothing in a2."""
    counts = np.zeros((5, 2, 1, SIZE), np.int64)
    counts[:, 0, 0, 5] = [9, 0, 5, 0, 0]  # true voxels
    counts[:, 1, 0, 5] = [12, 1, 5, 2, 0]  # all voxels
    patients = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d": "d"}
    return learn_recall(cases, counts, patients)


def test_scans_of_a_patient_are_averaged_first(five_scans):
    learned = learn_from(five_scans)["1"]
    assert learned.n_patients == 2
    assert learned.missed[5] == pytest.approx(((0 + 0.9) / 2 + 0.4) / 2)
    assert learned.missed[6] == pytest.approx(0.9)
    assert learned.missed[-1] == learned.missed[6]


def test_growth_is_the_median_over_scans_with_a_label_and_false_voxels_over_all(five_scans):
    learned = learn_from(five_scans)["1"]
    assert learned.times_larger[5] == np.median([13, 2, 1 + 5 / 2, 1])
    assert learned.times_larger[6] == 1
    assert learned.false_voxels[5] == np.median([3, 1, 0, 2, 0])
    assert learned.false_voxels[6] == 0


def test_of_a_structure_that_no_truth_has_nothing_is_learned(five_scans):
    assert learn_from(five_scans.assign(TP=0, FN=0)) == {}


def learned_recall(n_patients: int, lowest: float, labels: float) -> LearnedRecall:
    """What is missed grows evenly from the lowest threshold to nnU-Net's labels."""
    return LearnedRecall(
        n_patients=n_patients,
        missed=np.linspace(lowest, labels, SIZE + 1).tolist(),
        times_larger=[2.0] * SIZE + [1.0],
        false_voxels=[7.0] * (SIZE + 1),
    )


TOO_FEW = "it takes 9 calibration patients who have it, there are 8; 0.888 can be had"
LEARNED = {
    "1": learned_recall(19, 0, 0.5),
    "2": learned_recall(8, 0, 0.5),
    "3": learned_recall(19, 0, 0),
}
NAMES = {"1": "liver", "2": "cyst", "3": "duct", "4": "stone"}


def test_nine_patients_suffice_for_nine_tenths():
    assert learned_recall(9, 0, 0).threshold_index(0.9) == SIZE
    assert learned_recall(9, 0, 0).why_not(0.9) == ""
    assert learned_recall(9, 0, 0.5).threshold_index(0.9) == 0
    assert learned_recall(8, 0, 0).threshold_index(0.9) is None
    assert learned_recall(8, 0, 0).why_not(0.9) == TOO_FEW


def test_a_refusal_says_what_can_be_had():
    confused = learned_recall(99, 0.15, 0.5)  # at best 1 - (99 * 0.15 + 1) / 100
    assert confused.why_not(0.9) == (
        "15 % of its voxels lie in other labels, or have a probability below 0.0001;"
        " 0.841 can be had"
    )
    assert confused.threshold_index(0.841) == 0
    assert confused.threshold_index(0.842) is None


def test_an_aim_has_thresholds_and_refusals_by_name():
    aim = SensitiveAim.of(LEARNED, NAMES, 0.9, is_exact=True)
    # 0.1 * 20 - 1 of 19 patients may be lost: a share of 1 / 19, and a step is 0.5 / 185
    threshold = float(THRESHOLDS[int(185 * 2 / 19)])
    assert aim.thresholds == {"liver": threshold, "duct": None}
    assert aim.refused == {"cyst": TOO_FEW, "stone": "no calibration patient has it"}
    assert aim.limits(list(NAMES.values())) == [threshold, math.inf, math.inf, math.inf]


def test_an_aim_is_explained():
    aim = SensitiveAim.of(LEARNED, NAMES, 0.9, is_exact=True)
    assert aim.text("out") == (
        "In out: sensitive labels, which miss on average at most 10 % of each structure's voxels,"
        " for patients like the calibration patients. On calibration scans they are 2.00 (liver),"
        " 1.00 (duct) times as large as nnU-Net's, in the median. Not available: cyst"
        f" ({TOO_FEW}), stone (no calibration patient has it)."
    )


def test_an_aim_that_no_structure_can_keep_is_an_error():
    message = "^recall=0.99 cannot be had. cyst: .*; stone: no calibration patient has it.$"
    with pytest.raises(UserError, match=message):
        SensitiveAim.of(LEARNED, {"2": "cyst", "4": "stone"}, 0.99, is_exact=True)
