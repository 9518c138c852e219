"""Virtual brains: a complete Decathlon task, repeatable, whose labels have the probabilities stored beside them."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
import SimpleITK

from nnunet_nacl.demo import virtual_brains
from nnunet_nacl.demo.virtual_brains import LABELS, SHAPE, TASK_NAME, load_template, write_virtual_brains
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers import BinStats, count_masks, ece


@pytest.fixture(scope="module")
def template():
    """A ball with a white core, a grey shell and fluid around, with soft borders, 4 mm voxels: needs no nilearn."""
    radius = np.linalg.norm(np.indices((40, 44, 40)) - np.reshape([19.5, 21.5, 19.5], (3, 1, 1, 1)), axis=0)
    outer, middle, inner = (1 / (1 + np.exp((radius - size) / 0.7)) for size in (17.0, 14.0, 9.0))
    probabilities = np.float32([1 - outer, outer - middle, middle - inner, inner])
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-80, -90, -70)
    return np.tensordot(np.array([0.0, 0.2, 0.6, 0.9]), probabilities, axes=1), probabilities, affine


@pytest.fixture
def write(template, monkeypatch):
    monkeypatch.setattr(virtual_brains, "load_template", lambda: template)
    return lambda folder, *numbers: write_virtual_brains(folder / TASK_NAME, *numbers)


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_folder_is_a_decathlon_task_whose_probabilities_are_calibrated(write, tmp_path):
    folder = write(tmp_path, 5, 1)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"0": "background", "1": "CSF", "2": "GM", "3": "WM"}
    assert "NOT patients" in description["description"] and "Louis Collins" in description["licence"]
    stats = []
    for path in sorted((folder / "probabilitiesTr").iterdir()):
        image, labels = (
            SimpleITK.ReadImage(folder / kind / f"{path.stem}.nii.gz") for kind in ("imagesTr", "labelsTr")
        )
        assert image.GetSize() == labels.GetSize() == SHAPE and image.GetOrigin() == labels.GetOrigin()
        truth, probabilities = SimpleITK.GetArrayFromImage(labels), np.load(path)["probabilities"]
        assert probabilities.shape == (len(LABELS), *truth.shape)  # the axes of nnU-Net's arrays
        stats.append(count_masks(probabilities, truth.astype(np.int64))["all"])
    assert len(stats) == 5 and ece(BinStats.merge(stats)) < 0.02


def test_files_are_repeatable_and_a_subject_does_not_depend_on_their_number(write, tmp_path):
    first, fewer = digests(write(tmp_path / "a", 2, 1)), digests(write(tmp_path / "b", 2, 0))
    del fewer["dataset.json"]
    del fewer["splits_final.json"]
    assert len(fewer) == 6 and first.items() >= fewer.items()
    assert first["imagesTr/brain_001.nii.gz"] != first["imagesTr/brain_002.nii.gz"]


def test_the_first_fold_holds_enough_cases_and_noisy_ones_to_calibrate_with(write, tmp_path):
    splits = json.loads((write(tmp_path) / "splits_final.json").read_text())
    names = {f"brain_{number:03d}" for number in range(1, 37)}
    assert [len(split["val"]) for split in splits] == [20, 4, 4, 4, 4]
    assert sorted(name for split in splits for name in split["val"]) == sorted(names)
    assert all({*split["train"]} == names - {*split["val"]} for split in splits)
    noise = []  # of the images, as it is outside the brain
    for name in splits[0]["val"]:
        image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / TASK_NAME / "imagesTr" / f"{name}.nii.gz"))
        noise.append(np.sqrt((image[:2] ** 2).mean()) / np.quantile(image, 0.98))
    hurried = np.array(noise) > 3 * min(noise)
    assert 9 <= hurried.sum() < 15 and min(np.array(noise)[hurried]) > max(np.array(noise)[~hurried])


def test_without_nilearn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(UserError, match=r"nnunet_nacl\[demo\]"):
        load_template()


def test_the_template_is_a_brain():
    pytest.importorskip("nilearn", reason="nilearn (extra demo) is not installed")
    t1, probabilities, _ = load_template()
    litres = probabilities.sum(axis=(1, 2, 3)) * 1e-6
    assert 0.1 < litres[1] < 0.4 and 0.8 < litres[2] < 1.2 and 0.5 < litres[3] < 0.8
    means = [np.average(t1, weights=one) for one in probabilities]
    assert means[0] < means[1] < means[2] < means[3]
