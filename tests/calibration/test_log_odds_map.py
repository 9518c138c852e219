"""The map on probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_nacl.calibration.log_odds import log_odds, network_box
from nnunet_nacl.calibration.log_odds_map import map_from_tables
from tests.calibration.problems import identity
from tests.reference import calibration as reference

CLASSES = st.integers(2, 4)


@st.composite
def logits_and_tables(draw, regions=False, largest=60):
    """(C, 4) logits, ties among them, in eighths so that no sum rounds; and slopes and offsets for
    every label."""
    channels = draw(CLASSES)
    rows, num = (2, channels) if regions else (channels, channels - 1)
    slopes = draw(arrays(np.float64, (rows, num), elements=st.floats(0.1, 3)))
    offsets = draw(arrays(np.float64, (rows, num), elements=st.floats(-3, 3)))
    logits = (
        draw(arrays(np.int64, (channels, 4), elements=st.integers(-8 * largest, 8 * largest))) / 8
    )
    return logits, slopes, offsets


def softmax(logits):
    return torch.from_numpy(logits).softmax(0).numpy()


def sigmoid(logits):
    return torch.from_numpy(logits).sigmoid().numpy()


def everywhere(calibration, probs):
    """Every voxel counts as seen by the network."""
    return calibration(probs, tuple(slice(0, n) for n in probs.shape[1:]))


def test_one_voxel_by_hand():
    # odds against background 2 and 4: with a = (2, 1/2), b = (0, log 3) they become 2^2 = 4 and 3 *
    # 4^(1/2) = 6
    probs = np.array([[1 / 7], [2 / 7], [4 / 7]])
    expected = np.array([[1], [4], [6]]) / 11
    np.testing.assert_allclose(map_from_tables([2, 0.5], [0, np.log(3)])(probs), expected)
    other = [0.3, 7.0]  # of labels that the voxel does not have
    rows = map_from_tables([other, other, [2, 0.5]], [other, other, [0, np.log(3)]])
    np.testing.assert_allclose(rows(probs), expected)


def test_the_label_is_the_one_that_is_given_whatever_the_log_odds_say():
    # equal after rounding; the network chose 2
    odds = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    rows = map_from_tables(np.ones((3, 2)), np.log([[1, 1], [1, 1], [1, 3]]))
    expected = [[1 / (1 + 4 * np.e)], [np.e / (1 + 4 * np.e)], [3 * np.e / (1 + 4 * np.e)]]
    np.testing.assert_allclose(rows.to_probabilities(odds, torch.tensor([2])).numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("regions", [False, True])
def test_certain_background_stays_as_it_is(dtype, regions):
    structures = np.array([[0.9e-6, 1.1e-6, 0, 1e-9], [0.9e-6, 0, 0.9e-6, 0.5]])
    probs = (
        structures
        if regions
        else np.concatenate([1 - structures.sum(0, keepdims=True), structures])
    )
    probs = probs.astype(dtype)
    rows = 2 if regions else 3
    result = map_from_tables(np.full((rows, 2), 0.7), np.full((rows, 2), 0.5), regions)(probs)
    np.testing.assert_array_equal(result[:, [0, 2]], probs[:, [0, 2]])
    # one structure is enough for all of the voxel
    assert (result[:, [1, 3]] != probs[:, [1, 3]]).all()
    # odds 1.1e-6 to the power of 0.7
    assert result[0 if regions else 1, 1] == pytest.approx(np.exp(0.5) * 1.1e-6**0.7, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_of_exactly_0_and_1(dtype):
    probs = np.array([[1, 0, 0, 0.5], [0, 1, 0.5, 0], [0, 0, 0.5, 0.5]], dtype=dtype)
    # certain; l = (-15, 0, -15); (-15, 0, 0); (0, -15, 0)
    logits = [[0, 0, 0, 0], [-np.inf, 7.6, 7.6, -7.4], [-np.inf, 0.2, 7.7, 0.2]]
    result = map_from_tables(np.full((3, 2), 0.5), np.array([[0.1, 0.2]] * 3))(probs)
    np.testing.assert_allclose(result, softmax(np.array(logits)), rtol=1e-5, atol=1e-7)
    assert result.dtype == (np.float64 if dtype == np.float64 else np.float32)


def test_a_region_that_float32_calls_certain_counts_as_just_below():
    # float32's numbers below 1 are 2^-24 apart, so 1 - p is at most 2^-25: log-odds 25 log 2
    assert log_odds(np.ones((1, 1), np.float32), True).item() == pytest.approx(
        25 * np.log(2), rel=1e-6
    )


@pytest.mark.parametrize("regions", [False, True])
@given(data=st.data())
def test_it_is_the_slow_map(regions, data):
    logits, slopes, offsets = data.draw(logits_and_tables(regions, 30 if regions else 60))
    calibration = map_from_tables(slopes, offsets, regions)
    slow, voxels = (
        reference.calibrated_regions if regions else reference.calibrated,
        logits.T.tolist(),
    )
    expected = np.array([slow(z, slopes, offsets) for z in voxels]).T
    probs, odds = sigmoid(logits) if regions else softmax(logits), torch.from_numpy(logits)
    np.testing.assert_allclose(
        everywhere(calibration, probs), expected, atol=1e-8 if regions else 1e-9
    )
    label = odds > 0 if regions else torch.tensor([reference.label_of(z) for z in voxels])
    odds = odds if regions else odds[1:] - odds[:1]
    np.testing.assert_allclose(
        calibration.to_probabilities(odds, label).numpy(), expected, atol=1e-8
    )


def test_a_matrix_of_each_label_by_hand():
    """Log-odds 1 and 0.5 under label 1: u' = (2 u_1 - u_2 + 0.1, u_2 + 0.5 v - 0.2), v = log(1 + e
    + e^0.5)."""
    u, v = np.array([1.0, 0.5]), np.log(1 + np.e + np.exp(0.5))
    slopes = np.array(
        [[[1, 0, 0], [0, 1, 0]], [[2, -1, 0], [0, 1, 0.5]], [[1, 0, 0], [0, 1, 0]]], float
    )
    rows = map_from_tables(slopes, [[0, 0], [0.1, -0.2], [0, 0]])
    expected = softmax(np.array([0, 2 * 1 - 0.5 + 0.1, 0.5 + 0.5 * v - 0.2])[:, None])
    given = softmax(np.array([0.0, *u])[:, None])
    np.testing.assert_allclose(rows(given), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="tables of one shape"):
        map_from_tables(slopes[:, :, :2], np.zeros((3, 2)))


def test_a_region_by_hand():
    """Log-odds 1, in: u' = 2 u - v / 2 + 0.1 with v = log(1 + e); -1, out: u' = u."""
    rows = map_from_tables([[[1, 0]], [[2, -0.5]]], [[0], [0.1]], regions=True)
    u = np.array([[1.0, -1.0]])
    expected = sigmoid(np.array([[2 - 0.5 * np.log(1 + np.e) + 0.1, -1.0]]))
    np.testing.assert_allclose(rows(sigmoid(u)), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="above 0"):
        # falls for certain voxels
        map_from_tables([[[1, 0]], [[2, -2.5]]], [[0], [0.1]], regions=True)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("conditional", [False, True])
def test_what_no_network_saw_stays_as_it_is(regions, conditional):
    channels = 2 if regions else 3
    probs = np.zeros((channels, 4, 6), np.float32)
    probs[0] = not regions
    inside = (slice(None), slice(1, 3), slice(2, 5))
    probs[inside] = np.random.default_rng(0).dirichlet(np.ones(channels), (2, 3)).transpose(2, 0, 1)
    assert network_box(probs, regions) == (slice(1, 3), slice(2, 5))
    rows = (2 if regions else 3) if conditional else 1
    result = map_from_tables(np.ones((rows, 2)), np.full((rows, 2), 2.0), regions)(probs)
    changed = (result != probs).any(0)
    assert changed[1:3, 2:5].all() and changed.sum() == 6
    assert network_box(np.zeros((2, 3, 3)), True) is None


def test_blocks_do_not_show():
    rng = np.random.default_rng(0)
    # more than a block
    probs = rng.dirichlet(np.ones(3), (700, 701)).transpose(2, 0, 1).astype(np.float32)
    calibration = map_from_tables(rng.uniform(0.5, 2, (3, 2)), rng.normal(size=(3, 2)))
    before = probs.copy()
    whole = calibration(probs)
    parts = [calibration(probs[:, :300]), calibration(probs[:, 300:])]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-6)
    np.testing.assert_array_equal(probs, before)


@pytest.mark.parametrize(
    "slopes, offsets",
    [
        ([0.0], [0.0]),
        ([1.0], [np.nan]),
        (np.ones((2, 2)), np.zeros((2, 2))),  # two structures have three labels
    ],
)
def test_what_is_no_map(slopes, offsets):
    with pytest.raises(ValueError, match="slopes"):
        map_from_tables(slopes, offsets)
    for channels, regions in ((4, False), (3, True)):
        with pytest.raises(ValueError, match=f"{channels} channels"):
            identity(3, regions)(np.full((7 - channels, 2), 0.2))
