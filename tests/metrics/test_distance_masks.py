"""Masks by distance against all-pairs loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics.distance_masks import boundary_mask, dilated_mask
from tests.reference.metrics import boundary, dilated


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(9,), (6, 7), (4, 5, 6), (1, 6, 7)]),
    radius=st.sampled_from([0.0, 0.4, 1.0, 2.0, 3.3, 50.0]),
    density=st.sampled_from([0.0, 0.02, 0.2, 1.0]),
)
def test_masks_hold_what_is_near_enough(seed, shape, radius, density):
    rng = np.random.default_rng(seed)
    labels = (rng.integers(1, 4, shape) * (rng.random(shape) < density)).astype(np.int16)
    spacing = tuple(rng.choice([0.5, 1.0, 1.5, 2.0], len(shape)))
    np.testing.assert_array_equal(
        dilated_mask(labels, radius, spacing), dilated(labels, radius, spacing)
    )
    np.testing.assert_array_equal(
        boundary_mask(labels, radius, spacing), boundary(labels, radius, spacing)
    )


def test_ignored_voxels_neither_grow_nor_bound():
    labels = np.array([0, 0, 1, 1, 1, 0, 0])
    valid = np.array([1, 1, 0, 1, 1, 1, 1], dtype=bool)
    grown = dilated_mask(labels, 1, (1,), valid=valid)
    assert np.flatnonzero(grown).tolist() == [3, 4, 5]
    band = boundary_mask(labels, 1, (1,), valid=valid)
    assert np.flatnonzero(band).tolist() == [4, 5]


def test_ignored_voxels_bound_no_negative_label_either():
    labels = np.full(4, -1)
    valid = np.array([True, True, True, False])
    assert not boundary_mask(labels, 1, (1,), valid=valid).any()


@pytest.mark.parametrize(
    ("radius_mm", "spacing_mm", "message"),
    [(1.0, (1,), "2 positive numbers"), (-1.0, (1, 1), "must not be negative, got -1")],
)
def test_bad_arguments_are_named(radius_mm, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        dilated_mask(np.ones((2, 2)), radius_mm, spacing_mm)
