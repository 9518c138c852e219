"""From a challenge's folder to nnU-Net's raw data set."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Expected:
    """A data set as nnU-Net sees it, from the challenge's own pages.

    Attributes:
        channels: Their number.
        labels: nnU-Net's.
        meaning: Label of the challenge -> ours.
        shape: Voxels (slices, rows, columns) of every prepared case.
        spacing_mm: Of every prepared case.
    """

    channels: int
    labels: dict[str, int | list[int]]
    meaning: dict[int, int]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


EXPECTED = {
    "acdc": Expected(
        channels=1,
        labels={"background": 0, "RV": 1, "MYO": 2, "LV": 3},
        meaning={1: 1, 2: 2, 3: 3},
        shape=(5, 224, 224),
        spacing_mm=(10, 1, 1),
    ),
    "brats19": Expected(
        channels=4,
        labels={
            "background": 0,
            "whole tumor": [1, 2, 3],
            "tumor core": [2, 3],
            "enhancing tumor": [3],
        },
        meaning={2: 1, 1: 2, 4: 3},
        shape=(5, 12, 14),
        spacing_mm=(1, 1, 1),
    ),
    "flare21": Expected(
        channels=1,
        labels={"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "pancreas": 4},
        meaning={1: 1, 2: 2, 3: 3, 4: 4},
        shape=(30, 192, 192),
        spacing_mm=(5, 2, 2),
    ),
    "prostate": Expected(
        channels=2,
        labels={"background": 0, "PZ": 1, "TZ": 2},
        meaning={1: 1, 2: 2},
        shape=(6, 12, 14),
        spacing_mm=(3.6, 0.6, 0.6),
    ),
    "kits19": Expected(
        channels=1,
        labels={"background": 0, "kidney": 1, "tumor": 2},
        meaning={1: 1, 2: 2},
        shape=(80, 160, 160),
        spacing_mm=(3.22, 1.62, 1.62),
    ),
    "mrbrains18": Expected(
        channels=3,
        labels={"background": 0, "GM": 1, "WM": 2, "CSF": 3, "ignore": 4},
        meaning={1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 0, 8: 0, 9: 4, 10: 4},
        shape=(6, 20, 22),
        spacing_mm=(3, 0.958, 0.958),
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


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def cases_in(folder: Path) -> set[str]:
    """The cases of a folder of segmentations."""
    return {name.removesuffix(".nii.gz") for name in names_in(folder)}


def read_json(folder: Path, name: str):
    return json.loads((folder / name).read_text())


def assert_on_grid(folder: Path, part: str, expected: Expected) -> None:
    """Each segmentation of a part (Tr, Ts) and all its images have the grid that is expected."""
    for case in cases_in(folder / f"labels{part}"):
        images = [f"{case}_{channel:04d}.nii.gz" for channel in range(expected.channels)]
        paths = [folder / f"images{part}" / name for name in images]
        for path in (folder / f"labels{part}" / f"{case}.nii.gz", *paths):
            array, spacing_mm = stored(path)
            assert array.shape == expected.shape
            np.testing.assert_allclose(spacing_mm, expected.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_data_set_that_nnunet_takes(name, tmp_path) -> None:
    expected = EXPECTED[name]
    folder = run(name, MINIATURES[name](tmp_path / "in")).folder
    description = read_json(folder, "dataset.json")
    channels = [str(channel) for channel in range(expected.channels)]
    assert description["labels"] == expected.labels
    assert description["file_ending"] == ".nii.gz"
    assert description["channel_names"] == dict.fromkeys(channels, "rescale_to_0_1")
    assert description.get("regions_class_order") == ([1, 2, 3] if name == "brats19" else None)
    splits = read_json(folder, "splits_final.json")
    assert len(splits) == (5 if name == "mrbrains18" else 1)
    fold = splits[-1]
    assert description["numTraining"] == len(fold["train"]) + len(fold["val"])
    assert cases_in(folder / "labelsTr") == {*fold["train"], *fold["val"]}
    for part in ("Tr", "Ts"):
        cases = cases_in(folder / f"labels{part}")
        assert cases
        images = names_in(folder / f"images{part}")
        assert len(images) == len(cases) * expected.channels
        assert_on_grid(folder, part, expected)


@pytest.mark.parametrize("name", MINIATURES)
def test_native_data_keep_grid_and_values_and_labels_mean_the_same(name, tmp_path) -> None:
    result = run(name, MINIATURES[name](tmp_path / "in"), native=True)
    folder = result.folder
    assert folder.name == CHALLENGES[name].dataset_name(native=True)
    assert not result.kept
    channel_names = read_json(folder, "dataset.json")["channel_names"]
    assert list(channel_names.values()) == list(CHALLENGES[name].channels)
    document = read_json(folder, "prepared.json")
    test_patients = document["plan"]["split"]["test"]
    for case, record in document["cases"].items():
        part = "Ts" if record["patient"] in test_patients else "Tr"
        *image_files, truth_file = [Path(path) for path, _, _ in record["sources"]]
        written = folder / f"labels{part}" / f"{case}.nii.gz"
        assert_same_labels(truth_file, written, EXPECTED[name].meaning)
        if name == "prostate":
            volumes = stored(image_files[0])[0]
        else:
            volumes = [stored(path)[0] for path in image_files]
        for channel in range(EXPECTED[name].channels):
            image, _ = stored(folder / f"images{part}" / f"{case}_{channel:04d}.nii.gz")
            np.testing.assert_array_equal(image, volumes[channel])


def assert_same_labels(source: Path, written: Path, meaning: dict[int, int]) -> None:
    """A segmentation was written on its own grid, in our labels; each of the challenge's occurs."""
    before, spacing = stored(source)
    after, spacing_after = stored(written)
    assert spacing == spacing_after
    for label, ours in meaning.items():
        assert (before == label).any()
        assert (after[before == label] == ours).all()
    assert not after[before == 0].any()


@pytest.mark.parametrize(("name", "rest_of_case"), [("acdc", r"_frame\d+$"), ("brats19", r"_\d+$")])
def test_both_frames_and_both_scans_of_a_patient_are_on_one_side(
    name, rest_of_case, tmp_path
) -> None:
    folder = run(name, MINIATURES[name](tmp_path / name)).folder
    (fold,) = read_json(folder, "splits_final.json")
    training = {re.sub(rest_of_case, "", case) for case in fold["train"]}
    validation = {re.sub(rest_of_case, "", case) for case in fold["val"]}
    test = {re.sub(rest_of_case, "", case) for case in cases_in(folder / "labelsTs")}
    assert training
    assert validation
    assert test
    assert training.isdisjoint(validation)
    assert test.isdisjoint(training | validation)


def test_a_finished_case_is_not_done_again(tmp_path, monkeypatch) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in")
    begun = []
    prepare_case = prepared_folder.prepare_case

    def interrupted_in_the_fourth_case(task):
        begun.append(task.source.name)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return prepare_case(task)

    monkeypatch.setattr(prepared_folder, "prepare_case", interrupted_in_the_fourth_case)
    with pytest.raises(KeyboardInterrupt):
        run("acdc", folder)
    target = tmp_path / "nnunet" / "nnUNet_raw" / "Dataset701_ACDCPaper"
    assert not (target / "dataset.json").exists()
    leftover = target / "imagesTr" / ".17_case.nnunet_nacl_paper.tmp.nii.gz"  # of a killed process
    leftover.touch()
    run("acdc", folder)
    assert len(begun) == 10 + 1
    assert begun[3] == begun[4]
    assert not leftover.exists()
    assert (target / "dataset.json").is_file()
    run("acdc", folder)
    assert len(begun) == 10 + 1


def test_broken_cases_are_named_and_leave_the_rest(tmp_path) -> None:
    folder = MINIATURES["flare21"](tmp_path / "in", patients=6)
    image = folder / "TrainingImg"
    truth = folder / "TrainingMask"
    content = (image / "train_000_0000.nii.gz").read_bytes()
    (image / "train_000_0000.nii.gz").write_bytes(content[: len(content) // 2])
    array, spacing = stored(truth / "train_001.nii.gz")
    save(np.where(array == 4, 13, array), truth / "train_001.nii.gz", spacing)
    save(array[1:], truth / "train_002.nii.gz", spacing)
    save(np.stack([array, array]), image / "train_003_0000.nii.gz", spacing)
    save(np.where(array == 4, np.nan, array), image / "train_004_0000.nii.gz", spacing)
    result = run("flare21", folder)
    words = {
        "train_000": ["train_000_0000.nii.gz: cannot be read as an image (truncated"],
        "train_001": ["train_001.nii.gz: holds label 13", "has the labels 0, 1, 2, 3, 4"],
        "train_002": ["66 x 70 x 40 voxels of", "train_002.nii.gz 66 x 70 x 39 voxels"],
        "train_003": ["train_003_0000.nii.gz: has size (66, 70, 40, 2)", "has one volume there"],
        "train_004": ["NaN"],
    }
    assert list(result.problems) == list(words)
    for case, words_of_case in words.items():
        for text in words_of_case:
            assert text in result.problems[case]
    assert list(result.kept) == ["train_005"]
    assert not (result.folder / "dataset.json").exists()


def test_what_the_disk_does_not_hold_is_a_problem_and_made_by_the_next_run(tmp_path) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in", patients=6)
    with full_disk(2000):
        result = run("acdc", folder)
    assert len(result.problems) == 12
    for problem in result.problems.values():
        assert "cannot be written" in problem
    assert not list(result.folder.glob("*Tr/*"))
    assert not (result.folder / "dataset.json").exists()

    whole = run("acdc", folder)
    images = sorted(whole.folder.glob("*T[rs]/*.nii.gz"))
    assert not whole.problems
    assert len(images) == 24
    assert not any(map(why_broken, images))


def test_a_file_that_was_damaged_since_is_made_again(tmp_path) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in")
    (image, *_) = sorted(run("acdc", folder).folder.glob("*T[rs]/*.nii.gz"))
    content = image.read_bytes()
    times = image.stat()
    image.write_bytes(content[:-20] + bytes(20))  # of the same size and time
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    run("acdc", folder)
    assert image.read_bytes() == content


def test_nothing_that_was_prepared_otherwise_is_overwritten(tmp_path) -> None:
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


def test_a_number_or_name_that_nnunet_knows_already_is_refused(tmp_path, nnunet) -> None:
    folder = MINIATURES["acdc"](tmp_path / "in")
    (nnunet / "nnUNet_results" / "Dataset750_Other").mkdir()
    with pytest.raises(InputError, match="Dataset750_Other: nnU-Net has this number already"):
        run("acdc", folder, number=750)
    known = nnunet / "nnUNet_preprocessed" / "Dataset751_ACDCPaper" / "splits_final.json"
    known.parent.mkdir()
    known.write_text('[{"train": [], "val": []}]')
    with pytest.raises(InputError, match="splits_final.json: holds another split"):
        run("acdc", folder, number=751)
