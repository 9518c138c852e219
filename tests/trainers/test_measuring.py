"""nnU-Net's final validation, measured on the way: still nnU-Net's, with the document of saved probabilities."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.inference import export_prediction
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunet_nacl.case.document import read_document
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.heldout import HeldOut
from tests.numbers.problems import all_voxels, read_held_out
from tests.trainers.validation import CASES


def log_of(trainer) -> str:
    return "".join(path.read_text() for path in Path(trainer.output_folder).glob("training_log_*.txt"))


def validation_of(trainer) -> Path:
    return Path(trainer.output_folder) / "validation"


@pytest.mark.parametrize("label_space", ["classes", "ignore", "regions", "regions_ignore"])
def test_the_document_is_that_of_saved_probabilities(validator, label_space, tmp_path):
    trainer = validator(label_space)
    folder = validation_of(trainer)
    module.nnUNetTrainer.perform_actual_validation(trainer, True)  # stock, with --npz
    stock = {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}
    expected = evaluate_folder(folder, output=folder / "calibration.json")
    exact = HeldOut(find_fold_folders(Path(trainer.output_folder_base)))
    voxels = {case: all_voxels(read_held_out(exact, case)) for case in CASES}
    shutil.rmtree(folder)
    (folder / ".0123456789ab.nnunet_nacl.tmp").mkdir(parents=True)  # what a kill leaves

    original = module.export_prediction_from_logits
    trainer.perform_actual_validation(False)
    assert module.export_prediction_from_logits is original
    assert "WARNING" not in log_of(trainer) and "Calibration (mean over 5 cases)" in log_of(trainer)
    assert {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")} == stock and len(stock) == 5
    assert sorted(path.name for path in folder.iterdir()) == sorted([*stock, "calibration.json", "calibration_samples"])
    found = read_document(folder / "calibration.json")
    assert found.names == expected.names and not found.problems
    for one, other in zip(found.cases, expected.cases):
        assert one.dice == pytest.approx(other.dice, nan_ok=True) and one.n_changed_voxels == 0
        for mask, stats in other.bins.items():
            mine = one.bins[mask]
            np.testing.assert_array_equal(mine.count, stats.count)
            for name in ("confidence", "nll", "brier"):
                np.testing.assert_allclose(getattr(mine, name), getattr(stats, name), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(mine.correct, stats.correct)
        assert one.quality.unit == other.quality.unit
        for key, values in other.quality.structures.items():
            mine, theirs = (list(vars(each).values())[:-1] for each in (one.quality.structures[key], values))
            assert mine == pytest.approx(theirs, rel=1e-5, nan_ok=True)  # and of one network no other to agree with
    held_out = HeldOut(find_fold_folders(Path(trainer.output_folder_base)))
    assert set(held_out.files) == set(CASES) and not held_out.problems
    for case in CASES:
        sample = held_out.sample(case).voxels()
        assert sample.weights.min() == sample.weights.max() == 1  # so small a case is kept whole
        np.testing.assert_allclose(sample.log_odds, voxels[case].log_odds, rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(sample.target, voxels[case].target)


def test_a_case_that_cannot_be_measured_is_a_warning(validator, tmp_path):
    trainer = validator()
    (truth,) = tmp_path.glob("preprocessed/*/gt_segmentations/case_1.nii.gz")
    whole = truth.read_bytes()
    truth.write_bytes(whole[:-20])
    trainer.perform_actual_validation(False)
    folder, log = validation_of(trainer), log_of(trainer)
    assert len(list(folder.glob("*.nii.gz"))) == 5 and "Validation complete" in log
    assert log.count("WARNING") == 1 and "WARNING: calibration: case_1: " in log
    assert [case.case for case in read_document(folder / "calibration.json").cases] == [
        case for case in CASES if case != "case_1"
    ]
    truth.write_bytes(whole)
    trainer.perform_actual_validation(True)  # the old way, as --val --npz would
    assert [case.case for case in read_document(folder / "calibration.json").cases] == list(CASES)


def test_an_nnunet_whose_export_cannot_be_watched_validates_as_before(validator, monkeypatch):
    trainer, stock = validator(), export_prediction.export_prediction_from_logits

    def unwatched(logits, properties, configuration, plans, *others):
        assert "get_label_manager" not in vars(plans)
        stock(logits, properties, configuration, plans, *others)

    for place in (export_prediction, module):
        monkeypatch.setattr(place, "export_prediction_from_logits", unwatched)
    trainer.perform_actual_validation(False)
    assert len(list(validation_of(trainer).glob("*.nii.gz"))) == len(CASES)
    assert "calibration was not evaluated" in log_of(trainer) and "cannot be watched: AssertionError" in log_of(trainer)
    assert not (validation_of(trainer) / "calibration.json").exists()
