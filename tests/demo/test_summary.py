"""What a demo says at its end: the new scans against their truth, and what calibration changed."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from nnunet_nacl.demo.summary import ListOutcome, measure_list, right_and_wrong


def write(path, filled: int) -> None:
    labels = np.zeros((4, 4, 1), np.uint8)
    labels.flat[:filled] = 1
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)


@pytest.fixture
def list_and_truth(tmp_path):
    """Four scans whose true Dice is 1, 1, 0.4 and 0.4; the second and the third are flagged."""
    for case, predicted in zip("abcd", (8, 8, 2, 2)):
        write(tmp_path / "out" / f"{case}.nii.gz", predicted)
        write(tmp_path / "truth" / f"{case}.nii.gz", 8)
    (tmp_path / "out" / "review.csv").write_text("case,flag\na,no\nb,yes\nc,yes\nd,no\n")
    intervals = ("a,core,0.9,1", "b,core,0.5,0.9", "c,core,0.3,0.5", "d,core,,")
    header = "case,structure,predicted_dice_low,predicted_dice_high"
    (tmp_path / "out" / "structures.csv").write_text("\n".join([header, *intervals]) + "\n")
    return tmp_path / "out", tmp_path / "truth"


def test_a_list_is_compared_with_the_true_labels_of_its_scans(list_and_truth):
    outcome = measure_list(*list_and_truth, {"core": 1}, 0.65)
    assert outcome == ListOutcome(
        n_bad=2, n_good=2, n_bad_flagged=1, n_good_flagged=1, n_dice=3, n_inside=2
    )


def test_scans_without_truth_say_nothing(list_and_truth):
    predictions, truth = list_and_truth
    (truth / "d.nii.gz").unlink()
    assert measure_list(predictions, truth, {"core": 1}, 0.65) is None


def test_what_went_wrong_is_said_beside_what_went_right():
    outcome = ListOutcome(
        n_bad=4, n_good=4, n_bad_flagged=3, n_good_flagged=0, n_dice=16, n_inside=14
    )
    right, wrong = right_and_wrong({"A": "better", "B": "worse"}, outcome).splitlines()
    assert right == (
        "Right: NLL of A through calibration: better; 0 of 4 good new scans are flagged."
    )
    assert wrong == (
        "Wrong: NLL of B through calibration: worse; 3 of 4 bad new scans"
        " are flagged; 14 of 16 true Dice lie in their 90 % intervals."
    )
    assert right_and_wrong({"A": "better"}, None).endswith("Wrong: nothing that so few scans show.")
