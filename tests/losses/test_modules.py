"""The Modules: thin, printable, picklable, and the same as the functions; torch.compile takes each
whole.

The eager backend runs what dynamo captured: this finds graph breaks without needing a compiler.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from nnunet_nacl.methods import METHODS
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    CONFIGURED_IDS,
    IGNORE,
    assert_same,
    problem,
    value_and_gradient,
)

ALL_LOSSES = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)
ALL_METHODS = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)


@ALL_LOSSES
def test_module_equals_function_and_shows_every_setting(name, settings):
    for label_space in ("classes_ignore", "regions_mask"):
        logits, target, where = problem(label_space, (4, 5))
        module = CASES[name].module(**settings, **where)
        expected = CASES[name].function(logits, target, **settings, **where)
        for made in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert made(logits, target).item() == expected.item()
            assert repr(made) == repr(module)
        shown = module.extra_repr()  # what a training log keeps of the loss
        for argument, value in {**settings, **where}.items():
            assert f"{argument}={value!r}" in shown


@ALL_METHODS
def test_unknown_settings_and_settings_without_a_name_are_refused(method):
    function = CASES[method.function].function
    module = CASES[method.function].module
    with pytest.raises(TypeError, match="colour"):
        module(colour=1)
    with pytest.raises(TypeError):
        module(0.1)
    logits, target, _ = problem("classes", (2, 2))
    with pytest.raises(TypeError):  # a third positional argument could be anything
        function(logits, target, 0.1)


def test_a_setting_can_be_changed_and_is_checked_again():
    logits, target, _ = problem("classes", (4, 5))
    module = CASES["nacl"].module()
    module.penalty_weight = 0.3
    assert (
        module(logits, target).item()
        == CASES["nacl"].function(logits, target, penalty_weight=0.3).item()
    )
    module.penalty_weight = -1
    with pytest.raises(ValueError, match="penalty_weight"):
        module(logits, target)


def compile_and_compare(name, settings, label_space, spatial):
    torch._dynamo.reset()
    logits, target, where = problem(label_space, spatial, seed=41)
    module = CASES[name].module(**settings, **where)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    logits = logits.float()
    assert_same(
        value_and_gradient(compiled, logits, target), value_and_gradient(module, logits, target)
    )
    return compiled, module, target


@ALL_LOSSES
def test_each_loss_in_one_graph(name, settings):
    label_space = "regions_mask" if settings else "classes_ignore"
    compiled, _, target = compile_and_compare(name, settings, label_space, (5, 4))
    # no branch on the data: the graph also serves a batch in which nothing is valid
    nothing = torch.full_like(target, IGNORE if label_space == "classes_ignore" else 1)
    value, gradient = value_and_gradient(compiled, torch.randn(2, 3, 5, 4), nothing)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("name", ["nacl", "svls", "focal", "ace"])
def test_shapes_that_change(name):
    """Deep supervision: from the second shape on dynamo compiles for any size."""
    compiled, module, _ = compile_and_compare(name, {}, "classes_ignore", (8, 6))
    for spatial in ((4, 3), (6, 9), (8, 6)):
        logits, target, _ = problem("classes_ignore", spatial, seed=42)
        assert_same(
            value_and_gradient(compiled, logits, target), value_and_gradient(module, logits, target)
        )
