"""What a document says of the chosen label, and of the quality that the probabilities promise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnunet_nacl.cases.components import find_components
from nnunet_nacl.cases.evaluate import evaluate_folder
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.quality_block import quality_rows
from nnunet_nacl.cases.reviewed_case import review_case
from nnunet_nacl.documents.document import read_document
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.metrics.chosen import chosen_ece
from tests.cases.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, make_model, read, write_json


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
def test_of_the_likeliest_label_the_chosen_error_is_the_ece(measure, labels):
    _, _, case = measure(labels)
    assert case.n_changed_voxels == 0
    assert chosen_ece(case.chosen["all"]) == pytest.approx(case.ece("all"), abs=1e-9)
    if labels is not REGIONS:  # there `predicted` is where any region is, for each of them
        assert chosen_ece(case.chosen["predicted"]) == pytest.approx(case.ece("predicted"), abs=1e-9)


def test_expected_dice_and_volume_leave_ignored_voxels_out(measure):
    folder, _, case = measure(CLASSES_WITH_IGNORE)
    truth, segmentation = (read(path / "case_00.nii.gz") for path in (folder.reference_folder, folder.folder))
    probs, valid = np.load(folder.folder / "case_00.npz")["probabilities"], truth != 3
    for k in (1, 2):
        p, s = probs[k][valid].astype(float), (segmentation == k)[valid]
        values = case.blocks["quality"]["structures"][str(k)]
        assert values["expected_dice"] == pytest.approx(2 * p[s].sum() / (p.sum() + s.sum()))
        volumes = [values[name] for name in ("expected_volume", "volume", "true_volume")]
        assert volumes == pytest.approx([n / 1000 for n in (p.sum(), s.sum(), (truth == k).sum())])  # 1 mm3 a voxel
        assert values["max_probability"] == pytest.approx(p.max())
    assert case.blocks["quality"]["voxel"] == pytest.approx(0.001)


def test_components_are_in_the_entry_of_their_case(measure):
    folder, _, case = measure()
    alone = find_components(folder.load(folder.files("case_00")))
    for found, one in zip(decode(dict[str, StructureFindings], case.blocks["findings"], "it").values(), alone):
        assert (found.name, found.n_true, found.n_more) == (one.name, one.n_true, one.n_more)
        assert [f.volume for f in found.found] == pytest.approx([f.volume for f in one.found])
        assert [f.mean_probability for f in found.found] == pytest.approx([f.mean_probability for f in one.found])
        assert [f.overlaps for f in found.found] == [f.overlaps for f in one.found] and one.n_true


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_entropy_and_confidence_are_those_of_the_review_list(measure, labels):
    folder, _, case = measure(labels)
    review = review_case(folder.load(folder.files("case_00"), truth=False)).row
    found = quality_rows([case])
    assert found.entropy == pytest.approx(review.mean_foreground_entropy)
    assert found.confidence == pytest.approx(review.mean_foreground_confidence)
    assert found.lowest_expected == pytest.approx(review.lowest_expected_dice)


def test_an_earlier_document_is_measured_again_while_the_probabilities_are_there(measure):
    folder, output, case = measure()
    document = json.loads(output.read_text())
    del document["metric_per_case"][0]["chosen"], document["metric_per_case"][0]["quality"]
    write_json(output, document)
    assert not read_document(output).cases[0].chosen and quality_rows(read_document(output).cases) is None
    probabilities = folder.folder / "case_00.npz"
    probabilities.rename(folder.folder / "kept")
    evaluate_folder(folder, output=output)
    assert not read_document(output).cases[0].chosen  # the rest of it still holds
    (folder.folder / "kept").rename(probabilities)
    evaluate_folder(folder, output=output)
    again = read_document(output).cases[0]
    assert encode(again.chosen["all"]) == encode(case.chosen["all"]) and again.blocks == case.blocks


def test_damaged_sums_of_the_chosen_label_are_refused(measure):
    _, output, _ = measure()
    document = json.loads(output.read_text())
    document["metric_per_case"][0]["chosen"]["all"]["count"] = [[1, 2]]
    write_json(output, document)
    with pytest.raises(UserError, match=r"chosen.all: ChosenStats needs tables of one shape, got \(1, 2\)"):
        read_document(output)
