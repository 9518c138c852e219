"""Virtual subjects: a complete Decathlon task, repeatable, whose labels have the probabilities stored beside them."""

from __future__ import annotations

import builtins
import hashlib
import json
from unittest.mock import Mock

import nibabel
import numpy as np
import pytest

from nnunet_nacl.demo.decathlon_task import read_task
from nnunet_nacl.demo.virtual_brains import TASK_NAME, write_virtual_brains
from nnunet_nacl.demo.virtual_subject import LABELS, load_template, make_subject, tissue_probabilities
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics import count_masks, ece

SHAPE = (20, 24, 20)
SPACING_MM = 8.0


def write(folder, template, **options):
    return write_virtual_brains(folder / TASK_NAME, template=template, shape=SHAPE, spacing_mm=SPACING_MM, **options)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def task_folder(small_template, tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), small_template, num_training=6, num_test=2)


def test_the_folder_is_a_decathlon_task(task_folder):
    task = read_task(task_folder)
    assert (task.id, task.dataset) == (90, "Dataset090_VirtualBrains")
    description = json.loads((task_folder / "dataset.json").read_text())
    assert description["labels"] == {"0": "background", "1": "CSF", "2": "GM", "3": "WM"}
    assert len(description["training"]) == 6 and len(description["test"]) == 2
    for case in description["training"]:
        assert (task_folder / case["image"]).is_file() and (task_folder / case["label"]).is_file()
    for image in description["test"]:
        assert (task_folder / image).is_file()


@pytest.mark.parametrize("file", ["README.md", "dataset.json"])
def test_it_says_that_it_is_no_patient(task_folder, file):
    assert "NOT patients" in (task_folder / file).read_text()


def test_images_labels_and_probabilities_fit_together(task_folder):
    import SimpleITK

    for kind, name in (("Tr", "brain_001"), ("Ts", "brain_008")):
        image = nibabel.load(task_folder / f"images{kind}" / f"{name}.nii.gz")
        labels = nibabel.load(task_folder / f"labels{kind}" / f"{name}.nii.gz")
        assert image.shape == labels.shape == SHAPE
        np.testing.assert_array_equal(image.affine, labels.affine)
        np.testing.assert_allclose(image.header.get_zooms(), SPACING_MM)
        # the axis order of nnU-Net's arrays is SimpleITK's
        read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(task_folder / f"labels{kind}" / f"{name}.nii.gz"))
        probabilities = np.load(task_folder / f"probabilities{kind}" / f"{name}.npz")["probabilities"]
        assert probabilities.dtype == np.float32 and probabilities.shape == (len(LABELS), *read.shape)
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
        assert np.take_along_axis(probabilities, read[np.newaxis].astype(int), axis=0).min() > 0


def test_stored_probabilities_are_calibrated(task_folder):
    import SimpleITK

    stats = []
    for path in sorted((task_folder / "probabilitiesTr").glob("*.npz")):
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(task_folder / "labelsTr" / f"{path.stem}.nii.gz"))
        stats.append(count_masks(np.load(path)["probabilities"], labels.astype(np.int64))["all"])
    assert ece(sum(stats)) < 0.02


def test_label_frequencies_equal_the_stored_probabilities(small_template):
    """Over many draws on one subject: the subject's own code path, not `draw_labels` alone."""
    from nnunet_nacl.demo.virtual_subject import LABEL_SMOOTHNESS_VOXELS, draw_labels

    random = np.random.default_rng(0)
    subject = make_subject(small_template, random, (10, 12, 10), 16.0)
    num_draws = 1500
    counts = np.zeros(subject.probabilities.shape)
    for _ in range(num_draws):
        labels = draw_labels(subject.probabilities, LABEL_SMOOTHNESS_VOXELS, random)
        counts += labels == np.arange(4).reshape(4, 1, 1, 1)
    probabilities = subject.probabilities.astype(float)
    standard_error = np.sqrt(probabilities * (1 - probabilities) / num_draws)
    uncertain = standard_error > 1e-3
    z = (counts / num_draws - probabilities)[uncertain] / standard_error[uncertain]
    assert uncertain.sum() > 500
    assert np.abs(z).max() < 5 and abs(z.mean()) < 0.2 and z.std() == pytest.approx(1, abs=0.2)


def test_the_same_seed_gives_the_same_files(task_folder, small_template, tmp_path):
    again = write(tmp_path, small_template, num_training=6, num_test=2)
    assert digests(again) == digests(task_folder)


def test_a_subject_does_not_depend_on_how_many_there_are(task_folder, small_template, tmp_path):
    fewer = digests(write(tmp_path, small_template, num_training=5, num_test=0))
    assert fewer["imagesTr/brain_005.nii.gz"] == digests(task_folder)["imagesTr/brain_005.nii.gz"]


def test_another_seed_and_another_subject_differ(task_folder, small_template, tmp_path):
    first = digests(task_folder)
    other = digests(write(tmp_path, small_template, num_training=5, num_test=0, seed=1))
    assert first["imagesTr/brain_001.nii.gz"] != other["imagesTr/brain_001.nii.gz"]
    assert first["labelsTr/brain_001.nii.gz"] != first["labelsTr/brain_002.nii.gz"]


def test_an_existing_folder_is_left_alone(task_folder, small_template):
    before = digests(task_folder)
    with pytest.raises(FileExistsError, match=TASK_NAME):
        write(task_folder.parent, small_template)
    assert digests(task_folder) == before


def test_an_interruption_leaves_no_folder_and_does_not_hinder(small_template, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("nnunet_nacl.demo.virtual_brains._write_subject", Mock(side_effect=[None, KeyboardInterrupt]))
        write(tmp_path, small_template, num_training=2, num_test=0)
    assert not (tmp_path / TASK_NAME).exists()
    assert write(tmp_path, small_template, num_training=1, num_test=0).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [TASK_NAME]


def test_fluid_is_the_brain_less_grey_and_white_matter():
    mask, grey, white = np.array([1.0, 1.0, 0.0, 0.5]), np.array([0.3, 0.9, 0.0, 0.6]), np.array([0.2, 0.3, 0.0, 0.0])
    probabilities = tissue_probabilities(mask, grey, white)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 0], [0, 0.5, 0.3, 0.2], atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 1], [0, 0, 0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 2], [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 3], [0.4, 0, 0.6, 0], atol=1e-6)


def test_without_nilearn_the_error_names_the_extra(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "nilearn":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"nnunet_nacl\[demo\]"):
        load_template()


def test_the_template_is_a_brain():
    pytest.importorskip("nilearn", reason="nilearn (extra demo) is not installed")
    template = load_template(antialias_mm=0.75)
    litres = template.probabilities.sum(axis=(1, 2, 3)) * 1e-6
    assert 0.1 < litres[1] < 0.4 and 0.8 < litres[2] < 1.2 and 0.5 < litres[3] < 0.8
    means = [np.average(template.t1, weights=one) for one in template.probabilities]
    assert means[0] < means[1] < means[2] < means[3]
