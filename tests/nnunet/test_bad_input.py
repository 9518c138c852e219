"""Bad input: each broken case is named with what is wrong, and the good ones are measured and kept."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest

from nnunet_nacl.case.record import CaseRecord
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet import image_files
from nnunet_nacl.nnunet.held_out import measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work
from tests.nnunet.measuring import measured
from tests.runs.folders import read, write_image, write_json
from tests.runs.predictions import SPACING_MM


def break_case(model, what):
    folder, references = model.validation(), model.references
    npz = folder / "case_00.npz"
    probs = np.load(npz)["probabilities"]
    if what == "missing npz":
        npz.unlink()
    elif what == "truncated npz":
        npz.write_bytes(npz.read_bytes()[:-200])
    elif what == "corrupt npz":
        content = bytearray(npz.read_bytes())
        content[300:320] = bytes(20)
        npz.write_bytes(content)
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
        write_image(np.full(probs.shape[1:], 7, np.uint8), references / "case_00.nii.gz", SPACING_MM)
    elif what == "geometry":
        write_image(read(references / "case_00.nii.gz"), references / "case_00.nii.gz", (1.0, 1.0, 1.0))
    elif what == "no reference":
        (references / "case_00.nii.gz").unlink()
    elif what == "extra case":
        for path in list(folder.glob("case_00.*")):
            path.rename(str(path).replace("case_00", "case_07"))
        write_image(np.zeros(probs.shape[1:], np.uint8), references / "case_07.nii.gz", SPACING_MM)
    elif what == "npz leads nowhere":
        npz.unlink()
        npz.symlink_to(folder / "moved.npz")
    elif what == "false size":
        content = npz.read_bytes()
        size = content.index(struct.pack("<I", probs.nbytes + 128), content.index(b"PK\x01\x02"))
        npz.write_bytes(content[:size] + struct.pack("<I", 2**31) + content[size + 4 :])
    elif what == "truth is NaN":
        array = read(references / "case_00.nii.gz").astype(np.float32)
        array.flat[3] = np.nan
        write_image(array, references / "case_00.nii.gz", SPACING_MM)
    elif what == "not UTF-8":
        for path in (npz, folder / "case_00.nii.gz", references / "case_00.nii.gz"):
            path.rename(path.with_name(os.fsdecode(b"caf\xe9") + path.name.removeprefix("case_00")))
    elif what == "almost":
        truth = read(references / "case_00.nii.gz").astype(np.float32) + 1e-6
        write_image(truth, references / "case_00.nii.gz", SPACING_MM)


PROBLEMS = {
    "missing npz": ["case_00.npz", "--npz"],
    "truncated npz": ["case_00.npz", "truncated or corrupt"],
    "corrupt npz": ["case_00.npz", "truncated or corrupt"],
    "other key": ["case_00.npz", "'softmax'"],
    "pickled npz": ["case_00.npz", "of shape (1,)"],
    "shape": ["case_00.npz", "(3, 5, 14, 12)", "(3, 6, 14, 12)"],
    "channels": ["case_00.npz", "3 classes"],
    "integers": ["case_00.npz", "floating point"],
    "NaN": ["case_00.npz", "NaN"],
    "sum": ["case_00.npz", "sum to 0.9"],
    "logits": ["case_00.npz", "logits"],
    "label": ["case_00.nii.gz", "label 7"],
    "geometry": ["case_00.nii.gz", "spacing (1.0, 1.0, 1.0) and (2.0, 1.0, 0.5)"],
    "no reference": ["case_00.nii.gz", "no ground truth"],
    "extra case": ["case_07.npz", "validation split"],
    "npz leads nowhere": ["case_00.npz is no file", "--npz"],
    "false size": ["case_00.npz", "truncated or corrupt"],
    "truth is NaN": ["gt_segmentations/case_00.nii.gz", "NaN or infinite"],
    "not UTF-8": ["caf\\udce9.npz is not in the validation split"],
    "almost": ["gt_segmentations/case_00.nii.gz", "label 1e-06, 1.000001"],
}


BROKEN_FILES = [what for what, parts in PROBLEMS.items() if parts[:2] == ["case_00.npz", "truncated or corrupt"]]


@pytest.mark.parametrize(
    ("what", "is_large"), [(what, False) for what in PROBLEMS] + [(what, True) for what in BROKEN_FILES]
)
def test_a_bad_case_is_named_and_the_others_are_kept(make_validated, monkeypatch, what, is_large):
    if is_large:
        monkeypatch.setattr(image_files, "_MOST_AT_ONCE", 0)
    model = make_validated(cases=2)
    break_case(model, what)
    found = measure_folders(find_fold_folders(model.folder), Work(), chill=False)
    message = " ".join(found.problems.values())
    assert all(part in message for part in PROBLEMS[what]), message
    assert all("\n" not in problem for problem in found.problems.values())
    assert list(found.records) == ["case_01"]
    assert [path.name for path in (model.validation() / "records").iterdir()] == ["case_01.npz"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_a_truth_that_was_cut_off_is_not_taken_for_background(make_validated, ending, reader):
    model = make_validated(cases=2, file_ending=ending, reader=reader)
    path = model.references / f"case_00{ending}"
    path.write_bytes(path.read_bytes()[: -30 if ending == ".nii.gz" else -1])
    found = measured(model.validation())
    assert f"{path}: cannot be read" in found["case_00"] and "truncated" in found["case_00"]
    assert isinstance(found["case_01"], CaseRecord)


@pytest.mark.parametrize("how", ["not compressed", "trailing zeros", "two members"])
def test_whole_files_of_unusual_make_are_read(make_validated, how):
    model = make_validated(cases=1)
    [before] = measured(model.validation(), keep=False).values()
    path = model.references / "case_00.nii.gz"
    content = gzip.decompress(path.read_bytes())
    if how == "not compressed":
        path.write_bytes(content)
    elif how == "trailing zeros":
        path.write_bytes(path.read_bytes() + bytes(64))
    else:
        path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    [after] = measured(model.validation(), keep=False).values()
    assert after.structures.equals(before.structures)


def test_the_two_folders_swapped_are_noticed(make_validated):
    model = make_validated(cases=1)
    files = {"dataset_json": model.folder / "dataset.json", "plans": model.folder / "plans.json"}
    swapped = PredictionFolder.open(model.references, model.validation(), **files)
    with pytest.raises(UserError, match="no probabilities .* give the ground truth first"):
        measure_folders({"": swapped}, Work())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m.folder / "dataset.json").unlink(), "no dataset.json .* -djfile"),
        (lambda m: (m.folder / "plans.json").unlink(), "no plans.json .* -pfile"),
        (lambda m: (m.folder / "plans.json").write_text("{"), "plans.json: not a JSON file"),
        (lambda m: write_json(m.folder / "plans.json", [1]), "plans.json: .*valid dictionary"),
        (lambda m: (m.folder / "plans.json").write_text("[" * 10**5), "plans.json: .*recursion limit"),
        (lambda m: write_json(m.folder / "plans.json", {"image_reader_writer": 5}), "image_reader_writer: .* not 5"),
        (
            lambda m: write_json(m.folder / "plans.json", {"dataset_name": [5]}),
            "dataset_name: .* valid string",
        ),
        (lambda m: write_json(m.folder / "plans.json", {"dataset_name": "../x"}), "'../x', which names no folder"),
        (lambda m: write_json(m.folder / "plans.json", {"configurations": None}), "configurations: .* valid dict"),
        (lambda m: write_json(m.folder / "plans.json", {"configurations": {"2d": 5}}), "configurations.2d: .* not 5"),
        (lambda m: write_json(m.folder / "dataset.json", {"file_ending": ".nii.gz"}), "labels: Field required"),
        (lambda m: write_json(m.folder / "dataset.json", {"file_ending": ".mha", "labels": {"a": 1}}), "not nnU-Net's"),
        (lambda m: [p.unlink() for p in m.validation().iterdir()], "holds no predictions"),
        (lambda m: [p.unlink() for p in m.validation().glob("*.npz")], "no probabilities .* --npz"),
        (lambda m: [p.write_bytes(b"") for p in m.validation().glob("*.npz")], "no case could be .*\n.*case_00.npz"),
        (lambda m: m.references.rename(m.root / "elsewhere"), "no ground truth of Dataset999_Synthetic"),
    ],
)
def test_an_unusable_folder_is_named(make_validated, change, message):
    model = make_validated(cases=1)
    change(model)
    with pytest.raises(UserError, match=message):
        measure_folders({"": PredictionFolder.open(model.validation())}, Work())


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (5, "valid list, not 5"),
        ([{"val": ["case_00"]}], "0.train: Field required"),
        ([{"train": [], "val": [5]}], "0.val.0: .*valid string, not 5"),
        *([[{"train": [], "val": [case]}], "cannot be the name of a case"] for case in ("../x", "", "..", "\0")),
    ],
)
def test_damaged_splits_are_named(make_validated, splits, message):
    model = make_validated(cases=1)
    write_json(model.references.parent / "splits_final.json", splits)
    with pytest.raises(UserError, match=f"splits_final.json: .*{message}.*; restore it"):
        find_fold_folders(model.folder)
