"""Whole folders: agreement with nnU-Net and with a slow script, resuming, and bad input."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation import measure
from nnunet_nacl.evaluation.cases import PredictionFolder
from nnunet_nacl.evaluation.document import read_document, to_document
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from nnunet_nacl.evaluation.folds import evaluate_after_validation, evaluate_folds
from nnunet_nacl.evaluation.locate import find_fold_folders, model_folder
from nnunet_nacl.evaluation.results import MASKS, Settings, mask_metrics
from nnunet_nacl.metrics import BinStats
from tests.evaluation.folders import CLASSES, make_model, read, write_image, write_json
from tests.reference.metrics import boundary, class_metrics, dilated, region_metrics


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
        "foreground": foreground, "union": foreground | predicted, "predicted": predicted, "all": valid,
        "dilated": dilated(truth, 2.0, spacing),
    }  # fmt: skip
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
            actual = mask_metrics(case.stats[mask])
            for name, value in expected.items():
                assert actual[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (mask, name)


def test_dice_is_that_of_nnunets_summary(make_validated, labels):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json, save_summary_json
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    model = make_validated(labels=labels, cases=2, sharpness=2.0)
    folder = PredictionFolder.open(model.validation())
    document = to_document(evaluate_folder(folder))
    manager = folder.label_manager
    wanted = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    names = [case["case"] for case in document["metric_per_case"]]
    summary = [
        compute_metrics(str(model.references / f"{n}.nii.gz"), str(model.validation() / f"{n}.nii.gz"), SimpleITKIO(),
                        wanted, manager.ignore_label) for n in names
    ]  # fmt: skip
    path = model.root / "summary.json"
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export

    for entry in summary:
        recursive_fix_for_json_export(entry)
    save_summary_json({"metric_per_case": summary, "mean": {}, "foreground_mean": {}}, str(path))
    expected = json.loads(path.read_text())["metric_per_case"]
    load_summary_json(str(path))
    for ours, theirs in zip(document["metric_per_case"], expected):
        assert set(theirs["metrics"]) == set(ours["metrics"])
        for key, values in theirs["metrics"].items():
            for name, value in values.items():
                assert ours["metrics"][key][name] == value, (key, name)
    for key in document["mean"]:
        assert document["mean"][key]["Dice"] == np.nanmean([c["metrics"][key]["Dice"] for c in expected])


def test_absent_structures_are_undefined_and_named(make_validated):
    model = make_validated(cases=2)
    path = model.references / "case_00.nii.gz"
    empty = np.zeros_like(read(path))
    write_image(empty, path, (2.0, 1.0, 0.5))
    write_image(empty, model.validation() / "case_00.nii.gz", (2.0, 1.0, 0.5))
    document = to_document(evaluate_folder(model.validation()))
    assert document["undefined"]["Dice"] == {"1": ["case_00"], "2": ["case_00"]}
    assert document["undefined"]["calibration"] == {mask: ["case_00"] for mask in ("foreground", "dilated", "boundary")}
    assert document["calibration"]["mean"]["foreground"]["n_cases"] == 1
    assert document["metric_per_case"][0]["n_changed_voxels"] > 0  # the npz still predicts something


@pytest.mark.parametrize("processes", [1, 2])
def test_writes_a_file_that_reads_back_the_same(make_validated, processes):
    model = make_validated(cases=3)
    output = model.validation() / "calibration.json"
    paper = Settings(paper=True)
    evaluation = evaluate_folder(model.validation(), output=output, num_processes=processes, settings=paper)
    again = read_document(output)
    assert to_document(again) == to_document(evaluation)
    document = json.loads(output.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert {"metric_per_case", "mean", "foreground_mean"} <= set(document)
    merged = BinStats.merge(BinStats.from_json(case["bins"]["all"]) for case in document["metric_per_case"])
    assert merged.to_json() == document["bins"]["all"]
    expected = {f"case_0{i}{ending}" for i in range(3) for ending in (".npz", ".pkl", ".nii.gz")}
    assert {path.name for path in model.validation().iterdir()} == expected | {"calibration.json"}


def test_only_changed_cases_are_measured_again(make_validated, monkeypatch):
    model = make_validated(cases=3)
    output = model.validation() / "calibration.json"
    measured = []
    original = measure._measure
    monkeypatch.setattr(
        measure, "_measure", lambda folder, files, *rest: measured.append(files.case) or original(folder, files, *rest)
    )
    first = evaluate_folder(model.validation(), output=output)
    assert measured == ["case_00", "case_01", "case_02"]
    os.utime(model.validation() / "case_01.npz", (1, 1))
    second = evaluate_folder(model.validation(), output=output)
    assert measured[3:] == ["case_01"] and to_document(second)["calibration"] == to_document(first)["calibration"]
    evaluate_folder(model.validation(), output=output, settings=Settings(n_bins=10))
    assert len(measured) == 7
    evaluate_folder(model.validation(), output=output, settings=Settings(n_bins=10, paper=True, hausdorff="max"))
    assert len(measured) == 7  # every case's file holds all definitions of the distances


def test_a_killed_run_loses_no_finished_case(make_validated, monkeypatch):
    model = make_validated(cases=3)
    output = model.validation() / "calibration.json"
    output.write_text("the old file")
    original, measured = measure._measure, []

    def die_at_last(folder, files, *rest):
        measured.append(files.case)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return original(folder, files, *rest)

    monkeypatch.setattr(measure, "_measure", die_at_last)
    with pytest.raises(KeyboardInterrupt):
        evaluate_folder(model.validation(), output=output)
    assert output.read_text() == "the old file"
    assert len(list((model.validation() / "calibration.json.partial").glob("*.json"))) == 2
    (model.validation() / "calibration.json.partial" / "case_00.json").write_text('{"case": "case_00", ')
    evaluate_folder(model.validation(), output=output)
    assert measured[3:] == ["case_00", "case_02"]
    assert not (model.validation() / "calibration.json.partial").exists()


def test_folds_pool_into_the_model_folder(make_validated):
    model = make_validated(cases=2, folds=2)
    folders = find_fold_folders(model_folder(999, model.trainer, model.plans, model.configuration))
    together, path, failed = evaluate_folds(folders)
    assert path == model.folder / "calibration.json" and not failed and len(together.cases) == 4
    for fold in folders:
        assert (model.validation(fold) / "calibration.json").is_file()
    single = [read_document(model.validation(fold) / "calibration.json") for fold in folders]
    assert together.pooled["all"].to_json() == (single[0].pooled["all"] + single[1].pooled["all"]).to_json()


@pytest.mark.parametrize(
    ("ending", "reader", "shape"),
    [
        (".nrrd", "SimpleITKIO", (6, 8, 7)), (".mha", "SimpleITKIO", (6, 8, 7)), (".nii.gz", "NibabelIO", (6, 8, 7)),
        (".nii.gz", "NibabelIOWithReorient", (6, 8, 7)), (".png", "NaturalImage2DIO", (1, 20, 18)),
        (".tif", "Tiff3DIO", (6, 8, 7)),
    ],
)  # fmt: skip
def test_every_reader_of_nnunet(make_validated, ending, reader, shape):
    model = make_validated(cases=1, file_ending=ending, reader=reader, shape=shape, spacing_mm=(1.0, 1.0, 1.0))
    evaluation = evaluate_folder(model.validation())
    assert not evaluation.problems and evaluation.mean_dice() > 0.6
    assert 0 < evaluation.pooled["dilated"].n_voxels <= evaluation.pooled["all"].n_voxels == np.prod(shape)


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
    elif how in ("bzip2", "lzma"):
        content = io.BytesIO()
        np.save(content, probs)
        kind = zipfile.ZIP_BZIP2 if how == "bzip2" else zipfile.ZIP_LZMA
        with zipfile.ZipFile(path, "w", kind) as archive:
            archive.writestr("probabilities.npy", content.getvalue())
    elif how == "beside another array":
        np.savez_compressed(path, a=np.zeros(3), probabilities=probs, z=np.array([{}], dtype=object))
    else:
        dtype = {"big endian": ">f4", "double": "<f8", "big double": ">f8", "long double": np.longdouble}.get(how, "<f4")
        order = "F" if how == "Fortran order" else "C"
        np.savez_compressed(path, probabilities=probs.astype(dtype, order=order))


@pytest.mark.parametrize(
    "how",
    ["uncompressed", "bzip2", "lzma", "beside another array", "big endian", "double", "big double", "long double",
     "Fortran order"],
)  # fmt: skip
@pytest.mark.parametrize("inflater", ["imagecodecs", "numpy"])
def test_the_same_probabilities_saved_differently(make_validated, monkeypatch, how, inflater):
    from nnunet_nacl.evaluation import npz

    if inflater == "numpy":
        monkeypatch.setattr(npz, "imagecodecs", None)
    model = make_validated(cases=1)
    before = evaluate_folder(model.validation())
    rewrite(model.validation() / "case_00.npz", how)
    after = evaluate_folder(model.validation())
    for mask in MASKS:
        assert mask_metrics(after.pooled[mask]) == pytest.approx(mask_metrics(before.pooled[mask]), abs=1e-7)


def break_case(model, what):
    folder, references = model.validation(), model.references
    npz = folder / "case_00.npz"
    probs = np.load(npz)["probabilities"]
    spacing = (2.0, 1.0, 0.5)
    if what == "missing npz":
        npz.unlink()
    elif what == "truncated npz":
        npz.write_bytes(npz.read_bytes()[:-200])
    elif what == "corrupt npz":
        content = bytearray(npz.read_bytes())
        content[300:320] = bytes(20)
        npz.write_bytes(content)
    elif what == "empty npz":
        npz.write_bytes(b"")
    elif what == "other key":
        np.savez_compressed(npz, softmax=probs)
    elif what == "pickled npz":
        np.savez_compressed(npz, probabilities=np.array([{}], dtype=object))
    elif what == "shape":
        np.savez_compressed(npz, probabilities=probs[:, 1:])
    elif what == "channels":
        np.savez_compressed(npz, probabilities=probs[:2])
    elif what == "integers":
        np.savez_compressed(npz, probabilities=np.ones(probs.shape, dtype=np.uint8))
    elif what == "NaN":
        np.savez_compressed(npz, probabilities=np.where(probs > 0.999, np.nan, probs))
    elif what == "sum":
        np.savez_compressed(npz, probabilities=probs * 0.9)
    elif what == "logits":
        np.savez_compressed(npz, probabilities=np.log(probs))
    elif what == "label":
        write_image(np.full(probs.shape[1:], 7, np.uint8), references / "case_00.nii.gz", spacing)
    elif what == "geometry":
        write_image(read(references / "case_00.nii.gz"), references / "case_00.nii.gz", (1.0, 1.0, 1.0))
    elif what == "bad image":
        (references / "case_00.nii.gz").write_bytes(b"not an image")
    elif what == "no reference":
        (references / "case_00.nii.gz").unlink()
    elif what == "missing case":
        for path in folder.glob("case_00.*"):
            path.unlink()
    elif what == "extra case":
        for path in list(folder.glob("case_00.*")):
            path.rename(str(path).replace("case_00", "case_07"))
        write_image(np.zeros(probs.shape[1:], np.uint8), references / "case_07.nii.gz", spacing)
    elif what == "npz is a folder":
        npz.unlink()
        npz.mkdir()
    elif what == "npz links in a circle":
        npz.unlink()
        npz.symlink_to(npz)
    elif what == "npz leads nowhere":
        npz.unlink()
        npz.symlink_to(folder / "moved.npz")
    elif what == "truncated directory":
        npz.write_bytes(npz.read_bytes()[:-30])
    elif what == "cut within the array":
        npz.write_bytes(npz.read_bytes()[: npz.stat().st_size // 2])
    elif what == "false size":
        content = npz.read_bytes()
        size = content.index(struct.pack("<I", np.load(npz)["probabilities"].nbytes + 128), content.index(b"PK\x01\x02"))
        npz.write_bytes(content[:size] + struct.pack("<I", 2**31) + content[size + 4 :])
    elif what == "no zip":
        np.save(folder / "array.npy", probs)
        (folder / "array.npy").rename(npz)
    elif what == "structured":
        np.savez_compressed(npz, probabilities=np.zeros(probs.shape, dtype=[("p", "<f4")]))
    elif what == "nothing in it":
        np.savez_compressed(npz, probabilities=np.zeros((3, 0, 14, 12), np.float32))
    elif what in ("inf", "negative"):
        probs.flat[7] = np.inf if what == "inf" else -0.25
        np.savez_compressed(npz, probabilities=probs)
    elif what == "truth of another shape":
        write_image(read(references / "case_00.nii.gz")[:, 1:], references / "case_00.nii.gz", spacing)
    elif what in ("fraction", "almost"):
        truth = read(references / "case_00.nii.gz").astype(np.float32) + (0.5 if what == "fraction" else 1e-6)
        write_image(truth, references / "case_00.nii.gz", spacing)
    elif what == "NaN in truth":
        truth = read(references / "case_00.nii.gz").astype(np.float32)
        truth.flat[3] = np.nan
        write_image(truth, references / "case_00.nii.gz", spacing)
    elif what == "label of prediction":
        write_image(np.full(probs.shape[1:], 7, np.uint8), folder / "case_00.nii.gz", spacing)
    elif what == "bad prediction":
        (folder / "case_00.nii.gz").write_bytes((folder / "case_00.nii.gz").read_bytes()[:60])
    elif what == "reference is a folder":
        (references / "case_00.nii.gz").unlink()
        (references / "case_00.nii.gz").mkdir()
    elif what == "extra case without npz":
        (folder / "case_07.nii.gz").write_bytes((folder / "case_00.nii.gz").read_bytes())
        (references / "case_07.nii.gz").write_bytes((references / "case_00.nii.gz").read_bytes())
        for path in folder.glob("case_00.*"):
            path.unlink()


PROBLEMS = {
    "missing npz": ["case_00.npz", "--npz"], "truncated npz": ["case_00.npz", "truncated or corrupt"],
    "corrupt npz": ["case_00.npz", "truncated or corrupt"], "empty npz": ["case_00.npz", "truncated or corrupt"],
    "other key": ["case_00.npz", "'softmax'"], "pickled npz": ["case_00.npz", "corrupt"],
    "shape": ["case_00.npz", "(3, 5, 14, 12)", "(3, 6, 14, 12)"], "channels": ["case_00.npz", "3 classes"],
    "integers": ["case_00.npz", "floating point"], "NaN": ["case_00.npz", "NaN"], "sum": ["case_00.npz", "sum to 0.9"],
    "logits": ["case_00.npz", "logits"], "label": ["case_00.nii.gz", "label 7"],
    "geometry": ["case_00.nii.gz", "spacing (1.0, 1.0, 1.0) and (2.0, 1.0, 0.5)"],
    "bad image": ["case_00.nii.gz", "cannot be read"], "no reference": ["case_00.nii.gz", "no ground truth"],
    "missing case": ["case_00.nii.gz", "missing"], "extra case": ["case_07.npz", "validation split"],
    "npz is a folder": ["case_00.npz is no file", "--npz"],
    "npz links in a circle": ["case_00.npz is no file", "--npz"],
    "npz leads nowhere": ["case_00.npz is no file", "--npz"],
    "truncated directory": ["case_00.npz", "truncated or corrupt"],
    "cut within the array": ["case_00.npz", "truncated or corrupt"],
    "false size": ["case_00.npz", "truncated or corrupt"], "no zip": ["case_00.npz", "truncated or corrupt"],
    "structured": ["case_00.npz", "floating point"], "nothing in it": ["case_00.npz", "(3, 0, 14, 12)"],
    "inf": ["case_00.npz", "inf"], "negative": ["case_00.npz", "-0.25"],
    "truth of another shape": ["gt_segmentations/case_00.nii.gz", "shape (6, 13, 12) and (6, 14, 12)"],
    "fraction": ["gt_segmentations/case_00.nii.gz", "label 0.5"],
    "almost": ["gt_segmentations/case_00.nii.gz", "label 1e-06, 1.000001"],
    "NaN in truth": ["gt_segmentations/case_00.nii.gz", "label nan"],
    "label of prediction": ["validation/case_00.nii.gz", "prediction holds the label 7"],
    "bad prediction": ["validation/case_00.nii.gz", "cannot be read"],
    "reference is a folder": ["gt_segmentations/case_00.nii.gz", "no ground truth"],
    "extra case without npz": ["case_07.npz", "validation split"],
}  # fmt: skip


@pytest.mark.parametrize("what", PROBLEMS)
@pytest.mark.parametrize("inflater", ["imagecodecs", "numpy"])
def test_a_bad_case_is_named_and_the_others_are_saved(make_validated, monkeypatch, what, inflater):
    from nnunet_nacl.evaluation import npz

    if inflater == "numpy":
        monkeypatch.setattr(npz, "imagecodecs", None)
    model = make_validated(cases=2)
    break_case(model, what)
    folders = find_fold_folders(model.folder)
    evaluation, path, _ = evaluate_folds(folders)
    message = " ".join(evaluation.problems.values())
    for part in PROBLEMS[what]:
        assert part in message
    assert all("\n" not in problem for problem in evaluation.problems.values())
    assert [case.case for case in read_document(path).cases] == ["case_01"]
    assert read_document(path).problems == evaluation.problems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m.folder / "dataset.json").unlink(), "no dataset.json .* -djfile"),
        (lambda m: (m.folder / "plans.json").unlink(), "no plans.json .* -pfile"),
        (lambda m: (m.folder / "plans.json").write_text("{"), "plans.json: not a JSON file"),
        (lambda m: write_json(m.folder / "plans.json", [1]), "expected a JSON object, got list"),
        (lambda m: write_json(m.folder / "dataset.json", {"file_ending": ".nii.gz"}), "'labels'"),
        (lambda m: write_json(m.folder / "dataset.json", {"file_ending": ".mha", "labels": {"a": 1}}), "not nnU-Net's"),
        (lambda m: [p.unlink() for p in m.validation().iterdir()], "holds no predictions"),
        (lambda m: [p.unlink() for p in m.validation().glob("*.npz")], "no case could be evaluated"),
        (lambda m: m.references.rename(m.root / "elsewhere"), "no ground truth of Dataset999_Synthetic"),
    ],
)
def test_an_unusable_folder_is_named(make_validated, change, message):
    model = make_validated(cases=1)
    change(model)
    with pytest.raises(UserError, match=message):
        evaluate_folder(model.validation())


@pytest.mark.parametrize("name", ["out", "calibration.json/x.json", "out.txt"])
def test_an_output_that_cannot_be_written_fails_first(make_validated, name, tmp_path):
    model = make_validated(cases=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "calibration.json").write_text("a file, no folder")
    with pytest.raises(UserError, match="folder|written|end with"):
        evaluate_folder(model.validation(), output=tmp_path / name)


def test_the_trainers_hook_never_raises(make_validated):
    model = make_validated(cases=2)
    lines = []
    break_case(model, "NaN")
    assert evaluate_after_validation(model.validation(), model.references, log=lines.append) is not None
    assert (model.validation() / "calibration.json").is_file() and "WARNING" in lines[0] and "ECE" in lines[1]
    assert evaluate_after_validation(model.validation(), model.root / "nowhere", log=lines.append) is None
    assert lines[-1].startswith("WARNING")
    for path in model.validation().glob("*.npz"):
        path.unlink()
    count = len(lines)
    assert evaluate_after_validation(model.validation(), model.references, log=lines.append) is None
    assert len(lines) == count


def test_masks_all_there(make_validated):
    assert set(evaluate_folder(make_validated(cases=1).validation()).pooled) == set(MASKS)


def test_synthetic_folders_are_reproducible(tmp_path):
    first, second = (make_model(tmp_path / name, labels=CLASSES, cases=1) for name in "ab")
    a, b = (np.load(m.validation() / "case_00.npz")["probabilities"] for m in (first, second))
    assert (a == b).all()
