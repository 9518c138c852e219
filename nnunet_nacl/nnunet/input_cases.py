"""Finds the cases in a folder of images named CASE_0000, CASE_0001, ..., a number a channel, or of DICOM series."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.dicom.series import find_series, orientation_of
from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.files import check_folder
from nnunet_nacl.images import check_name
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_references, list_folder

_LOOKED_AT = 20  # labels of the training
_PICTURES = (".png", ".bmp", ".tif", ".tiff")
_OTHER_FORMATS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".gipl", *_PICTURES)


@dataclass(frozen=True)
class InputCase:
    """Files of a case.

    Attributes:
        case: Name.
        images: An image for each channel; of a DICOM series its slices in their order.
        previous: For a cascade the segmentation of the stage before.
        orientation: Of a DICOM series: where the axes of the training's images point, such as ``RAS``; else empty.
    """

    case: str
    images: tuple[Path, ...]
    previous: Path | None = None
    orientation: str = ""

    @property
    def path(self) -> Path:
        """The first image, which names the case where something is wrong with it."""
        return self.images[0]


def find_input_cases(
    folder: Path, opened: PredictionFolder, previous: Path | None = None, *, orientation: str | None = None
) -> tuple[list[InputCase], dict[str, str]]:
    """The cases of a folder in alphabetic order, as nnU-Net groups the files, and by name what is wrong with others.

    Args:
        folder: The images, or DICOM files, in it and below, if none has the ending of the data set.
        opened: The model. One file may hold all channels that it takes, as a colour picture does.
        previous: Folder with the segmentations of the stage before.
        orientation: Of DICOM series; empty for that of the training's labels. None takes no series.

    Raises:
        UserError: The folder is missing or holds no image; or series that the model cannot take, or whose orientation
            is not known: left and right are at stake.
    """
    file_ending = opened.file_ending
    check_folder(folder, "the images")
    names, no_files = list_folder(folder)
    if orientation is not None and not any(name.lower().endswith(file_ending.lower()) for name in names):
        series, wrong = find_series(folder)
        if series or wrong:
            _check_series(folder, opened, previous)
            turned = _orientation(folder, opened, orientation)
            return [InputCase(case, files, orientation=turned) for case, files in series.items()], wrong
    channels, others, problems = _by_case(folder, set(names), no_files, file_ending)
    if not channels and not problems:
        other = min((name for several in others.values() for name in several), default="")
        hint = f"; it holds {one_line(other)}, the model was trained on *{file_ending}" if other else ""
        raise UserError(f"{folder} holds no images (no CASE_0000{file_ending}){hint}; give the folder with the scans.")
    for case, (name, *_) in others.items():
        if case not in channels and _split(name, file_ending)[0] != case:  # it has a number
            problems.setdefault(case, f"{folder / name}: the model was trained on *{file_ending}; convert it.")
    cases = []
    for case, files in sorted(channels.items()):
        before = previous / f"{case}{file_ending}" if previous else None
        candidate = InputCase(case, tuple(folder / name for name in files), before)
        if problem := problems.get(case) or _problem(candidate, opened):
            problems[case] = problem
        else:
            cases.append(candidate)
    return cases, problems


def _orientation(folder: Path, opened: PredictionFolder, given: str) -> str:
    """Where the axes of the training's images point; UserError if it is not known."""
    if given:
        if sorted("LPS"["LRPAIS".index(letter) // 2] for letter in given if letter in "LRPAIS") != [*"LPS"]:
            raise UserError(f"-orientation is three letters, such as RAS, got {given!r}.")
        return given
    if type(opened.reader).__name__.endswith("WithReorient"):
        return "RAS"  # whatever it is given
    axes = ""
    with contextlib.suppress(UserError):
        labels = find_references(opened.plans.get("dataset_name"), opened.folder)
        names = [name for name in list_folder(labels)[0] if name.endswith(opened.file_ending)]
        axes = orientation_of(labels / name for name in names[:_LOOKED_AT])
    if not axes:
        why = "where the axes of the training's images point is not known (nnUNet_preprocessed has no labels of it)"
        raise UserError(f"{folder} holds DICOM series, and {why}; give -orientation, such as RAS.")
    return axes


def _by_case(
    folder: Path, names: set[str], no_files: set[str], file_ending: str
) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, str]]:
    """By case its images, its other files, and what is wrong with a name."""
    channels, others, problems = defaultdict(list), defaultdict(list), dict[str, str]()
    for name in sorted(names | no_files):
        stem, ending = _split(name, file_ending)
        match = re.fullmatch("(.*)_([0-9]{4})", stem, re.DOTALL)
        case, path = match[1] if match else "", folder / name
        if ending.lower() != file_ending.lower():
            if name in names and ending:
                others[case or stem].append(name)
        elif name in no_files:
            kind = "a folder" if path.is_dir() else "a link that leads nowhere, or no file"
            problems.setdefault(case or stem, f"{path}: {kind}; put the image there.")
        elif ending != file_ending:
            problems.setdefault(case or stem, f"{path}: nnU-Net takes *{file_ending} alone, spelled so; rename it.")
        elif case:
            channels[case].append(name)
        else:
            fix = f"rename it to {stem}_0000{file_ending}"
            problems[stem] = f"{path}: the name does not end in a channel number; {fix}."
    return channels, others, problems


def _check_series(folder: Path, opened: PredictionFolder, previous: Path | None) -> None:
    file_ending, holds = opened.file_ending, f"{folder} holds DICOM series"
    if opened.num_channels > 1:
        fix = f"convert them (such as by dcm2niix) to CASE_0000{file_ending}, CASE_0001{file_ending}, ..."
        raise UserError(f"{holds}, of one channel each, but the model takes {opened.num_channels}; {fix}")
    if file_ending.lower() in _PICTURES or previous:
        taker = "a cascade" if previous else f"a model trained on *{file_ending}"
        raise UserError(f"{holds}, which {taker} does not take; convert them to *{file_ending}.")


def _split(name: str, file_ending: str) -> tuple[str, str]:
    """Stem and ending of a file's name, as it is spelled; of a file that is no image, the ending is empty."""
    for ending in (file_ending, *_OTHER_FORMATS):
        if name.lower().endswith(ending.lower()):
            return name[: -len(ending)], name[-len(ending) :]
    return name, ""


def _problem(candidate: InputCase, opened: PredictionFolder) -> str:
    """What is wrong with the files of a case; empty where nothing is."""
    case, images, before = candidate.case, candidate.images, candidate.previous
    folder, takes = images[0].parent, opened.num_channels
    try:
        check_name(images[0])
    except UserError as error:
        return str(error)
    if case in (".", ".."):
        return f"{images[0]}: a folder of the case's name cannot be made; rename it."
    expected = [f"{case}_{i:04d}{opened.file_ending}" for i in range(max(takes, len(images)))]
    missing = [name for name in expected if folder / name not in images]
    if len(images) > takes:
        return f"{images[-1]}: {len(images)} channels, the model takes {takes}; remove what is not one of them."
    if missing and (len(images) > 1 or missing[0] == expected[0]):
        return f"{folder / missing[0]}: is missing, the model takes {takes} channels; add it."
    if before is not None and not before.is_file():
        return f"{before}: no segmentation of the stage before; predict {case} there first."
    return ""
