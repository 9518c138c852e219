"""Values that a person can work out, each derived where it is tested."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_nacl import losses

LONE_CORNER = torch.tensor([[[1, 0, 0], [0, 0, 0], [0, 0, 0]]])
IGNORED_BESIDE_IT = torch.tensor([[[1, 0, 1], [1, 1, 1], [1, 1, 1]]], dtype=torch.bool)
E = math.exp(-1 / 2)  # weight of a neighbour across an edge at sigma 1; across a corner it is E^2
FULL = (1 + 2 * E) ** 2  # all nine weights: the gaussian is a product of 1D kernels (E, 1, E)
CENTRE = 4 * E + 4 * E**2  # svls: the centre weighs as much as its neighbours


@pytest.mark.parametrize(
    "padding, prior, share_of_class_1",
    [
        # the corner voxel sees 4 of 9 places; one of them, itself, is of class 1
        ("valid", "mean", 1 / 4),
        ("zeros", "mean", 1 / 9),
        ("background", "mean", 1 / 9),
        # replicated, it stands for itself and the three places that clamp to it
        ("replicate", "mean", 4 / 9),
        ("valid", "gaussian", 1 / (1 + E) ** 2),
        ("zeros", "gaussian", 1 / FULL),
        ("replicate", "gaussian", (1 + E) ** 2 / FULL),
        ("valid", "svls", CENTRE / (CENTRE + 2 * E + E**2)),
        ("background", "svls", 1 / 2),
        ("replicate", "svls", (CENTRE + 2 * E + E**2) / (2 * CENTRE)),
    ],
)
def test_proportions_at_a_corner(padding, prior, share_of_class_1):
    tau = losses.neighborhood_proportions(LONE_CORNER, 2, padding=padding, prior=prior)[0]
    assert tau[1, 0, 0].item() == pytest.approx(share_of_class_1, abs=1e-6)
    outside = {"mean": 5 / 9, "gaussian": 1 - (1 + E) ** 2 / FULL, "svls": (2 * E + 3 * E**2) / (2 * CENTRE)}[prior]
    total = 1 - outside if padding == "zeros" else 1
    assert tau[:, 0, 0].sum().item() == pytest.approx(total, abs=1e-6)
    # away from the border all paddings agree
    inside = {"mean": 1 / 9, "gaussian": E**2 / FULL, "svls": E**2 / (2 * CENTRE)}[prior]
    assert tau[1, 1, 1].item() == pytest.approx(inside, abs=1e-6)


@pytest.mark.parametrize(
    "padding, share_of_class_1, total",
    [
        ("valid", 1 / 3, 1),  # of the 4 places inside one is ignored
        ("zeros", 1 / 8, 3 / 8),  # of all 9 places one is ignored, 5 are outside
        ("background", 1 / 8, 1),
        ("replicate", 4 / 7, 1),  # the ignored voxel also stands for the place above it
    ],
)
def test_an_ignored_neighbour_weighs_nothing(padding, share_of_class_1, total):
    tau = losses.neighborhood_proportions(LONE_CORNER, 2, padding=padding, valid=IGNORED_BESIDE_IT)[0, :, 0, 0]
    assert [tau[1].item(), tau.sum().item()] == pytest.approx([share_of_class_1, total], abs=1e-6)


def test_proportions_of_any_kernel_and_of_regions_that_overlap():
    labels = torch.zeros(1, 7, 7, dtype=torch.long)
    labels[0, 3, 3] = 1
    for kernel_size in (5, (3, 5), np.int64(3), [np.int32(3), 5]):  # the svls centre weighs one half in each
        tau = losses.neighborhood_proportions(labels, 2, prior="svls", kernel_size=kernel_size, sigma=1.7)
        assert tau[0, 1, 3, 3].item() == pytest.approx(0.5, abs=1e-6)
    regions = torch.tensor([[[1, 1, 1, 0]], [[0, 1, 0, 0]]])[None, :, 0]  # (1, 2, 4): one axis
    tau = losses.neighborhood_proportions(regions, None)
    np.testing.assert_allclose(tau[0], [[1, 1, 2 / 3, 1 / 2], [1 / 2, 1 / 3, 1 / 3, 0]], atol=1e-6)


# one voxel of class 0, whose neighbourhood is itself: tau is its own label; and one inside one region, at logit 0.8
LOGITS = (0.5, -1.0, 2.0)
PROBS = [math.exp(x) / sum(math.exp(y) for y in LOGITS) for x in LOGITS]
CE, ENTROPY = -math.log(PROBS[0]), -sum(p * math.log(p) for p in PROBS)
P = 1 / (1 + math.exp(-0.8))
BCE, BINARY_ENTROPY = -math.log(P), -P * math.log(P) - (1 - P) * math.log(1 - P)
SUM, MEAN, L2, SOFTMAX, SCALED = (
    {"class_reduction": "sum"},
    {"class_reduction": "mean"},
    {"penalty": "l2"},
    {"space": "softmax"},
    {"prior_scale": 5.0},
)
REGION = {"label": 1, "logits": [0.8], "regions": True}


def of_one_voxel(loss, label=0, logits=LOGITS, **settings):
    logits = torch.tensor(logits, dtype=torch.float64)[None, :, None, None]
    return getattr(losses, loss)(logits, torch.full((1, 1, 1, 1), label), **settings).item()


@pytest.mark.parametrize(
    "loss, settings, penalty",
    [
        ("nacl", SUM, 0.5 + 1.0 + 2.0),
        ("nacl", MEAN, (0.5 + 1.0 + 2.0) / 3),
        ("nacl", SUM | SCALED | L2, 4.5**2 + 1.0 + 4.0),
        ("nacl", SUM | SOFTMAX | L2, (1 - PROBS[0]) ** 2 + PROBS[1] ** 2 + PROBS[2] ** 2),
        # distances to the highest logit: 1.5, 3, 0
        ("mbls", SUM | {"margin": 1.0}, 0.5 + 2.0),
        ("mbls", MEAN | {"margin": 2.0}, 1.0 / 3),
        ("ecp", MEAN, -ENTROPY / 3),
        ("ace", {}, (1 - PROBS[0] + PROBS[1] + PROBS[2]) / 3),
        ("nacl", REGION | SUM | L2, 0.04 / 2),  # 2 tau - 1 is 1 here
        ("nacl", REGION | MEAN | SOFTMAX | L2, (1 - (2 * P - 1)) ** 2 / 4),
        ("nacl", REGION | SUM | SCALED, 5 - 0.8),
        ("mbls", REGION | MEAN | {"margin": 0.5}, 0.15),
        ("ecp", REGION | MEAN, -BINARY_ENTROPY / 2),
        ("ace", REGION, 1 - P),
    ],
)
def test_penalties_of_one_voxel(loss, settings, penalty):
    cross_entropy = BCE if "regions" in settings else CE
    assert of_one_voxel(loss, penalty_weight=0.2, **settings) == pytest.approx(cross_entropy + 0.2 * penalty)


def test_losses_of_one_voxel():
    assert of_one_voxel("cross_entropy", label=2) == pytest.approx(-math.log(PROBS[2]))
    assert of_one_voxel("focal", gamma=2.0) == pytest.approx((1 - PROBS[0]) ** 2 * CE)
    mean_log_prob = sum(math.log(p) for p in PROBS) / 3
    assert of_one_voxel("label_smoothing", smoothing=0.3) == pytest.approx(0.7 * CE - 0.3 * mean_log_prob)
    assert of_one_voxel("svls") == pytest.approx(CE)  # nothing around it to smooth with


def test_average_calibration_error_by_bins_and_images():
    """Not of a voxel: two images in one batch do not share bins, and one that is wholly ignored does not count."""
    probs = torch.tensor([[0.92, 0.93, 0.22], [0.92, 0.22, 0.23], [0.5, 0.5, 0.5]], dtype=torch.float64)[:, None]
    inside = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])[:, None]
    target = torch.cat([inside, torch.tensor([[0, 0, 0], [0, 0, 0], [1, 1, 1]])[:, None]], 1)
    first = (abs(0.925 - 1 / 2) + 0.22) / 2  # two voxels above 0.9, one of them inside; one at 0.22, outside
    second = (1 - 0.92 + abs(0.225 - 1 / 2)) / 2
    plain, loss = (losses.ace(probs.logit(), target, penalty_weight=w, regions=True).item() for w in (0.0, 0.4))
    assert loss - plain == pytest.approx(0.4 * (first + second) / 2)


def test_a_network_that_diverged_has_no_loss_but_ends_nothing():
    logits = torch.full((1, 2, 3), math.nan, requires_grad=True)
    loss = losses.ace(logits, torch.zeros(1, 3))
    loss.backward()
    assert loss.isnan() and logits.grad.isnan().all()
