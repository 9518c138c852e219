"""Models compared as their calibration maps leave them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nnunet_nacl.calibrator.fit import fit_held_out
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.dataset import align, locate
from nnunet_nacl.evaluation.methods import ComparisonOptions, label_methods, read_method
from nnunet_nacl.files import to_json_text
from nnunet_nacl.json_files import encode
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.nnunet.held_out import measure_folders
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders
from nnunet_nacl.nnunet.records import Work
from tests.evaluation.models import CONFIGURATION, PLANS, make_study
from tests.runs.folders import CLASSES, REGIONS, read

TRAINER = "nnUNetTrainerNACL"
CALIBRATED = f"{TRAINER}+calibrated"


@pytest.fixture(params=[CLASSES, REGIONS], ids=["classes", "regions"])
def model(request, tmp_path, monkeypatch):
    """Two folds of three cases."""
    study = make_study(
        tmp_path, {TRAINER: 2.0}, labels=request.param, cases=3, folds=2, shape=(3, 9, 8)
    )
    for name, value in study.environment.items():
        monkeypatch.setenv(name, value)
    return study


def gather(*names: str):
    options = ComparisonOptions(plans=PLANS, configuration=CONFIGURATION)
    return align(locate("999", label_methods([read_method(name) for name in names]), options))


def fit(study):
    found = measure_folders(find_fold_folders(study.model(TRAINER)), Work(with_sample=True))
    calibration = fit_held_out(found)
    (study.model(TRAINER) / "calibration_map.json").write_text(to_json_text(encode(calibration)))
    return calibration


def test_each_case_is_calibrated_by_a_map_that_has_not_seen_it(model):
    calibration = fit(model)
    regions = calibration.regions
    maps = calibration.part_maps
    dataset = gather(TRAINER, CALIBRATED)
    change = calibration.fitted.effect["NLL all"]
    for name, when in ((TRAINER, "before"), (CALIBRATED, "after")):
        nll = [
            case.bins["all"].nll.mean() / case.bins["all"].n_voxels
            for case in dataset.records[name]
        ]
        assert np.mean(nll) == pytest.approx(change[when]["mean"], rel=1e-6)
    for plain, result in zip(*dataset.records.values()):
        assert result.structures.Dice.equals(plain.structures.Dice)  # a map changes no label
        folder = model.validation(TRAINER, int(result.case[-2]))
        probs = maps[result.case](np.load(folder / f"{result.case}.npz")["probabilities"])
        truth = read(
            model.root
            / "nnUNet_preprocessed"
            / dataset.name
            / "gt_segmentations"
            / f"{result.case}.nii.gz"
        )
        true = np.stack([truth > 0, truth == 2]) if regions else truth
        counted = count_masks(probs, true, regions=regions)["all"]
        # of a sample, which here is the whole case, and of all voxels
        for name in ("nll", "brier"):
            np.testing.assert_allclose(
                getattr(result.bins["all"], name), getattr(counted, name), rtol=2e-3
            )


def test_cases_that_were_not_calibrated_are_refused(model):
    command = rf"calibrate -d Dataset999_Synthetic -tr {TRAINER} -c {CONFIGURATION}`"
    with pytest.raises(UserError, match=command):
        gather(TRAINER, CALIBRATED)
    fit(model)
    path = model.model(TRAINER) / "calibration_map.json"
    document = json.loads(path.read_text())
    for part in document["fitted"]["cross_fit"].values():
        part["cases"] = [case for case in part["cases"] if case != "case_00"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="case_00 was not calibrated; run .* again"):
        gather(TRAINER, CALIBRATED)
    path.write_text(json.dumps(document | {"schema_version": 5}))
    other = shutil.copytree(path.parent, model.model("nnUNetTrainer"))
    (other / path.name).unlink()
    [note] = gather(TRAINER, "nnUNetTrainer").notes
    assert "schema version 5" in note and note.endswith("name them with -groups.")
