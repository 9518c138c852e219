"""Which slice is shown, and which part of it."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.cases.kept_slices import slicing_axis
from nnunet_nacl.show.slices import choose_slice, crop_box


@pytest.mark.parametrize(
    ("spacing_mm", "preferred", "axis"),
    [
        ((3, 1, 1), 2, 0),
        ((1, 1, 3), 0, 2),
        ((1, 1, 1), 0, 0),
        ((1, 1, 1), 1, 1),
        ((1, 1.005, 1), 0, 0),
        ((1, 2, 2), 0, 1),
        ((999, 1, 1), 1, 0),
    ],
)
def test_slices_lie_across_the_largest_spacing(spacing_mm, preferred, axis):
    assert slicing_axis(spacing_mm, {"transpose_forward": [preferred, 1, 2]}) == axis


@pytest.fixture
def truth() -> np.ndarray:
    array = np.zeros((5, 6, 7), np.int16)
    array[1:4, 2:5, 2:5] = 1
    array[3, 1:6, 1:6] = 1
    return array


def test_the_slice_where_methods_differ_most(truth):
    other = truth.copy()
    other[2, 0, :3] = 1
    other[4, 0, 0] = 1
    choice = choose_slice(truth, np.ones(truth.shape, bool), [truth, truth, other], 0)
    assert (choice.index, choice.n_differing) == (2, 3) and "differ most" in choice.reason
    assert choose_slice(truth, np.ones(truth.shape, bool), [other, truth], 2).index == 0


def test_ignored_voxels_do_not_count(truth):
    other, valid = truth.copy(), np.ones(truth.shape, bool)
    other[2, 0, :3], valid[2] = 1, False
    other[4, 0, 0] = 1
    assert choose_slice(truth, valid, [truth, other], 0).index == 4


def test_where_all_agree_the_errors_decide_then_the_structures(truth):
    valid, wrong = np.ones(truth.shape, bool), truth.copy()
    wrong[4, 0, :] = 1
    choice = choose_slice(truth, valid, [wrong, wrong], 0)
    assert choice.index == 4 and choice.n_differing == 0 and "agree with each other" in choice.reason
    assert choose_slice(truth, valid, [truth, truth], 0).index == 3
    assert choose_slice(truth, valid, [], 0).index == 3
    assert choose_slice(truth * 0, valid, [truth * 0], 0).index == 2


def test_the_part_that_is_shown_holds_all_that_is_occupied():
    occupied = np.zeros((300, 400), bool)
    occupied[100:160, 350:395] = True
    rows, columns = crop_box(occupied)
    assert (rows.start, rows.stop) == (70, 190) and (columns.start, columns.stop) == (327, 400)
    assert occupied[rows, columns].sum() == occupied.sum()
    occupied[:] = False
    occupied[5, 5] = True
    assert crop_box(occupied) == (slice(0, 29), slice(0, 29))
    assert crop_box(np.zeros((300, 400), bool)) == (slice(0, 300), slice(0, 400))
    assert crop_box(np.ones((40, 30), bool)) == (slice(0, 40), slice(0, 30))
