"""A predictor whose probabilities are true by construction: where its error vanishes, and where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_nacl.metrics import count_masks, ece


@pytest.fixture(scope="module")
def stats():
    rng = np.random.default_rng(0)
    shape = (60, 70, 80)
    logits = rng.normal(size=(3, *shape)) * 2 + np.array([3.0, 0, 0]).reshape(3, 1, 1, 1)
    probs = torch.softmax(torch.as_tensor(logits), 0).numpy()
    truth = (rng.random(shape) > probs.cumsum(0)[:2]).sum(0)
    return count_masks(probs, truth, extra_masks={"independent": rng.random(shape) < 0.3})


@pytest.mark.parametrize("mask", ["all", "independent", "predicted"])
def test_error_vanishes_where_the_mask_does_not_look_at_the_truth(stats, mask):
    # chance moves each of some ten bins by at most a few standard deviations, 1 / sqrt(voxels) over all
    assert ece(stats[mask]) < 4 / np.sqrt(stats[mask].n_voxels)


@pytest.mark.parametrize("mask", ["foreground", "union"])
def test_error_stays_where_the_mask_is_chosen_by_the_truth(stats, mask):
    assert ece(stats[mask]) > 0.1
