"""What a map would change in the labels, counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_nacl.calibration.case_voxels import Voxels
from nnunet_nacl.calibration.effect import CertainBackground, certain_background, changes, relabelled
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from tests.calibration.problems import chosen


def of(odds, target, weights=None, regions=False) -> Voxels:
    odds = torch.tensor(odds, dtype=torch.float32)
    known = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return Voxels(odds, chosen(odds, regions), torch.tensor(target), known)


def test_voxels_that_change_and_what_it_does_to_dice():
    # labels 1, 1, 2, 0 for 2, 3, 4 and 1 voxels; 1 less for the first structure turns the second voxel to background
    voxels = of([[3.0, 0.5, -1, -2], [-1.0, -1, 2, -2]], [1, 1, 2, 0], [2, 3, 4, 1])
    found = relabelled([voxels], LogOddsMap([1, 1], [-1, 0]))
    assert (found.n_structure, found.n_changed) == (9, 3)
    # structure 1: Dice 1 before, 2 * 2 / (2 + 5) after; structure 2: 1 and 1
    assert found.dice == pytest.approx((4 / 7 - 1 + 0) / 2)


def test_a_structure_that_is_neither_there_nor_predicted_counts_for_nothing():
    first = of([[3.0, 0.5]], [1, 0])  # Dice 2/3 before and 1 after
    second = of([[-3.0, -3.0, -3.0]], [0, 0, 0])  # nothing there, nothing predicted
    third = of([[3.0, 3.0, 3.0, 3.0]], [1, 1, 1, 1])  # nothing changes
    found = relabelled([first, second, third], LogOddsMap([1], [-1]))
    assert (found.n_structure, found.n_changed) == (6, 1)
    assert found.dice == pytest.approx((1 / 3 + 0) / 2)


def test_regions_count_by_themselves():
    # the second region grows by the second voxel; it is in it in truth
    voxels = of([[3.0, 3.0, -3.0], [3.0, -0.5, -3.0]], [[1, 1, 0], [1, 1, 0]], regions=True)
    found = relabelled([voxels], LogOddsMap([1, 1], [0, 1], regions=True))
    assert (found.n_structure, found.n_changed) == (2, 1)
    assert found.dice == pytest.approx((0 + 1 - 2 / 3) / 2)


def test_a_map_that_differs_by_label_is_counted_alike():
    # labels 1 and 0; only what was structure loses 1, only what was background gains 1
    voxels = of([[0.5, -0.5]], [0, 1])
    found = relabelled([voxels], LogOddsMap([[1], [1]], [[1], [-1]]))
    assert (found.n_structure, found.n_changed, found.dice) == (1, 2, 1)


@pytest.mark.filterwarnings("error")
def test_nothing_at_all():
    found = relabelled([of([[-3.0]], [0])], LogOddsMap([1], [0]))
    assert (found.n_structure, found.n_changed) == (0, 0) and math.isnan(found.dice)
    assert math.isnan(relabelled([], LogOddsMap([1], [0])).dice)


def test_what_no_map_changes_is_counted():
    """Log-odds of -14 are certain (8.3e-7), those of 0 are not: 3 of 4 voxels, and 3 * 8.3e-7 of the volume."""
    found = certain_background([of([[-14.0, 0.0]], [0, 1], [3, 1])])
    p = 1 / (1 + math.exp(14))
    assert found.voxels == 0.75 and found.expected_volume == pytest.approx(3 * p / (3 * p + 0.5))
    assert certain_background([of([[0.0]], [0])]).voxels == 0
    assert certain_background([]) == CertainBackground(0, 0)


def test_changes_are_means_over_the_cases_where_both_are_defined():
    nan = math.nan
    found = changes({"NLL": [0.5, nan, 0.25, 0.75]}, {"NLL": [0.25, 0.1, nan, 0.25]})["NLL"]
    assert (found["n"], found["before"]["mean"], found["after"]["mean"]) == (2, 0.625, 0.25)
    assert found["difference"]["mean"] == -0.375 and found["difference"]["low"] == -0.5
    apart = changes({"NLL": [0.5, 0.75]}, {"NLL": [0.25, 0.25]}, groups=["one", "one"])["NLL"]
    assert math.isnan(apart["difference"]["low"])  # one patient: no interval
