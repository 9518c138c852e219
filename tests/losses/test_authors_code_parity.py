"""Every loss gives what the published code gave (tests/data/README.md): values and gradients."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from tests.losses.cases import value_and_gradient

AUTHORS_MEAN = {"prior": "mean", "padding": "background"}
AUTHORS_GAUSSIAN = {"prior": "svls", "sigma": 1.0, "padding": "replicate"}  # "gaussian" in their words
# key -> name of the function, settings, inputs
AUTHORS_LOSSES = {
    "nacl_mean_k5": ("nacl", {**AUTHORS_MEAN, "kernel_size": 5}, "2d"),
    "nacl_gaussian_sigma2": ("nacl", {**AUTHORS_GAUSSIAN, "sigma": 2.0}, "2d"),
}
for _penalty, _space in itertools.product(("l1", "l2"), ("logits", "softmax")):
    for _prior, _settings in (("mean", AUTHORS_MEAN), ("gaussian", AUTHORS_GAUSSIAN)):
        _settings = {**_settings, "penalty": _penalty, "space": _space}
        AUTHORS_LOSSES[f"nacl_{_prior}_{_penalty}_{_space}"] = ("nacl", _settings, "2d")
for _key, _name, _setting, _values in (
    ("mbls_m", "mbls", "margin", (5, 1)),
    ("focal_gamma", "focal", "gamma", (0, 2, 3)),
    ("ls_alpha", "label_smoothing", "smoothing", (0.1, 0.3)),
    ("ecp_alpha", "ecp", "penalty_weight", (0.1, 1)),
    ("svls_2d_sigma", "svls", "sigma", (1, 2)),
    ("svls_3d_sigma", "svls", "sigma", (1, 2)),
):
    for _value in _values:
        AUTHORS_LOSSES[f"{_key}{_value}"] = (_name, {_setting: float(_value)}, "3d" if "3d" in _key else "2d")


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
        losses.nacl, logits, labels, kernel_size=kernel_size, penalty=distance, penalty_weight=0.3, padding="zeros"
    )
    np.testing.assert_allclose(ours[0], expected[0], rtol=2e-6)
    np.testing.assert_allclose(ours[1], expected[1], atol=2e-8, rtol=2e-6)
