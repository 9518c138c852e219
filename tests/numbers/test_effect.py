"""What no map changes, and what maps change on average."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_nacl.calibrate.effect import CertainBackground, certain_background, changes
from nnunet_nacl.numbers.fitting import Voxels
from tests.numbers.problems import chosen


def of(odds, target, weights=None, regions=False) -> Voxels:
    odds = torch.tensor(odds, dtype=torch.float32)
    known = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return Voxels(odds, chosen(odds, regions), torch.tensor(target), known)


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
    apart = changes({"NLL": [0.5, 0.75]}, {"NLL": [0.25, 0.25]}, patients=["one", "one"])["NLL"]
    assert math.isnan(apart["difference"]["low"])  # one patient: no interval
