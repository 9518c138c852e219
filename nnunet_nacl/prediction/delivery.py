"""The last step of a case, done by a worker process: export, look, write."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.cases.map_images import to_dtype, write_image
from nnunet_nacl.cases.prediction_folder import CaseFiles
from nnunet_nacl.cases.prediction_output import write_case
from nnunet_nacl.cases.reviewed_case import ReviewedCase
from nnunet_nacl.documents.review_list import FinishedCase
from nnunet_nacl.files import remove_leftovers
from nnunet_nacl.prediction.case_records import CaseRecords
from nnunet_nacl.prediction.input_cases import InputCase
from nnunet_nacl.prediction.network import PredictedLogits
from nnunet_nacl.prediction.preprocessed_case import CompactImage
from nnunet_nacl.prediction.segmented_case import Postprocessing, segment_case
from nnunet_nacl.prediction.trained_model import TrainedModel

__all__ = ["MAPS", "Delivery", "Thumbnail"]

MAPS = "maps"
"""Folder of the maps, a folder a case: nnU-Net takes every image beside the segmentations for one."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture, and in words what it goes through.

    Attributes:
        png: The picture.
        width: In pixels.
        height: In pixels.
        place: Such as ``axial slice 21 of 38, at Posterior``.
    """

    png: bytes
    width: int
    height: int
    place: str


@dataclass(frozen=True)
class Delivery:
    """How cases are delivered; can be pickled.

    Attributes:
        model: The model.
        output: The folder.
        records: Of its cases.
        draw: Makes the picture of a case; can be pickled.
        maps: Which are written.
        postprocessing: Of nnU-Net; None for none.
        owner: Of the unfinished files, where several runs share the folder.
    """

    model: TrainedModel
    output: Path
    records: CaseRecords
    draw: Callable[[TrainedModel, CompactImage, ReviewedCase], Thumbnail]
    maps: tuple[str, ...] = ()
    postprocessing: Postprocessing | None = None
    owner: str = ""

    def finish(self, case: InputCase, predicted: PredictedLogits) -> None:
        """Write all files of a case, its record last; UserError if one cannot be written."""
        segmented = segment_case(self.model, predicted, maps=self.maps, postprocessing=self.postprocessing)
        picture = self.draw(self.model, predicted.image, segmented)
        self.records.forget(case.case)
        folder, ending = self.model.opened, self.model.opened.file_ending
        files = CaseFiles(case.case, self.output / f"{case.case}.npz", None, None)
        write_case(folder, files, self.output, segmented.case.segmentation, predicted.properties, owner=self.owner)
        written = [self.output / f"{case.case}{ending}", *self._write_maps(case.case, segmented)]
        encoded = base64.b64encode(picture.png).decode()
        size = (picture.width, picture.height)
        finished = FinishedCase(segmented.row, segmented.unlike, picture.place, encoded, size)
        self.records.remember(case, finished, written)

    def _write_maps(self, case: str, segmented: ReviewedCase) -> list[Path]:
        folder, written = self.output / MAPS / case, []
        if folder.is_dir():
            remove_leftovers(folder)
        for name, values in segmented.maps.items():
            path = folder / f"{case}_{name}{self.model.opened.file_ending}"
            written += write_image(to_dtype(values, "uint8"), path, segmented.case.geometry)
        return written
