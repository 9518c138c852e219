"""What a document says of the chosen label, and of the quality that the probabilities promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from nnunet_nacl.case.document import read_document
from nnunet_nacl.case.table import table
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.calibration_error import ece
from nnunet_nacl.numbers.counting import count_masks
from nnunet_nacl.review.reviewed_case import review_case
from nnunet_nacl.runs.evaluate import evaluate_folder
from tests.runs.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, make_model, read, write_image


@pytest.fixture
def measure(tmp_path):
    """Function that evaluates a model of some labels into calibration.json."""

    def run(labels=CLASSES):
        model = make_model(tmp_path, labels=labels, cases=1, sharpness=1.5)
        folder = PredictionFolder.open(model.validation(), model.references)
        output = model.validation() / "calibration.json"
        evaluate_folder(folder, output=output)
        return folder, output, read_document(output).cases[0]

    return run


@pytest.mark.parametrize("labels", [CLASSES, REGIONS, CLASSES_WITH_IGNORE], ids=["classes", "regions", "ignore"])
def test_confidence_is_that_of_the_segmentation_in_the_file(measure, labels):
    folder, output, case = measure(labels)
    assert case.n_changed_voxels == 0
    truth, segmentation = (read(path / "case_00.nii.gz") for path in (folder.reference_folder, folder.folder))
    probs = np.load(folder.folder / "case_00.npz")["probabilities"]
    segmentation[segmentation == 2] = 1  # as a postprocessing may
    write_image(segmentation, folder.folder / "case_00.nii.gz", (2.0, 1.0, 0.5))
    evaluate_folder(folder, output=output)
    found = read_document(output).cases[0]
    options = {"valid": truth != 3}
    if labels is REGIONS:
        truth, segmentation = (np.stack([one > 0, one == 2]) for one in (truth, segmentation))
        options = {"regions": True}
    expected = count_masks(probs, np.where(truth == 3, 0, truth), segmentation=segmentation, **options)
    for mask in ("all", "predicted", "foreground", "union"):
        assert found.ece(mask) == pytest.approx(ece(expected[mask]), abs=1e-9)
    assert found.n_changed_voxels > 0 and found.ece("all") > case.ece("all")


def test_expected_dice_and_volume_leave_ignored_voxels_out(measure):
    folder, _, case = measure(CLASSES_WITH_IGNORE)
    truth, segmentation = (read(path / "case_00.nii.gz") for path in (folder.reference_folder, folder.folder))
    probs, valid = np.load(folder.folder / "case_00.npz")["probabilities"], truth != 3
    for k in (1, 2):
        p, s = probs[k][valid].astype(float), (segmentation == k)[valid]
        values = vars(case.quality.structures[str(k)])
        assert values["expected_dice"] == pytest.approx(2 * p[s].sum() / (p.sum() + s.sum()))
        volumes = [values[name] for name in ("expected_volume", "volume", "true_volume")]
        assert volumes == pytest.approx([n / 1000 for n in (p.sum(), s.sum(), (truth == k).sum())])  # 1 mm3 a voxel
        assert values["max_probability"] == pytest.approx(p.max())
        assert values["true_pieces"] == ndimage.label(truth == k, np.ones((3, 3, 3)))[1]
    assert case.quality.voxel == pytest.approx(0.001)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_entropy_and_confidence_are_those_of_the_review_list(measure, labels):
    folder, _, case = measure(labels)
    review = review_case(replace(folder, reference_folder=None).load("case_00")).finished
    found = table([case])
    assert found.entropy[0] == pytest.approx(review.scan["entropy"])
    assert found.confidence[0] == pytest.approx(review.scan["confidence"])
    assert found.predicted_dice.min() == pytest.approx(review.structures.predicted_dice.min())
