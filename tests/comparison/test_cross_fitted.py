"""Models compared as their calibration maps leave them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.fit import fit_held_out
from nnunet_nacl.comparison.alignment import align
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.located import locate
from nnunet_nacl.comparison.methods import label_methods, read_method
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.nnunet.held_out import measure_folders
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.settings import ComparisonSettings
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import to_json_text
from nnunet_nacl.utilities.json_files import encode
from tests.comparison.models import CONFIGURATION, PLANS, Study, make_study
from tests.runs.folders import CLASSES, REGIONS, read

TRAINER = "nnUNetTrainerNACL"
CALIBRATED = f"{TRAINER}+calibrated"


@pytest.fixture(params=[CLASSES, REGIONS], ids=["classes", "regions"])
def model(request, tmp_path, monkeypatch) -> Study:
    """Two folds of three cases."""
    study = make_study(
        tmp_path, {TRAINER: 2.0}, labels=request.param, cases=3, folds=2, shape=(3, 9, 8)
    )
    for name, value in study.environment.items():
        monkeypatch.setenv(name, value)
    return study


def gather(*names: str) -> Comparison:
    methods = label_methods([read_method(name) for name in names])
    options = ComparisonSettings(plans=PLANS, configuration=CONFIGURATION)
    return align(locate("999", methods, options))


def fit(study: Study) -> CalibrationMap:
    """Fit a map to the model's validation cases, and write it beside its folds."""
    folders = find_fold_folders(study.model(TRAINER))
    calibration_map = fit_held_out(measure_folders(folders, Work(with_sample=True)))
    path = study.model(TRAINER) / "calibration_map.json"
    path.write_text(to_json_text(encode(calibration_map)))
    return calibration_map


def test_the_map_changes_scores_as_calibrate_says_and_no_label(model):
    effect = fit(model).fitted.effect["NLL all"]
    comparison = gather(TRAINER, CALIBRATED)
    nll = comparison.values["NLL:all"].mean()
    assert nll[TRAINER] == pytest.approx(effect.before.mean, rel=1e-6)
    assert nll[CALIBRATED] == pytest.approx(effect.after.mean, rel=1e-6)
    for as_trained, calibrated in zip(*comparison.records.values()):
        assert calibrated.structures.Dice.equals(as_trained.structures.Dice)


def test_each_case_is_calibrated_by_a_map_that_has_not_seen_it(model):
    calibration_map = fit(model)
    comparison = gather(TRAINER, CALIBRATED)
    references = model.root / "nnUNet_preprocessed" / comparison.name / "gt_segmentations"
    for record in comparison.records[CALIBRATED]:
        fold = int(record.name[-2])
        prediction = np.load(model.validation(TRAINER, fold) / f"{record.name}.npz")
        calibrated = calibration_map.part_maps[record.name](prediction["probabilities"])
        truth = read(references / f"{record.name}.nii.gz")
        if calibration_map.regions:
            truth = np.stack([truth > 0, truth == 2])
        counted = count_masks(calibrated, truth, regions=calibration_map.regions)["all"]
        # of a sample, which here is the whole case, and of all voxels
        np.testing.assert_allclose(record.bins["all"].nll, counted.nll, rtol=2e-3)
        np.testing.assert_allclose(record.bins["all"].brier, counted.brier, rtol=2e-3)


def test_a_model_without_a_map_is_refused_with_the_command_that_makes_one(model):
    command = rf"calibrate -d Dataset999_Synthetic -tr {TRAINER} -c {CONFIGURATION}`"
    with pytest.raises(UserError, match=command):
        gather(TRAINER, CALIBRATED)


def test_a_case_that_was_not_calibrated_is_refused(model):
    fit(model)
    path = model.model(TRAINER) / "calibration_map.json"
    document = json.loads(path.read_text())
    for part in document["fitted"]["cross_fit"].values():
        part["cases"] = [case for case in part["cases"] if case != "case_00"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="case_00 was not calibrated; run .* again"):
        gather(TRAINER, CALIBRATED)


def test_a_map_that_cannot_be_read_may_know_patients(model):
    fit(model)
    path = model.model(TRAINER) / "calibration_map.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"schema_version": 5}))
    other = shutil.copytree(path.parent, model.model("nnUNetTrainer"))
    (other / path.name).unlink()
    [note] = gather(TRAINER, "nnUNetTrainer").notes
    assert "schema version 5" in note
    assert note.endswith("name the patient of each.")
