"""`Dataset`: what a trained model and a folder of predictions know of nnU-Net's data set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_nacl.cases.case import LARGEST_RADIUS_MM, EvaluationSettings, Labels, smallest_type
from nnunet_nacl.cases.geometry import Geometry, geometry_difference
from nnunet_nacl.nnunet import folders
from nnunet_nacl.nnunet.image_files import read_segmentation
from nnunet_nacl.nnunet.trust import find_reader, label_manager_of
from nnunet_nacl.utilities.errors import UserError

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.utilities.label_handling.label_handling import LabelManager


@dataclass(frozen=True)
class Dataset:
    """A data set by its dataset.json and plans.json: its labels, files and reader.

    Attributes:
        folder: That the files are of, a model's or one of predictions.
        dataset_json: Content of dataset.json.
        plans: Content of plans.json.
    """

    folder: Path
    dataset_json: dict[str, Any]
    plans: dict[str, Any]

    @classmethod
    def open(
        cls,
        folder: Path,
        dataset_json: str | os.PathLike | None = None,
        plans: str | os.PathLike | None = None,
    ) -> Dataset:
        """Read the two files.

        Args:
            folder: They are looked for there and up to two levels above.
            dataset_json: File that is read instead.
            plans: Likewise.

        Raises:
            UserError: A file is missing or unreadable.
        """
        return cls(
            folder,
            folders.read_above(
                folder, "dataset.json", dataset_json, "dataset_json", folders.DatasetJson
            ),
            folders.read_above(folder, "plans.json", plans, "plans_json", folders.PlansJson),
        )

    @property
    def name(self) -> str | None:
        """Such as Dataset004_Hippocampus; None where plans.json does not say."""
        return self.plans.get("dataset_name")

    @property
    def file_ending(self) -> str:
        """Ending of the segmentation files, such as ``.nii.gz``."""
        return self.dataset_json["file_ending"]

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels; none where dataset.json does not say."""
        names = self.dataset_json.get("channel_names", {})
        names = self.dataset_json.get("modality", names)
        return list(map(str, names.values()))

    @property
    def settings(self) -> EvaluationSettings:
        """The default for all cases: masks reach 2 mm, or the plans' median voxel if wider."""
        # nnU-Net's first transposed axis is across slices, the last two are within them
        spacing_in_slices = self.plans.get("original_median_spacing_after_transp", [])[-2:]
        widest = max([EvaluationSettings.dilation_mm, *spacing_in_slices])
        reach = min(widest, LARGEST_RADIUS_MM)
        return EvaluationSettings(dilation_mm=reach, boundary_mm=reach)

    @cached_property
    def labels(self) -> Labels:
        """The structures, through nnU-Net's label manager."""
        return Labels.of(self.label_manager, self.dataset_json, self.folder)

    @cached_property
    def label_manager(self) -> LabelManager:
        """nnU-Net's label manager of this data set."""
        return label_manager_of(self.plans, self.dataset_json, self.folder)

    @cached_property
    def reader(self) -> BaseReaderWriter:
        """nnU-Net's reader and writer, which decides the order and orientation of array axes."""
        return find_reader(self.plans, self.dataset_json, self.folder)

    def read_labels(
        self,
        path: Path,
        *,
        is_truth: bool = False,
        like: tuple[str, Geometry, tuple[int, ...]] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """(*spatial) label map in the smallest type, and nnU-Net's properties.

        Args:
            path: Its file.
            is_truth: Whether it is a ground truth, which alone may hold the ignore label.
            like: The image or prediction that it belongs to, whose place it must have: what that
                is in words, its geometry, and its (*spatial) shape.

        Raises:
            UserError: It cannot be read, holds other labels, or lies elsewhere.
        """
        array, properties = read_segmentation(self.reader, path)
        self.labels.check(array, path, is_truth=is_truth)
        if like is not None:
            other, geometry, shape = like
            difference = geometry_difference(Geometry.of(properties), geometry, array.shape, shape)
            if difference:
                raise UserError(
                    f"{path}: other geometry than the {other} ({difference}); give the one that"
                    " belongs to it, or resample it."
                )
        return smallest_type(array), properties
