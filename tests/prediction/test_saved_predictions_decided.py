"""Segmentations that are decided for Dice: what nnU-Net expects of them, and the true Dice before and after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import Treatment
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.runs.evaluate import evaluate_folder
from tests.runs.folders import (
    CLASSES,
    CLASSES_WITH_IGNORE,
    REGIONS,
    REGIONS_WITH_IGNORE,
    random_case,
    read,
    write_image,
    write_prediction,
)
from tests.runs.predictions import SHAPE, SPACING_MM, reviewed

LISTS = {"dataset.json", "plans.json", "decision.json", "review_args.json", "prediction.json"}
LISTS |= {"index.html", "review.csv", "structures.csv", "scans.csv", "review"}


def write_truths(folder: Path, cases: int = 3, labels: dict | None = None, seed: int = 0) -> Path:
    """The ground truth of the cases that the fixture ``predict`` writes with the same labels and seed."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(cases):
        truth, *_ = random_case(rng, labels or CLASSES, SHAPE, 5 - i)
        write_image(truth, folder / f"case_{i}.nii.gz", SPACING_MM)
    return folder


def decide_folder(source: Path, output: Path, **asked):
    return reviewed(source, output, treatment=Treatment(beta=1), **asked)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_is_as_nnunet_writes_it(predict, tmp_path):
    source, out = predict(), tmp_path / "out"
    decided = decide_folder(source, out)
    segmentations = {f"case_{i}.nii.gz" for i in range(3)}
    assert names(out) == segmentations | LISTS
    for name in ("dataset.json", "plans.json"):
        assert json.loads((out / name).read_text()) == json.loads((source / name).read_text())
    for case in decided.decided:
        probs = np.load(source / f"{case.case}.npz")["probabilities"]
        np.testing.assert_array_equal(read(out / f"{case.case}.nii.gz"), decide(probs).segmentation)
        one, two = (sitk.ReadImage(str(folder / f"{case.case}.nii.gz")) for folder in (source, out))
        assert one.GetSpacing() == two.GetSpacing() and one.GetOrigin() == two.GetOrigin()
        assert one.GetPixelID() == two.GetPixelID()
    assert sum(case.n_changed for case in decided.decided) > 0
    assert PredictionFolder.open(out, need_reference=False).labels.names == ("background", "anterior", "posterior")


@pytest.mark.parametrize("labels", [None, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE])
def test_an_evaluation_of_it_finds_the_same_dice(predict, tmp_path, labels):
    source, out = predict(labels=labels), tmp_path / "out"
    truths = write_truths(tmp_path / "truths", labels=labels)
    decided = decide_folder(source, out, references=truths, probabilities=True)
    before, after = (evaluate_folder(folder, truths) for folder in (source, out))
    for i, case in enumerate(decided.decided):
        for key, row in case.structures.items():
            assert row.dice_before == before.cases[i].dice[key] and row.dice_after == after.cases[i].dice[key]
        assert case.measured
    # the probabilities' own numbers do not change, those of the labels' confidence do
    for name, same in (("NLL", True), ("Brier", True), ("ECE", False)):
        values = [[mask_metrics(case.bins["all"])[name] for case in one.cases] for one in (before, after)]
        assert (values[0] == pytest.approx(values[1], rel=1e-9)) == same
    # nnU-Net's ignore label is never the result
    assert all(read(out / f"case_{i}.nii.gz").max() <= 2 for i in range(3))


def test_what_a_decision_changes_is_told_against_the_segmentation_that_was_predicted(predict, tmp_path):
    source = predict(cases=1)
    [files], _ = PredictionFolder.open(source, need_reference=False).cases()
    probs = np.load(files.probabilities)["probabilities"]
    segmentation = probs.argmax(0).astype(np.uint8)
    segmentation[segmentation == 2] = 0
    write_prediction(source, "case_0", probs, segmentation, SPACING_MM)
    [case] = decide_folder(source, tmp_path / "out").decided
    found = case.structures["2"]
    assert found.voxels_before == 0 and found.gained == found.voxels_after > 0
    assert case.n_changed == np.count_nonzero(read(tmp_path / "out" / "case_0.nii.gz") != segmentation)


def test_ground_truth_that_is_missing(predict, tmp_path):
    source = predict()
    truths = write_truths(tmp_path / "truths")
    (truths / "case_1.nii.gz").unlink()
    decided = decide_folder(source, tmp_path / "out", references=truths)
    assert [case.measured for case in decided.decided] == [True, False, True]
    with pytest.raises(UserError, match="no such folder"):
        decide_folder(source, tmp_path / "new", references=tmp_path / "nowhere")
    assert not (tmp_path / "new").exists()


def test_ground_truth_of_another_image_is_a_problem_of_its_case(predict, tmp_path):
    source = predict()
    truths = write_truths(tmp_path / "truths")
    write_image(np.zeros(SHAPE, np.uint8), truths / "case_0.nii.gz", (1.0, 1.0, 1.0))
    decided = decide_folder(source, tmp_path / "out", references=truths)
    assert "other geometry" in decided.problems["case_0"] and len(decided.decided) == 2
