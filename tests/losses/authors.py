"""The published code's outputs (tests/data/README.md) and which loss and settings each belongs to."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

AUTHORS_MEAN = {"prior": "mean", "padding": "background"}
AUTHORS_GAUSSIAN = {"prior": "svls", "sigma": 1.0, "padding": "replicate"}  # "gaussian" in their words
AUTHORS_PRIORS = {"tau_mean": AUTHORS_MEAN, "tau_gaussian": AUTHORS_GAUSSIAN}

# key -> name of the function, settings, inputs
AUTHORS_LOSSES = {
    "nacl_mean_k5": ("nacl", {**AUTHORS_MEAN, "kernel_size": 5}, "2d"),
    "nacl_gaussian_sigma2": ("nacl", {**AUTHORS_GAUSSIAN, "sigma": 2.0}, "2d"),
}
for _penalty in ("l1", "l2"):
    for _space in ("logits", "softmax"):
        for _prior, _settings in (("mean", AUTHORS_MEAN), ("gaussian", AUTHORS_GAUSSIAN)):
            AUTHORS_LOSSES[f"nacl_{_prior}_{_penalty}_{_space}"] = (
                "nacl",
                {**_settings, "penalty": _penalty, "space": _space},
                "2d",
            )
for _margin in (5, 1):
    AUTHORS_LOSSES[f"mbls_m{_margin}"] = ("mbls", {"margin": float(_margin)}, "2d")
for _gamma in (0, 2, 3):
    AUTHORS_LOSSES[f"focal_gamma{_gamma}"] = ("focal", {"gamma": float(_gamma)}, "2d")
for _alpha in (0.1, 0.3):
    AUTHORS_LOSSES[f"ls_alpha{_alpha}"] = ("label_smoothing", {"smoothing": _alpha}, "2d")
for _alpha in (0.1, 1):
    AUTHORS_LOSSES[f"ecp_alpha{_alpha}"] = ("ecp", {"penalty_weight": float(_alpha)}, "2d")
for _sigma in (1, 2):
    for _dims in ("2d", "3d"):
        AUTHORS_LOSSES[f"svls_{_dims}_sigma{_sigma}"] = ("svls", {"sigma": float(_sigma)}, _dims)


@functools.cache
def load_outputs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "data" / "authors_code_outputs.npz") as archive:
        return dict(archive)
