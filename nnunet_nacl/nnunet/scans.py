"""`Images`: scans, CASE_0000, CASE_0001, ... by channel, or DICOM series, as a source of cases."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from typing_extensions import Self

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.dicom.series import find_series, image_of_series, most_common_orientation
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.folders import find_references, list_folder
from nnunet_nacl.nnunet.image_files import channels_apart, read_images
from nnunet_nacl.nnunet.predicted import NetworkSource, check_network
from nnunet_nacl.nnunet.preprocessing import Logits, Preprocessed, preprocess
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import NetworkSettings, ScanSettings
from nnunet_nacl.utilities.errors import UserError, one_line
from nnunet_nacl.utilities.files import check_folder, is_file_name

# endings of images that other models take
_IMAGES = r"(?i:\.(?:nii\.gz|nii|mh[ad]|nrrd|gipl|png|bmp|tiff?|jpe?g))"
_LOOKED_AT = 20  # label maps of the training, to learn where its axes point


@dataclass(eq=False)
class Images(NetworkSource):
    """Scans, predicted as nnUNetv2_predict does.

    Attributes:
        scans: By name of the case, an image for each channel; of a DICOM series its slices in their
            order.
        problems: By name, why others cannot be predicted.
        previous: For a cascade, folder with the segmentations of the stage before.
        orientation: Of DICOM series: where the axes of the training's images point, such as
            ``RAS``; else empty.
        any_size: Predict scans of any size, which may take hours.
    """

    scans: Mapping[str, tuple[Path, ...]]
    problems: dict[str, str] = field(default_factory=dict)
    previous: Path | None = None
    orientation: str = ""
    any_size: bool = False

    def __post_init__(self) -> None:
        self.labels = self.model.labels

    @classmethod
    def find(
        cls,
        model: TrainedModel,
        network: NetworkSettings,
        folder: Path,
        reading: ScanSettings | None = None,
        *,
        references: Path | None = None,
        with_disagreement: bool = False,
    ) -> Self:
        """The cases of a folder in alphabetic order, as nnU-Net groups the files.

        One file may hold all channels, as a colour picture does. Where no file has the ending of
        the data set, DICOM series are taken, in the folder and below.

        Args:
            model: That predicts them.
            network: How its networks predict.
            folder: Of the images.
            reading: How they are read; without an orientation that of the training's labels is
                found out. None reads images in this process, and takes no DICOM series.
            references: Folder of the ground truth; None for cases without.
            with_disagreement: Bring the map of what the folds disagree about to the image.

        Raises:
            UserError: There is no image, or the orientation is not known: left and right are at
                stake.
        """
        check_folder(folder, "the images")
        check_network(model, network)
        dataset = model.dataset
        names = list_folder(folder)
        scans: dict[str, tuple[Path, ...]] = {}
        problems: dict[str, str] = {}
        orientation = ""
        if reading is not None and not any(name.endswith(dataset.file_ending) for name in names):
            scans, problems = find_series(folder)
            if scans or problems:
                orientation = reading.orientation or _orientation(folder, dataset)
                _check_orientation(orientation)
        if not orientation:
            scans, problems = _by_case(folder, names, dataset)
        previous = None
        if reading is None:
            reading = ScanSettings()
        else:
            previous = _find_previous_stage(model, reading)
        return cls(
            model,
            network,
            scans=scans,
            problems=problems,
            previous=previous,
            orientation=orientation,
            any_size=reading.any_size,
            references=references,
            readers=reading.num_readers,
            exporters=reading.num_exporters,
            with_disagreement=with_disagreement,
        )

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        """Cases that there are."""
        return list(self.scans)

    @property
    def inference(self) -> Mapping[str, object]:
        """The networks, how they are used, and how series are turned."""
        if not self.orientation:
            return self.made_by
        return {**self.made_by, "orientation": self.orientation}

    def files(self, name: str) -> dict[str, Path | None]:
        """Channels by file name, or the slices of a series, with stage before and truth if any."""
        files: dict[str, Path | None] = {}
        for number, path in enumerate(self.scans[name]):
            files[f"slice {number}" if self.orientation else path.name] = path
        segmentation = f"{name}{self.model.dataset.file_ending}"
        if self.previous is not None:
            files["previous"] = self.previous / segmentation
        if self.references is not None:
            files["reference"] = self.references / segmentation
        return files

    def path(self, name: str) -> Path:
        """The first image."""
        return self.scans[name][0]

    def read(self, name: str) -> Preprocessed:
        """The image, read and preprocessed as nnUNetv2_predict does."""
        dataset = self.model.dataset
        files = self.scans[name]
        if self.orientation:
            with image_of_series(files, self.orientation) as path:
                image, properties = read_images(dataset.reader, [path])
        else:
            image, properties = read_images(dataset.reader, files)
        geometry = Geometry.of(properties)
        previous = None
        previous_file = self.files(name).get("previous")
        if previous_file is not None:
            like = ("image", geometry, image.shape[1:])
            previous, _ = dataset.read_labels(previous_file, like=like)
        preprocessed = preprocess(
            self.model, name, image, properties, previous, source=files, any_size=self.any_size
        )
        if len(files) == 1 or self.orientation or geometry.affine is None:
            return preprocessed
        difference = channels_apart(files)
        if not difference:
            return preprocessed
        case = preprocessed.case
        case = replace(case, differences=(difference, *case.differences))
        return replace(preprocessed, case=case)

    def finish(self, logits: Logits) -> Case:
        """The case of a network's answer, with its files."""
        return replace(super().finish(logits), images=self.scans[logits.case.name])


def _find_previous_stage(model: TrainedModel, reading: ScanSettings) -> Path | None:
    """The folder of the stage before a cascade; UserError for a cascade without it, or another
    network with it."""
    if model.previous_stage and reading.previous_stage is None:
        raise UserError(
            f"a cascade: this network needs the segmentations of {model.previous_stage}. Predict"
            " them with that configuration's original checkpoint, and give their folder with"
            " [[previous_stage]]."
        )
    if reading.previous_stage is None:
        return None
    if not model.previous_stage:
        raise UserError(
            f"[[previous_stage]] {reading.previous_stage}: {model.configuration} is no stage of a"
            " cascade."
        )
    return Path(reading.previous_stage)


def _check_orientation(orientation: str) -> None:
    """UserError where letters do not say of each of three axes where it points."""
    letters = set(orientation)
    is_complete = all(len(letters & set(ends)) == 1 for ends in ("LR", "PA", "SI"))
    if len(orientation) != 3 or not is_complete:
        raise UserError(f"[[orientation]] is three letters, such as RAS, got {orientation!r}.")


def _by_case(
    folder: Path, names: list[str], dataset: Dataset
) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """By case its images, and what is wrong with others; UserError where there is neither.

    ``names`` are those of the files in the folder.
    """
    ending = dataset.file_ending
    channels = defaultdict[str, list[str]](list)  # files by case
    others: dict[str, str] = {}  # by case a file of an image with another ending
    problems: dict[str, str] = {}
    for name in names:
        match = re.fullmatch(rf"(.*)_[0-9]{{4}}({re.escape(ending)}|{_IMAGES})", name, re.DOTALL)
        if match and match[2] == ending:
            channels[match[1]].append(name)
        elif name.endswith(ending):
            stem = name.removesuffix(ending)
            fix = f"rename it to {stem}_0000{ending}"
            problems[stem] = f"{folder / name}: the name does not end in a channel number; {fix}."
        elif match:
            others.setdefault(match[1], name)
    if not channels and not problems:
        hint = ""
        if names:
            example = min(others.values(), default=min(names))
            hint = f"; it holds {one_line(example)}, the model was trained on *{ending}"
        raise UserError(
            f"{folder} holds no images (no CASE_0000{ending}){hint}; give the folder with the"
            " scans."
        )
    for case in others.keys() - channels.keys():
        problems[case] = (
            f"{folder / others[case]}: the model was trained on *{ending}; convert or rename it."
        )
    scans = {}
    for case, files in channels.items():
        problem = _find_problem(folder, case, files, dataset)
        if problem:
            problems[case] = problem
        elif case not in problems:
            scans[case] = tuple(folder / name for name in files)
    return dict(sorted(scans.items())), problems


def _find_problem(folder: Path, case: str, files: list[str], dataset: Dataset) -> str:
    """What is wrong with the names of a case's files, in order; empty where nothing is."""
    if not is_file_name(case):
        return f"{folder / files[0]}: a folder of the case's name cannot be made; rename it."
    num_channels = len(dataset.channel_names)
    expected = [f"{case}_{channel:04d}{dataset.file_ending}" for channel in range(num_channels)]
    if files in (expected, expected[:1]):
        return ""
    missing = [name for name in expected if name not in files]
    if missing:
        problem = f"{folder / missing[0]}: is missing"
    else:
        problem = f"{folder / files[-1]}: is one channel too many"
    return f"{problem}, the model takes {num_channels} channels."


def _orientation(folder: Path, dataset: Dataset) -> str:
    """Where the axes of the training's images point; UserError if it is not known."""
    if type(dataset.reader).__name__.endswith("WithReorient"):
        return "RAS"  # whatever it is given
    axes = ""
    with contextlib.suppress(UserError):  # there are no labels, which is said below
        labels = find_references(dataset.name, dataset.folder)
        names = [name for name in list_folder(labels) if name.endswith(dataset.file_ending)]
        axes = most_common_orientation(labels / name for name in names[:_LOOKED_AT])
    if not axes:
        why = (
            "where the axes of the training's images point is not known (nnUNet_preprocessed has no"
            " labels of it)"
        )
        raise UserError(
            f"{folder} holds DICOM series, and {why}; give [[orientation]], such as RAS."
        )
    return axes
