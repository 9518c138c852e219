"""Real images, laid out as the challenges lay theirs out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_nacl_paper.datasets.challenges import CHALLENGES
from nnunet_nacl_paper.datasets.prepared_folder import prepare


@pytest.fixture
def cases(decathlon_task) -> list[str]:
    """Names of a few labelled cases."""
    return sorted(path.name for path in (decathlon_task / "labelsTr").glob("[!.]*.nii.gz"))[:12]


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path))


def volumes_mm3(labels: sitk.Image, voxel_mm3: float) -> np.ndarray:
    return np.bincount(sitk.GetArrayFromImage(labels).ravel().astype(int), minlength=4)[1:] * voxel_mm3


def test_hearts_keep_their_shape_in_resized_slices(decathlon_task, cases, tmp_path) -> None:
    """The area of a structure is the same share of the slice, and the intensities inside it the same."""
    if not cases[0].startswith("patient"):
        pytest.skip(f"{decathlon_task.name} is not ACDC")
    for name in cases:
        place = tmp_path / "training" / name[:10]
        link(decathlon_task / "imagesTr" / name, place / name)
        link(decathlon_task / "labelsTr" / name, place / name.replace(".nii.gz", "_gt.nii.gz"))
    result = prepare(CHALLENGES["acdc"], tmp_path, output=tmp_path)
    assert len(json.loads((result.folder / "prepared.json").read_text())["cases"]) == len(cases)
    for path in sorted(result.folder.glob("labelsT?/*.nii.gz")):
        truth, before = read(path), read(decathlon_task / "labelsTr" / path.name)
        assert truth.GetSize() == (224, 224, before.GetSize()[2])
        share, share_before = (volumes_mm3(image, 1 / image.GetNumberOfPixels()) for image in (truth, before))
        np.testing.assert_allclose(share, share_before, rtol=0.03)
        images = path.parent.with_name(path.parent.name.replace("labels", "images"))
        image = read(images / path.name.replace(".nii.gz", "_0000.nii.gz"))
        image_before = read(decathlon_task / "imagesTr" / path.name)
        for label in (1, 2, 3):
            mean, mean_before = (
                sitk.GetArrayFromImage(i)[sitk.GetArrayFromImage(t) == label].mean()
                for i, t in ((image, truth), (image_before, before))
            )
            assert mean == pytest.approx(mean_before, rel=0.02)


def test_hippocampi_survive_resampling_and_crop(decathlon_task, cases, tmp_path) -> None:
    """They are labelled 0 to 2 as kidneys and tumours are: laid out as KiTS, and as two volumes like PROSTATE."""
    if not cases[0].startswith("hippocampus"):
        pytest.skip(f"{decathlon_task.name} is not the hippocampus")
    for number, name in enumerate(cases):
        image, truth = decathlon_task / "imagesTr" / name, decathlon_task / "labelsTr" / name
        link(image, tmp_path / "kits" / f"case_{number:05d}" / "imaging.nii.gz")
        link(truth, tmp_path / "kits" / f"case_{number:05d}" / "segmentation.nii.gz")
        link(truth, tmp_path / "Task05_Prostate" / "labelsTr" / f"prostate_{number:02d}.nii.gz")
        target = tmp_path / "Task05_Prostate" / "imagesTr" / f"prostate_{number:02d}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        volume = sitk.Cast(read(image), sitk.sitkFloat32)
        sitk.WriteImage(sitk.JoinSeries([volume, -volume]), str(target))
    kidneys = prepare(CHALLENGES["kits19"], tmp_path / "kits", output=tmp_path)
    assert set(kidneys.kept.values()) == {1.0}
    for path in sorted(kidneys.folder.glob("labelsT?/*.nii.gz")):
        before = read(decathlon_task / "labelsTr" / cases[int(path.name[5:10])])
        volumes, volumes_before = volumes_mm3(read(path), 3.22 * 1.62 * 1.62), volumes_mm3(before, 1.0)
        assert read(path).GetSize() == (160, 160, 80)
        assert volumes.sum() == pytest.approx(volumes_before.sum(), rel=0.15)
    twice = prepare(CHALLENGES["prostate"], tmp_path, output=tmp_path)
    for path in sorted(twice.folder.glob("imagesT?/*_0000.nii.gz")):
        first, second = read(path), read(path.with_name(path.name.replace("_0000", "_0001")))
        source = read(decathlon_task / "imagesTr" / cases[int(path.name[9:11])])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(source))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(second), -sitk.GetArrayFromImage(first))
