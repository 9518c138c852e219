"""The Modules: thin, printable, picklable, and the same as the functions; torch.compile takes each whole.

The eager backend runs what dynamo captured: this finds graph breaks without needing a compiler.
"""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

from nnunet_nacl.methods import METHODS
from tests.losses.cases import CASES, CONFIGURED, CONFIGURED_IDS, IGNORE, assert_same, problem, value_and_gradient

ALL_LOSSES = pytest.mark.parametrize("name, settings", CONFIGURED, ids=CONFIGURED_IDS)


@ALL_LOSSES
def test_module_equals_function_and_shows_every_setting(name, settings):
    for label_space in ("classes_ignore", "regions_mask"):
        logits, target, where = problem(label_space, (4, 5))
        module = CASES[name].module(**settings, **where)
        expected = CASES[name].function(logits, target, **settings, **where)
        for made in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert made(logits, target).item() == expected.item()
            assert repr(made) == repr(module)
        for argument, value in {**settings, **where}.items():  # what a training log keeps of the loss
            assert f"{argument}={value}" in module.extra_repr().replace("'", "")


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_function_and_module_show_their_defaults_which_are_those_of_the_table(method):
    function, module = CASES[method.function][:2]
    shown = [
        {name: parameter.default for name, parameter in inspect.signature(it).parameters.items()}
        for it in (function, module)
    ]
    common = {"ignore_label": None, "regions": False, "check_labels": True}
    assert shown[0].pop("logits") is shown[0].pop("target") is inspect.Parameter.empty
    assert shown[0] == shown[1] == {**method.defaults, **common}
    with pytest.raises(TypeError, match="colour"):
        module(colour=1)
    with pytest.raises(TypeError):  # a third positional argument could be anything
        function(*problem("classes", (2, 2))[:2], 0.1)


def compile_and_compare(name, settings, label_space, spatial):
    torch._dynamo.reset()
    logits, target, where = problem(label_space, spatial, seed=41)
    module = CASES[name].module(**settings, **where)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert_same(
        value_and_gradient(compiled, logits.float(), target), value_and_gradient(module, logits.float(), target)
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
        assert_same(value_and_gradient(compiled, logits, target), value_and_gradient(module, logits, target))
