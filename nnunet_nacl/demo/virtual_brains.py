"""Writes the virtual subjects as a Medical Segmentation Decathlon task."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_nacl.demo.virtual_subject import (
    LABELS,
    SHAPE,
    SPACING_MM,
    Template,
    VirtualSubject,
    load_template,
    make_subject,
)

TASK_NAME = "Task90_VirtualBrains"
MASK_RADIUS_MM = 4.0
"""Of the masks `dilated` and `boundary`: reaches the next voxel along each axis, which the default, 2 mm, does not."""

DESCRIPTION = (
    "Virtual brains made from the ICBM152 template: NOT patients, nor volunteers. Each is the same average "
    "brain, deformed, re-coloured and made noisy at random; labels are drawn from known probabilities."
)
REFERENCE = (
    "ICBM 2009a nonlinear symmetric atlas, McConnell Brain Imaging Centre, McGill University, as shipped with "
    "the Python package nilearn; Fonov et al., NeuroImage 54(1), 2011"
)
LICENCE = (
    "Template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological "
    "Institute, McGill University. Permission to use, copy, modify, and distribute for any purpose and without "
    "fee is granted by its authors, provided that this notice appears in all copies."
)

_README = """# Virtual brains: a template, not patients

{description}

- `imagesTr`, `imagesTs`: T1-weighted images, {spacing} mm voxels. No person was scanned for any of them.
- `labelsTr`, `labelsTs`: {labels}. CSF is the brain mask less grey and white matter.
- `probabilitiesTr`, `probabilitiesTs`: the true label probabilities, npz with the key `probabilities`, float32,
  (class, z, y, x): the axis order in which nnU-Net writes its own. The label of each voxel was drawn with exactly
  these; neighbouring voxels were drawn together, so that labels form patches. The images do not depend on what was
  drawn, so that no network can know more about the labels than these probabilities.

Everything is repeatable from the seed ({seed}). Use it to try software and to check calibration measures against a
known truth. It says nothing about how a network performs on people.

Source: {reference}.

{licence}
"""


def write_virtual_brains(
    folder: str | os.PathLike,
    num_training: int = 24,
    num_test: int = 4,
    seed: int = 2024,
    template: Template | None = None,
    shape: tuple[int, int, int] = SHAPE,
    spacing_mm: float = SPACING_MM,
) -> Path:
    """Writes virtual subjects in the Decathlon's format; the folder appears when it is complete.

    Args:
        folder: The task folder to write, its name as in the Decathlon (`TaskNN_Name`); nothing may be there yet.
        num_training: Subjects with labels in imagesTr and labelsTr.
        num_test: Subjects in imagesTs (their labels and probabilities are kept beside, in labelsTs).
        seed: The same seed gives the same files; subject i does not depend on how many there are.
        template: Default: nilearn's ICBM152 template.
        shape: Grid of a subject in voxels (x, y, z).
        spacing_mm: Edge length of a voxel.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists.
        UserError: If nilearn is not installed and no template is given.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it or choose another folder")
    if template is None:
        template = load_template(antialias_mm=0.25 * spacing_mm)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    cases = [("Tr", i) for i in range(num_training)] + [("Ts", num_training + i) for i in range(num_test)]
    names: dict[str, list[str]] = {"Tr": [], "Ts": []}
    for kind in ("Tr", "Ts"):
        for part in ("images", "labels", "probabilities"):
            (unfinished / f"{part}{kind}").mkdir(parents=True)
    for kind, number in tqdm(cases, unit="brain", leave=False):
        name = f"brain_{number + 1:03d}"
        subject = make_subject(template, np.random.default_rng([seed, number]), shape, spacing_mm)
        _write_subject(unfinished, kind, name, subject)
        names[kind].append(name)
    _write_descriptions(unfinished, names, seed, spacing_mm)
    os.replace(unfinished, folder)
    return folder


def _write_subject(folder: Path, kind: str, name: str, subject: VirtualSubject) -> None:
    import nibabel

    for part, values in (("images", subject.image), ("labels", subject.labels)):
        image = nibabel.Nifti1Image(values, subject.affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / f"{part}{kind}" / f"{name}.nii.gz")
    probabilities = np.ascontiguousarray(subject.probabilities.transpose(0, 3, 2, 1))
    np.savez_compressed(folder / f"probabilities{kind}" / f"{name}.npz", probabilities=probabilities)


def _write_descriptions(folder: Path, names: dict[str, list[str]], seed: int, spacing_mm: float) -> None:
    labels = {str(value): name for value, name in enumerate(LABELS)}
    description = {
        "name": folder.name.split("_")[-1].split(".")[0],
        "description": DESCRIPTION,
        "reference": REFERENCE,
        "licence": LICENCE,
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": labels,
        "numTraining": len(names["Tr"]),
        "numTest": len(names["Ts"]),
        "training": [{part: f"./{part}sTr/{name}.nii.gz" for part in ("image", "label")} for name in names["Tr"]],
        "test": [f"./imagesTs/{name}.nii.gz" for name in names["Ts"]],
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    texts = {"description": DESCRIPTION, "reference": REFERENCE, "licence": LICENCE, "spacing": f"{spacing_mm:g}"}
    readme = _README.format(**texts, seed=seed, labels=", ".join(f"{v} {name}" for v, name in labels.items()))
    (folder / "README.md").write_text(readme, encoding="utf-8")
