"""Every method is whole: its row of the table, its loss, its trainers, and what the documentation
says of it.

Its slow reference, a value of each setting that is not the default, bad values, and a value that a
person can work out stand in tests/losses, whose tests name what is missing.
"""

from __future__ import annotations

import inspect
import re

import pytest

import nnunet_nacl
from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS, Method
from tests.pages import ROOT

ALL_METHODS = pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
COMMON_DEFAULTS = {"ignore_label": None, "regions": False, "check_labels": True}


def find_classes(folder: str, pattern: str) -> set[tuple[str, str]]:
    """(name of its file, its name) of each class in the files of a folder whose name is of this
    pattern."""
    classes = set()
    for path in (ROOT / folder).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        names = re.findall(rf"^class ({pattern})\(", text, re.MULTILINE)
        classes |= {(path.stem, name) for name in names}
    return classes


def test_each_loss_and_its_two_trainers_stand_in_files_of_their_names_and_in_the_table() -> None:
    in_losses = {(method.function, method.loss_class) for method in METHODS.values()}
    assert find_classes("nnunet_nacl/losses", r"\w+Loss") == in_losses | {
        ("segmentation_loss", "SegmentationLoss")
    }
    in_trainers = set()
    for method in METHODS.values():
        in_trainers.add((method.function, f"nnUNetTrainer{method.name}"))
        in_trainers.add((method.function, f"nnUNetTrainerDice{method.name}"))
    found = find_classes("trainers", r"nnUNetTrainer\w+")
    assert found - in_trainers == set()
    # nnU-Net's own trainer is that of the Dice term and cross-entropy
    assert in_trainers - found <= {("cross_entropy", "nnUNetTrainerDiceCE")}


@ALL_METHODS
def test_function_and_class_can_be_imported(method: Method) -> None:
    assert {method.function, method.loss_class} <= set(losses.__all__)
    assert getattr(losses, method.function).__module__ == f"nnunet_nacl.losses.{method.function}"
    assert method.loss_class in nnunet_nacl.__all__
    assert getattr(nnunet_nacl, method.loss_class) is getattr(losses, method.loss_class)


@ALL_METHODS
def test_function_and_class_have_the_settings_of_the_table_with_their_defaults(
    method: Method,
) -> None:
    of_function = dict(inspect.signature(getattr(losses, method.function)).parameters)
    of_class = dict(inspect.signature(getattr(losses, method.loss_class)).parameters)
    for argument in ("logits", "target"):
        assert of_function.pop(argument).default is inspect.Parameter.empty
    assert of_function == of_class  # types, too
    assert not [
        name
        for name, parameter in of_class.items()
        if parameter.annotation is inspect.Parameter.empty
    ]
    defaults = {name: parameter.default for name, parameter in of_class.items()}
    assert defaults == {**method.defaults, **COMMON_DEFAULTS}
    assert {**getattr(losses, method.loss_class)().settings, "check_labels": True} == defaults


@ALL_METHODS
def test_the_page_on_losses_and_the_reference_have_it(method: Method) -> None:
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    (row,) = re.findall(
        rf"^\| `{method.function}`, `{method.loss_class}` \|.*$", page, re.MULTILINE
    )
    defaults = row.split(" | ")[-1]
    for name, default in method.defaults.items():
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert re.search(rf"`{name}`( \w+)? {shown}\b", defaults), name
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert f"::: nnunet_nacl.losses.{method.loss_class}\n" in reference


@ALL_METHODS
def test_the_changelog_names_it(method: Method) -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    names = rf"\b({method.name}|{method.loss_class}|nnUNetTrainer{method.name})\b"
    assert re.search(names, changes), f"CHANGELOG.md says nothing of {method.name}"
