"""Cases that a model's networks predict: new images, or the preprocessed validation cases of a fold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.record import CaseRecord, Key, make_key
from nnunet_nacl.nnunet.image_files import spacing_file
from nnunet_nacl.nnunet.input_cases import InputCase
from nnunet_nacl.nnunet.network import Network, export_case, on_image
from nnunet_nacl.nnunet.pipeline import pipeline
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.profile import profile
from nnunet_nacl.nnunet.records import Outcomes, Source, key_of_prediction
from nnunet_nacl.nnunet.trained_model import (
    GridCase,
    TrainedModel,
    preprocessed_cases,
    read_and_preprocess,
    read_preprocessed,
    with_stage_before,
)


class NetworkSource(Source):
    """Cases that a model's networks predict; their segmentations are nnU-Net's, bit by bit.

    Args:
        model: The model; its folds are averaged.
        network: Arguments of :class:`~nnunet_nacl.nnunet.network.Network` beside the model.
        references: Folder of the ground truth; None for cases without.
        readers: Cases that are read at the same time, in processes of their own; 0 reads them in this one.
        exporters: Cases that are worked on at the same time, after the network, in processes of their own; 0 works on
            them in this one. None: as many as cases at the same time are asked for, and 0 for one.
        with_disagreement: Bring the map of what the folds disagree about to the image.
    """

    def __init__(
        self,
        model: TrainedModel,
        network: Mapping[str, Any],
        *,
        references: Path | None = None,
        readers: int = 0,
        exporters: int | None = None,
        with_disagreement: bool = False,
    ) -> None:
        self.model, self.labels, self.network, self.references = model, model.labels, network, references
        self.readers, self.exporters, self.with_disagreement = readers, exporters, with_disagreement
        self.problems: dict[str, str] = {}

    @property
    def made_by(self) -> dict[str, Any]:
        """Networks and settings that decide about the numbers, in JSON values."""
        hashes = dict(zip(self.model.folds, self.model.hashes))
        return {"checkpoints": hashes} | {name: self.network[name] for name in ("step_size", "mirroring")}

    @abstractmethod
    def read(self, name: str) -> GridCase:
        """What the network is given of a case; UserError where it cannot be predicted."""

    def case(self, name: str) -> Case:
        """The case, predicted in this process."""
        return self.finish(Network(self.model, **self.network).predict(self.read(name)))

    def each(self, names: Sequence[str], work: Callable[[Case], CaseRecord], jobs: int) -> Outcomes:
        """Each case's record: the next cases are read, and those before worked on, while one is predicted here."""
        exporters = self.exporters if self.exporters is not None else jobs if jobs > 1 else 0
        networks = Network(self.model, **self.network)
        steps = self.read, lambda name, prepared: networks.predict(prepared), partial(_work_on, self, work)
        yield from pipeline(names, *steps, readers=self.readers, exporters=exporters, path_of=self.path)

    def finish(self, answered: GridCase) -> Case:
        """The case of a network's answer, on the image's grid, by nnU-Net's own export."""
        case, name = predicted_case(self.model, answered, with_disagreement=self.with_disagreement), answered.case
        truth: np.ndarray | None = None
        if self.references is not None:
            opened, place = self.model.opened, (f"image of {name}", case.geometry, case.segmentation.shape)
            truth = opened.read_labels(self.references / f"{name}{opened.file_ending}", is_truth=True, like=place)[0]
        return replace(case, truth=truth, images=self.images(name), made_by=self.made_by)

    def images(self, name: str) -> tuple[Path, ...]:
        """Files of a case's image; empty where they are not known."""
        return ()


def predicted_case(model: TrainedModel, answered: GridCase, *, with_disagreement: bool = False) -> Case:
    """The case of a network's answer, on the image's grid, by nnU-Net's own export, without its truth."""
    case, exported = export_case(model, answered)
    members, transpose = answered.disagreement, model.plans_manager.transpose_forward
    if members is not None:
        members = on_image(members, model, exported, with_map=with_disagreement)
    seen = profile(answered.channels, case.segmentation, model.labels, answered.properties, transpose)
    return replace(
        case,
        image=answered.image,
        networks=tuple(f"fold_{fold}" for fold in model.folds),
        disagreement=members,
        differences=answered.differences,
        profile=tuple(seen.tolist()),
    )


def _work_on(source: NetworkSource, work: Callable[[Case], CaseRecord], name: str, answered: GridCase) -> CaseRecord:
    return work(source.finish(answered))


class Images(NetworkSource):
    """Images, named as nnU-Net wants it, or DICOM series.

    Args:
        model: The model.
        network: See :class:`NetworkSource`.
        cases: The images, see :func:`~nnunet_nacl.nnunet.input_cases.find_input_cases`.
        any_size: Predict scans of any size, which may take hours.
        check: Called with the files of a DICOM series before it is predicted; can be pickled.
        **options: Of :class:`NetworkSource`.
    """

    def __init__(
        self,
        model: TrainedModel,
        network: Mapping[str, Any],
        cases: Sequence[InputCase],
        *,
        any_size: bool = False,
        check: Callable[[Sequence[Path]], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, network, **options)
        self.cases = {case.case: case for case in cases}
        self.names, self._any_size, self._check = list(self.cases), any_size, check

    def key(self, name: str, settings: dict[str, Any], earlier: Key | None) -> Key:
        """Contents of the images, and of the truth where there is one; networks, and how they are used."""
        case, files = self.cases[name], dict[str, Path | None]()
        for i, path in enumerate(case.images):
            files[f"slice {i}" if case.orientation else path.name] = path
            if spacing := spacing_file(path):
                files[spacing.name] = spacing
        if case.previous:
            files["previous"] = case.previous
        if self.references is not None:
            files["reference"] = self.references / f"{name}{self.model.opened.file_ending}"
        axes = {"orientation": case.orientation} if case.orientation else {}
        return make_key(files, {"labels": self.labels.meaning} | self.made_by | axes | settings, earlier)

    def path(self, name: str) -> Path:
        """The first image."""
        return self.cases[name].path

    def images(self, name: str) -> tuple[Path, ...]:
        """Files of the channels, or the slices of a series."""
        return self.cases[name].images

    def read(self, name: str) -> GridCase:
        """The image, read and preprocessed as nnUNetv2_predict does."""
        prepared = read_and_preprocess(self.model, self.cases[name], any_size=self._any_size)
        if self._check is not None:
            self._check(self.cases[name].images)
        return prepared


class ValidationCases(NetworkSource):
    """Preprocessed validation cases of one fold, predicted by its network as nnU-Net's final validation does.

    Args:
        model: The model; of its folds only the one named is used.
        network: See :class:`NetworkSource`.
        fold: Its name.
        folder: Of the fold's predictions, with their ground truth, into which segmentations are written.
        names: Of the cases.
    """

    key_follows_files = True

    def __init__(
        self, model: TrainedModel, network: Mapping[str, Any], fold: str, folder: PredictionFolder, names: Sequence[str]
    ) -> None:
        digest = model.hashes[model.folds.index(fold)]
        super().__init__(replace(model, folds=(fold,), hashes=(digest,)), network, references=folder.reference_folder)
        self.folder, self.names = folder, names
        self._dataset = preprocessed_cases(model, names)

    @property
    def made_by(self) -> dict[str, Any]:
        """The one checkpoint, and how it was used."""
        return {"checkpoint": self.model.hashes[0]} | {name: self.network[name] for name in ("step_size", "mirroring")}

    def key(self, name: str, settings: dict[str, Any], earlier: Key | None) -> Key:
        """That of the predicted case in its folder; by whom it was predicted stands in the record."""
        return key_of_prediction(self.folder, name, settings, earlier)

    def path(self, name: str) -> Path:
        """Its segmentation."""
        return self.folder.folder / f"{name}{self.folder.file_ending}"

    def read(self, name: str) -> GridCase:
        """The preprocessed case, as nnU-Net left it."""
        data, before, properties = read_preprocessed(self._dataset, name)
        channels = data.astype(np.float16)
        if before is not None and self.model.previous_stage:
            data = with_stage_before(self.model, data, before)
        return GridCase(name, data, properties, None, channels, ())
