"""Sums that a validation hands over without npz: the same as with, and never at the validation's cost."""

from __future__ import annotations

import importlib
import json
import pickle

import numpy as np
import pytest

from nnunet_nacl.evaluation import measure
from nnunet_nacl.evaluation.document import read_document, to_document
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from nnunet_nacl.evaluation.folds import evaluate_after_validation
from nnunet_nacl.evaluation.handover import VARIABLE, handing_over
from tests.evaluation.folders import read, write_json

export_module = importlib.import_module("nnunetv2.inference.export_prediction")
trainer_module = importlib.import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
VALIDATION = trainer_module.nnUNetTrainer.perform_actual_validation
SPACING_MM = (2.0, 1.0, 0.5)


class Validation:
    """What nnU-Net's validation does with each case's logits, on the cases of a synthetic model."""

    def __init__(self, model):
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.model, self.folder = model, model.validation()
        self.output = self.folder / "calibration.json"
        plans = json.loads((model.folder / "plans.json").read_text())
        resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        plans["configurations"]["3d_fullres"] = {
            "architecture": {}, "spacing": list(SPACING_MM), "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": resampling,
        }  # fmt: skip
        write_json(model.folder / "plans.json", plans)
        self.plans = PlansManager(plans)
        self.dataset_json = json.loads((model.folder / "dataset.json").read_text())
        self.cases = {}
        for path in sorted(self.folder.glob("*.npz")):
            probs = np.load(path)["probabilities"].astype(np.float32)
            logits = np.log(probs) - (np.log1p(-probs.clip(0, 0.9999)) if "whole" in self.dataset_json["labels"] else 0)
            self.cases[path.stem] = logits[:, :, 1:-1, :-2]  # nnU-Net crops before it predicts
        self.shape = probs.shape[1:]
        for path in self.folder.iterdir():
            path.unlink()

    def __call__(self, save_probabilities: bool = False) -> None:
        export = pickle.loads(pickle.dumps(trainer_module.export_prediction_from_logits))  # as to a worker
        for case, logits in self.cases.items():
            size = self.shape
            properties = {
                "spacing": SPACING_MM, "shape_before_cropping": size,
                "bbox_used_for_cropping": [[0, size[0]], [1, size[1] - 1], [0, size[2] - 2]],
                "shape_after_cropping_and_before_resampling": logits.shape[1:],
                "sitk_stuff": {"spacing": SPACING_MM[::-1], "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())},
            }  # fmt: skip
            export(logits, properties, self.plans.get_configuration("3d_fullres"), self.plans, self.dataset_json,
                   str(self.folder / case), save_probabilities)  # fmt: skip

    def handing_over(self, log=print):
        return handing_over(VALIDATION, self.folder, self.model.references, self.output, log)

    def evaluate(self, log=print):
        return evaluate_after_validation(self.folder, self.model.references, log=log)


@pytest.fixture
def validation(make_validated, monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    return lambda **arguments: Validation(make_validated(cases=2, spacing_mm=SPACING_MM, **arguments))


def without_paths(evaluation):
    document = to_document(evaluation)
    for case in document["metric_per_case"]:
        case.pop("signature")
    return document


def test_sums_without_npz_are_those_with(validation, labels):
    run = validation(labels=labels)
    with run.handing_over():
        run()
    assert not list(run.folder.glob("*.npz")) and len(list(run.folder.glob("*.nii.gz"))) == 2
    handed_over = run.evaluate()
    assert not handed_over.problems and len(handed_over.cases) == 2
    run(save_probabilities=True)
    run.output.unlink()
    assert without_paths(evaluate_folder(run.folder)) == without_paths(handed_over)


def test_any_later_question_is_answered(validation, monkeypatch, capsys):
    from nnunet_nacl.cli.main import main

    run = validation()
    with run.handing_over():
        run()
    run.evaluate()
    monkeypatch.setattr(measure, "_measure", lambda *_: pytest.fail("measured again"))
    assert main(["evaluate", "-d", "999", "-c", "3d_fullres", "--paper", "-hd", "max", "-np", "1"]) == 0
    assert "paper's evaluation" in capsys.readouterr().out


def test_with_npz_they_need_not_be_read_again(validation, monkeypatch):
    run = validation()
    with run.handing_over():
        run(save_probabilities=True)
    assert len(list(run.folder.glob("*.npz"))) == 2
    monkeypatch.setattr(measure, "_measure", lambda *_: pytest.fail("measured again"))
    assert len(run.evaluate().cases) == 2


def test_a_later_validation_without_leaves_no_old_sums(validation, monkeypatch):
    run = validation()
    with run.handing_over():
        run()
    assert run.evaluate() is not None
    monkeypatch.delenv(VARIABLE)
    run.cases = {case: logits[:, ::-1].copy() for case, logits in run.cases.items()}
    with run.handing_over():
        run()
    assert run.evaluate() is None
    with pytest.raises(ValueError, match="case_00.npz is missing"):
        evaluate_folder(run.folder, output=run.output)
    assert len(read_document(run.output).cases) == 2  # what was known of the earlier one is not destroyed


@pytest.mark.parametrize("value", [None, "0", ""])
def test_nothing_changes_unless_wanted(validation, monkeypatch, value):
    run = validation()
    monkeypatch.setenv(VARIABLE, value) if value is not None else monkeypatch.delenv(VARIABLE)
    with run.handing_over():
        assert trainer_module.export_prediction_from_logits is export_module.export_prediction_from_logits
        run()
    assert {path.name for path in run.folder.iterdir()} == {"case_00.nii.gz", "case_01.nii.gz"}


def test_the_names_are_given_back(validation):
    run = validation()
    convert = export_module.convert_predicted_logits_to_segmentation_with_correct_shape
    with pytest.raises(KeyError), run.handing_over():
        assert trainer_module.export_prediction_from_logits is not export_module.export_prediction_from_logits
        run()
        raise KeyError
    assert trainer_module.export_prediction_from_logits is export_module.export_prediction_from_logits
    assert export_module.convert_predicted_logits_to_segmentation_with_correct_shape is convert


def test_a_conversion_without_probabilities_is_left_alone(validation, monkeypatch, capsys):
    run = validation()
    convert = export_module.convert_predicted_logits_to_segmentation_with_correct_shape

    def frugal(*args, return_probabilities=False, **named):
        if return_probabilities:
            raise MemoryError
        return convert(*args, **named)

    monkeypatch.setattr(export_module, convert.__name__, frugal)
    lines = []
    with run.handing_over():
        run()
    assert len(list(run.folder.glob("*.nii.gz"))) == 2 and "case_00" in capsys.readouterr().err
    assert run.evaluate(lines.append) is None and "case_00.npz is missing" in lines[0]


def test_a_case_that_cannot_be_measured_is_exported_all_the_same(validation, capsys):
    run = validation()
    (run.model.references / "case_00.nii.gz").write_bytes(b"not an image")
    lines = []
    with run.handing_over():
        run()
    assert read(run.folder / "case_00.nii.gz").any() and "case_00.nii.gz" in capsys.readouterr().err
    assert [case.case for case in run.evaluate(lines.append).cases] == ["case_01"]
    assert lines[0].startswith("WARNING: calibration: ") and "case_00" in lines[0]


@pytest.mark.parametrize("broken", ["plans", "conversion", "export"])
def test_another_nnunet_runs_as_ever(validation, monkeypatch, broken):
    run, lines = validation(), []
    if broken == "plans":
        (run.model.folder / "plans.json").unlink()
    elif broken == "conversion":
        monkeypatch.delattr(export_module, "convert_predicted_logits_to_segmentation_with_correct_shape")
    else:
        monkeypatch.delattr(trainer_module, "export_prediction_from_logits")
    ran = []
    with run.handing_over(lines.append):
        ran.append(getattr(trainer_module, "export_prediction_from_logits", None))
    assert len(lines) == 1 and lines[0].startswith("WARNING: no calibration sums without npz") and len(ran) == 1
    assert ran[0] in (None, export_module.export_prediction_from_logits)
