"""How trainers are named on the command line, and called in tables and figures."""

from __future__ import annotations

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.methods import DEFAULT_LABEL, label_methods, read_method, short_labels


def read_models(arguments):
    return label_methods([read_method(argument, "-tr") for argument in arguments])


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


def test_a_folder_and_a_name(tmp_path, monkeypatch):
    folder = tmp_path / "nnUNetTrainerNACL__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    first, second, third = read_models(["nnUNetTrainerNACL", str(folder), "Mine=nnUNetTrainerCE"])
    assert (first.name, first.label, first.path) == ("nnUNetTrainerNACL", "NACL", None)
    assert (second.name, second.trainer, second.label) == (
        str(folder),
        "nnUNetTrainerNACL",
        "NACL (2)",
    )
    assert second.path == folder and (third.label, third.name) == ("Mine", "nnUNetTrainerCE")
    monkeypatch.chdir(tmp_path)
    [_, relative] = read_models(["nnUNetTrainer", f"second  seed={folder.name}"])
    assert relative.label == "second seed" and relative.path.resolve() == folder
    with pytest.raises(UserError, match="twice"):
        read_models([str(folder), f"x={tmp_path}/../{tmp_path.name}/{folder.name}/"])


def test_a_folder_that_is_no_models_is_one_of_predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nnUNetTrainerNACL__nnUNetPlans__2d" / "fold_0").mkdir(parents=True)
    (tmp_path / "predictions").mkdir()
    texts = ["nnUNetTrainerCE", "nnUNetTrainerNACL__nnUNetPlans__2d", "Test=predictions"]
    methods = label_methods([read_method(text) for text in texts])
    assert [method.trainer for method in methods] == ["nnUNetTrainerCE", "nnUNetTrainerNACL", None]
    assert [method.label for method in methods] == ["CE", "NACL", "Test"]


def test_a_calibrated_model_says_so_behind_its_label():
    methods = read_models(
        ["nnUNetTrainer", "nnUNetTrainer+calibrated", "A=nnUNetTrainerCE+calibrated"]
    )
    assert [method.label for method in methods] == [DEFAULT_LABEL, "Dice + CE, calibrated", "A"]
    assert (methods[1].name, methods[1].trainer) == ("nnUNetTrainer+calibrated", "nnUNetTrainer")
    assert [method.calibrated for method in methods] == [False, True, True]
    alone = read_models(["nnUNetTrainerNACL_40epochs", "nnUNetTrainerNACL_40epochs+calibrated"])
    assert [method.label for method in alone] == ["as trained", "calibrated"]


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
