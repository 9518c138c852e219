"""The confidence that is measured is that of the labels that are delivered, most probable or not."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.numbers.calibration_error import ece
from nnunet_nacl.numbers.counting import count_masks


def by_hand(probs, truth, labels, where, n_bins=15):
    """Sum over bins of |sum (confidence - right)| / N, voxel by voxel."""
    gaps = np.zeros(n_bins)
    for index in zip(*np.nonzero(where)):
        confidence = float(probs[(labels[index], *index)])
        gaps[max(0, int(np.ceil(confidence * n_bins)) - 1)] += confidence - (labels[index] == truth[index])
    return np.abs(gaps).sum() / max(1, where.sum())


@pytest.mark.parametrize("plain", [0.0, 0.9], ids=["no plain background", "much plain background"])
def test_any_labels_as_voxel_by_voxel(plain):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4) / 2, (20, 30)).transpose(2, 0, 1)
    truth, labels = rng.integers(0, 4, (2, 20, 30))
    sure = rng.random((20, 30)) < plain
    probs[:, sure] = np.array([0.9997, 1e-4, 1e-4, 1e-4])[:, None]
    truth[sure] = 0
    labels[sure & (rng.random((20, 30)) < 0.9)] = 0  # in some places a label stands where the network is sure of none
    found = count_masks(probs, truth, segmentation=labels)
    masks = {"all": truth >= 0, "foreground": truth > 0, "predicted": labels > 0, "union": (truth > 0) | (labels > 0)}
    for name, where in masks.items():
        assert ece(found[name]) == pytest.approx(by_hand(probs, truth, labels, where), abs=1e-6), name
        assert found[name].n_voxels == where.sum()


def test_regions_are_in_or_out_as_delivered():
    """A voxel that is delivered outside a region of probability .8 is sure by .2."""
    probs = np.array([[0.8, 0.8], [0.1, 0.6]])
    truth, labels = np.array([[1, 0], [0, 1]]), np.array([[1, 0], [0, 1]])
    found = count_masks(probs, truth, segmentation=labels, regions=True)["all"]
    assert found.confidence.sum() == pytest.approx(0.8 + 0.2 + 0.9 + 0.6)
    assert found.correct.sum() == 4


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match="3"):
        count_masks(np.full((2, 4), 0.5), np.zeros(4, int), segmentation=np.full(4, 3))
