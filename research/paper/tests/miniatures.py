"""Small data sets in the layouts that the challenges document, written out here file by file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

Spacing = tuple[float, float, float]


def save(
    array: np.ndarray,
    path: Path,
    spacing: Spacing = (1.0, 1.0, 1.0),
    direction: Sequence[float] = (),
) -> None:
    """Write an image (slices, rows, columns) or (volumes, slices, rows, columns).

    Args:
        spacing: (slices, rows, columns).
        direction: As in SimpleITK; by default the patient's axes.
    """
    volumes = array if array.ndim == 4 else [array]
    images = [sitk.GetImageFromArray(volume) for volume in volumes]
    for image in images:
        image.SetSpacing(spacing[::-1])
        image.SetOrigin((-30.0, 12.0, 7.0))
        if direction:
            image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = sitk.JoinSeries(images) if array.ndim == 4 else images[0]
    sitk.WriteImage(written, str(path))


def scan(seed: int, shape: tuple[int, ...], labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Intensities, and a label map in which every label occurs, away from the border."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape[-3:], np.uint8)
    middle = []
    for size in truth.shape:
        first = size // 4
        middle.append(slice(first, max(first + 1, size - first)))
    inside = truth[tuple(middle)]  # a view
    number_of_label = np.arange(inside.size) * len(labels) // inside.size
    inside[:] = np.array(labels)[number_of_label].reshape(inside.shape)
    image = 50 * truth + rng.integers(1, 40, shape)
    return image.astype(np.int16), truth


def acdc(folder: Path, patients: int = 5) -> Path:
    """database/training/patient001/patient001_frame01_gt.nii.gz; fields of view differ."""
    for number in range(1, patients + 1):
        name = f"patient{number:03d}"
        place = folder / "database" / "training" / name
        for frame in (1, 7 + number):
            image, truth = scan(100 * number + frame, (5, 40 + 2 * number, 48), (1, 2, 3))
            spacing = (10.0, 1.2 + number / 10, 1.2 + number / 10)
            save(image, place / f"{name}_frame{frame:02d}.nii.gz", spacing)
            save(truth, place / f"{name}_frame{frame:02d}_gt.nii.gz", spacing)
        save(np.stack([image, image]), place / f"{name}_4d.nii.gz", spacing)
        (place / "Info.cfg").write_text("ED: 1\n")
    return folder


def brats19(folder: Path, patients: int = 4) -> Path:
    """MICCAI_BraTS_2019_Data_Training/HGG/BraTS19_2013_0_1/BraTS19_2013_0_1_flair.nii.gz.

    Slices at both ends are empty; the first patient was scanned twice.
    """
    root = folder / "MICCAI_BraTS_2019_Data_Training"
    names = [f"BraTS19_2013_{number}_1" for number in range(patients)]
    names[-1] = names[0][:-1] + "2"  # the first patient's second scan
    for number, name in enumerate([*names, "BraTS19_TCIA01_131_1"]):
        place = root / ("LGG" if number % 2 else "HGG") / name
        for channel, modality in enumerate(("flair", "t1", "t1ce", "t2")):
            image, truth = scan(10 * number + channel, (8, 12, 14), (1, 2, 4))
            image[[0, 6, 7]] = 0
            truth[[0, 6, 7]] = 0
            save(image, place / f"{name}_{modality}.nii.gz")
        save(truth, place / f"{name}_seg.nii.gz")
    (root / "name_mapping.csv").write_text("Grade\n")
    return folder


def flare21(folder: Path, patients: int = 4) -> Path:
    """TrainingImg/train_000_0000.nii.gz and TrainingMask/train_000.nii.gz."""
    for number in range(patients):
        image, truth = scan(number, (40, 70, 66), (1, 2, 3, 4))
        spacing = (2.5, 1.5 + number / 10, 1.5 + number / 10)
        save(image, folder / "TrainingImg" / f"train_{number:03d}_0000.nii.gz", spacing)
        save(truth, folder / "TrainingMask" / f"train_{number:03d}.nii.gz", spacing)
    save(image, folder / "ValidationImg" / "validation_001_0000.nii.gz")
    return folder


def prostate(folder: Path, patients: int = 4) -> Path:
    """Task05_Prostate/imagesTr/prostate_00.nii.gz with two volumes, and a resource fork beside."""
    root = folder / "Task05_Prostate"
    for number in range(patients):
        image, truth = scan(number, (2, 6, 12, 14), (1, 2))
        save(image, root / "imagesTr" / f"prostate_{number:02d}.nii.gz", (3.6, 0.6, 0.6))
        save(truth, root / "labelsTr" / f"prostate_{number:02d}.nii.gz", (3.6, 0.6, 0.6))
    (root / "imagesTr" / "._prostate_00.nii.gz").write_bytes(b"Mac OS X")
    save(image, root / "imagesTs" / "prostate_03.nii.gz")
    return folder


def kits19(folder: Path, patients: int = 4) -> Path:
    """data/case_00000/imaging.nii.gz, slices along the file's first axis.

    From case_00210 on there are no segmentations.
    """
    sagittal = (0.0, 0.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
    for case in [*range(patients - 1), 209, 210]:
        image, truth = scan(case, (60, 64, 50), (1, 2))
        place = folder / "data" / f"case_{case:05d}"
        spacing = (3.0, 0.9, 0.9)
        turned = {"spacing": spacing[::-1], "direction": sagittal}
        save(np.moveaxis(image, 0, 2), place / "imaging.nii.gz", **turned)
        if case < 210:
            save(np.moveaxis(truth, 0, 2), place / "segmentation.nii.gz", **turned)
    (folder / "data" / "kits.json").write_text("[]")
    return folder


def mrbrains18(folder: Path) -> Path:
    """training/1/pre/reg_T1.nii.gz and training/1/segm.nii.gz."""
    for number, name in enumerate(("1", "4", "5", "7", "14", "070", "148")):
        place = folder / "training" / name
        for channel, sequence in enumerate(("reg_T1", "reg_IR", "FLAIR", "T1", "IR")):
            image, truth = scan(10 * number + channel, (6, 20, 22), range(1, 11))
            save(image, place / "pre" / f"{sequence}.nii.gz", (3.0, 0.958, 0.958))
            save(image, place / "orig" / f"{sequence}.nii.gz", (3.0, 0.958, 0.958))
        save(truth, place / "segm.nii.gz", (3.0, 0.958, 0.958))
    return folder


MINIATURES = {
    "acdc": acdc,
    "brats19": brats19,
    "flare21": flare21,
    "prostate": prostate,
    "kits19": kits19,
    "mrbrains18": mrbrains18,
}
