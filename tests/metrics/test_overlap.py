"""Overlap by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.metrics.overlap import count_overlap


def test_overlap_counts_valid_voxels_only():
    truth = np.array([1, 1, 0, 0, 1], bool)
    predicted = np.array([1, 0, 1, 0, 1], bool)
    valid = np.array([1, 1, 1, 1, 0], bool)
    overlap = count_overlap(truth, predicted, valid)
    assert (overlap.tp, overlap.fp, overlap.fn, overlap.tn) == (1, 1, 1, 1)
    assert overlap.dice == 0.5
    assert overlap.iou == pytest.approx(1 / 3)


def test_a_structure_that_is_in_neither_segmentation_has_no_dice():
    nothing = np.zeros(5, bool)
    assert math.isnan(count_overlap(nothing, nothing).dice)


def test_masks_of_different_shapes_are_named():
    with pytest.raises(ValueError, match=r"one shape, got \(3,\), \(4,\)"):
        count_overlap(np.ones(3, bool), np.ones(4, bool))
