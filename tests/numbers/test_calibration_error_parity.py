"""Against torchmetrics, scikit-learn, medpy and the published code's own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_nacl.numbers import cece, count_masks, ece, mce
from nnunet_nacl.numbers.surface import surface_distances
from tests.numbers.test_counting import random_classes

DATA = Path(__file__).parents[1] / "data" / "authors_code_outputs.npz"


@pytest.mark.parametrize("mask", ["foreground", "all"])
def test_authors_evaluation(mask):
    data = np.load(DATA)
    probs = torch.softmax(torch.as_tensor(data["eval_logits"]), 1).transpose(0, 1)
    labels = data["eval_labels"]
    stats = count_masks(probs, labels)[mask]
    assert ece(stats) == pytest.approx(float(data[f"eval/ece_{mask}"]), abs=1e-6)
    classes = int(labels.max()) + 1
    assert cece(stats, num_classes=classes) == pytest.approx(float(data[f"eval/cece_{mask}"]), abs=1e-6)


@pytest.mark.parametrize("sharpness", [0.0, 3.0, 8.0])
def test_torchmetrics(sharpness):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probs, truth = random_classes(2, 5, (12, 13, 14), sharpness)
    probs = probs * 0.98 + 0.004  # torchmetrics gives p = 1 a bin of its own: stay off the edges
    flat, labels = torch.as_tensor(probs.reshape(5, -1).T), torch.as_tensor(truth.ravel())
    stats = count_masks(probs, truth)["all"]
    for norm, metric in (("l1", ece), ("max", mce)):
        expected = functional.multiclass_calibration_error(flat, labels, 5, n_bins=15, norm=norm)
        assert metric(stats) == pytest.approx(float(expected), abs=1e-6)
    errors = []
    for k in range(5):  # its binary error takes the probability as the confidence and the label as the outcome
        errors.append(float(functional.binary_calibration_error(flat[:, k], labels == k, n_bins=15, norm="l1")))
    assert cece(stats, reduction="sum") == pytest.approx(sum(errors), abs=1e-6)


def blob(rng, shape, radius):
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = rng.uniform(-0.4, 0.4, size=(len(shape),) + (1,) * len(shape))
    return (((grid - centre) ** 2).sum(0) < radius**2) ^ (rng.random(shape) < 0.02)


@pytest.mark.parametrize("shape", [(14, 20, 17), (25, 31), (1, 12, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_medpy_distances(shape, seed):
    binary = pytest.importorskip("medpy.metric.binary")
    rng = np.random.default_rng(seed)
    truth, predicted = blob(rng, shape, 0.6), blob(rng, shape, 0.5)
    spacing = tuple(rng.uniform(0.4, 3.0, len(shape)))
    distances = surface_distances(truth, predicted, spacing)
    squeezed = [a for a, n in enumerate(shape) if n > 1]  # medpy takes a single slice for surface all over
    spacing = [spacing[a] for a in squeezed]
    truth, predicted = truth.squeeze(), predicted.squeeze()
    assert distances.hausdorff(95) == pytest.approx(binary.hd95(predicted, truth, spacing), abs=1e-9)
    assert distances.hausdorff(100) == pytest.approx(binary.hd(predicted, truth, spacing), abs=1e-9)
    assert distances.assd == pytest.approx(binary.assd(predicted, truth, spacing), abs=1e-9)
