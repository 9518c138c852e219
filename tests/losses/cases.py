"""Small inputs and the table of losses that the tests of this folder share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS, Method
from tests.reference import losses as reference


class Case(NamedTuple):
    """One loss: function, Module, slow reference, and a setting of each argument that is not the default."""

    function: Callable
    module: type
    reference: Callable
    settings: dict


# A value of each argument that is no loss's default; other numbers are half as large again as their default.
OTHER_VALUES = {
    "penalty_weight": 0.3,
    "kernel_size": 5,
    "prior": "gaussian",
    "penalty": "l2",
    "space": "softmax",
    "class_reduction": "sum",
    "margin": 1.0,
    "n_bins": 7,
}


def other_settings(method: Method) -> dict:
    """All settings of a method at values that are not their defaults."""
    settings = {}
    for name, default in method.defaults.items():
        padding = "valid" if default == "replicate" else "replicate"
        settings[name] = padding if name == "padding" else OTHER_VALUES.get(name, default)
        settings[name] = 1.5 * default if settings[name] == default else settings[name]
    return settings


CASES = {
    method.function: Case(
        getattr(losses, method.function),
        getattr(losses, method.module),
        getattr(reference, method.function),
        other_settings(method),
    )
    for method in METHODS.values()
}
NAMES = list(CASES)

# every loss at its defaults and at other settings
CONFIGURED = [(name, {}) for name in NAMES] + [(name, case.settings) for name, case in CASES.items() if case.settings]
CONFIGURED_IDS = [name if not settings else f"{name}-set" for name, settings in CONFIGURED]

PRIORS = ("mean", "gaussian", "svls")
PADDINGS = ("valid", "background", "zeros", "replicate")
PENALTY_FORMS = [
    {"penalty": penalty, "space": space, "class_reduction": class_reduction}
    for penalty, space, class_reduction in itertools.product(("l1", "l2"), ("logits", "softmax"), ("mean", "sum"))
]


def pairwise(**values: Sequence) -> pytest.MarkDecorator:
    """Parametrises by few combinations that hold every pair of two arguments' values; ``a__b`` are two arguments."""
    factors = [range(len(of_one)) for of_one in values.values()]
    columns = list(itertools.combinations(range(len(factors)), 2))
    wanted = {(i, a, j, b) for i, j in columns for a in factors[i] for b in factors[j]}
    all_of_them, chosen = list(itertools.product(*factors)), []
    pairs = {row: {(i, row[i], j, row[j]) for i, j in columns} for row in all_of_them}
    while wanted:
        chosen.append(max(all_of_them, key=lambda row: len(pairs[row] & wanted)))
        wanted -= pairs[chosen[-1]]
    names = [name.split("__") for name in values]
    rows = [[of_one[i] for of_one, i in zip(values.values(), row)] for row in chosen]
    flat = [[x for name, x in zip(names, row) for x in (x if len(name) > 1 else (x,))] for row in rows]
    return pytest.mark.parametrize(
        [n for name in names for n in name], flat, ids=["-".join(map(str, row)) for row in rows]
    )


LABEL_SPACES = ("classes", "classes_ignore", "regions", "regions_mask")
IGNORE = 7


def problem(
    label_space: str, spatial: tuple[int, ...], seed: int = 0, *, batch: int = 2, channels: int = 3, scale: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Random float64 logits, a target of which a third may be ignored, and the arguments that name the label space."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, scale, (batch, channels, *spatial)))
    labels = random.integers(0, channels, (batch, 1, *spatial))
    regions = random.integers(0, 2, (batch, channels, *spatial))
    ignored = random.random((batch, 1, *spatial)) < 0.3
    if label_space == "classes":
        return logits, torch.from_numpy(labels), {}
    if label_space == "classes_ignore":
        return logits, torch.from_numpy(np.where(ignored, IGNORE, labels)), {"ignore_label": IGNORE}
    if label_space == "regions":
        return logits, torch.from_numpy(regions), {"regions": True}
    return logits, torch.from_numpy(np.concatenate([regions, ignored], axis=1)), {"regions": True}


def value_and_gradient(function: Callable, logits: torch.Tensor, target: torch.Tensor, **settings):
    """Loss (a Python float) and its gradient (float64 numpy) with respect to the logits."""
    leaf = logits.detach().clone().requires_grad_()
    loss = function(leaf, target, **settings)
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.dtype == logits.dtype
    return loss.item(), gradient.double().cpu().numpy()


def assert_same(result, expected, *, value_tolerance=2e-6, gradient_tolerance=1e-5, message=""):
    """Both a (value, gradient) pair; the gradient is compared relative to its own largest entry."""
    np.testing.assert_allclose(result[0], expected[0], rtol=value_tolerance, atol=value_tolerance, err_msg=message)
    largest = np.abs(expected[1]).max()
    np.testing.assert_allclose(
        result[1], expected[1], rtol=gradient_tolerance, atol=gradient_tolerance * largest, err_msg=message
    )
