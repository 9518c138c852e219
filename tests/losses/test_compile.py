"""torch.compile takes each loss whole, and changes nothing.

The eager backend runs what dynamo captured: this finds graph breaks without needing a compiler.
"""

from __future__ import annotations

import pytest
import torch

from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    PADDINGS,
    PRIORS,
    assert_same,
    problem,
    value_and_gradient,
)


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_compiles(name, settings, label_space, spatial=(5, 4), dtype=torch.float32):
    logits, target, where = problem(label_space, spatial, seed=41)
    logits = logits.to(dtype)
    module = CASES[name].module(**settings, **where)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    expected = value_and_gradient(module, logits, target)
    assert_same(value_and_gradient(compiled, logits, target), expected)
    with torch.no_grad():
        assert compiled(logits, target).item() == pytest.approx(expected[0], rel=1e-6)
    return compiled, module, where


@pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
def test_each_loss_in_one_graph(name, settings):
    label_space = "regions_mask" if settings else "classes_ignore"
    compiled, _, _ = assert_compiles(name, settings, label_space)
    # no branch on the data: the graph also serves a batch in which nothing is valid
    logits, target, _ = problem(label_space, (5, 4), seed=41)
    nothing = torch.full_like(target, IGNORE if label_space == "classes_ignore" else 1)
    value, gradient = value_and_gradient(compiled, logits.float(), nothing)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("prior, padding", list(zip((*PRIORS, "mean"), PADDINGS)))
def test_nacl_with_every_prior_and_padding_in_3d(prior, padding):
    assert_compiles("nacl", {"prior": prior, "padding": padding}, "classes_ignore", spatial=(3, 4, 3))


@pytest.mark.parametrize("name", ["nacl", "svls", "focal"])
def test_shapes_that_change(name):
    """Deep supervision: from the second shape on dynamo compiles for any size."""
    compiled, module, where = assert_compiles(name, {}, "classes_ignore", spatial=(8, 6))
    for spatial in ((4, 3), (6, 9), (8, 6)):
        logits, target, _ = problem("classes_ignore", spatial, seed=42)
        assert_same(value_and_gradient(compiled, logits, target), value_and_gradient(module, logits, target))
