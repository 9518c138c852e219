"""Masks and surface distances against all-pairs loops and medpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics.overlap import (
    assd,
    boundary_mask,
    count_overlap,
    dilated_mask,
    hausdorff,
    surface_distances,
)
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
    assert dilated_mask(labels, 1, (1,), valid=valid).tolist() == [
        False,
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert boundary_mask(labels, 1, (1,), valid=valid).tolist() == [
        False,
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def blob(rng, shape, radius):
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = rng.uniform(-0.4, 0.4, size=(len(shape),) + (1,) * len(shape))
    return (((grid - centre) ** 2).sum(0) < radius**2) ^ (rng.random(shape) < 0.02)


@pytest.mark.parametrize("shape", [(14, 20, 17), (25, 31), (1, 12, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_medpy_distances(shape, seed):
    binary = pytest.importorskip("medpy.metric.binary")
    rng = np.random.default_rng(seed)
    truth, predicted = blob(rng, shape, 0.6), blob(rng, shape, 0.5)
    spacing = tuple(rng.uniform(0.4, 3.0, len(shape)))
    distances = surface_distances(truth, predicted, spacing)
    # medpy takes a single slice for surface all over
    spacing = [spacing[a] for a, n in enumerate(shape) if n > 1]
    truth, predicted = truth.squeeze(), predicted.squeeze()
    assert hausdorff(distances) == pytest.approx(binary.hd95(predicted, truth, spacing), abs=1e-9)
    assert hausdorff(distances, 100) == pytest.approx(
        binary.hd(predicted, truth, spacing), abs=1e-9
    )
    assert assd(distances) == pytest.approx(binary.assd(predicted, truth, spacing), abs=1e-9)


def test_overlap_counts_valid_voxels_only():
    truth, predicted = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    overlap = count_overlap(truth, predicted, np.array([1, 1, 1, 1, 0], bool))
    assert (overlap.tp, overlap.fp, overlap.fn, overlap.tn) == (1, 1, 1, 1) and overlap.dice == 0.5
    nothing = ~truth & truth
    distances = surface_distances(truth, nothing, (1.0,))
    assert np.isnan(
        [count_overlap(nothing, nothing).dice, hausdorff(distances), assd(distances)]
    ).all()
    assert overlap.iou == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surface_distances(np.ones(3, bool), np.ones(4, bool)), r"\(3,\) and \(4,\)"),
        (lambda: dilated_mask(np.ones((2, 2)), 1.0, (1,)), "2 positive"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
