"""Expected Dice: closed forms, the slow reference, edges; and the largest that probabilities
allow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics.expected_dice import (
    count_expected,
    count_probabilities,
    dice_of_sums,
    expected_dice,
    largest_dice,
)
from tests.reference import decision as reference

NESTED = ((1, 2, 3), (2, 3), (3,))


def random_probs(rng, channels: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.dirichlet(np.full(channels, 0.5), shape).transpose(-1, *range(len(shape)))


def test_constant_probability_closed_form():
    # p everywhere, n of N voxels chosen: 2 n p / (N p + n)
    probs = np.stack([np.full(10, 0.7), np.full(10, 0.3)])
    segmentation = np.array([1] * 4 + [0] * 6)
    sums = count_expected(probs, segmentation)
    assert dice_of_sums(sums) == pytest.approx([2 * 4 * 0.3 / (10 * 0.3 + 4)])
    assert sums[:, 0] == pytest.approx([3, 4, 1.2])
    nothing = count_expected(probs, segmentation, valid=np.zeros(10, bool))
    assert np.isnan(dice_of_sums(nothing)).all() and nothing.tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("regions", [None, NESTED])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_agrees_with_the_reference_on_what_is_valid(regions, dtype):
    rng = np.random.default_rng(3)
    probs, shape = random_probs(rng, 4, (3, 5, 4)), (3, 5, 4)
    segmentation, valid = rng.integers(0, 4, shape), rng.random(shape) < 0.7
    if regions:
        probs = np.cumsum(probs[:0:-1], 0)[::-1].clip(0, 1)
    probs = probs.astype(dtype)
    labels = (
        np.stack([np.isin(segmentation, values) for values in regions]) if regions else segmentation
    )
    structures = dict(enumerate(regions)) if regions else reference.classes(4)
    keep = valid.reshape(1, -1)[0]
    expected = reference.expected_dice(
        probs.reshape(len(probs), -1)[:, keep], segmentation.reshape(-1)[keep], structures
    )
    found = expected_dice(probs, labels, regions=bool(regions), valid=valid)
    assert found == pytest.approx(expected, rel=1e-6 if dtype == np.float64 else 1e-4)


def test_sums_of_parts_add_up_beyond_one_block():
    rng = np.random.default_rng(0)
    probs = random_probs(rng, 3, (400_000,)).astype(np.float32)  # several blocks
    segmentation = probs.argmax(0).astype(np.uint8)
    whole = count_expected(torch.from_numpy(probs), torch.from_numpy(segmentation))
    parts = count_expected(probs[:, :123_456], segmentation[:123_456])
    parts += count_expected(probs[:, 123_456:], segmentation[123_456:])
    exact = [2 * probs[k][segmentation == k].sum(dtype=float) for k in (1, 2)]
    exact /= np.array(
        [probs[k].sum(dtype=float) + np.count_nonzero(segmentation == k) for k in (1, 2)]
    )
    assert dice_of_sums(whole) == pytest.approx(exact, rel=1e-12) and dice_of_sums(
        parts
    ) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("probs", "segmentation", "keywords", "message"),
    [
        (np.full((2, 3), 0.5), np.zeros(4, int), {}, "the shape of probs"),
        (
            np.full((2, 3), 0.5),
            np.zeros(3, int),
            {"valid": np.ones(4, bool)},
            "spatial shape of probs",
        ),
        (np.full((2, 3), 0.5), np.array([0, 1, 2]), {}, r"label\(s\) 2, .* classes 0 to 1"),
        (np.array([[np.nan], [0.5]]), np.zeros(1, int), {}, "NaN"),
    ],
)
def test_what_cannot_be_used_is_named(probs, segmentation, keywords, message):
    with pytest.raises(ValueError, match=message):
        expected_dice(probs, segmentation, **keywords)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 3), st.floats(-6, 2))
def test_the_largest_dice_of_any_set_is_that_of_the_most_probable_voxels(seed, spread, middle):
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(middle, spread, (2, 4000))))
    every = np.sort(p)[:, ::-1]
    expected = (2 * every.cumsum(1) / (every.sum(1, keepdims=True) + np.arange(1, 4001))).max(1)
    both = count_probabilities(p[:, :1500]) + count_probabilities(p[:, 1500:])
    np.testing.assert_allclose(largest_dice(both), expected, atol=1e-3)
    valid = np.arange(4000) < 1500
    np.testing.assert_allclose(
        count_probabilities(p, valid), count_probabilities(p[:, :1500]), atol=1e-9
    )


@pytest.mark.parametrize(("p", "dice"), [(0.0, 0.0), (1e-4, 0.0), (1.0, 1.0), (0.5, 2 / 3)])
def test_the_largest_dice_of_voxels_that_are_all_alike(p, dice):
    # n voxels of p: 2 n p / (n p + n)
    found = count_probabilities(np.full((1, 3, 4), p, np.float32))
    assert largest_dice(found) == pytest.approx([dice], abs=1e-6) and found[
        1
    ].sum() == pytest.approx(12 * p)
