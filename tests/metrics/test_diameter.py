"""The largest diameter against all pairs of corners."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics.diameter import largest_diameter


def all_pairs(mask, spacing) -> float:
    offsets = list(itertools.product((0, 1), repeat=mask.ndim))
    points = {tuple(np.add(voxel, offset)) for voxel in np.argwhere(mask) for offset in offsets}
    points = [np.array(point) * spacing for point in points]
    return max((float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2)), default=0.0)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_it_is_that_of_all_pairs_of_corners(shape, seed, density):
    rng = np.random.default_rng(seed)
    mask, spacing = rng.random(shape) < density, rng.uniform(0.3, 5, len(shape))
    assert largest_diameter(mask, spacing) == pytest.approx(all_pairs(mask, spacing))


def test_closed_forms():
    assert largest_diameter(np.ones((1, 1, 1), bool), (3.0, 2.0, 1.0)) == pytest.approx(math.sqrt(14))
    assert largest_diameter(np.ones((1, 5), bool), (1.0, 2.0)) == pytest.approx(math.hypot(10, 1))
    assert largest_diameter(np.zeros((2, 2), bool), (1.0, 1.0)) == 0
    line = np.eye(4, dtype=bool)
    assert largest_diameter(line, (1.0, 1.0)) == pytest.approx(math.sqrt(32))


def test_large_components_take_bounded_work():
    place = np.indices((160, 160, 160)) - 79.5
    ball = (place**2).sum(0) <= 78**2
    start = time.process_time()
    assert largest_diameter(ball, (1.0, 1.0, 1.0)) == pytest.approx(156, abs=2)
    assert time.process_time() - start < 20
