"""Calibration of the chosen label: a closed form, and equality with ECE where the most probable label is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.metrics import chosen_ece, count_chosen, count_masks, ece

REGIONS = ((1, 2), 2)


def test_confidence_is_the_probability_of_the_label_that_was_chosen():
    # four voxels chosen as class 1 with p_1 = 0.4, one of them right: |1/4 - 0.4|; the argmax is background, p_0 = 0.6
    probs = np.stack([np.full(4, 0.6), np.full(4, 0.4)])
    stats = count_chosen(probs, np.ones(4, int), np.array([1, 0, 0, 0]))
    assert chosen_ece(stats) == pytest.approx(0.15)
    assert stats.count.sum() == 4 and stats.correct.sum() == 1 and stats.confidence.sum() == pytest.approx(1.6)


@pytest.mark.parametrize("regions", [None, REGIONS])
def test_equals_ece_where_the_most_probable_label_is_chosen(regions):
    rng = np.random.default_rng(0)
    shape = (50, 60, 30)  # more than one block
    probs = rng.dirichlet([1.0, 0.5, 0.4], shape).transpose(3, 0, 1, 2).astype(np.float32)
    truth, segmentation = rng.integers(0, 3, shape), probs.argmax(0)
    target = truth
    if regions:
        probs = np.stack([probs[1] + probs[2], probs[2]]).clip(0, 1)
        segmentation = np.select([probs[1] > 0.5, probs[0] > 0.5], [2, 1], 0)
        target = np.stack([np.isin(truth, values) for values in regions])
    mask = rng.random(shape) < 0.5
    expected = count_masks(probs, target, extra_masks={"mine": mask}, regions=regions is not None)
    found = count_chosen(probs, segmentation, truth, regions=regions)
    assert chosen_ece(found) == pytest.approx(ece(expected["all"]), rel=1e-6)
    assert found.count.tolist() == expected["all"].count.tolist()
    inside = count_chosen(probs, segmentation, np.where(mask, truth, 9), mask=mask, regions=regions)
    assert chosen_ece(inside) == pytest.approx(ece(expected["mine"]), rel=1e-6)
    outside = count_chosen(probs, segmentation, truth, mask=~mask, regions=regions)
    assert chosen_ece(inside + outside) == pytest.approx(chosen_ece(found), rel=1e-9)


def test_no_voxel_gives_no_number():
    stats = count_chosen(np.full((2, 3), 0.5), np.zeros(3, int), np.zeros(3, int), mask=np.zeros(3, bool))
    assert np.isnan(chosen_ece(stats))


def test_a_label_that_is_no_class_is_named():
    with pytest.raises(ValueError, match="label 2"):
        count_chosen(np.full((2, 3), 0.5), np.full(3, 2), np.zeros(3, int))
