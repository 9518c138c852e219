"""nnU-Net's final validation, measured on the way or by `evaluate --predict`: still nnU-Net's, the
same records."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.inference import export_prediction
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunet_nacl.cases.record import CaseRecord, read_record
from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.files import checksum
from tests.nnunet.measuring import measured
from tests.nnunet.untrained import digests
from tests.trainers.epochs import log_of
from tests.trainers.validation import CASES


def validation_of(trainer) -> Path:
    return Path(trainer.output_folder) / "validation"


def cases_of(document: Path) -> list[str]:
    return [case["case"] for case in json.loads(document.read_text())["metric_per_case"]]


def assert_alike(found: CaseRecord, expected: CaseRecord) -> None:
    """Of the logits themselves, and of probabilities that were saved."""
    pd.testing.assert_frame_equal(
        found.structures, expected.structures, rtol=1e-5, check_dtype=False
    )
    assert found.scan.pop("unit") == expected.scan.pop("unit")
    assert found.scan == pytest.approx(expected.scan, rel=1e-5, nan_ok=True)
    for mask, stats in expected.bins.items():
        mine = found.bins[mask]
        for name in ("count", "correct"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(stats, name))
        for name in ("confidence", "nll", "brier"):
            np.testing.assert_allclose(
                getattr(mine, name), getattr(stats, name), rtol=1e-5, atol=1e-6
            )
    mine = found.sample.voxels()
    theirs = expected.sample.voxels()
    assert mine.weights.min() == mine.weights.max() == 1  # so small a case is kept whole
    np.testing.assert_allclose(mine.log_odds, theirs.log_odds, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(mine.target, theirs.target)


@pytest.mark.parametrize("label_space", ["classes", "ignore", "regions", "regions_ignore"])
def test_the_records_are_those_of_saved_probabilities(validator, label_space, tmp_path):
    trainer = validator(label_space)
    folder = validation_of(trainer)
    references = next(tmp_path.glob("preprocessed/*/gt_segmentations"))
    module.nnUNetTrainer.perform_actual_validation(trainer, True)  # stock, with --npz
    stock = {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}
    expected = measured(folder, references, keep=False, with_sample=True)
    shutil.rmtree(folder)
    (folder / ".0123456789ab.nnunet_nacl.tmp").mkdir(parents=True)  # what a kill leaves

    original = module.export_prediction_from_logits
    trainer.perform_actual_validation(False)
    assert module.export_prediction_from_logits is original
    assert "WARNING" not in log_of(trainer) and "Calibration (mean over 5 cases)" in log_of(trainer)
    assert {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")} == stock and len(
        stock
    ) == 5
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*stock, "calibration.json", "records"]
    )
    assert cases_of(folder / "calibration.json") == sorted(expected) == list(CASES)
    for case in CASES:
        assert_alike(read_record(folder / "records" / f"{case}.npz"), expected[case])


def test_a_case_that_cannot_be_measured_is_a_warning(validator, tmp_path):
    trainer = validator()
    (truth,) = tmp_path.glob("preprocessed/*/gt_segmentations/case_1.nii.gz")
    whole = truth.read_bytes()
    truth.write_bytes(whole[:-20])
    trainer.perform_actual_validation(False)
    folder = validation_of(trainer)
    log = log_of(trainer)
    assert len(list(folder.glob("*.nii.gz"))) == 5 and "Validation complete" in log
    assert log.count("WARNING") == 1 and "WARNING: calibration: case_1: " in log
    assert cases_of(folder / "calibration.json") == [case for case in CASES if case != "case_1"]
    truth.write_bytes(whole)
    trainer.perform_actual_validation(True)  # the old way, as --val --npz would
    assert cases_of(folder / "calibration.json") == list(CASES)


def test_an_nnunet_whose_export_cannot_be_watched_validates_as_before(
    validator, monkeypatch, caplog
):
    trainer = validator()
    stock = export_prediction.export_prediction_from_logits

    def unwatched(logits, properties, configuration, plans, *others):
        assert "get_label_manager" not in vars(plans)
        stock(logits, properties, configuration, plans, *others)

    for place in (export_prediction, module):
        monkeypatch.setattr(place, "export_prediction_from_logits", unwatched)
    trainer.perform_actual_validation(False)
    assert len(list(validation_of(trainer).glob("*.nii.gz"))) == len(CASES)
    assert (
        "WARNING: calibration: case_0: nnU-Net's export cannot be watched: AssertionError"
        in caplog.text
    )
    assert "WARNING: calibration was not evaluated" in log_of(trainer)
    assert not (validation_of(trainer) / "calibration.json").exists()


@pytest.fixture
def predicted_cases(monkeypatch):
    """Shapes of what nnU-Net's network is given, one for each case."""
    seen = []
    original = nnUNetPredictor.predict_sliding_window_return_logits

    def predict(self, data):
        seen.append(tuple(data.shape))
        return original(self, data)

    monkeypatch.setattr(nnUNetPredictor, "predict_sliding_window_return_logits", predict)
    return seen


def run(*words, status: int = 0) -> None:
    model = ("-d", "910", "-tr", "nnUNetTrainer", "-c", "2d", "-device", "cpu", "-np", "1")
    assert main([*map(str, words), *model]) == status


def test_it_is_nnunets_validation_and_goes_on_where_it_was(validator, predicted_cases, capsys):
    trainer = validator("regions", name="nnUNetTrainer")
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    run("evaluate", "--predict")
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
    run("evaluate", "--predict")
    assert not predicted_cases and (folder / "calibration.json").read_bytes() == found
    # as kills leave it
    for name in ("records/case_3.npz", "case_4.nii.gz", "case_1.nii.gz", "records/case_1.npz"):
        (folder / name).unlink()
    run("evaluate", "--predict")
    assert len(predicted_cases) == 3
    assert (
        json.loads((folder / "calibration.json").read_text())["calibration"]
        == json.loads(found)["calibration"]
    )


def test_calibrating_predicts_what_a_fold_has_not_kept_and_only_once(
    validator, predicted_cases, capsys
):
    trainer = validator("classes", name="nnUNetTrainer", steps=60)
    fold = Path(trainer.output_folder)
    checkpoint = fold / "checkpoint_final.pth"
    place = fold / "validation_checkpoint_final"
    trainer.save_checkpoint(str(checkpoint))
    run("calibrate", "-step_size", 1)
    said = (
        "folds 0: there are neither probabilities nor records of this version by"
        " checkpoint_final.pth"
    )
    assert said in capsys.readouterr().err and len(predicted_cases) == len(CASES)
    document = json.loads((fold.parent / "calibration_map.json").read_text())
    assert sum(len(part["cases"]) for part in document["fitted"]["cross_fit"].values()) == len(
        CASES
    )
    assert document["origin"]["inference"] == {"step_size": 1.0, "mirroring": True}
    assert document["origin"]["checkpoint_sha256"] == {"0": checksum(checkpoint)}
    assert not list(fold.glob("validation*/*.npz"))

    predicted_cases.clear()
    run("calibrate", "-step_size", 1)
    assert not predicted_cases and said not in capsys.readouterr().err
    (place / "records" / "case_3.npz").unlink()
    run("calibrate", "-step_size", 1)
    assert len(predicted_cases) == 1
    predicted_cases.clear()
    with torch.no_grad():
        next(trainer.network.parameters()).mul_(1.5)
    # trained again: what was predicted is another network's
    trainer.save_checkpoint(str(checkpoint))
    run("calibrate", "-step_size", 1)
    assert len(predicted_cases) == len(CASES)
    predicted_cases.clear()
    plans = json.loads((fold.parent / "plans.json").read_text())
    (fold.parent / "plans.json").write_text(json.dumps(plans | {"plans_name": "edited"}))
    run("calibrate", "-step_size", 1)
    assert len(predicted_cases) == len(CASES)
    predicted_cases.clear()
    run("calibrate", "-step_size", 1)
    assert not predicted_cases

    corrected = place / "case_3.nii.gz"
    probabilities = place / "case_4.npz"
    corrected.write_bytes((place / "case_2.nii.gz").read_bytes())
    probabilities.write_bytes(b"mine")
    before = digests(place)
    capsys.readouterr()
    run("calibrate", "-step_size", 0.5, status=2)  # another setting: all would be predicted again
    said = (
        f"{corrected}, {probabilities}: not written by nnunet_nacl, or changed since, and would be"
        " lost; move them"
    )
    assert said in capsys.readouterr().err and not predicted_cases and digests(place) == before


@pytest.mark.parametrize("name", ["records/case_0.npz", "calibration.json"])
def test_files_of_others_in_a_validation_stay(validator, name):
    trainer = validator()
    mine = validation_of(trainer) / name
    mine.parent.mkdir(parents=True)
    mine.write_text('{"mine": 1}')
    trainer.perform_actual_validation(False)
    assert mine.read_text() == '{"mine": 1}'
    records = {path.stem for path in (validation_of(trainer) / "records").glob("*.npz")}
    log = log_of(trainer)
    assert records == {*CASES} and "Validation complete" in log
    assert re.search(
        f"WARNING: calibration was not evaluated: UserError: {mine}.* not written by nnunet_nacl",
        log,
    )


def test_a_lost_case_alone_is_predicted_and_another_checkpoint_is_never_taken_for_it(
    validator, predicted_cases, capsys
):
    trainer = validator("classes", name="nnUNetTrainer", steps=60)
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    module.nnUNetTrainer.perform_actual_validation(trainer, True)
    lost = fold / "validation" / "case_3.npz"
    predicted_cases.clear()
    run("calibrate")
    for path in (lost, lost.parent / "records" / lost.name):
        path.unlink()
    run("calibrate")
    assert "folds 0: there are neither probabilities nor records" in capsys.readouterr().err
    assert len(predicted_cases) == 1 and not lost.exists()
    assert (fold / "validation_checkpoint_final" / "records" / lost.name).is_file()

    predicted_cases.clear()
    trainer.save_checkpoint(str(fold / "checkpoint_best.pth"))
    run("calibrate", "-chk", "checkpoint_best.pth", "-o", fold.parent / "best.json")
    assert (
        len(predicted_cases) == len(CASES)
        and (fold / "validation_checkpoint_best" / "case_3.nii.gz").is_file()
    )
    run("calibrate", "-chk", "checkpoint_best.pth", "-o", fold.parent / "best.json")
    assert len(predicted_cases) == len(CASES)
