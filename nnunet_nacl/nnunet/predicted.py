"""Networks -> logits -> nnU-Net's export -> case, of images or of validation cases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_nacl.cases.case import Case, MadeBy
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.ownership import OwnedFiles, check_no_others, files_of_case
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.record_key import file_key
from nnunet_nacl.metrics.voxel_uncertainty import Disagreement, MemberSums
from nnunet_nacl.nnunet.export import ExportedLogits, export_logits
from nnunet_nacl.nnunet.output import file_names_of_case, write_case
from nnunet_nacl.nnunet.pipeline import through
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.preprocessing import (
    GridCase,
    Logits,
    Preprocessed,
    preprocessed_cases,
    with_stage_before,
)
from nnunet_nacl.nnunet.profile import profile
from nnunet_nacl.nnunet.records import Outcomes, Source, Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import check_names
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import UserError, first_line
from nnunet_nacl.utilities.images import quiet

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

_OVERFLOW = (
    "the network's answer is no number, or beyond half precision; check the scan's intensities (are"
    " they in the training's units?) and the checkpoint."
)


def find_device(name: str) -> str:
    """A device by its name, ``auto`` for the first that there is; UserError for one not here."""
    devices = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    here = [device for device, is_here in devices.items() if is_here]
    if name not in ("auto", *here):
        raise UserError(
            f"the device {name!r}: PyTorch finds {', '.join(here)} here; name one of these, or"
            " auto."
        )
    return here[0] if name == "auto" else name


def on_present_device(settings: NetworkSettings) -> NetworkSettings:
    """The same settings with a device that is here in place of ``auto``; UserError for one that is
    not here."""
    return replace(settings, device=find_device(settings.device))


def check_network(model: TrainedModel, settings: NetworkSettings) -> None:
    """UserError, before any work, where a model cannot predict in this way: its trainer is not
    here, or of others and not trusted, or a setting is out of range."""
    if not 0 < settings.step_size <= 1:
        raise UserError(
            "[[step_size]] is a share of the patch, above 0 and at most 1; got"
            f" {settings.step_size}."
        )
    check_names({"trainer_name": model.trainer}, f"checkpoint of {model.folder}")


class Network:
    """The networks of a model's folds, built by nnU-Net.

    Its files were judged when the model was opened.

    Args:
        model: The model; the networks of its folds are built.
        settings: How they predict, on a device that is here (:func:`on_present_device`).

    Raises:
        UserError: For a trainer of others that is not trusted, or weights of another network.
    """

    def __init__(self, model: TrainedModel, settings: NetworkSettings) -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        check_network(model, settings)
        try:
            with quiet():
                predictor = nnUNetPredictor(
                    tile_step_size=settings.step_size,
                    use_gaussian=True,
                    use_mirroring=settings.mirroring,
                    perform_everything_on_device=settings.everything_on_device,
                    device=torch.device(settings.device),
                    verbose=settings.verbose,
                    allow_tqdm=False,
                )
                predictor.initialize_from_trained_model_folder(
                    str(model.folder), model.folds, model.checkpoint
                )
        except Exception as error:  # an unknown trainer, weights of another network, ...
            raise UserError(
                f"{model.folder}: nnU-Net cannot build this network ({first_line(error)})."
            ) from None
        self._model = model
        self._predictor = predictor
        self._weights = predictor.list_of_parameters

    @torch.inference_mode()
    def predict(self, preprocessed: Preprocessed) -> Logits:
        """The average of the folds' logits, and what they disagree on.

        On the CPU logits are nnU-Net's, bit by bit. UserError where they are no numbers.
        """
        data = torch.from_numpy(preprocessed.data)
        first_weights, *other_weights = self._weights
        total = self._answer(first_weights, data)
        if not other_weights:
            return Logits(preprocessed.case, total.numpy())
        sums = self._member_sums()
        sums.add(total.numpy())
        for weights in other_weights:
            logits = self._answer(weights, data)
            sums.add(logits.numpy())
            total += logits  # in half precision, and in the order of the folds: as nnU-Net does
        total /= len(self._weights)
        disagreement = sums.result(total.numpy())
        in_half_precision = disagreement.mutual_information.astype(np.float16)
        disagreement = replace(disagreement, mutual_information=in_half_precision)
        return Logits(preprocessed.case, total.numpy(), disagreement)

    @property
    def module(self) -> torch.nn.Module:
        """The network of the first fold, on its device, as nnU-Net predicts with it."""
        network = self._predictor.network
        network.load_state_dict(self._weights[0])
        return network.to(self._predictor.device).eval()

    def _member_sums(self) -> MemberSums:
        labels = self._model.labels
        manager = self._model.dataset.label_manager
        return MemberSums(
            [labels.values[channel] for channel in labels.foreground],
            lambda probs: np.asarray(manager.convert_probabilities_to_segmentation(probs)),
            regions=labels.regions,
            to_probs=lambda logits: manager.apply_inference_nonlin(logits).numpy(),
        )

    def _answer(self, weights: dict[str, torch.Tensor], data: torch.Tensor) -> torch.Tensor:
        """(C, *grid) logits of a fold on the CPU."""
        self._predictor.list_of_parameters = [weights]
        try:
            logits = self._predictor.predict_logits_from_preprocessed_data(data).to("cpu")
        except RuntimeError as error:
            if "Encountered inf" not in str(error):
                raise
            raise UserError(_OVERFLOW) from None
        if logits.isnan().any():
            raise UserError(_OVERFLOW)
        return logits


@dataclass(eq=False)
class NetworkSource(Source):
    """Cases that a model's networks predict; their segmentations are nnU-Net's, bit by bit.

    Attributes:
        model: The model; its folds are averaged.
        network: How its networks predict.
        references: Folder of the ground truth; None for cases without.
        readers: Cases that are read at the same time, in processes of their own; 0 reads them in
            this one.
        exporters: Cases that are worked on at the same time, after the network, in processes of
            their own; 0: as many as cases at the same time are asked for, in this process for one.
        with_disagreement: Bring the map of what the folds disagree about to the image.
    """

    model: TrainedModel
    network: NetworkSettings
    _: KW_ONLY
    references: Path | None = None
    readers: int = 0
    exporters: int = 0
    with_disagreement: bool = False

    def __post_init__(self) -> None:
        self.labels = self.model.labels
        self.problems = {}

    @property
    def made_by(self) -> MadeBy:
        """Networks, files beside them and settings that decide about the numbers."""
        made_by = self._made_without_weights
        made_by["checkpoints"] = dict(zip(self.model.folds, self.model.hashes))
        return made_by

    @property
    def _made_without_weights(self) -> MadeBy:
        """How the networks are used, whatever their weights."""
        return MadeBy(
            model_files=dict(self.model.file_hashes),
            step_size=self.network.step_size,
            mirroring=self.network.mirroring,
        )

    @abstractmethod
    def read(self, name: str) -> Preprocessed:
        """What the network is given of a case; UserError where it cannot be predicted."""

    def each(self, names: Sequence[str], work: Work, jobs: int) -> Outcomes:
        """Each case's record.

        While one case is predicted here, the next are read, and those before are worked on.
        """
        exporters = self.exporters or (jobs if jobs > 1 else 0)
        networks = Network(self.model, self.network)
        # lazy: the last step draws case by case
        named = ((name, None) for name in names)
        read = through(partial(_read, self), named, self.readers, self.path)
        answered = through(lambda name, prepared: networks.predict(prepared), read, 0, self.path)
        yield from through(partial(_work_on, self, work), answered, exporters, self.path)

    def finish(self, logits: Logits) -> Case:
        """The case of a network's answer, with its truth where there are references."""
        case = predicted_case(self.model, logits, with_disagreement=self.with_disagreement)
        truth: np.ndarray | None = None
        if self.references is not None:
            dataset = self.model.dataset
            truth, _ = dataset.read_labels(
                self.references / f"{case.name}{dataset.file_ending}",
                is_truth=True,
                like=(f"image of {case.name}", case.geometry, case.segmentation.shape),
            )
        return replace(case, truth=truth, made_by=self.made_by)


def _read(source: NetworkSource, name: str, nothing: None) -> Preprocessed:
    """The first step of a case, so that ``nothing`` was made of it before."""
    return source.read(name)


def _work_on(source: NetworkSource, work: Work, name: str, logits: Logits) -> CaseRecord:
    return work.make_record(source.finish(logits))


@dataclass(eq=False)
class ValidationCases(NetworkSource):
    """Preprocessed validation cases of a model of one fold.

    They are predicted as nnU-Net's final validation does.

    Attributes:
        folder: Of the fold's predictions, with their ground truth, into which segmentations are
            written.
    """

    folder: PredictionFolder
    key_follows_files = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.names = self.folder.expected or ()
        self.references = self.folder.reference_folder
        self.output = self.folder.folder

    @cached_property
    def _dataset(self) -> nnUNetBaseDataset:
        return preprocessed_cases(self.model, self.names)

    @property
    def made_by(self) -> MadeBy:
        """The one checkpoint, and how it was used; in the record, not in the key."""
        made_by = self._made_without_weights
        made_by["checkpoint"] = self.model.hashes[0]
        return made_by

    def files(self, name: str) -> dict[str, Path | None]:
        """Those of the predicted case in its folder."""
        return self.folder.files(name)

    def path(self, name: str) -> Path:
        """Its segmentation."""
        return self.folder.folder / f"{name}{self.folder.dataset.file_ending}"

    def read(self, name: str) -> Preprocessed:
        """The preprocessed case, as nnU-Net left it."""
        stored, _, before, properties = self._dataset.load_case(name)
        data = np.array(stored[:])
        channels = data.astype(np.float16)
        if before is not None and self.model.previous_stage:
            data = with_stage_before(self.model, data, before[:])
        return Preprocessed(GridCase(name, properties, None, channels, ()), data)

    def finish(self, logits: Logits) -> Case:
        """The case, once its segmentation lies in the folder.

        One that is the same stays, whoever made it; UserError for another that others made.
        """
        case = super().finish(logits)
        path = self.path(case.name)
        if path.is_file():
            earlier, _ = self.folder.dataset.read_labels(path)
            if np.array_equal(earlier, case.segmentation):
                return replace(case, files={path.name: file_key(path)})
        files = self.files_of(case.name)
        if files.others([path.name]):
            raise UserError(f"{path} is not what this network predicts; move it away.")
        write_case(self.folder.dataset, case, files)
        return replace(case, files=files.written)

    def check_files(self, names: Sequence[str]) -> None:
        """UserError, before any work, where files of others are in the way.

        Of a segmentation that no record names it shows only later whether the network predicts the
        same.
        """
        others: list[Path] = []
        for name in names:
            files = self.files_of(name)
            file_names = file_names_of_case(self.folder.dataset, name)
            segmentation = self.path(name).name
            if segmentation not in files.known_names:
                file_names.remove(segmentation)
            others += files.in_the_way(file_names)
        check_no_others(others, "move them away")

    def files_of(self, name: str) -> OwnedFiles:
        """The files of a case in the folder, by which those of a run are told from others."""
        return files_of_case(self.folder.folder, self.folder.records, name)


def predicted_case(model: TrainedModel, logits: Logits, *, with_disagreement: bool = False) -> Case:
    """The case of a network's answer, on the image's grid, by nnU-Net's own export.

    Without its truth; ``with_disagreement`` with the image of what the folds disagree about.
    """
    grid_case = logits.case
    with quiet():
        exported = export_logits(
            logits.values,
            grid_case.properties,
            model.configuration_manager,
            model.plans_manager,
            model.dataset.label_manager,
        )
    disagreement = logits.disagreement
    if disagreement is not None:
        disagreement = _on_image(disagreement, model, exported, with_image=with_disagreement)
    profile_of_scan = profile(
        grid_case.channels,
        exported.segmentation,
        model.labels,
        grid_case.properties,
        model.plans_manager.transpose_forward,
    )
    return Case(
        grid_case.name,
        model.labels,
        Geometry.of(grid_case.properties),
        exported.segmentation,
        exported,
        properties=grid_case.properties,
        image=grid_case.image,
        networks=tuple(f"fold_{fold}" for fold in model.folds),
        disagreement=disagreement,
        differences=grid_case.differences,
        profile=tuple(profile_of_scan.tolist()),
    )


def _on_image(
    on_grid: Disagreement, model: TrainedModel, exported: ExportedLogits, *, with_image: bool
) -> Disagreement:
    """What the folds disagree about, brought from the network's grid to the image.

    Sizes become numbers of the image's voxels. ``with_image`` says whether the image of the mutual
    information is resampled, too, as logits are; else it stays on the grid.
    """
    # both cover nnU-Net's crop
    image_voxels_per_grid_voxel = exported.logits[0].size / on_grid.mutual_information.size
    on_image = replace(on_grid, voxels=on_grid.voxels * image_voxels_per_grid_voxel)
    if not with_image:
        return on_image
    configuration = model.configuration_manager
    spacing = exported.properties["spacing"]
    image_mm = [spacing[axis] for axis in model.plans_manager.transpose_forward]
    # A 2D network has a spacing of two axes: across slices the grid is that of the image.
    grid_mm = [*image_mm[: len(image_mm) - len(configuration.spacing)], *configuration.spacing]
    (resampled,) = np.asarray(
        configuration.resampling_fn_probabilities(
            on_grid.mutual_information[None].astype(np.float32),
            exported.logits.shape[1:],
            grid_mm,
            image_mm,
        )
    )
    information = np.zeros(exported.shape, np.float32)
    information[exported.crop] = resampled.clip(0, 1).transpose(exported.transpose_backward)
    return replace(on_image, mutual_information=information)
