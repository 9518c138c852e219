"""Values that a person can work out, each derived where it is tested."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS

LONE_CORNER = torch.tensor([[[1, 0, 0], [0, 0, 0], [0, 0, 0]]])
IGNORED_BESIDE_IT = torch.tensor([[[1, 0, 1], [1, 1, 1], [1, 1, 1]]], dtype=torch.bool)
E = math.exp(-1 / 2)  # weight of a neighbour across an edge at sigma 1; across a corner it is E^2
FULL = (1 + 2 * E) ** 2  # all nine weights: the gaussian is a product of 1D kernels (E, 1, E)
CENTRE = 4 * E + 4 * E**2  # svls: the centre weighs as much as its neighbours

SHARE_OUTSIDE_AT_CORNER = {
    "mean": 5 / 9,
    "gaussian": 1 - (1 + E) ** 2 / FULL,
    "svls": (2 * E + 3 * E**2) / (2 * CENTRE),
}
SHARE_OF_A_CORNER = {"mean": 1 / 9, "gaussian": E**2 / FULL, "svls": E**2 / (2 * CENTRE)}


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
    total = 1 - SHARE_OUTSIDE_AT_CORNER[prior] if padding == "zeros" else 1
    assert tau[:, 0, 0].sum().item() == pytest.approx(total, abs=1e-6)
    # away from the border, where the corner is one neighbour, all paddings agree
    assert tau[1, 1, 1].item() == pytest.approx(SHARE_OF_A_CORNER[prior], abs=1e-6)


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
    tau = losses.neighborhood_proportions(LONE_CORNER, 2, padding=padding, valid=IGNORED_BESIDE_IT)
    at_corner = tau[0, :, 0, 0]
    assert at_corner[1].item() == pytest.approx(share_of_class_1, abs=1e-6)
    assert at_corner.sum().item() == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("kernel_size", [5, (3, 5), np.int64(3), [np.int32(3), 5]], ids=str)
def test_the_svls_centre_weighs_one_half_in_every_kernel(kernel_size):
    labels = torch.zeros(1, 7, 7, dtype=torch.long)
    labels[0, 3, 3] = 1
    tau = losses.neighborhood_proportions(
        labels, 2, prior="svls", kernel_size=kernel_size, sigma=1.7
    )
    assert tau[0, 1, 3, 3].item() == pytest.approx(0.5, abs=1e-6)


def test_proportions_of_regions_that_overlap():
    larger = [1, 1, 1, 0]
    smaller = [0, 1, 0, 0]
    tau = losses.neighborhood_proportions(torch.tensor([[larger, smaller]]), None)
    np.testing.assert_allclose(tau[0], [[1, 1, 2 / 3, 1 / 2], [1 / 2, 1 / 3, 1 / 3, 0]], atol=1e-6)


# One voxel of class 0, whose neighbourhood is itself: tau is its own label.
LOGITS = (0.5, -1.0, 2.0)
PROBS = torch.tensor(LOGITS, dtype=torch.float64).softmax(0).tolist()
CE = -math.log(PROBS[0])
ENTROPY = -sum(p * math.log(p) for p in PROBS)
MEAN_LOG_PROB = sum(math.log(p) for p in PROBS) / 3

# One voxel inside of one region, at logit 0.8.
P = 1 / (1 + math.exp(-0.8))
BCE = -math.log(P)
BINARY_ENTROPY = -P * math.log(P) - (1 - P) * math.log(1 - P)
REGION = {"label": 1, "logits": [0.8], "regions": True}

SUM = {"class_reduction": "sum"}
MEAN = {"class_reduction": "mean"}
L2 = {"penalty": "l2"}
SOFTMAX = {"space": "softmax"}
SCALED = {"prior_scale": 5.0}


def loss_of_one_voxel(
    name: str, label: int = 0, logits: Sequence[float] = LOGITS, **settings: object
) -> float:
    """Loss of a batch of one image of one voxel; for a region ``label`` is 1 inside."""
    batch = torch.tensor(logits, dtype=torch.float64)[None, :, None, None]
    target = torch.full((1, 1, 1, 1), label)
    return getattr(losses, name)(batch, target, **settings).item()


PENALTIES = [
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
]

WITHOUT_PENALTY = [
    ("cross_entropy", {}, CE),
    ("cross_entropy", {"label": 2}, -math.log(PROBS[2])),
    ("cross_entropy", REGION, BCE),
    ("focal", {"gamma": 2.0}, (1 - PROBS[0]) ** 2 * CE),
    ("label_smoothing", {"smoothing": 0.3}, 0.7 * CE - 0.3 * MEAN_LOG_PROB),
    ("svls", {}, CE),  # nothing around it to smooth with
]


@pytest.mark.parametrize("name, settings, penalty", PENALTIES)
def test_penalties_of_one_voxel(name, settings, penalty):
    cross_entropy = BCE if "regions" in settings else CE
    loss = loss_of_one_voxel(name, penalty_weight=0.2, **settings)
    assert loss == pytest.approx(cross_entropy + 0.2 * penalty)


@pytest.mark.parametrize("name, settings, expected", WITHOUT_PENALTY)
def test_losses_of_one_voxel(name, settings, expected):
    assert loss_of_one_voxel(name, **settings) == pytest.approx(expected)


def test_every_loss_has_a_value_that_a_person_can_work_out():
    worked_out = {name for name, *_ in PENALTIES + WITHOUT_PENALTY}
    assert worked_out == {method.function for method in METHODS.values()}


def test_average_calibration_error_by_bins_and_images():
    """Two images in one batch do not share bins, and one that is wholly ignored does not count."""
    probs = [[0.92, 0.93, 0.22], [0.92, 0.22, 0.23], [0.5, 0.5, 0.5]]
    inside = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    ignored = [[0, 0, 0], [0, 0, 0], [1, 1, 1]]
    logits = torch.tensor(probs, dtype=torch.float64).logit()[:, None]
    target = torch.stack([torch.tensor(inside), torch.tensor(ignored)], dim=1)
    # two voxels above 0.9, one of them inside; one at 0.22, outside
    first = (abs(0.925 - 1 / 2) + 0.22) / 2
    second = (1 - 0.92 + abs(0.225 - 1 / 2)) / 2
    without_penalty = losses.ace(logits, target, penalty_weight=0.0, regions=True)
    loss = losses.ace(logits, target, penalty_weight=0.4, regions=True)
    assert (loss - without_penalty).item() == pytest.approx(0.4 * (first + second) / 2)


def test_a_network_that_diverged_has_no_loss_but_ends_nothing():
    logits = torch.full((1, 2, 3), math.nan, requires_grad=True)
    loss = losses.ace(logits, torch.zeros(1, 3))
    loss.backward()
    assert loss.isnan() and logits.grad.isnan().all()
