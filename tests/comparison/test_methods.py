"""How trainers are named on the command line, and called in tables and figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_nacl.comparison.methods import DEFAULT_LABEL, label_methods, read_method, short_labels
from nnunet_nacl.settings import FINAL, TUNED
from nnunet_nacl.utilities.errors import UserError


def read_models(arguments):
    return label_methods([read_method(argument, is_model=True) for argument in arguments])


@pytest.mark.parametrize(
    ("trainers", "labels"),
    [
        (
            ["nnUNetTrainerNACL_lambda0p2_k5_adam", "nnUNetTrainerCE_adam"],
            ["NACL lambda0p2 k5", "CE"],
        ),
        (
            ["nnUNetTrainer_250epochs", "MyTrainer", "nnUNetTrainer"],
            ["250epochs", "MyTrainer", DEFAULT_LABEL],
        ),
        (["nnUNetTrainerNACL_l2_nonsense", "nnUNetTrainerNACL"], ["NACL l2 nonsense", "NACL"]),
    ],
)
def test_labels_say_what_differs(trainers, labels):
    assert short_labels(trainers) == labels


@pytest.fixture
def model_folder(tmp_path, monkeypatch) -> Path:
    """A model's folder in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "nnUNetTrainerNACL__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    return folder


def test_a_folder_and_a_name(model_folder):
    by_name, by_path, labelled = read_models(
        ["nnUNetTrainerNACL", str(model_folder), "Mine=nnUNetTrainerCE"]
    )
    assert (by_name.name, by_name.label) == ("nnUNetTrainerNACL", "NACL")
    assert by_name.path is None
    assert (by_path.name, by_path.label) == (str(model_folder), "NACL (2)")
    assert by_path.trainer == "nnUNetTrainerNACL"
    assert by_path.path == model_folder
    assert (labelled.name, labelled.label) == ("nnUNetTrainerCE", "Mine")


def test_a_folder_may_be_relative(model_folder):
    [_, relative] = read_models(["nnUNetTrainer", f"second  seed={model_folder.name}"])
    assert relative.label == "second seed"
    assert relative.path.resolve() == model_folder


def test_a_folder_that_is_named_twice_is_refused(model_folder):
    parent = model_folder.parent
    with pytest.raises(UserError, match="twice"):
        read_models([str(model_folder), f"x={parent}/../{parent.name}/{model_folder.name}/"])


def test_a_folder_that_is_no_models_is_one_of_predictions(model_folder):
    (model_folder.parent / "predictions").mkdir()
    texts = ["nnUNetTrainerCE", model_folder.name, "Test=predictions"]
    methods = label_methods([read_method(text) for text in texts])
    assert [method.trainer for method in methods] == ["nnUNetTrainerCE", "nnUNetTrainerNACL", None]
    assert [method.label for method in methods] == ["CE", "NACL", "Test"]


def test_a_tuned_model_is_another_method_than_the_one_it_was_made_from():
    methods = read_models(
        ["nnUNetTrainerCE", "nnUNetTrainerCE+tuned", "nnUNetTrainerNACL+tuned+calibrated"]
    )
    assert [method.label for method in methods] == ["CE", "CE, tuned", "NACL, tuned, calibrated"]
    assert [method.trainer for method in methods] == ["nnUNetTrainerCE"] * 2 + ["nnUNetTrainerNACL"]
    assert [method.checkpoint for method in methods] == [FINAL, TUNED, TUNED]
    assert [method.calibrated for method in methods] == [False, False, True]
    with pytest.raises(UserError, match="twice"):
        read_models(["nnUNetTrainerCE+tuned", "nnUNetTrainerCE+tuned"])


def test_a_calibrated_model_says_so_behind_its_label():
    methods = read_models(
        ["nnUNetTrainer", "nnUNetTrainer+calibrated", "A=nnUNetTrainerCE+calibrated"]
    )
    assert [method.label for method in methods] == [DEFAULT_LABEL, "Dice + CE, calibrated", "A"]
    assert (methods[1].name, methods[1].trainer) == ("nnUNetTrainer+calibrated", "nnUNetTrainer")
    assert [method.calibrated for method in methods] == [False, True, True]


def test_of_one_model_the_map_is_all_that_differs():
    methods = read_models(["nnUNetTrainerNACL_40epochs", "nnUNetTrainerNACL_40epochs+calibrated"])
    assert [method.label for method in methods] == ["as trained", "calibrated"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nnUNetTrainer"], "at least two"),
        (["A=nnUNetTrainer", "A=nnUNetTrainerCE"], "label 'A' is given twice"),
        (["=nnUNetTrainer", "nnUNetTrainerCE"], "LABEL=NAME"),
        (["nnUNetTrainer", "nowhere/nnUNetTrainer__nnUNetPlans__2d"], "no model folder"),
        (["nnUNetTrainer", "./"], "no model folder"),
    ],
)
def test_what_cannot_be_compared(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        read_models(arguments)
    assert "\n" not in str(error.value)
