"""calibration.json: it is JSON, has nnU-Net's numbers, and the means that tables show."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.cases.case import MASKS
from nnunet_nacl.cli.main import main
from nnunet_nacl.metrics import BinStats
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.json_files import decode, encode
from tests.cases.conftest import labels  # noqa: F401  (a fixture)
from tests.documents import check_document
from tests.nnunet.measuring import evaluated
from tests.runs.folders import read, write_image
from tests.runs.predictions import SPACING_MM


def written(evaluation, folder) -> dict:
    evaluation.write(folder / "calibration.json")
    text = (folder / "calibration.json").read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    check_document("calibration", document)
    return document


@pytest.fixture
def compared_with_nnunet(make_validated, labels, tmp_path):  # noqa: F811
    """calibration.json of two cases, and of each case nnU-Net's metrics by its key."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, label_or_region_to_key
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    model = make_validated(labels=labels, cases=2, sharpness=2.0)
    folder = PredictionFolder.open(model.validation())
    document = written(evaluated(folder), tmp_path)
    manager = folder.dataset.label_manager
    structures = manager.foreground_labels
    if manager.has_regions:
        structures = manager.foreground_regions
    theirs = []
    for case in document["metric_per_case"]:
        file_name = f"{case['case']}.nii.gz"
        computed = compute_metrics(
            str(model.references / file_name),
            str(model.validation() / file_name),
            SimpleITKIO(),
            structures,
            manager.ignore_label,
        )
        metrics = computed["metrics"]
        theirs.append({label_or_region_to_key(key): metrics[key] for key in metrics})
    return document, theirs


def test_metrics_of_cases_and_their_means_are_nnunets(compared_with_nnunet):
    document, theirs = compared_with_nnunet
    for ours, metrics in zip(document["metric_per_case"], theirs):
        assert ours["metrics"].keys() == metrics.keys()
        for key, values in metrics.items():
            assert {name: ours["metrics"][key][name] for name in values} == values, key
    for key, names in theirs[0].items():
        for name in names:
            mean = np.nanmean([metrics[key][name] for metrics in theirs])
            assert document["mean"][key][name] == pytest.approx(mean)


def test_the_foreground_mean_is_nnunets(compared_with_nnunet):
    document, theirs = compared_with_nnunet
    any_metrics = next(iter(theirs[0].values()))
    for name in any_metrics.keys() & document["foreground_mean"].keys():
        of_structures = []
        for key in theirs[0]:
            of_structures.append(np.nanmean([metrics[key][name] for metrics in theirs]))
        assert document["foreground_mean"][name] == pytest.approx(np.mean(of_structures))


def test_scores_are_means_over_cases_and_of_all_voxels(make_validated, tmp_path):
    document = written(evaluated(make_validated(cases=3).validation()), tmp_path)
    cases = document["metric_per_case"]
    assert list(document["bins"]) == list(MASKS)
    for mask in MASKS:
        scores = [case["calibration"][mask] for case in cases]
        mean = document["calibration"]["mean"][mask]
        assert mean["ECE"] == pytest.approx(np.mean([score["ECE"] for score in scores]))
        assert mean["n_cases"] == 3
        pooled = document["calibration"]["pooled"][mask]
        assert pooled["n_voxels"] == sum(score["n_voxels"] for score in scores)
    bins = [decode(BinStats, case["bins"]["all"], "bins") for case in cases]
    assert encode(BinStats.merge(bins)) == document["bins"]["all"]


def test_absent_structures_are_undefined_and_named(make_validated, tmp_path):
    model = make_validated(cases=2)
    path = model.references / "case_00.nii.gz"
    empty = np.zeros_like(read(path))
    for folder in (model.references, model.validation()):
        write_image(empty, folder / "case_00.nii.gz", SPACING_MM)
    document = written(evaluated(model.validation()), tmp_path)
    assert document["undefined"]["Dice"] == {"1": ["case_00"], "2": ["case_00"]}
    undefined = [mask for mask in MASKS if mask != "all"]  # the labels' own masks
    assert document["undefined"]["calibration"] == {mask: ["case_00"] for mask in undefined}
    assert document["calibration"]["mean"]["foreground"]["n_cases"] == 1
    # the npz still predicts something
    assert document["metric_per_case"][0]["n_changed_voxels"] > 0


def test_folds_have_documents_and_the_model_one_of_all(make_validated, capsys):
    model = make_validated(cases=2, folds=2)
    assert main(["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1", "--csv"]) == 0
    places = [model.folder, model.validation(0), model.validation(1)]
    documents = [json.loads((place / "calibration.json").read_text()) for place in places]
    assert [document["n_cases"] for document in documents] == [4, 2, 2]
    of_all, of_fold_0, of_fold_1 = (document["bins"]["all"] for document in documents)
    for name, sums in of_all.items():
        total = np.add(of_fold_0[name], of_fold_1[name])
        np.testing.assert_allclose(sums, total, rtol=1e-14)  # depends on the order of the floats

    values = pd.read_csv(model.folder / "calibration.csv")
    dice = values[(values.scope == "case") & (values.metric == "Dice")]
    assert len(dice) == 8
    pooled = values[(values.scope == "pooled") & (values["mask"] == "all")]
    [error] = pooled[(pooled.metric == "ECE") & pooled.structure.isna()].value
    assert error == documents[0]["calibration"]["pooled"]["all"]["ECE"]
