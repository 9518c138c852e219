"""Folders in, maps and the list out."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from scipy import ndimage
from skimage import io

from nnunet_nacl.cases import map_folder as output_module
from nnunet_nacl.cases import map_images
from nnunet_nacl.cases import uncertainty as run_module
from nnunet_nacl.cases.uncertainty import write_uncertainty
from nnunet_nacl.cli.main import main
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.voxel_uncertainty import mutual_information
from tests.cases.folders import (
    CLASSES,
    CLASSES_WITH_IGNORE,
    REGIONS,
    REGIONS_WITH_IGNORE,
    write_image,
    write_prediction,
)
from tests.cases.predictions import SHAPE, SPACING_MM, empty_prediction
from tests.processes import children, full_disk, is_alive, run_warm

VOXEL_ML = np.prod(SPACING_MM) / 1000


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def probabilities(folder, case):
    return np.load(folder / f"{case}.npz")["probabilities"].astype(np.float64)


def entropy(probs):
    return -(probs * np.log(np.where(probs > 0, probs, 1))).sum(0) / np.log(len(probs))


def rows(output, errors="strict"):
    return list(csv.DictReader((output / "review.csv").open(errors=errors)))


@pytest.fixture
def tilted(predict):
    """Predictions whose images are tilted in space."""
    folder = predict()
    c, s = math.cos(0.3), math.sin(0.3)
    for path in folder.glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        image.SetDirection((c, -s, 0, s, c, 0, 0, 0, -1))
        image.SetOrigin((-20, 31.5, 4))
        sitk.WriteImage(image, str(path))
    return folder


def test_maps_agree_with_the_npz_voxel_by_voxel(tilted, tmp_path):
    out = tmp_path / "out"
    review = write_uncertainty([tilted], out, dtype="float32", probabilities=True)
    assert not review.problems and len(review.cases) == 3
    for case in ("case_0", "case_1", "case_2"):
        probs = probabilities(tilted, case)
        ordered = np.sort(probs, axis=0)
        expected = {
            "confidence": ordered[-1],
            "margin": ordered[-1] - ordered[-2],
            "entropy": entropy(probs),
            "segmentation": read(tilted / f"{case}.nii.gz"),
            "probability_0_background": probs[0],
            "probability_1_anterior": probs[1],
            "probability_2_posterior": probs[2],
        }
        there = sitk.ReadImage(str(tilted / f"{case}.nii.gz"))
        written = {path.name: path for path in (out / case).glob("*.nii.gz")}
        assert set(written) == {f"{case}_{name}.nii.gz" for name in expected}
        for name, values in expected.items():
            image = sitk.ReadImage(str(out / case / f"{case}_{name}.nii.gz"))
            np.testing.assert_allclose(sitk.GetArrayFromImage(image), values, atol=1e-6)
            for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                np.testing.assert_allclose(getattr(image, of)(), getattr(there, of)(), atol=1e-6)
    write_uncertainty([tilted], tmp_path / "bytes", maps=["entropy"])
    np.testing.assert_array_equal(
        read(tmp_path / "bytes" / "case_0" / "case_0_entropy.nii.gz"),
        np.rint(entropy(probabilities(tilted, "case_0")) * 255),
    )


def test_the_list_says_what_the_predictions_hold(predict, tmp_path):
    folder = predict()
    write_uncertainty([folder], tmp_path / "out")
    table = rows(tmp_path / "out")
    assert [row["case"] for row in table] == ["case_2", "case_1", "case_0"]  # sharpness falls with the number
    assert [row["rank"] for row in table] == ["1", "2", "3"]
    for row in table:
        probs, segmentation = probabilities(folder, row["case"]), read(folder / f"{row['case']}.nii.gz")
        foreground = segmentation > 0
        number = {key: float(row[key]) for key in row if key and row[key].replace(".", "").isdigit()}
        assert number["mean_foreground_entropy"] == pytest.approx(entropy(probs)[foreground].mean(), rel=1e-5)
        assert number["mean_foreground_confidence"] == pytest.approx(probs.max(0)[foreground].mean(), rel=1e-5)
        assert (row["empty"], row["empty_structures"], row["n_members"]) == ("no", "", "1")
        for label, name in ((1, "anterior"), (2, "posterior")):
            mask, expected = segmentation == label, probs[label].sum()
            dice = 2 * probs[label][mask].sum() / (expected + mask.sum())
            assert number[f"{name} expected_dice"] == pytest.approx(dice, rel=1e-5)
            assert number[f"{name} expected_volume_ml"] == pytest.approx(expected * VOXEL_ML, rel=1e-5)
            assert number[f"{name} volume_ml"] == pytest.approx(mask.sum() * VOXEL_ML, rel=1e-5)
            assert number[f"{name} max_probability"] == pytest.approx(probs[label].max(), rel=1e-5)
            pieces = np.bincount(ndimage.label(segmentation == label, np.ones((3, 3, 3)))[0].ravel())[1:]
            assert number[f"{name} pieces"] == len(pieces)
            assert number[f"{name} largest_piece"] == pytest.approx(pieces.max() / pieces.sum(), rel=1e-5)
            for spread in ("sd", "min", "max"):  # one member has no spread, and voxels are no substitute for it
                assert row[f"{name} volume_{spread}_ml"] == ""
            assert row[f"{name} members_dice"] == ""
        assert row["mean_foreground_mutual_information"] == ""
        lowest = min(number[f"{name} expected_dice"] for name in ("anterior", "posterior"))
        assert number["lowest_expected_dice"] == lowest
    assert json.loads((tmp_path / "out" / "uncertainty.json").read_text())["volume_uncertainty"].startswith("none")


def test_empty_predictions_come_first(predict, tmp_path):
    folder = predict()
    empty_prediction(folder, "sure", background=0.99)
    empty_prediction(folder, "nearly", background=0.6)
    segmentation = read(folder / "case_0.nii.gz")
    segmentation[segmentation == 2] = 0  # as a postprocessing might leave it
    write_image(segmentation, folder / "case_0.nii.gz", SPACING_MM)
    review = write_uncertainty([folder], tmp_path / "out")
    assert [case.case for case in review.cases] == ["nearly", "sure", "case_2", "case_1", "case_0"]
    table = {row["case"]: row for row in rows(tmp_path / "out")}
    assert table["sure"]["empty"] == "yes" and table["sure"]["empty_structures"] == "anterior; posterior"
    for name in ("mean_foreground_entropy", "lowest_expected_dice", "anterior expected_dice"):
        assert table["sure"][name] == ""
    assert float(table["sure"]["anterior volume_ml"]) == 0
    assert float(table["sure"]["anterior expected_volume_ml"]) == pytest.approx(0.005 * np.prod(SHAPE) * VOXEL_ML)
    assert table["case_0"]["empty"] == "no" and table["case_0"]["empty_structures"] == "posterior"
    assert table["case_0"]["posterior expected_dice"] == ""
    assert table["case_0"]["lowest_expected_dice"] == table["case_0"]["anterior expected_dice"]


def test_members_give_their_mean_their_disagreement_and_a_spread(predict, tmp_path):
    folders = [predict(f"fold_{i}", seed=i) for i in range(3)]
    review = write_uncertainty(folders, tmp_path / "out", dtype="float32", maps=["mutual_information", "entropy"])
    assert review.members == ["fold_0", "fold_1", "fold_2"]
    probs = np.stack([probabilities(folder, "case_1") for folder in folders])
    case = tmp_path / "out" / "case_1"
    np.testing.assert_allclose(read(case / "case_1_entropy.nii.gz"), entropy(probs.mean(0)), atol=1e-6)
    np.testing.assert_allclose(read(case / "case_1_mutual_information.nii.gz"), mutual_information(probs), atol=1e-6)
    predicted = read(case / "case_1_segmentation.nii.gz")
    np.testing.assert_array_equal(predicted, probs.mean(0).argmax(0))
    [row] = [row for row in rows(tmp_path / "out") if row["case"] == "case_1"]
    masks = [read(folder / "case_1.nii.gz") == 1 for folder in folders]
    volumes = [mask.sum() * VOXEL_ML for mask in masks]
    dice = [2 * (masks[a] & masks[b]).sum() / (masks[a].sum() + masks[b].sum()) for a, b in ((0, 1), (0, 2), (1, 2))]
    expected = {
        "volume_ml": (predicted == 1).sum() * VOXEL_ML,
        "members_dice": np.mean(dice),
        "volume_sd_ml": np.std(volumes, ddof=1),
        "volume_min_ml": min(volumes),
        "volume_max_ml": max(volumes),
        "max_probability": probs.mean(0)[1].max(),
        "volume_ml fold_2": volumes[2],
    }
    for name, value in expected.items():
        assert float(row[f"anterior {name}"]) == pytest.approx(value, rel=1e-5)
    information = mutual_information(probs)[predicted > 0].mean()
    assert float(row["mean_foreground_mutual_information"]) == pytest.approx(information, rel=1e-4)
    assert row["n_members"] == "3"
    settings = json.loads((tmp_path / "out" / "uncertainty.json").read_text())
    assert settings["value"] == "stored" and [m["name"] for m in settings["members"]] == review.members
    assert [m["folder"] for m in settings["members"]] == [str(folder.resolve()) for folder in folders]
    assert "3 members" in settings["volume_uncertainty"]


@pytest.mark.parametrize("labels", [REGIONS, REGIONS_WITH_IGNORE])
def test_regions_show_the_least_certain_one(predict, tmp_path, labels):
    folders = [predict(f"m{i}", labels=labels, seed=i) for i in range(2)]
    write_uncertainty(folders[:1], tmp_path / "one", dtype="float32", probabilities=True)
    probs = probabilities(folders[0], "case_0")
    case = tmp_path / "one" / "case_0"
    np.testing.assert_allclose(read(case / "case_0_confidence.nii.gz"), np.maximum(probs, 1 - probs).min(0), atol=1e-6)
    binary = np.stack([entropy(np.stack([p, 1 - p])) for p in probs])
    np.testing.assert_allclose(read(case / "case_0_entropy.nii.gz"), binary.max(0), atol=1e-5)
    np.testing.assert_allclose(read(case / "case_0_probability_1_core.nii.gz"), probs[1], atol=1e-6)
    row = rows(tmp_path / "one")[-1]
    segmentation = read(folders[0] / f"{row['case']}.nii.gz")
    whole, probs = segmentation > 0, probabilities(folders[0], row["case"])
    assert float(row["whole volume_ml"]) == pytest.approx(whole.sum() * VOXEL_ML, rel=1e-5)
    dice = 2 * probs[0][whole].sum() / (probs[0].sum() + whole.sum())
    assert float(row["whole expected_dice"]) == pytest.approx(dice, rel=1e-5)
    write_uncertainty(folders, tmp_path / "two", dtype="float32")
    both = np.stack([probabilities(folder, "case_0") for folder in folders])
    information = read(tmp_path / "two" / "case_0" / "case_0_mutual_information.nii.gz")
    np.testing.assert_allclose(information, mutual_information(both, regions=True), atol=1e-6)
    mean, expected = both.mean(0), np.zeros(SHAPE)
    expected[mean[0] > 0.5] = 1
    expected[mean[1] > 0.5] = 2
    np.testing.assert_array_equal(read(tmp_path / "two" / "case_0" / "case_0_segmentation.nii.gz"), expected)


@pytest.mark.parametrize(
    ("reader", "ending", "shape"),
    [
        ("NibabelIO", ".nii.gz", SHAPE),
        ("NibabelIOWithReorient", ".nii.gz", SHAPE),
        ("SimpleITKIO", ".nrrd", SHAPE),
        ("Tiff3DIO", ".tif", SHAPE),
        ("NaturalImage2DIO", ".png", (1, 20, 16)),
    ],
)
def test_other_file_formats(predict, tmp_path, reader, ending, shape):
    folder = predict(reader=reader, file_ending=ending, shape=shape, cases=1)
    write_uncertainty([folder], tmp_path / "out")
    path = tmp_path / "out" / "case_0" / f"case_0_confidence{ending}"
    array = {".tif": tifffile.imread, ".png": io.imread}.get(ending, read)(path)
    expected = np.rint(probabilities(folder, "case_0").max(0) * 255)
    if reader == "NibabelIOWithReorient":  # the npz is in RAS order, the file's axes x and y run the other way
        expected = expected[:, ::-1, ::-1]
    np.testing.assert_array_equal(array, expected.reshape(array.shape))
    column = "anterior area_pixels" if ending == ".png" else "anterior volume_ml"
    assert float(rows(tmp_path / "out")[0][column]) > 0
    if ending == ".png":
        with pytest.raises(UserError, match="use -dtype uint8"):
            write_uncertainty([folder], tmp_path / "float", dtype="float32")


def test_validation_folders_need_no_ground_truth(make_validated, monkeypatch, tmp_path):
    model = make_validated(cases=2)
    shutil.rmtree(model.references)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name)
    review = write_uncertainty([model.validation()], tmp_path / "out")
    assert len(review.cases) == 2 and not review.problems


def test_an_ignore_label_is_no_class(predict, tmp_path):
    folder = predict(labels=CLASSES_WITH_IGNORE, cases=1)
    write_uncertainty([folder], tmp_path / "out", dtype="float32", probabilities=True)
    probs = probabilities(folder, "case_0")
    assert len(probs) == 3
    np.testing.assert_allclose(
        read(tmp_path / "out" / "case_0" / "case_0_entropy.nii.gz"), entropy(probs), atol=1e-6
    )  # over log 3, not log 4
    assert not any("ignore" in column for column in rows(tmp_path / "out")[0])
    assert not list((tmp_path / "out" / "case_0").glob("*ignore*"))


def test_half_precision(predict, tmp_path):
    review = write_uncertainty([predict(dtype="float16")], tmp_path / "out")
    assert len(review.cases) == 3 and not review.problems


def test_a_second_run_does_only_what_changed(predict, tmp_path, monkeypatch):
    folder, out = predict(), tmp_path / "out"
    first = write_uncertainty([folder], out)
    computed = []
    real = output_module.compute_case

    def counting(members, case, wanted):
        computed.append(case.case)
        return real(members, case, wanted)

    monkeypatch.setattr(output_module, "compute_case", counting)
    text = (out / "review.csv").read_text()

    def again(*expected, **arguments):
        computed.clear()
        result = write_uncertainty([folder], out, **arguments)
        assert sorted(computed) == sorted(expected)
        return result

    assert [c.case for c in again().cases] == [c.case for c in first.cases]
    assert (out / "review.csv").read_text() == text
    again("case_0", "case_1", "case_2", overwrite=True)
    (out / "case_0" / "case_0_margin.nii.gz").unlink()
    (out / "case_1" / "review.json").unlink()
    os.utime(folder / "case_2.npz", ns=(1, 1))
    again("case_0", "case_1", "case_2")
    (out / "case_0" / "my_scene.mrb").write_text("the user's own")
    again("case_0", "case_1", "case_2", maps=["entropy"])
    names = {path.name for path in (out / "case_0").iterdir()}
    assert names == {"case_0_entropy.nii.gz", "case_0_segmentation.nii.gz", "review.json", "my_scene.mrb"}
    assert (out / "review.csv").read_text() == text


def test_a_run_that_dies_while_writing_does_not_count_as_finished(predict, tmp_path, monkeypatch):
    folder, out = predict(cases=1), tmp_path / "out"
    write_uncertainty([folder], out)

    def dies(array, path, geometry):
        if "margin" in path.name:
            raise KeyboardInterrupt
        return map_images.write_image(array, path, geometry)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(output_module, "write_image", dies)
        write_uncertainty([folder], out, dtype="float32")
    assert not (out / "case_0").exists()  # nor are maps of another type left beside those to come
    write_uncertainty([folder], out)
    assert read(out / "case_0" / "case_0_entropy.nii.gz").dtype == np.uint8


@pytest.mark.integration  # each process imports PyTorch
def test_processes_give_the_same(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_BYTES_PER_PROCESS", 1)
    folders = [predict("a"), predict("b", seed=1)]
    (folders[0] / "case_2.npz").write_bytes(b"PK")
    reviews = [write_uncertainty(folders, tmp_path / f"out{n}", num_processes=n) for n in (1, 2)]
    assert reviews[0].cases == reviews[1].cases and reviews[0].problems == reviews[1].problems
    assert list(reviews[0].problems) == ["case_2"]
    for path in (tmp_path / "out1").glob("case_*/*.nii.gz"):
        np.testing.assert_array_equal(read(path), read(tmp_path / "out2" / path.relative_to(tmp_path / "out1")))


def test_what_a_killed_run_left_behind_is_removed(predict, tmp_path):
    folder, out = predict(cases=1), tmp_path / "out"
    write_uncertainty([folder], out)
    names = {path.name for path in out.rglob("*")}
    for left in (out / ".0a.nnunet_nacl.tmp", out / "case_0" / ".1b.nnunet_nacl.tmp.nii.gz"):
        left.write_bytes(b"half")
    write_uncertainty([folder], out)
    assert {path.name for path in out.rglob("*")} == names


_PARALLEL = """
import sys
from nnunet_nacl.cli.main import main
from nnunet_nacl.cases import uncertainty

if __name__ == "__main__":  # the workers import this
    uncertainty._BYTES_PER_PROCESS = 1
    sys.exit(main(["uncertainty", "-i", sys.argv[1], "-o", sys.argv[2], "-np", "2"]))
"""


@pytest.mark.integration  # each process imports PyTorch
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="finds child processes through /proc")
def test_workers_end_with_their_killed_parent(predict, tmp_path):
    folder, out = predict(cases=40, shape=(16, 64, 64)), tmp_path / "out"
    (tmp_path / "parallel.py").write_text(_PARALLEL)
    process = subprocess.Popen([sys.executable, tmp_path / "parallel.py", folder, out], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 400  # a busy computer starts Python slowly
        while not list(out.glob("*/review.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        workers = children(process.pid)
        assert len(workers) >= 2
    finally:
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 30
    while (alive := [worker for worker in workers if is_alive(worker)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for worker in alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive, "the workers outlive the run"


def test_an_image_that_the_disk_does_not_hold_is_no_finished_case(predict, tmp_path, capsys):
    folder, ending = predict(cases=2, shape=(16, 64, 64)), ".nii.gz"  # test_map_images.py has the other formats
    write_prediction(folder, "small", np.full((3, 2, 2, 2), 1 / 3), np.ones((2, 2, 2), np.uint8), SPACING_MM)
    with full_disk(20 * 512):
        assert main(["uncertainty", "-i", str(folder), "-o", str(tmp_path / "out"), "-np", "1"]) == 1
    printed = capsys.readouterr().err
    for i in range(2):
        assert re.search(rf"case_{i}: .*case_{i}_\w+{ending}: cannot be written .*free some space", printed)
    done = rows(tmp_path / "out")
    assert [row["case"] for row in done if row["rank"]] == ["small"]
    images = [path for path in (tmp_path / "out").rglob(f"*{ending}")]
    assert images and all(path.parent.name == "small" for path in images)
    assert not list((tmp_path / "out").rglob("*.tmp*"))


def test_a_name_that_is_not_utf8_costs_only_its_case(predict, tmp_path):
    folder = predict(cases=2)
    name = os.fsdecode(b"caf\xe9")
    try:
        for ending in (".nii.gz", ".npz"):
            os.rename(folder / f"case_0{ending}", folder / f"{name}{ending}")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    command = ["uncertainty", "-i", str(folder), "-o", str(tmp_path / "out"), "-np", "1"]
    result = run_warm(main, command, folder=tmp_path)  # it would end this process
    assert result.returncode == 1, result.stderr
    assert "the name is not UTF-8" in result.stderr and result.stderr.count("rename it") == 1
    assert [row["case"] for row in rows(tmp_path / "out", errors="replace") if row["rank"]] == ["case_1"]


@pytest.mark.parametrize("name", ["", ".", "..", "review.csv", "uncertainty.json"])
def test_a_name_that_can_be_no_folder_costs_only_its_case(predict, tmp_path, name):
    folder = predict(cases=2)
    for ending in (".nii.gz", ".npz"):
        os.rename(folder / f"case_0{ending}", folder / f"{name}{ending}")
    out = tmp_path / "somewhere" / "out"
    review = write_uncertainty([folder], out)
    assert list(review.problems) == [name] and "rename the case" in review.problems[name]
    assert {path.name for path in out.iterdir()} == {"case_1", "review.csv", "uncertainty.json"}
    assert list(out.parent.iterdir()) == [out] and [case.case for case in review.cases] == ["case_1"]


def test_broken_cases_are_listed_and_the_others_done(predict, tmp_path):
    folder = predict(cases=7)
    probs = probabilities(folder, "case_0").astype(np.float32)
    (folder / "case_1.npz").write_bytes((folder / "case_1.npz").read_bytes()[:500])
    np.savez_compressed(folder / "case_2.npz", probabilities=np.where(probs > 0.9, np.nan, probs))
    np.savez_compressed(folder / "case_3.npz", probabilities=probs * 0.5)
    np.savez_compressed(folder / "case_4.npz", probabilities=probs[:, 1:])
    (folder / "case_5.nii.gz").unlink()
    (folder / "case_6.npz").unlink()
    write_image(np.full(SHAPE, 7, dtype=np.uint8), folder / "case_7.nii.gz", SPACING_MM)
    shutil.copy(folder / "case_0.npz", folder / "case_7.npz")
    review = write_uncertainty([folder], tmp_path / "out")
    assert [case.case for case in review.cases] == ["case_0"]
    for i, message in enumerate(
        ("truncated", "NaN", "sum to 0.5", "shape", "case_5.nii.gz is missing", "npz is missing", "label 7"), 1
    ):
        assert message in review.problems[f"case_{i}"] and f"case_{i}" in review.problems[f"case_{i}"]
    assert not any((tmp_path / "out" / f"case_{i}").exists() for i in range(1, 8))
    table = rows(tmp_path / "out")
    assert [(row["rank"], row["case"]) for row in table] == [("1", "case_0")] + [("", f"case_{i}") for i in range(1, 8)]
    assert all(row["problem"] == review.problems.get(row["case"], "") for row in table)
    settings = json.loads((tmp_path / "out" / "uncertainty.json").read_text())
    assert settings["not_done"] == review.problems


def test_maps_of_older_predictions_do_not_outlive_them(predict, tmp_path):
    folder, out = predict(cases=2), tmp_path / "out"
    write_uncertainty([folder], out)
    (folder / "case_1.npz").write_bytes(b"PK")
    review = write_uncertainty([folder], out)
    assert list(review.problems) == ["case_1"] and not (out / "case_1").exists()


def test_members_that_do_not_fit(predict, tmp_path):
    one, two = predict("one"), predict("two", cases=4)
    image = sitk.ReadImage(str(two / "case_0.nii.gz"))
    image.SetOrigin((50, 0, 0))
    sitk.WriteImage(image, str(two / "case_0.nii.gz"))
    (two / "case_1.npz").unlink()
    review = write_uncertainty([one, two], tmp_path / "out")
    assert [case.case for case in review.cases] == ["case_2"]
    assert "origin" in review.problems["case_0"] and str(two) in review.problems["case_0"]
    assert "case_1.npz is missing" in review.problems["case_1"]
    assert review.problems["case_3"].startswith(f"not predicted in {one}")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda f: {"folders": []}, "at least one folder"),
        (lambda f: {"folders": [f, f.parent / "x" / ".." / f.name]}, "given twice"),
        (lambda f: {"folders": [f.parent / "none"]}, "no such folder"),
        (lambda f: {"output": f}, "is or lies in the folder of predictions"),
        (lambda f: {"output": f / "maps"}, "is or lies in the folder of predictions"),
        (lambda f: {"output": f / "dataset.json"}, "is or lies in"),
        (lambda f: {"output": f.parent / "images"}, "holds images or predictions"),
        (lambda f: {"output": f.parent / "images" / "a.nii.gz"}, "is a file"),
        (lambda f: {"output": "/proc/maps"}, "no file can be written"),
        (lambda f: {"maps": ["variance"]}, "no map 'variance'; there are confidence"),
        (lambda f: {"maps": ["mutual_information"]}, "two or more folders"),
        (lambda f: {"dtype": "int8"}, "uint8, float32"),
        (lambda f: {"dataset_json": f / "nothing.json"}, "no such file"),
        (lambda f: {"plans": f / "nothing.json"}, "no such file"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(predict, tmp_path, prepare, message):
    folder = predict(cases=1)
    (tmp_path / "x").mkdir()
    (tmp_path / "images").mkdir()
    write_image(np.zeros(SHAPE, dtype=np.uint8), tmp_path / "images" / "a.nii.gz", SPACING_MM)
    arguments = {"folders": [folder], "output": tmp_path / "out"} | prepare(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match=message):
        write_uncertainty(arguments.pop("folders"), arguments.pop("output"), **arguments)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_link_into_the_predictions_is_seen(predict, tmp_path):
    folder = predict(cases=1)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UserError, match="choose another -o"):
        write_uncertainty([folder], tmp_path / "link" / "maps")


def test_folders_of_different_data_sets_or_cases(predict, tmp_path):
    one, other = predict("one", cases=1), predict("other", labels=REGIONS, cases=1)
    with pytest.raises(UserError, match="another labels|other labels"):
        write_uncertainty([one, other], tmp_path / "out")
    apart = predict("apart", cases=1)
    for path in apart.glob("case_0*"):
        path.rename(apart / path.name.replace("case_0", "case_9"))
    with pytest.raises(UserError, match="no case in common.*-f FOLD"):
        write_uncertainty([one, apart], tmp_path / "out")
    (one / "case_0.npz").write_bytes(b"")
    with pytest.raises(UserError, match="no case could be done.\n  case_0: .*case_0.npz"):
        write_uncertainty([one], tmp_path / "out")


def test_folders_without_probabilities(predict, make_validated, tmp_path):
    folder = predict()
    for path in folder.glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no probabilities \(\*.npz\); predict these cases again: .*--npz.$"):
        write_uncertainty([folder], tmp_path / "out")
    model = make_validated(cases=1, folds=2)
    for near in (model.folder, model.validation().parent):
        with pytest.raises(UserError, match="fold_0/validation does: give that"):
            write_uncertainty([near], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_of_structures_become_names_of_files(predict, tmp_path):
    labels = dict(zip(("background", "left/kidney", "=sum(a)"), CLASSES.values()))
    folder = predict(labels=labels, cases=1)
    write_uncertainty([folder], tmp_path / "out", maps=["entropy"], probabilities=True)
    names = {path.name for path in (tmp_path / "out" / "case_0").glob("*probability*")}
    assert names == {f"case_0_probability_{n}.nii.gz" for n in ("0_background", "1_left-kidney", "2_sum-a")}
