"""Real images, laid out as the challenges lay theirs out."""

from __future__ import annotations

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
