"""`Images`: a folder of scans, named CASE_0000, CASE_0001, ... by channel, or of DICOM series, as a
source of cases."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from typing_extensions import Self

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.dicom.series import find_series, image_of_series, orientation_of
from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.files import check_folder, is_file_name
from nnunet_nacl.nnunet.image_files import channels_apart, read_images
from nnunet_nacl.nnunet.places import find_references, list_folder
from nnunet_nacl.nnunet.predicted import NetworkSettings, NetworkSource
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.trained_model import GridCase, TrainedModel, preprocess

# endings of images that other models take
_IMAGES = r"(?i:\.(?:nii\.gz|nii|mh[ad]|nrrd|gipl|png|bmp|tiff?|jpe?g))"
_LOOKED_AT = 20  # labels of the training


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
        *,
        previous: Path | None = None,
        orientation: str | None = None,
        **options: Any,
    ) -> Self:
        """The cases of a folder in alphabetic order, as nnU-Net groups the files.

        One file may hold all channels, as a colour picture does. Where no file has the ending of
        the data set, DICOM series are taken, in the folder and below, unless ``orientation`` is
        None; empty is that of the training's labels. UserError where there is no image, or the
        orientation is not known: left and right are at stake.
        """
        check_folder(folder, "the images")
        names, opened = list_folder(folder), model.opened
        if orientation is not None and not any(name.endswith(opened.file_ending) for name in names):
            scans, problems = find_series(folder)
            if scans or problems:
                axes = orientation or _orientation(folder, opened)
                if len(axes) != 3 or any(
                    len({*pair}.intersection(axes)) != 1 for pair in ("LR", "PA", "SI")
                ):
                    raise UserError(f"-orientation is three letters, such as RAS, got {axes!r}.")
                options["orientation"] = axes
                return cls(
                    model, network, scans=scans, problems=problems, previous=previous, **options
                )
        scans, problems = _by_case(folder, names, opened)
        return cls(model, network, scans=scans, problems=problems, previous=previous, **options)

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        """Cases that there are."""
        return list(self.scans)

    @property
    def inference(self) -> dict[str, Any]:
        """The networks, how they are used, and how series are turned."""
        return self.made_by | ({"orientation": self.orientation} if self.orientation else {})

    def files(self, name: str) -> dict[str, Path | None]:
        """Channels by file name, or the slices of a series, with the stage before and the truth
        where there are any."""
        ending, scan = self.model.opened.file_ending, self.scans[name]
        files: dict[str, Path | None] = {
            f"slice {i}" if self.orientation else path.name: path for i, path in enumerate(scan)
        }
        others = {"previous": self.previous, "reference": self.references}
        return files | {
            what: folder / f"{name}{ending}" for what, folder in others.items() if folder
        }

    def path(self, name: str) -> Path:
        """The first image."""
        return self.scans[name][0]

    def read(self, name: str) -> GridCase:
        """The image, read and preprocessed as nnUNetv2_predict does."""
        model, files, previous = self.model, self.scans[name], None
        if self.orientation:
            with image_of_series(files, self.orientation) as path:
                image, properties = read_images(model.opened.reader, [path])
        else:
            image, properties = read_images(model.opened.reader, files)
        place = Geometry.of(properties)
        if before := self.files(name).get("previous"):
            previous = model.opened.read_labels(before, like=("image", place, image.shape[1:]))[0]
        made = preprocess(
            model, name, image, properties, previous, source=files, any_size=self.any_size
        )
        comparable = len(files) > 1 and not self.orientation and place.affine is not None
        apart = channels_apart(files) if comparable else ""
        return replace(made, differences=(apart, *made.differences)) if apart else made

    def finish(self, answered: GridCase) -> Case:
        """The case of a network's answer, with its files."""
        return replace(super().finish(answered), images=self.scans[answered.case])


def _by_case(
    folder: Path, names: list[str], opened: PredictionFolder
) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """By case its images, and what is wrong with others; UserError where there is neither."""
    ending, takes = opened.file_ending, len(opened.channel_names)
    channels, others, problems = defaultdict(list), dict[str, str](), dict[str, str]()
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
        other = min(others.values(), default=min(names, default=""))
        hint = f"; it holds {one_line(other)}, the model was trained on *{ending}" if other else ""
        raise UserError(
            f"{folder} holds no images (no CASE_0000{ending}){hint}; give the folder with the"
            " scans."
        )
    for case in others.keys() - channels.keys():
        problems[case] = (
            f"{folder / others[case]}: the model was trained on *{ending}; convert or rename it."
        )
    for case, files in channels.items():
        expected = [f"{case}_{i:04d}{ending}" for i in range(takes)]
        if not is_file_name(case):
            problems[case] = (
                f"{folder / files[0]}: a folder of the case's name cannot be made; rename it."
            )
        elif files not in (expected, expected[:1]):
            lacking = next((name for name in expected if name not in files), files[-1])
            what = "is missing" if lacking in expected else "is one channel too many"
            problems[case] = f"{folder / lacking}: {what}, the model takes {takes} channels."
    cases = sorted(channels.keys() - problems.keys())
    return {case: tuple(folder / name for name in channels[case]) for case in cases}, problems


def _orientation(folder: Path, opened: PredictionFolder) -> str:
    """Where the axes of the training's images point; UserError if it is not known."""
    if type(opened.reader).__name__.endswith("WithReorient"):
        return "RAS"  # whatever it is given
    axes = ""
    with contextlib.suppress(UserError):
        labels = find_references(opened.plans.get("dataset_name"), opened.folder)
        names = [name for name in list_folder(labels) if name.endswith(opened.file_ending)]
        axes = orientation_of(labels / name for name in names[:_LOOKED_AT])
    if not axes:
        why = (
            "where the axes of the training's images point is not known (nnUNet_preprocessed has no"
            " labels of it)"
        )
        raise UserError(f"{folder} holds DICOM series, and {why}; give -orientation, such as RAS.")
    return axes
