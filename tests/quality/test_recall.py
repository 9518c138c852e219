"""Labels that miss less: what is added, and what conformal risk control keeps to."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.quality.recall import (
    THRESHOLDS,
    LearnedRecall,
    SensitiveAim,
    count_addable,
    learn_recall,
    sensitive_labels,
)
from tests.reference import decision as slow

SIZE = len(THRESHOLDS)
ODDS = np.arange(-184, 1) / 20


def block(seed: int, regions: bool):
    """Probabilities, delivered labels, truth and what is valid of a block; labels need not be those
    of largest p."""
    rng, shape = np.random.default_rng(seed), (3, 5, 4)
    p = rng.dirichlet([2, 0.3, 0.3, 0.3], shape).transpose(3, 0, 1, 2).astype(np.float32)
    if regions:
        p = p[1:] + p[0] * rng.choice([0, 1, 0.5], (3, *shape)).astype(np.float32)
        labels = [rng.random((3, *shape)) < 0.3 for _ in range(2)]
    else:
        labels = [rng.choice(4, shape, p=[0.7, 0.1, 0.1, 0.1]) for _ in range(2)]
    return np.clip(p, 0, 1), *labels, rng.random(shape) < 0.8


def parts(labels: np.ndarray, regions: bool) -> np.ndarray:
    return labels if regions else np.stack([labels == k for k in (1, 2, 3)])


@pytest.mark.parametrize("regions", [False, True])
def test_labels_and_counts_agree_with_loops_over_voxels(regions):
    for seed in range(5):
        probs, delivered, truth, valid = block(seed, regions)
        # as files may hold them; 0.000101 is no half
        probs = probs.astype(["f2", "f4", "f8"][seed % 3])
        probs.flat[-1] = 1.01e-4
        counts = count_addable(probs, delivered, truth, regions, valid)
        assert counts.shape == (2, 3, SIZE)
        inside, true = parts(delivered, regions), parts(truth, regions)
        for places in ([0, 100, 184], [150, 30, SIZE], [SIZE] * 3):
            limits = [*(ODDS - 1e-6), math.inf]
            expected = slow.sensitive(probs, inside, [limits[place] for place in places], regions)
            thresholds = [[*THRESHOLDS, math.inf][place] for place in places]
            made = sensitive_labels(probs, delivered, thresholds, regions)
            np.testing.assert_array_equal(parts(made, regions), expected)
            for k, place in enumerate(places):
                added = expected[k] & ~inside[k] & valid
                assert (added & true[k]).sum() == counts[0, k, place:].sum()
                assert added.sum() == counts[1, k, place:].sum()


def test_an_average_keeps_to_what_was_asked_over_2000_calibrations():
    # All of a patient is found from a place on that is drawn at random, or nothing. Of 20 patients
    # 0.1 * 21 - 1 = 1.1 may be lost: one, so the threshold is the second smallest place, of which 2
    # / 21 of the next patients are lost. Without the 1 of the next patient two could be lost: 3 /
    # 21, more than the tenth that is allowed.
    rng, n, lost = np.random.default_rng(0), 20, []
    for _ in range(2000):
        place = rng.integers(0, SIZE, n)
        learned = LearnedRecall(
            n_patients=n,
            missed=(place[:, None] < np.arange(SIZE + 1)).mean(0).tolist(),
            times_larger=[1.0] * (SIZE + 1),
            false_voxels=[1.0] * (SIZE + 1),
        )
        # the chance that the next patient's place lies below
        lost.append(learned.place(0.9) / SIZE)
    assert 2 / 21 - 0.006 < np.mean(lost) < 0.1


def test_scans_of_a_patient_are_averaged_first_and_absent_structures_count_nowhere():
    # One voxel of ten is found by nnU-Net in each scan; from place 5 on all others are in a's
    # first, half in b's.
    rows = [("a1", 1, 0, 9), ("a2", 1, 0, 9), ("b", 1, 1, 9), ("c", 0, 0, 0), ("d", 0, 2, 0)]
    cases = pd.DataFrame(
        [{"case": case, "key": "1", "TP": tp, "FP": fp, "FN": fn} for case, tp, fp, fn in rows]
    )
    counts = np.zeros((5, 2, 1, SIZE), np.int64)
    for scan, (true, added) in enumerate([(9, 12), (0, 1), (5, 5), (0, 2), (0, 0)]):
        counts[scan, :, 0, 5] = true, added
    patients = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d": "d"}
    learned = learn_recall(cases, counts, patients)["1"]
    assert learned.n_patients == 2
    assert (
        learned.missed[5] == pytest.approx(((0 + 0.9) / 2 + 0.4) / 2)
        and learned.missed[6] == learned.missed[-1]
    )
    assert learned.missed[6] == pytest.approx(0.9)
    assert (
        learned.times_larger[5] == np.median([13, 2, 1 + 5 / 2, 1]) and learned.times_larger[6] == 1
    )
    assert learned.false_voxels[5] == np.median([3, 1, 0, 2, 0]) and learned.false_voxels[6] == 0
    assert learn_recall(cases.assign(TP=0, FN=0), counts, patients) == {}


def made(n: int, lowest: float, labels: float) -> LearnedRecall:
    missed = np.linspace(lowest, labels, SIZE + 1).tolist()
    larger = [2.0] * SIZE + [1.0]
    return LearnedRecall(
        n_patients=n, missed=missed, times_larger=larger, false_voxels=[7.0] * (SIZE + 1)
    )


def test_nine_patients_suffice_for_nine_tenths_and_a_refusal_says_what_can_be_had():
    assert made(9, 0, 0).place(0.9) == SIZE and made(9, 0, 0.5).place(0.9) == 0
    assert made(8, 0, 0).place(0.9) is None
    too_few = "it takes 9 calibration patients who have it, there are 8; -recall 0.888 can be had"
    assert made(8, 0, 0).why_not(0.9) == too_few and made(9, 0, 0).why_not(0.9) == ""
    confused = made(99, 0.15, 0.5)  # at best 1 - (99 * 0.15 + 1) / 100
    assert (
        confused.why_not(0.9)
        == "15 % of its voxels lie in other labels, or have a probability below 0.0001; -recall"
        " 0.841 can be had"
    )
    assert confused.place(0.841) == 0 and confused.place(0.842) is None
    learned = {"1": made(19, 0, 0.5), "2": made(8, 0, 0.5), "3": made(19, 0, 0)}
    names = {"1": "liver", "2": "cyst", "3": "duct", "4": "stone"}
    aim = SensitiveAim.of(learned, names, 0.9, is_exact=True)
    # 0.1 * 20 - 1 of 19 patients may be lost: a share of 1 / 19, and a step is 0.5 / 185
    assert aim.thresholds == {"liver": float(THRESHOLDS[int(185 * 2 / 19)]), "duct": None}
    assert aim.refused == {"cyst": too_few, "stone": "no calibration patient has it"}
    assert aim.limits(list(names.values())) == [
        aim.thresholds["liver"],
        math.inf,
        math.inf,
        math.inf,
    ]
    assert (
        aim.text("out")
        == "In out: labels that miss on average at most 10 % of each structure's voxels, for"
        " patients like the calibration patients. On calibration scans they are 2.00 (liver),"
        " 1.00 (duct) times as large as nnU-Net's, in the median. Not available: cyst"
        f" ({too_few}), stone (no calibration patient has it)."
    )
    with pytest.raises(
        UserError,
        match="^-recall 0.99 cannot be had. cyst: .*; stone: no calibration patient has it.$",
    ):
        SensitiveAim.of({"2": learned["2"]}, {"2": "cyst", "4": "stone"}, 0.99, is_exact=True)
