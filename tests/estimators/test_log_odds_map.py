"""The map on probabilities."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_nacl.estimators.log_odds import log_odds, network_box
from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
from tests.estimators.problems import identity
from tests.reference import calibration as reference

CLASSES = st.integers(2, 4)


@st.composite
def logits_and_tables(draw, regions=False, largest=60):
    """(C, 4) logits, ties among them, in eighths so that no sum rounds; and slopes and offsets for
    every label."""
    channels = draw(CLASSES)
    shape = (channels, channels - 1)
    if regions:
        shape = (2, channels)  # out of a region, and in
    slopes = draw(arrays(np.float64, shape, elements=st.floats(0.1, 3)))
    offsets = draw(arrays(np.float64, shape, elements=st.floats(-3, 3)))
    number_of_eighths = st.integers(-8 * largest, 8 * largest)
    eighths = draw(arrays(np.int64, (channels, 4), elements=number_of_eighths))
    return eighths / 8, slopes, offsets


def softmax(logits):
    return torch.from_numpy(logits).softmax(0).numpy()


def sigmoid(logits):
    return torch.from_numpy(logits).sigmoid().numpy()


def same_for_all_labels(slope, offset, regions=False):
    """The map of two structures that has these for every label."""
    shape = (3, 2)
    if regions:
        shape = (2, 2)
    return map_from_tables(np.full(shape, slope), np.full(shape, offset), regions)


def everywhere(calibration, probs):
    """Every voxel counts as seen by the network."""
    return calibration(probs, tuple(slice(0, n) for n in probs.shape[1:]))


def test_one_voxel_by_hand():
    # odds against background 2 and 4: with a = (2, 1/2), b = (0, log 3) they become 2^2 = 4 and 3 *
    # 4^(1/2) = 6
    probs = np.array([[1 / 7], [2 / 7], [4 / 7]])
    slopes = [2, 0.5]
    offsets = [0, np.log(3)]
    expected = np.array([[1], [4], [6]]) / 11
    np.testing.assert_allclose(map_from_tables(slopes, offsets)(probs), expected)
    other = [0.3, 7.0]  # of labels that the voxel does not have
    conditional = map_from_tables([other, other, slopes], [other, other, offsets])
    np.testing.assert_allclose(conditional(probs), expected)


def test_the_label_is_the_one_that_is_given_whatever_the_log_odds_say():
    # equal after rounding; the network chose 2
    odds = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    offsets = np.log([[1, 1], [1, 1], [1, 3]])
    calibrated = map_from_tables(np.ones((3, 2)), offsets).to_probabilities(odds, torch.tensor([2]))
    odds_to_background = np.array([[1], [np.e], [3 * np.e]])
    expected = odds_to_background / odds_to_background.sum()
    np.testing.assert_allclose(calibrated.numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("regions", [False, True])
def test_certain_background_stays_as_it_is(dtype, regions):
    probs = np.array([[0.9e-6, 1.1e-6, 0, 1e-9], [0.9e-6, 0, 0.9e-6, 0.5]])
    if not regions:
        background = 1 - probs.sum(0, keepdims=True)
        probs = np.concatenate([background, probs])
    probs = probs.astype(dtype)
    result = same_for_all_labels(0.7, 0.5, regions)(probs)
    np.testing.assert_array_equal(result[:, [0, 2]], probs[:, [0, 2]])
    # one structure is enough for all of the voxel
    assert (result[:, [1, 3]] != probs[:, [1, 3]]).all()
    first_structure = result[-2]
    # odds 1.1e-6 to the power of 0.7
    assert first_structure[1] == pytest.approx(np.exp(0.5) * 1.1e-6**0.7, rel=1e-3)


@pytest.mark.parametrize(
    "dtype, type_of_result",
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)],
)
def test_probabilities_of_exactly_0_and_1(dtype, type_of_result):
    probs = np.array([[1, 0, 0, 0.5], [0, 1, 0.5, 0], [0, 0, 0.5, 0.5]], dtype=dtype)
    # certain; l = (-15, 0, -15); (-15, 0, 0); (0, -15, 0)
    logits = [[0, 0, 0, 0], [-np.inf, 7.6, 7.6, -7.4], [-np.inf, 0.2, 7.7, 0.2]]
    result = same_for_all_labels(0.5, [0.1, 0.2])(probs)
    np.testing.assert_allclose(result, softmax(np.array(logits)), rtol=1e-5, atol=1e-7)
    assert result.dtype == type_of_result


def test_a_region_that_float32_calls_certain_counts_as_just_below():
    # float32's numbers below 1 are 2^-24 apart, so 1 - p is at most 2^-25: log-odds 25 log 2
    odds = log_odds(np.ones((1, 1), np.float32), True)
    assert odds.item() == pytest.approx(25 * np.log(2), rel=1e-6)


@given(drawn=logits_and_tables())
def test_a_map_of_classes_is_the_slow_one(drawn):
    logits, slopes, offsets = drawn
    voxels = logits.T.tolist()
    expected = np.array([reference.calibrated(voxel, slopes, offsets) for voxel in voxels]).T
    calibration = map_from_tables(slopes, offsets)
    calibrated = everywhere(calibration, softmax(logits))
    np.testing.assert_allclose(calibrated, expected, atol=1e-9)
    odds = torch.from_numpy(logits[1:] - logits[:1])
    label = torch.tensor([reference.label_of(voxel) for voxel in voxels])
    calibrated = calibration.to_probabilities(odds, label).numpy()
    np.testing.assert_allclose(calibrated, expected, atol=1e-8)


@given(drawn=logits_and_tables(regions=True, largest=30))
def test_a_map_of_regions_is_the_slow_one(drawn):
    odds, slopes, offsets = drawn
    voxels = odds.T.tolist()
    rows = [reference.calibrated_regions(voxel, slopes, offsets) for voxel in voxels]
    expected = np.array(rows).T
    calibration = map_from_tables(slopes, offsets, True)
    calibrated = everywhere(calibration, sigmoid(odds))
    np.testing.assert_allclose(calibrated, expected, atol=1e-8)
    calibrated = calibration.to_probabilities(torch.from_numpy(odds), torch.from_numpy(odds > 0))
    np.testing.assert_allclose(calibrated.numpy(), expected, atol=1e-8)


def test_a_matrix_of_each_label_by_hand():
    """Log-odds 1 and 0.5 under label 1: u' = (2 u_1 - u_2 + 0.1, u_2 + 0.5 v - 0.2), v = log(1 + e
    + e^0.5)."""
    v = np.log(1 + np.e + np.exp(0.5))
    unchanged = [[1, 0, 0], [0, 1, 0]]
    slopes = np.array([unchanged, [[2, -1, 0], [0, 1, 0.5]], unchanged], float)
    offsets = [[0, 0], [0.1, -0.2], [0, 0]]
    probs = softmax(np.array([[0], [1], [0.5]]))
    expected = softmax(np.array([[0], [2 * 1 - 0.5 + 0.1], [0.5 + 0.5 * v - 0.2]]))
    np.testing.assert_allclose(map_from_tables(slopes, offsets)(probs), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="labels by structures"):
        map_from_tables(slopes[:, :, :2], np.zeros((3, 2)))


def test_a_region_by_hand():
    """Log-odds 1, in: u' = 2 u - v / 2 + 0.1 with v = log(1 + e); -1, out: u' = u."""
    calibration = map_from_tables([[[1, 0]], [[2, -0.5]]], [[0], [0.1]], regions=True)
    probs = sigmoid(np.array([[1.0, -1.0]]))
    v = np.log(1 + np.e)
    expected = sigmoid(np.array([[2 - 0.5 * v + 0.1, -1.0]]))
    np.testing.assert_allclose(calibration(probs), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="above 0"):
        # falls for certain voxels
        map_from_tables([[[1, 0]], [[2, -2.5]]], [[0], [0.1]], regions=True)


@pytest.mark.parametrize("regions, num_labels", [(False, 1), (False, 3), (True, 1), (True, 2)])
def test_what_no_network_saw_stays_as_it_is(regions, num_labels):
    channels = 3
    if regions:
        channels = 2
    probs = np.zeros((channels, 4, 6), np.float32)
    probs[0] = not regions
    inside = (slice(1, 3), slice(2, 5))
    rng = np.random.default_rng(0)
    probs[(slice(None), *inside)] = rng.dirichlet(np.ones(channels), (2, 3)).transpose(2, 0, 1)
    assert network_box(probs, regions) == inside
    slopes = np.ones((num_labels, 2))
    offsets = np.full((num_labels, 2), 2.0)
    result = map_from_tables(slopes, offsets, regions)(probs)
    has_changed = (result != probs).any(0)
    assert has_changed[inside].all()
    assert has_changed.sum() == 6
    assert network_box(np.zeros((2, 3, 3)), True) is None


def test_blocks_do_not_show():
    rng = np.random.default_rng(0)
    voxels = rng.dirichlet(np.ones(3), (700, 701))  # more than a block
    probs = voxels.transpose(2, 0, 1).astype(np.float32)
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


def test_a_row_for_all_labels_has_nothing_but_own_slopes_and_offsets():
    row = [[1.0, 0.5, 0, 0], [0, 1, 0, 0]]
    assert not LogOddsMap([row, row, row]).is_affine
    with pytest.raises(ValueError, match="own ones"):
        LogOddsMap([row])


@pytest.mark.parametrize("regions", [False, True])
def test_one_row_for_all_labels_does_what_the_same_row_of_every_label_does(regions):
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 50).T
    affine = map_from_tables(
        np.full(4 if regions else 3, 0.6), np.arange(4.0 if regions else 3), regions
    )
    assert affine.is_affine
    by_label = LogOddsMap(affine.of_every_label(), regions)
    np.testing.assert_allclose(by_label(probs), affine(probs), rtol=1e-12)


def test_a_temperature_of_640_classes_takes_little_memory():
    tracemalloc.start()
    calibration = map_from_tables(np.full(639, 0.5), np.zeros(639))
    calibration(np.random.default_rng(0).dirichlet(np.ones(640), 100).T)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6  # a row for every label takes 2 GiB


@pytest.mark.parametrize("channels, regions", [(3, False), (4, True)])
def test_probabilities_of_another_number_of_channels_are_refused(channels, regions):
    expected_channels = 7 - channels
    with pytest.raises(ValueError, match=f"{expected_channels} channels"):
        identity(3, regions)(np.full((channels, 2), 0.2))
