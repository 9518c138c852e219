"""What `evaluate --predict` makes of a trained model: nnU-Net's own validation, measured, in a folder of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunet_nacl.cases.evaluate import evaluate_folder
from nnunet_nacl.cli.main import main
from nnunet_nacl.documents.document import read_document
from nnunet_nacl.metrics.calibration_error import mask_metrics
from tests.trainers.validation import CASES


@pytest.fixture
def predicted_cases(monkeypatch):
    """Shapes of what nnU-Net's network is given, one for each case."""
    seen, original = [], nnUNetPredictor.predict_sliding_window_return_logits

    def predict(self, data):
        seen.append(tuple(data.shape))
        return original(self, data)

    monkeypatch.setattr(nnUNetPredictor, "predict_sliding_window_return_logits", predict)
    return seen


def evaluate(*arguments, status=0) -> None:
    model = ("-d", "910", "-tr", "nnUNetTrainer", "-c", "2d", "-device", "cpu", "-np", "1")
    assert main(["evaluate", *model, "--predict", *map(str, arguments)]) == status


def test_it_is_nnunets_validation_and_goes_on_where_it_was(validator, predicted_cases, capsys):
    trainer = validator("regions", name="nnUNetTrainer")
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    evaluate()
    folder = fold / "validation_checkpoint_final"
    assert len(predicted_cases) == len(CASES) and not (fold / "validation").exists()
    assert not list(folder.glob("*.npz")) and not (folder / "calibration.json.partial").exists()
    found = (folder / "calibration.json").read_bytes()
    module.nnUNetTrainer.perform_actual_validation(trainer, True)
    expected = evaluate_folder(fold / "validation")
    for one, other in zip(read_document(folder / "calibration.json").cases, expected.cases):
        assert Path(one.prediction_file).read_bytes() == Path(other.prediction_file).read_bytes()
        assert one.ece("predicted") == pytest.approx(other.ece("predicted"), abs=1e-6)

    predicted_cases.clear()
    evaluate()
    assert not predicted_cases and (folder / "calibration.json").read_bytes() == found
    truncated = folder / "case_1.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    (folder / "calibration_samples" / "case_3.sample").unlink()
    (folder / "case_4.nii.gz").unlink()
    evaluate()
    assert len(predicted_cases) == 3
    predicted_cases.clear()
    assert json.loads((folder / "calibration.json").read_text())["calibration"] == json.loads(found)["calibration"]
    with torch.no_grad():
        next(trainer.network.parameters()).mul_(1.5)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    evaluate()
    assert len(predicted_cases) == len(CASES) and (folder / "calibration.json").read_bytes() != found


def test_calibrating_and_comparing_need_no_probabilities(validator, without_figures, tmp_path, capsys):
    trainer = validator("classes", name="nnUNetTrainer", steps=60)
    fold, model = Path(trainer.output_folder), ("-d", "910", "-tr", "nnUNetTrainer", "-c", "2d")
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    evaluate()
    assert main(["calibrate", *model, "-form", "temperature", "-np", "1"]) == 0
    document = json.loads((fold.parent / "calibration_map.json").read_text())
    assert document["measured_on"] == "samples of the cases"
    evaluate("-chk", "checkpoint_calibrated.pth")
    exact = read_document(fold / "validation_checkpoint_calibrated" / "calibration.json")
    before = read_document(fold / "validation_checkpoint_final" / "calibration.json")
    means = [np.mean([mask_metrics(case.stats["all"])["NLL"] for case in one.cases]) for one in (before, exact)]
    estimated = document["effect"]["NLL all"]
    assert len(exact.cases) == 5 and means[0] == pytest.approx(estimated["before"]["mean"])
    assert means[1] < means[0] and means[1] == pytest.approx(estimated["after"]["mean"], abs=0.02)  # cross-fitted
    assert document["quality"]["n_estimated_from_samples"] == 5
    arguments = ["compare", "-d", "910", "-c", "2d", "-tr", "nnUNetTrainer", "nnUNetTrainer+calibrated", "-np", "1"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    (dataset,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["datasets"]
    values = dataset["values"]["ECE:predicted"]["nnUNetTrainer+calibrated"]
    assert values == pytest.approx([case.ece("predicted") for case in exact.cases], nan_ok=True)
    shutil.copy(fold / "checkpoint_final.pth", fold / "checkpoint_calibrated.pth")
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert "was predicted by another checkpoint_calibrated.pth" in capsys.readouterr().err
