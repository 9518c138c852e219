"""From a challenge's folder to nnU-Net's raw data set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from miniatures import MINIATURES, save

from nnunet_nacl_paper.datasets import prepared_folder
from nnunet_nacl_paper.datasets.challenges import CHALLENGES
from nnunet_nacl_paper.datasets.prepared_folder import prepare
from nnunet_nacl_paper.files import InputError, why_broken
from tests.processes import full_disk

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

# As nnU-Net sees each data set, and the label of the challenge -> ours, from the challenges' own
# pages.
EXPECTED = {
    "acdc": (
        1,
        {"background": 0, "RV": 1, "MYO": 2, "LV": 3},
        {1: 1, 2: 2, 3: 3},
        (5, 224, 224),
        (10, 1, 1),
    ),
    "brats19": (
        4,
        {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
        {2: 1, 1: 2, 4: 3},
        (5, 12, 14),
        (1, 1, 1),
    ),
    "flare21": (
        1,
        {"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "pancreas": 4},
        {1: 1, 2: 2, 3: 3, 4: 4},
        (30, 192, 192),
        (5, 2, 2),
    ),
    "prostate": (
        2,
        {"background": 0, "PZ": 1, "TZ": 2},
        {1: 1, 2: 2},
        (6, 12, 14),
        (3.6, 0.6, 0.6),
    ),
    "kits19": (
        1,
        {"background": 0, "kidney": 1, "tumor": 2},
        {1: 1, 2: 2},
        (80, 160, 160),
        (3.22, 1.62, 1.62),
    ),
    "mrbrains18": (
        3,
        {"background": 0, "GM": 1, "WM": 2, "CSF": 3, "ignore": 4},
        {1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 0, 8: 0, 9: 4, 10: 4},
        (6, 20, 22),
        (3, 0.958, 0.958),
    ),
}


@pytest.fixture(autouse=True)
def nnunet(tmp_path, monkeypatch) -> Path:
    for name in NNUNET_FOLDERS:
        (tmp_path / "nnunet" / name).mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / "nnunet" / name))
    return tmp_path / "nnunet"


def run(name: str, folder: Path, **options):
    return prepare(CHALLENGES[name], folder, **options)


def stored(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_data_set_that_nnunet_takes(name, tmp_path) -> None:
    channels, labels, _, shape, spacing = EXPECTED[name]
    result = run(name, MINIATURES[name](tmp_path / "in"))
    description = json.loads((result.folder / "dataset.json").read_text())
    assert description["labels"] == labels and description["file_ending"] == ".nii.gz"
    assert description["channel_names"] == {str(c): "rescale_to_0_1" for c in range(channels)}
    assert description.get("regions_class_order") == ([1, 2, 3] if name == "brats19" else None)
    (*_, fold) = splits = json.loads((result.folder / "splits_final.json").read_text())
    assert description["numTraining"] == len(fold["train"]) + len(fold["val"])
    for part, cases in (("Tr", {*fold["train"], *fold["val"]}), ("Ts", None)):
        segmentations = {
            file.removesuffix(".nii.gz") for file in files(result.folder / f"labels{part}")
        }
        assert cases in (segmentations, None) and segmentations
        images = {f"{case}_{c:04d}.nii.gz" for case in segmentations for c in range(channels)}
        assert files(result.folder / f"images{part}") == images
        for path in sorted((result.folder / f"images{part}").iterdir()):
            array, step = stored(path)
            truth, truth_step = stored(
                result.folder / f"labels{part}" / f"{path.name[:-12]}.nii.gz"
            )
            assert array.shape == truth.shape == shape
            np.testing.assert_allclose([step, truth_step], [spacing] * 2, rtol=1e-5)
    assert len(splits) == (5 if name == "mrbrains18" else 1)


@pytest.mark.parametrize("name", MINIATURES)
def test_native_data_keep_grid_and_values_and_labels_mean_the_same(name, tmp_path) -> None:
    channels, _, meaning, *_ = EXPECTED[name]
    folder = MINIATURES[name](tmp_path / "in")
    result = run(name, folder, native=True)
    assert result.folder.name == CHALLENGES[name].dataset_name(native=True) and not result.kept
    names = json.loads((result.folder / "dataset.json").read_text())["channel_names"]
    assert list(names.values()) == list(CHALLENGES[name].channels)
    document = json.loads((result.folder / "prepared.json").read_text())
    for case, record in document["cases"].items():
        part = "Ts" if record["patient"] in document["plan"]["split"]["test"] else "Tr"
        *sources, truth = [Path(path) for path, _, _ in record["sources"]]
        before, spacing = stored(truth)
        after, spacing_after = stored(result.folder / f"labels{part}" / f"{case}.nii.gz")
        for label, ours in meaning.items():
            assert (after[before == label] == ours).all() and (before == label).any()
        assert not after[before == 0].any() and spacing == spacing_after
        for channel in range(channels):
            image, _ = stored(result.folder / f"images{part}" / f"{case}_{channel:04d}.nii.gz")
            volumes = (
                stored(sources[0])[0]
                if name == "prostate"
                else [stored(path)[0] for path in sources]
            )
            np.testing.assert_array_equal(image, volumes[channel])


def test_both_frames_and_both_scans_of_a_patient_are_on_one_side(tmp_path) -> None:
    for name, patient_of in (
        ("acdc", lambda case: case[:10]),
        ("brats19", lambda case: case.rpartition("_")[0]),
    ):
        result = run(name, MINIATURES[name](tmp_path / name))
        (fold,) = json.loads((result.folder / "splits_final.json").read_text())
        test = [file.removesuffix(".nii.gz") for file in files(result.folder / "labelsTs")]
        sides = [{patient_of(case) for case in part} for part in (fold["train"], fold["val"], test)]
        assert not sides[0] & sides[1] and not sides[2] & (sides[0] | sides[1]) and all(sides)


def test_a_finished_case_is_not_done_again(tmp_path, monkeypatch) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in")
    done = []

    def counted(task, original=prepared_folder.prepare_case):
        done.append(task.source.name)
        if len(done) == 4:
            raise KeyboardInterrupt
        return original(task)

    monkeypatch.setattr(prepared_folder, "prepare_case", counted)
    with pytest.raises(KeyboardInterrupt):
        run("acdc", folder)
    target = tmp_path / "nnunet" / "nnUNet_raw" / "Dataset701_ACDCPaper"
    assert not (target / "dataset.json").exists()
    leftover = target / "imagesTr" / ".17_case.nnunet_nacl_paper.tmp.nii.gz"  # of a killed process
    leftover.touch()
    run("acdc", folder)
    assert len(done) == 11 and done[3] == done[4] and not leftover.exists()
    assert (target / "dataset.json").is_file()
    run("acdc", folder)
    assert len(done) == 11


def test_broken_cases_are_named_and_leave_the_rest(tmp_path) -> None:
    folder = MINIATURES["flare21"](tmp_path / "in", patients=6)
    image, truth = folder / "TrainingImg", folder / "TrainingMask"
    content = (image / "train_000_0000.nii.gz").read_bytes()
    (image / "train_000_0000.nii.gz").write_bytes(content[: len(content) // 2])
    array, spacing = stored(truth / "train_001.nii.gz")
    save(np.where(array == 4, 13, array), truth / "train_001.nii.gz", spacing)
    save(array[1:], truth / "train_002.nii.gz", spacing)
    save(np.stack([array, array]), image / "train_003_0000.nii.gz", spacing)
    save(np.where(array == 4, np.nan, array), image / "train_004_0000.nii.gz", spacing)
    result = run("flare21", folder)
    assert list(result.problems) == [f"train_00{number}" for number in range(5)]
    said = list(result.problems.values())
    assert "train_000_0000.nii.gz: cannot be read as an image (truncated" in said[0]
    assert "train_001.nii.gz: holds label 13; FLARE 2021 has the labels 0, 1, 2, 3, 4" in said[1]
    assert "66 x 70 x 40 voxels of" in said[2] and "train_002.nii.gz 66 x 70 x 39 voxels" in said[2]
    assert (
        "train_003_0000.nii.gz: has size (66, 70, 40, 2); FLARE 2021 has one volume there"
        in said[3]
    )
    assert "NaN" in said[4]
    assert list(result.kept) == ["train_005"] and not (result.folder / "dataset.json").exists()


def test_what_the_disk_does_not_hold_is_a_problem_and_made_by_the_next_run(tmp_path) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in", patients=6)
    with full_disk(2000):
        result = run("acdc", folder)
    assert len(result.problems) == 12 and all(
        "cannot be written" in said for said in result.problems.values()
    )
    assert not list(result.folder.glob("*Tr/*")) and not (result.folder / "dataset.json").exists()
    whole = run("acdc", folder)
    images = sorted(whole.folder.glob("*T[rs]/*.nii.gz"))
    assert not whole.problems and len(images) == 24 and not any(map(why_broken, images))
    before, times = images[0].read_bytes(), images[0].stat()
    images[0].write_bytes(before[:-20] + bytes(20))  # of the same size and time
    os.utime(images[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    run("acdc", folder)
    assert images[0].read_bytes() == before


def test_nothing_that_was_prepared_otherwise_is_overwritten(tmp_path, nnunet) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in")
    first = run("acdc", folder)
    with pytest.raises(InputError, match="was prepared with seed 0, not 1"):
        run("acdc", folder, seed=1)
    MINIATURES["acdc"](tmp_path / "in", patients=6)
    with pytest.raises(InputError, match="was prepared with other patients"):
        run("acdc", folder)
    (first.folder / "prepared.json").write_text('{"plan": 3, "cases": {}}')
    with pytest.raises(InputError, match=r"prepared.json: damaged: plan: Input should be"):
        run("acdc", folder)
    (first.folder / "prepared.json").unlink()
    with pytest.raises(InputError, match="exists and is not from this command"):
        run("acdc", folder)
    (nnunet / "nnUNet_results" / "Dataset750_Other").mkdir()
    with pytest.raises(InputError, match="Dataset750_Other: nnU-Net has this number already"):
        run("acdc", folder, number=750)
    known = nnunet / "nnUNet_preprocessed" / "Dataset751_ACDCPaper" / "splits_final.json"
    known.parent.mkdir()
    known.write_text('[{"train": [], "val": []}]')
    with pytest.raises(InputError, match="splits_final.json: holds another split"):
        run("acdc", folder, number=751)
