"""Every loss gives what the published code gave (tests/data/README.md): values and gradients."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import value_and_gradient

AUTHORS_MEAN = {"prior": "mean", "padding": "background"}
# "gaussian" in their words
AUTHORS_GAUSSIAN = {"prior": "svls", "sigma": 1.0, "padding": "replicate"}


def authors_losses() -> dict[str, tuple[str, dict[str, Any], str]]:
    """By key in the file of their outputs: our function, its settings, which of their inputs."""
    cases = {
        "nacl_mean_k5": ("nacl", {**AUTHORS_MEAN, "kernel_size": 5}, "2d"),
        "nacl_gaussian_sigma2": ("nacl", {**AUTHORS_GAUSSIAN, "sigma": 2.0}, "2d"),
        "mbls_m5": ("mbls", {"margin": 5.0}, "2d"),
        "mbls_m1": ("mbls", {"margin": 1.0}, "2d"),
        "focal_gamma0": ("focal", {"gamma": 0.0}, "2d"),
        "focal_gamma2": ("focal", {"gamma": 2.0}, "2d"),
        "focal_gamma3": ("focal", {"gamma": 3.0}, "2d"),
        "ls_alpha0.1": ("label_smoothing", {"smoothing": 0.1}, "2d"),
        "ls_alpha0.3": ("label_smoothing", {"smoothing": 0.3}, "2d"),
        "ecp_alpha0.1": ("ecp", {"penalty_weight": 0.1}, "2d"),
        "ecp_alpha1": ("ecp", {"penalty_weight": 1.0}, "2d"),
        "svls_2d_sigma1": ("svls", {"sigma": 1.0}, "2d"),
        "svls_2d_sigma2": ("svls", {"sigma": 2.0}, "2d"),
        "svls_3d_sigma1": ("svls", {"sigma": 1.0}, "3d"),
        "svls_3d_sigma2": ("svls", {"sigma": 2.0}, "3d"),
    }
    for penalty, space in itertools.product(("l1", "l2"), ("logits", "softmax")):
        form = {"penalty": penalty, "space": space}
        cases[f"nacl_mean_{penalty}_{space}"] = ("nacl", AUTHORS_MEAN | form, "2d")
        cases[f"nacl_gaussian_{penalty}_{space}"] = ("nacl", AUTHORS_GAUSSIAN | form, "2d")
    return cases


AUTHORS_LOSSES = authors_losses()


@functools.cache
def load_outputs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "data" / "authors_code_outputs.npz") as archive:
        return dict(archive)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("key", AUTHORS_LOSSES)
def test_loss_and_gradient(key, dtype):
    outputs = load_outputs()
    name, settings, dims = AUTHORS_LOSSES[key]
    logits = torch.from_numpy(outputs[f"logits_{dims}"]).to(dtype)
    target = torch.from_numpy(outputs[f"labels_{dims}"])[:, None]
    value, gradient = value_and_gradient(getattr(losses, name), logits, target, **settings)
    np.testing.assert_allclose(value, outputs[f"{key}/loss"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(gradient, outputs[f"{key}/grad"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("spatial", [(7, 6), (5, 6, 4)], ids=["2d", "3d"])
def test_nacl_with_zeros_padding_is_monai(spatial, kernel_size, distance):
    """MONAI's NACLLoss is our NACL with `zeros` padding and the mean prior."""
    monai_losses = pytest.importorskip("monai.losses")
    torch.manual_seed(len(spatial))
    logits = torch.randn(2, 4, *spatial) * 3
    labels = torch.randint(0, 4, (2, *spatial))
    theirs = monai_losses.NACLLoss(
        classes=4, dim=len(spatial), kernel_size=kernel_size, distance_type=distance, alpha=0.3
    )
    expected = value_and_gradient(theirs, logits, labels)
    ours = value_and_gradient(
        losses.nacl,
        logits,
        labels,
        kernel_size=kernel_size,
        penalty=distance,
        penalty_weight=0.3,
        padding="zeros",
    )
    np.testing.assert_allclose(ours[0], expected[0], rtol=2e-6)
    np.testing.assert_allclose(ours[1], expected[1], atol=2e-8, rtol=2e-6)
