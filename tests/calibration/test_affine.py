"""The map on probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_nacl.calibration.affine import AffineMap, log_odds, network_box

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-15, 15))
MAPS = st.builds(
    AffineMap,
    arrays(np.float64, 2, elements=st.floats(0.1, 3)),
    arrays(np.float64, 2, elements=st.floats(-3, 3)),
)


def softmax(logits):
    return torch.from_numpy(logits).softmax(0).numpy()


def on_logits(calibration, logits):
    matrix, vector = calibration.matrix()
    return matrix @ logits + vector[:, None]


def test_one_voxel_by_hand():
    # odds against background 2 and 4: with a = (2, 1/2), b = (0, log 3) they become 2^2 = 4 and 3 * 4^(1/2) = 6
    probs = np.array([[1 / 7], [2 / 7], [4 / 7]])
    np.testing.assert_allclose(AffineMap([2, 0.5], [0, np.log(3)])(probs), np.array([[1], [4], [6]]) / 11)


def test_one_region_by_hand():
    # odds 1/4 -> squared 1/16, times 4: 1/4
    assert AffineMap([2], [np.log(4)], regions=True)(np.array([[0.2]])) == pytest.approx(0.2)


def test_slopes_that_differ_can_reorder_confident_classes():
    probs = softmax(np.array([[-20.0], [10.0], [0.0]]))
    assert probs[1, 0] == pytest.approx(0.99995, abs=1e-5)
    # log-odds 30 and 20 become 15 and 16
    assert AffineMap([0.5, 0.8], [0, 0])(probs)[1, 0] == pytest.approx(1 / (1 + np.e), abs=1e-6)


@given(LOGITS, MAPS)
def test_probabilities_are_as_good_as_logits(logits, calibration):
    np.testing.assert_allclose(calibration(softmax(logits)), softmax(on_logits(calibration, logits)), atol=1e-9)


@given(LOGITS, LOGITS, MAPS, st.floats(-50, 50))
def test_it_commutes_with_averages_of_logits_and_ignores_a_common_constant(first, second, calibration, constant):
    mapped = on_logits(calibration, (first + second) / 2)
    np.testing.assert_allclose(mapped, (on_logits(calibration, first) + on_logits(calibration, second)) / 2, atol=1e-9)
    np.testing.assert_allclose(
        on_logits(calibration, first + constant) - constant, on_logits(calibration, first), atol=1e-9
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("regions", [False, True])
def test_certain_probabilities_stay_probabilities(dtype, regions):
    probs = np.array([[1, 0, 0.5, 0], [0, 1, 0.5, 0], [0, 0, 0, 1]], dtype=dtype)
    calibration = AffineMap([1.7] * (3 if regions else 2), [0.2] * (3 if regions else 2), regions)
    result = calibration(probs)
    assert np.isfinite(result).all() and (result >= 0).all() and (result <= 1).all()
    assert torch.isfinite(log_odds(probs, regions)).all()


def test_a_region_that_float32_calls_certain_counts_as_just_below():
    # float32's numbers below 1 are 2^-24 apart, so 1 - p is at most 2^-25: log-odds 25 log 2
    assert log_odds(np.ones((1, 1), np.float32), True).item() == pytest.approx(25 * np.log(2), rel=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_what_no_network_saw_stays_as_it_is(regions):
    channels = 2 if regions else 3
    probs = np.zeros((channels, 4, 6), np.float32)
    probs[0] = not regions
    inside = (slice(None), slice(1, 3), slice(2, 5))
    probs[inside] = np.random.default_rng(0).dirichlet(np.ones(channels), (2, 3)).transpose(2, 0, 1)
    assert network_box(probs, regions) == (slice(1, 3), slice(2, 5))
    size = channels if regions else channels - 1
    result = AffineMap([1.0] * size, [2.0] * size, regions)(probs)
    changed = (result != probs).any(0)
    assert changed[1:3, 2:5].all() and changed.sum() == 6


def test_blocks_do_not_show(monkeypatch):
    probs = np.random.default_rng(0).dirichlet(np.ones(3), (7, 5)).transpose(2, 0, 1).astype(np.float32)
    calibration = AffineMap([0.7, 1.2], [0.1, -0.4])
    whole = calibration(probs)
    monkeypatch.setattr("nnunet_nacl.calibration.affine._BLOCK", 20)
    np.testing.assert_allclose(calibration(probs), whole, rtol=1e-6)


@pytest.mark.parametrize("slopes, offsets", [([0.0], [0.0]), ([-1.0], [0.0]), ([1.0], [np.nan]), ([1.0], [0.0, 0.0])])
def test_what_is_no_map(slopes, offsets):
    with pytest.raises(ValueError, match="slopes"):
        AffineMap(slopes, offsets)
