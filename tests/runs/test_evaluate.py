"""Whole folders: agreement with nnU-Net and with a slow script, resuming, and bad input."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from nnunet_nacl.case.document import read_document
from nnunet_nacl.case.results import MASKS, EvaluationSettings
from nnunet_nacl.cli.main import main
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.nnunet.locate import model_folder
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.numbers import BinStats
from nnunet_nacl.numbers.calibration_error import mask_metrics
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.folds import evaluate_folds
from tests.reference.metrics import boundary, class_metrics, dilated, region_metrics
from tests.runs.folders import read, write_image


def slow_case(model, name, labels):
    """Everything of one case, without the package."""
    probs = np.load(model.validation() / f"{name}.npz")["probabilities"]
    truth = read(model.references / f"{name}.nii.gz").astype(int)
    valid = truth != labels.get("ignore", -1)
    truth = np.where(valid, truth, 0)
    spacing = (2.0, 1.0, 0.5)
    regions = [value for value in labels.values() if isinstance(value, list)]
    if regions:
        inside = np.stack([(truth == 1) | (truth == 2), truth == 2])
        foreground, predicted = inside.any(0), (probs > 0.5).any(0)
    else:
        foreground, predicted = truth > 0, probs.argmax(0) > 0
    masks = {
        "foreground": foreground,
        "union": foreground | predicted,
        "predicted": predicted,
        "all": valid,
        "dilated": dilated(truth, 2.0, spacing),
        "near": dilated(predicted, 2.0, spacing),
    }
    if valid.all():
        masks["boundary"] = boundary(truth, 2.0, spacing)
    function, target = (region_metrics, inside) if regions else (class_metrics, truth)
    return {mask: function(probs, target, where & valid) for mask, where in masks.items()}


def test_agrees_with_slow_loops_over_voxels(make_validated, labels):
    model = make_validated(labels=labels, cases=2, shape=(5, 9, 8))
    evaluation = evaluate_folder(model.validation())
    assert [case.case for case in evaluation.cases] == ["case_00", "case_01"] and not evaluation.problems
    for case in evaluation.cases:
        for mask, expected in slow_case(model, case.case, labels).items():
            actual = mask_metrics(case.bins[mask])
            assert actual.keys() == {"n_voxels", *expected}  # a new metric has its slow version
            for name, value in expected.items():
                assert actual[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (mask, name)


def test_dice_is_that_of_nnunets_summary(make_validated, labels):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, label_or_region_to_key
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    model = make_validated(labels=labels, cases=2, sharpness=2.0)
    folder = PredictionFolder.open(model.validation())
    document = encode(evaluate_folder(folder))
    manager = folder.label_manager
    wanted = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    dice = []
    for ours in document["metric_per_case"]:
        files = (str(place / f"{ours['case']}.nii.gz") for place in (model.references, model.validation()))
        theirs = compute_metrics(*files, SimpleITKIO(), wanted, manager.ignore_label)["metrics"]
        theirs = {label_or_region_to_key(key): values for key, values in theirs.items()}
        assert theirs.keys() == ours["metrics"].keys()
        for key, values in theirs.items():
            assert values == {name: ours["metrics"][key][name] for name in values}, key
        dice.append({key: values["Dice"] for key, values in theirs.items()})
    for key, mean in document["mean"].items():
        assert mean["Dice"] == np.nanmean([case[key] for case in dice])


def test_absent_structures_are_undefined_and_named(make_validated):
    model = make_validated(cases=2)
    path = model.references / "case_00.nii.gz"
    empty = np.zeros_like(read(path))
    write_image(empty, path, (2.0, 1.0, 0.5))
    write_image(empty, model.validation() / "case_00.nii.gz", (2.0, 1.0, 0.5))
    document = encode(evaluate_folder(model.validation()))
    assert document["undefined"]["Dice"] == {"1": ["case_00"], "2": ["case_00"]}
    undefined = ("foreground", "union", "dilated", "boundary", "predicted", "near")  # the labels' own masks
    assert document["undefined"]["calibration"] == {mask: ["case_00"] for mask in undefined}
    assert document["calibration"]["mean"]["foreground"]["n_cases"] == 1
    assert document["metric_per_case"][0]["n_changed_voxels"] > 0  # the npz still predicts something


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])  # workers import PyTorch
def test_writes_a_file_that_reads_back_the_same(make_validated, processes):
    model = make_validated(cases=3)
    output = model.validation() / "calibration.json"
    evaluation = evaluate_folder(model.validation(), output=output, num_processes=processes)
    again = read_document(output)
    assert encode(again) == encode(evaluation)
    document = json.loads(output.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert {"metric_per_case", "mean", "foreground_mean"} <= set(document)
    merged = BinStats.merge(decode(BinStats, case["bins"]["all"], "bins") for case in document["metric_per_case"])
    assert encode(merged) == document["bins"]["all"]
    expected = {f"case_0{i}{ending}" for i in range(3) for ending in (".npz", ".pkl", ".nii.gz")}
    assert {path.name for path in model.validation().iterdir()} == expected | {"calibration.json"}


def test_only_changed_cases_are_measured_again(make_validated, measured):
    model = make_validated(cases=3)
    output = model.validation() / "calibration.json"
    first = evaluate_folder(model.validation(), output=output)
    assert measured == ["case_00", "case_01", "case_02"]
    npz = model.validation() / "case_01.npz"
    np.savez_compressed(npz, probabilities=np.load(npz)["probabilities"].astype(np.float64))
    second = evaluate_folder(model.validation(), output=output)
    assert measured[3:] == ["case_01"] and encode(second)["calibration"] == encode(first)["calibration"]
    evaluate_folder(model.validation(), output=output, settings=EvaluationSettings(n_bins=10))
    assert len(measured) == 7


def test_folds_pool_into_the_model_folder(make_validated):
    model = make_validated(cases=2, folds=2)
    folders = find_fold_folders(model_folder(999, model.trainer, model.plans, model.configuration))
    together, path, failed = evaluate_folds(folders)
    assert path == model.folder / "calibration.json" and not failed and len(together.cases) == 4
    for fold in folders:
        assert (model.validation(fold) / "calibration.json").is_file()
    single = [read_document(model.validation(fold) / "calibration.json") for fold in folders]
    expected = encode(single[0].bins["all"] + single[1].bins["all"])
    for name, value in encode(together.bins["all"]).items():  # sums of floats depend on their order
        np.testing.assert_allclose(value, expected[name], rtol=1e-14)


@pytest.mark.parametrize(
    ("ending", "reader", "shape"),
    [
        (".nrrd", "SimpleITKIO", (6, 8, 7)),
        (".mha", "SimpleITKIO", (6, 8, 7)),
        (".nii.gz", "NibabelIO", (6, 8, 7)),
        (".nii.gz", "NibabelIOWithReorient", (6, 8, 7)),
        (".png", "NaturalImage2DIO", (1, 20, 18)),
        (".tif", "Tiff3DIO", (6, 8, 7)),
    ],
)
def test_every_reader_of_nnunet(make_validated, ending, reader, shape):
    model = make_validated(cases=1, file_ending=ending, reader=reader, shape=shape, spacing_mm=(1.0, 1.0, 1.0))
    if reader == "NibabelIOWithReorient":  # nnU-Net saves probabilities in the order in which its reader gives the axes
        npz = model.validation() / "case_00.npz"
        np.savez_compressed(npz, probabilities=np.load(npz)["probabilities"][:, :, ::-1, ::-1])
    evaluation = evaluate_folder(model.validation())
    assert not evaluation.problems and evaluation.mean_dice() > 0.6
    assert evaluation.cases[0].n_changed_voxels == 0  # the probabilities lie where the segmentation lies
    assert 0 < evaluation.bins["dilated"].n_voxels <= evaluation.bins["all"].n_voxels == np.prod(shape)


def test_half_precision_and_missing_segmentation(make_validated):
    model = make_validated(cases=1, dtype="float16")
    before = evaluate_folder(model.validation())
    (model.validation() / "case_00.nii.gz").unlink()
    after = evaluate_folder(model.validation())
    assert after.mean_dice() == pytest.approx(before.mean_dice(), abs=0.02)


def rewrite(path, how):
    """The same probabilities as another program might have saved them."""
    probs = np.load(path)["probabilities"]
    if how == "uncompressed":
        np.savez(path, probabilities=probs)
    elif how == "bzip2":
        content = io.BytesIO()
        np.save(content, probs)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("probabilities.npy", content.getvalue())
    elif how == "beside another array":
        np.savez_compressed(path, a=np.zeros(3), probabilities=probs, z=np.array([{}], dtype=object))
    else:
        dtype = {"big double": ">f8", "long double": np.longdouble}.get(how, "<f4")
        order = "F" if how == "Fortran order" else "C"
        np.savez_compressed(path, probabilities=probs.astype(dtype, order=order))


@pytest.mark.parametrize(
    "how",
    ["uncompressed", "bzip2", "beside another array", "big double", "long double", "Fortran order"],
)
def test_the_same_probabilities_saved_differently(make_validated, how):
    model = make_validated(cases=1)
    before = evaluate_folder(model.validation())
    rewrite(model.validation() / "case_00.npz", how)
    after = evaluate_folder(model.validation())
    for mask in MASKS:
        assert mask_metrics(after.bins[mask]) == pytest.approx(mask_metrics(before.bins[mask]), abs=1e-7)


@pytest.mark.slow  # nnU-Net starts a process
def test_an_ensembles_folder_needs_the_plans_of_its_members(make_validated, capsys):
    from nnunetv2.ensembling.ensemble import ensemble_folders

    model = make_validated(cases=1)
    members, output = model.root / "members", model.root / "merged"
    members.mkdir()
    for path in [*model.validation().iterdir(), model.folder / "dataset.json", model.folder / "plans.json"]:
        (members / path.name).write_bytes(path.read_bytes())
    ensemble_folders([str(members), str(members)], str(output), save_merged_probabilities=True, num_processes=1)
    command = ["evaluate", "-i", str(output), "-gt", str(model.references), "-np", "1"]
    assert main(command) == 2 and "-pfile" in capsys.readouterr().err
    assert main([*command, "-pfile", str(members / "plans.json")]) == 0
    assert json.loads((output / "calibration.json").read_text())["n_cases"] == 1
