"""Biases of structures: their Dice against labels that are made one by one, and the choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.estimators.decision import (
    GRID,
    SampledVoxels,
    bias_of_threshold,
    choose_biases,
    threshold_of_bias,
)


def labels_of(odds: np.ndarray, biases: np.ndarray, regions: bool) -> np.ndarray:
    """(m, n) whether each voxel is given to each structure, voxel by voxel."""
    given_to = np.zeros(odds.shape, bool)
    for voxel, of_voxel in enumerate((odds + biases[:, None]).T):
        if regions:
            given_to[:, voxel] = of_voxel > 0
        elif of_voxel.max() > 0:
            given_to[of_voxel.argmax(), voxel] = True
    return given_to


def make_case(
    odds: np.ndarray, is_true: np.ndarray, regions: bool, weights: np.ndarray | None = None
) -> SampledVoxels:
    """A case of which every voxel is in the sample."""
    labels = labels_of(odds, np.zeros(len(odds)), regions)
    weights = np.ones(odds.shape[1]) if weights is None else weights
    return SampledVoxels(
        odds,
        is_true,
        weights,
        true=is_true @ weights,
        hits=(labels & is_true) @ weights,
        segmented=labels @ weights,
        regions=regions,
    )


def draw_case(seed: int, num_structures: int, regions: bool) -> SampledVoxels:
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 3, (num_structures, 60))
    if regions:
        is_true = rng.random(odds.shape) < 0.3
    else:
        truth = rng.integers(0, num_structures + 1, 60)
        is_true = np.arange(1, num_structures + 1)[:, None] == truth
    return make_case(odds, is_true, regions)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_dice_is_that_of_labels_made_one_by_one(seed, num_structures, regions):
    case = draw_case(seed, num_structures, regions)
    biases = np.random.default_rng(seed).normal(0, 1, num_structures)
    if regions:
        biases[:] = 0  # others are left as they are
    structure = seed % num_structures
    found = case.dice(biases, structure)
    for index in range(0, len(GRID), 40):
        tried = biases.copy()
        tried[structure] = GRID[index]
        labels = labels_of(case.odds, tried, regions)
        sizes = labels.sum(1) + case.is_true.sum(1)
        hits = (labels & case.is_true).sum(1)
        expected = np.divide(2 * hits, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
        np.testing.assert_allclose(found[:, index], expected)


def test_counts_of_the_case_correct_those_of_the_sample():
    # One voxel stands for 10 of which 8 are true; odds of -1: it is given from a bias above 1 on.
    case = SampledVoxels(
        odds=np.array([[2.0, -1.0]]),
        is_true=np.array([[True, True]]),
        weights=np.array([10.0, 5.0]),
        true=np.array([13.0]),
        hits=np.array([8.0]),
        segmented=np.array([9.0]),
        regions=False,
    )
    dice = case.dice(np.zeros(1), 0)[0]
    at_0, at_2 = (np.flatnonzero(np.isclose(GRID, bias))[0] for bias in (0, 2))
    assert dice[at_0] == pytest.approx(2 * 8 / (9 + 13))
    assert dice[at_2] == pytest.approx(2 * 13 / (14 + 13))
    assert dice[0] == 0  # with a bias of -8 nothing is segmented, and all is missed


@pytest.mark.parametrize("regions", [False, True])
def test_the_bias_that_made_the_truth_is_found(regions):
    hidden = np.array([1.5, -0.75])
    cases = []
    for seed in range(4):
        odds = np.random.default_rng(seed).normal(0, 2, (2, 4000))
        cases.append(make_case(odds, labels_of(odds, hidden, regions), regions))
    assert choose_biases(cases) == pytest.approx(hidden, abs=0.1)
    only_first = choose_biases(cases, [0])
    assert only_first[1] == 0 and only_first[0] > 0.5


def test_argmax_stays_where_it_is_the_best():
    odds = np.array([[3.0, 2.0, -2.0, -3.0]])
    case = make_case(odds, odds > 0, regions=False)
    assert choose_biases([case]) == 0


def test_an_invented_structure_counts_unless_only_present_ones_do():
    odds = np.array([[-0.5, -0.6, -3.0]])
    present = make_case(odds, np.array([[True, True, False]]), regions=False)
    absent = make_case(odds + 0.2, np.zeros((1, 3), bool), regions=False)
    # without a bias the structure is missed in the one case, and left out of the mean in the other
    assert choose_biases([present, absent], only_present=True)[0] > 0.6
    dice = np.nanmean([case.dice(np.zeros(1), 0)[0] for case in (present, absent)], 0)
    assert choose_biases([present, absent])[0] == GRID[dice >= dice.max()].min()
    assert dice.max() == 0.5  # 1 where it is, 0 where it is invented


def test_thresholds_and_biases_are_inverse():
    assert bias_of_threshold(0.5) == 0
    assert bias_of_threshold(0.25) == pytest.approx(np.log(3))
    assert threshold_of_bias(bias_of_threshold(0.03)) == pytest.approx(0.03)
