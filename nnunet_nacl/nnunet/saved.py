"""A folder of predictions with their probabilities as a source of cases."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.key import Key, make_key
from nnunet_nacl.case.record import RECORDS
from nnunet_nacl.nnunet.image_files import spacing_file
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Source


class SavedPredictions(Source):
    """The cases of a folder as nnU-Net writes it: segmentations, probabilities, and their truth if it was opened so.

    Args:
        folder: The predictions.
        chill: Do not report expected cases that have no prediction (nnU-Net's word for it).
        known: Cases that need no probabilities, such as those that have a record.
    """

    def __init__(self, folder: PredictionFolder, *, chill: bool = True, known: Collection[str] = ()) -> None:
        self.folder = folder
        self.names, self.problems = folder.cases(chill=chill, known=known)

    def key(self, name: str, settings: dict[str, Any], earlier: Key | None) -> Key:
        """Contents of segmentation, probabilities and truth, and what the labels mean."""
        return key_of_prediction(self.folder, name, settings, earlier)

    def path(self, name: str) -> Path:
        """The probabilities."""
        return self.folder.folder / f"{name}.npz"

    def case(self, name: str) -> Case:
        """The case, with its truth where the folder was opened with one."""
        return self.folder.load(name)


def key_of_prediction(folder: PredictionFolder, name: str, settings: dict[str, Any], earlier: Key | None) -> Key:
    """What the record of a predicted case depends on; OSError if a file cannot be read."""
    labels, files = folder.labels, folder.files(name)
    spacings = {f"{what}, spacing": spacing_file(path) for what, path in files.items() if path is not None}
    meaning = {"labels": [list(labels.names), labels.listed, labels.ignore_label, list(labels.order)]}
    return make_key({**files, **{what: path for what, path in spacings.items() if path}}, meaning | settings, earlier)


def recorded_cases(folder: Path) -> set[str]:
    """Names of the cases of a folder of predictions that have a record."""
    return {path.stem for path in (folder / RECORDS).glob("*.npz")}
