"""Losses on a GPU are those of the CPU, in every precision, compiled and scaled."""

from __future__ import annotations

import pytest
import torch

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl_trainers.calibration_log import count_batch
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    assert_same,
    problem,
    value_and_gradient,
)

pytestmark = pytest.mark.gpu

# What a gradient is rounded to in each type; all is computed in float32.
PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}

every_loss = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("label_space", ["classes_ignore", "regions_mask"])
@every_loss
def test_value_and_gradient_are_those_of_the_cpu(name, settings, label_space, dtype, device):
    logits, target, where = problem(label_space, (5, 7, 6), seed=61)
    module = CASES[name].module(**settings, **where)
    logits = logits.to(dtype)
    assert_same(
        value_and_gradient(module, logits.to(device), target.to(device)),
        value_and_gradient(module, logits, target),
        value_tolerance=1e-5,
        gradient_tolerance=PRECISIONS[dtype],
    )


@every_loss
def test_compiled_by_the_default_backend(name, settings, device):
    torch._dynamo.reset()
    logits, target, where = problem("classes_ignore", (5, 7, 6), seed=63)
    module = CASES[name].module(**settings, **where)
    logits = logits.float().to(device)
    target = target.to(device)
    compiled = torch.compile(module, fullgraph=True)
    expected = value_and_gradient(module, logits, target)
    assert_same(value_and_gradient(compiled, logits, target), expected)


@pytest.mark.parametrize(
    "space", [LabelSpace(ignore_label=IGNORE), LabelSpace(regions=True)], ids=["classes", "regions"]
)
def test_calibration_of_a_validation_batch(space, device):
    label_space = "regions_mask" if space.regions else "classes_ignore"
    logits, target, _ = problem(label_space, (5, 7, 6), seed=67)
    with torch.autocast(device.type):
        on_device = count_batch(logits.half().to(device), target.to(device), space)
    on_cpu = count_batch(logits.half(), target, space)
    for stats, expected in zip(on_device, on_cpu):
        assert stats.nll == pytest.approx(expected.nll, rel=1e-5)
        assert stats.confidence.sum() == pytest.approx(expected.confidence.sum(), rel=1e-5)
