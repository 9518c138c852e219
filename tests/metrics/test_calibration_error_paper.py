"""The published evaluation against a slow transcription of its definition."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.metrics import count_masks, count_overlap
from nnunet_nacl.metrics.calibration_error import paper_mean, paper_scores
from nnunet_nacl.metrics.surface import surface_distances, surface_voxels
from tests.metrics.test_counting import random_classes
from tests.reference.metrics import class_metrics, distance_to_nearest, weighted_gap


def package(probs, truth):
    segmentation = probs.argmax(0)
    structures = range(1, probs.shape[0])
    overlaps = {str(k): count_overlap(truth == k, segmentation == k) for k in structures}
    distances = {str(k): surface_distances(truth == k, segmentation == k).hausdorff() for k in structures}
    return paper_scores(overlaps, distances, count_masks(probs, truth)["foreground"], int(truth.max()))


def slow(probs, truth):
    segmentation, dsc, distance = probs.argmax(0), {}, {}
    for k in range(1, probs.shape[0]):
        a, b = truth == k, segmentation == k
        dsc[str(k)] = 1.0 if not a.any() else round(2 * (a & b).sum() / (a.sum() + b.sum()), 4)
        distance[str(k)] = 0.0
        if a.any() and b.any():
            s, t = surface_voxels(a), surface_voxels(b)
            both = np.concatenate([distance_to_nearest(s, t, 1.0), distance_to_nearest(t, s, 1.0)])
            distance[str(k)] = float(np.percentile(both, 95))
    foreground = truth > 0
    ece = round(class_metrics(probs, truth, foreground)["ECE"], 4)
    chosen = [p.tolist() for p in probs[:, foreground]]
    labels = truth[foreground]
    errors = [weighted_gap(chosen[k], (labels == k).tolist()) for k in range(int(truth.max()) + 1)]
    return dsc, distance, ece, round(sum(errors) / len(errors), 4)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_definition(seed):
    probs, truth = random_classes(seed, 4, (5, 6, 7), 3.0)
    truth[truth == 3 - seed % 2] = 0  # absent in the truth: the largest label, or one below it
    if seed == 2:
        probs = np.roll(probs, 0, axis=0)
        probs[2] = 0  # never predicted
        probs /= probs.sum(0)
    scores = package(probs, truth)
    dsc, distance, ece, cece = slow(probs, truth)
    assert scores.dsc == dsc and scores.hd95_voxels == pytest.approx(distance)
    assert scores.ece == ece and scores.cece == cece


def test_mean_leaves_out_cases_without_foreground():
    probs, truth = random_classes(0, 3, (4, 5, 6), 3.0)
    cases = [package(probs, truth), package(probs, np.zeros_like(truth))]
    assert np.isnan(cases[1].ece) and cases[1].dsc == {"1": 1.0, "2": 1.0}
    mean = paper_mean(cases)
    assert mean.ece == cases[0].ece and mean.dsc["1"] == (cases[0].dsc["1"] + 1) / 2
    with pytest.raises(ValueError, match="at least one"):
        paper_mean([])
