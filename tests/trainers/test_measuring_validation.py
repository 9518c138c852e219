"""What `evaluate --predict` makes of a trained model: nnU-Net's own validation, measured, in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunet_nacl.case.record import read_record
from nnunet_nacl.cli.main import main
from nnunet_nacl.files import checksum
from tests.nnunet.measuring import measured
from tests.trainers.test_measuring import assert_alike
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


def run(*words) -> None:
    model = ("-d", "910", "-tr", "nnUNetTrainer", "-c", "2d", "-device", "cpu", "-np", "1")
    assert main([*map(str, words), *model]) == 0


def calibrate(*arguments) -> None:
    run("calibrate", *arguments)


def evaluate(*arguments) -> None:
    run("evaluate", "--predict", *arguments)


def test_it_is_nnunets_validation_and_goes_on_where_it_was(validator, predicted_cases, capsys):
    trainer = validator("regions", name="nnUNetTrainer")
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    evaluate()
    folder = fold / "validation_checkpoint_final"
    assert len(predicted_cases) == len(CASES) and not (fold / "validation").exists()
    assert not list(folder.glob("*.npz"))
    found = (folder / "calibration.json").read_bytes()
    module.nnUNetTrainer.perform_actual_validation(trainer, True)
    expected = measured(fold / "validation", keep=False, with_sample=True)
    for case in CASES:
        assert_alike(read_record(folder / "records" / f"{case}.npz"), expected[case])
        name = f"{case}.nii.gz"
        assert (folder / name).read_bytes() == (fold / "validation" / name).read_bytes()

    predicted_cases.clear()
    evaluate()
    assert not predicted_cases and (folder / "calibration.json").read_bytes() == found
    for name in ("records/case_3.npz", "case_4.nii.gz", "case_1.nii.gz", "records/case_1.npz"):  # as kills leave it
        (folder / name).unlink()
    evaluate()
    assert len(predicted_cases) == 3
    assert json.loads((folder / "calibration.json").read_text())["calibration"] == json.loads(found)["calibration"]


def test_calibrating_predicts_what_a_fold_has_not_kept_and_only_once(validator, predicted_cases, capsys):
    trainer = validator("classes", name="nnUNetTrainer", steps=60)
    fold = Path(trainer.output_folder)
    checkpoint, place = fold / "checkpoint_final.pth", fold / "validation_checkpoint_final"
    trainer.save_checkpoint(str(checkpoint))
    calibrate("-step_size", 1)
    said = "folds 0: there are neither probabilities nor records of this version by checkpoint_final.pth"
    assert said in capsys.readouterr().err and len(predicted_cases) == len(CASES)
    document = json.loads((fold.parent / "calibration_map.json").read_text())
    assert sum(len(part["cases"]) for part in document["fitted"]["cross_fit"].values()) == len(CASES)
    assert document["origin"]["inference"] == {"step_size": 1.0, "mirroring": True}
    assert document["origin"]["checkpoint_sha256"] == {"0": checksum(checkpoint)}
    assert not list(fold.glob("validation*/*.npz"))

    predicted_cases.clear()
    calibrate("-step_size", 1)
    assert not predicted_cases and said not in capsys.readouterr().err
    (place / "records" / "case_3.npz").unlink()
    calibrate("-step_size", 1)
    assert len(predicted_cases) == 1
    predicted_cases.clear()
    with torch.no_grad():
        next(trainer.network.parameters()).mul_(1.5)
    trainer.save_checkpoint(str(checkpoint))  # trained again: what was predicted is another network's
    calibrate("-step_size", 1)
    assert len(predicted_cases) == len(CASES)


def test_a_lost_case_is_named_and_another_checkpoint_is_never_taken_for_it(validator, predicted_cases, capsys):
    trainer = validator("classes", name="nnUNetTrainer", steps=60)
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    module.nnUNetTrainer.perform_actual_validation(trainer, True)
    lost = fold / "validation" / "case_3.npz"
    predicted_cases.clear()
    calibrate()
    for path in (lost, lost.parent / "records" / lost.name):
        path.unlink()
    with pytest.raises(AssertionError):  # too few are left
        calibrate()
    assert f"case_3: {lost} is missing; predict these cases again" in capsys.readouterr().err and not predicted_cases

    predicted_cases.clear()
    trainer.save_checkpoint(str(fold / "checkpoint_best.pth"))
    calibrate("-chk", "checkpoint_best.pth", "-o", fold.parent / "best.json")
    assert len(predicted_cases) == len(CASES) and (fold / "validation_checkpoint_best" / "case_3.nii.gz").is_file()
    calibrate("-chk", "checkpoint_best.pth", "-o", fold.parent / "best.json")
    assert len(predicted_cases) == len(CASES)


def test_calibrating_and_comparing_need_no_probabilities(validator, without_figures, tmp_path, capsys):
    trainer = validator("classes", name="nnUNetTrainer", steps=60)
    fold = Path(trainer.output_folder)
    last_layer = trainer.network.decoder.seg_layers[-1]
    with torch.no_grad():  # a map clips log-odds, which a network does not: none shall be so large
        for parameter in last_layer.parameters():
            parameter.mul_(0.05)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    calibrate("-form", "temperature")
    document = json.loads((fold.parent / "calibration_map.json").read_text())
    with torch.no_grad():  # divided by the temperature, the network computes the map
        for parameter in last_layer.parameters():
            parameter.mul_(document["maps"]["temperature"]["slopes"][0][0])
    trainer.save_checkpoint(str(fold / "checkpoint_divided.pth"))
    evaluate("-chk", "checkpoint_divided.pth")
    evaluate()
    means = [
        json.loads((fold / f"validation_checkpoint_{name}" / "calibration.json").read_text())["calibration"]["mean"]
        for name in ("final", "divided")
    ]
    means = [mean["all"]["NLL"] for mean in means]
    estimated = document["fitted"]["effect"]["NLL all"]
    assert means[0] == pytest.approx(estimated["before"]["mean"])
    assert means[1] < means[0] and means[1] == pytest.approx(estimated["after"]["mean"], abs=0.02)  # cross-fitted
    arguments = ["compare", "-d", "910", "-c", "2d", "-tr", "nnUNetTrainer", "nnUNetTrainer+calibrated", "-np", "1"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    (dataset,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["datasets"]
    values = dataset["values"]["NLL:all"]["nnUNetTrainer+calibrated"]
    assert np.mean(values) == pytest.approx(estimated["after"]["mean"], abs=1e-6)
