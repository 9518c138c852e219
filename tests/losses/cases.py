"""Small inputs and the table of losses that the tests of this folder share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS, Method
from tests.reference import losses as reference

Settings = dict[str, Any]
ValueAndGradient = tuple[float, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One loss: function, Module, slow reference, and for each setting a value but the default."""

    function: Callable[..., torch.Tensor]
    module: type[losses.SegmentationLoss]
    reference: Callable[..., ValueAndGradient]
    settings: Settings


OTHER_VALUES = {
    "penalty_weight": 0.3,
    "kernel_size": 5,
    "prior": "gaussian",
    "penalty": "l2",
    "space": "softmax",
    "class_reduction": "sum",
    "padding": "replicate",
    "margin": 1.0,
    "n_bins": 7,
    "smoothing": 0.15,
    "sigma": 1.5,
    "gamma": 4.5,
    "prior_scale": 1.5,
}
"""A value of each setting that is no loss's default, but for those of ``OTHER_VALUES_OF``."""

OTHER_VALUES_OF = {("SVLS", "padding"): "valid", ("SVLS", "sigma"): 3.0}


def other_settings(method: Method) -> Settings:
    """All settings of a method at values that are not their defaults."""
    settings = {}
    for name in method.settings:
        settings[name] = OTHER_VALUES_OF.get((method.name, name), OTHER_VALUES[name])
    unchanged = [name for name, value in settings.items() if value == method.defaults[name]]
    if unchanged:
        names = ", ".join(unchanged)
        raise ValueError(f"OTHER_VALUES has the default of {names} of {method.name}.")
    return settings


def case_of(method: Method) -> Case:
    """The parts of one method, found by the names in its row."""
    return Case(
        function=getattr(losses, method.function),
        module=getattr(losses, method.loss_class),
        reference=getattr(reference, method.function),
        settings=other_settings(method),
    )


CASES = {method.function: case_of(method) for method in METHODS.values()}
NAMES = list(CASES)

AT_DEFAULTS: list[tuple[str, Settings]] = [(name, {}) for name in NAMES]
AT_OTHER_SETTINGS = [(name, case.settings) for name, case in CASES.items() if case.settings]

CONFIGURED = AT_DEFAULTS + AT_OTHER_SETTINGS
"""Every loss at its defaults, and at other settings if it has any."""

CONFIGURED_IDS = [f"{name}-set" if settings else name for name, settings in CONFIGURED]

PENALTY_FORMS = [
    {"penalty": penalty, "space": space, "class_reduction": class_reduction}
    for penalty, space, class_reduction in itertools.product(
        ("l1", "l2"), ("logits", "softmax"), ("mean", "sum")
    )
]


def pairwise(**values: Sequence) -> pytest.MarkDecorator:
    """Parametrise a test by few combinations, which hold each pair of values of two factors.

    A factor is an argument of the test, or several that vary together: ``a__b`` has tuples of two
    values.
    """
    factors = [list(of_factor) for of_factor in values.values()]
    arguments_of_factor = [name.split("__") for name in values]
    parameters = []
    ids = []
    for row in _rows_with_every_pair([len(factor) for factor in factors]):
        chosen = [factor[number] for factor, number in zip(factors, row)]
        parameter = []
        for arguments, value in zip(arguments_of_factor, chosen):
            if len(arguments) > 1:
                parameter.extend(value)
            else:
                parameter.append(value)
        parameters.append(parameter)
        ids.append("-".join(map(str, chosen)))
    all_arguments = list(itertools.chain(*arguments_of_factor))
    return pytest.mark.parametrize(all_arguments, parameters, ids=ids)


def _rows_with_every_pair(sizes: list[int]) -> list[tuple[int, ...]]:
    """Few rows of one number below each size, in which any two numbers of two columns meet.

    Chosen greedily: each row is one with most pairs that no row before it holds.
    """
    pairs_of_columns = list(itertools.combinations(range(len(sizes)), 2))
    pairs_of_row = {}
    for row in itertools.product(*map(range, sizes)):
        pairs_of_row[row] = {(i, row[i], j, row[j]) for i, j in pairs_of_columns}

    missing = set().union(*pairs_of_row.values())
    rows = []
    while missing:
        best = max(pairs_of_row, key=lambda row: len(pairs_of_row[row] & missing))
        rows.append(best)
        missing -= pairs_of_row[best]
    return rows


LABEL_SPACES = ("classes", "classes_ignore", "regions", "regions_mask")
IGNORE = 7


def problem(
    label_space: str,
    spatial: tuple[int, ...],
    seed: int = 0,
    *,
    batch: int = 2,
    channels: int = 3,
    scale: float = 2.0,
) -> tuple[torch.Tensor, torch.Tensor, Settings]:
    """Random logits (float64), a target, and the arguments of a loss that name the label space.

    Three in ten voxels are ignored where the label space, one of ``LABEL_SPACES``, can say so.
    """
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, scale, (batch, channels, *spatial)))
    labels = random.integers(0, channels, (batch, 1, *spatial))
    regions = random.integers(0, 2, (batch, channels, *spatial))
    ignored = random.random((batch, 1, *spatial)) < 0.3
    if label_space == "classes":
        return logits, torch.from_numpy(labels), {}
    if label_space == "classes_ignore":
        with_ignored = np.where(ignored, IGNORE, labels)
        return logits, torch.from_numpy(with_ignored), {"ignore_label": IGNORE}
    if label_space == "regions":
        return logits, torch.from_numpy(regions), {"regions": True}
    with_mask = np.concatenate([regions, ignored], axis=1)
    return logits, torch.from_numpy(with_mask), {"regions": True}


def value_and_gradient(
    function: Callable[..., torch.Tensor],
    logits: torch.Tensor,
    target: torch.Tensor,
    **settings: Any,
) -> ValueAndGradient:
    """Loss (a Python float) and its gradient (float64 numpy) with respect to the logits."""
    leaf = logits.detach().clone().requires_grad_()
    loss = function(leaf, target, **settings)
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.dtype == logits.dtype
    return loss.item(), gradient.double().cpu().numpy()


def assert_same(
    result: ValueAndGradient,
    expected: ValueAndGradient,
    *,
    value_tolerance: float = 2e-6,
    gradient_tolerance: float = 1e-5,
    message: str = "",
) -> None:
    """Values and gradients are close; gradients relative to the largest entry of the expected."""
    value, gradient = result
    expected_value, expected_gradient = expected
    np.testing.assert_allclose(
        value, expected_value, rtol=value_tolerance, atol=value_tolerance, err_msg=message
    )
    largest = np.abs(expected_gradient).max()
    np.testing.assert_allclose(
        gradient,
        expected_gradient,
        rtol=gradient_tolerance,
        atol=gradient_tolerance * largest,
        err_msg=message,
    )
