"""`Predictor`: predicts an image that is in memory, and says how far that can be trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.calibration_map import Probabilities
from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.findings import StructureFindings
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.views import VoxelUncertainty
from nnunet_nacl.nnunet.predicted import Network, on_present_device, predicted_case
from nnunet_nacl.nnunet.preprocessing import preprocess
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.settings import BadSpec, ListSettings, NetworkSettings, settings_of
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.worklist.aims import read_aims
from nnunet_nacl.worklist.judgement import judge_scan, structures_by_need


class UnknownStructureError(KeyError):
    """A structure that there is not; the message lists those that there are."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError's own text is in quotes


@dataclass(frozen=True, eq=False)
class Answer(Mapping[str, pd.Series]):
    """What is predicted of one image, all arrays in the axis order of the image.

    ``answer["LV cavity"]`` is the row of that structure, and ``answer.items()`` are all, by name.

    Attributes:
        segmentation: (*spatial) label map, uint8 or uint16.
        structures: A row for each structure, by name: ``predicted_dice`` with ``dice_low`` and
            ``dice_high``, the 90 % interval of the true Dice; ``volume``, of the segmentation,
            ``predicted_volume`` with ``volume_low`` and ``volume_high``, and their ``unit``: ml,
            mm2 of 2D images, pixels without spacing; ``present``, the probability that it is in the
            image; ``pieces``, ``members_dice`` and all else that
            :func:`~nnunet_nacl.worklist.judgement.completed` has. NaN where it was not segmented,
            or no map has learned it.
        findings: Connected parts of the structures that the map names.
        reasons: Why the image needs a look, in words; empty where nothing was found.
        flag: Whether there is one; None where ``bad`` was not given to the predictor, which then
            only ranks.
        least_certain: (z, y, x) index of the voxel where the network is least certain of the
            structure that needs a look most; empty where it is certain of all.
        probabilities: None if they were not asked for.
    """

    segmentation: np.ndarray
    structures: pd.DataFrame
    findings: tuple[StructureFindings, ...]
    reasons: list[str]
    flag: bool | None
    least_certain: tuple[int, ...]
    probabilities: Probabilities | None

    def __getitem__(self, name: str) -> pd.Series:
        """The row of a structure; :class:`UnknownStructureError`, a KeyError, for another name."""
        if name not in self.structures.index:
            raise UnknownStructureError(
                f"there is no structure {name!r}; there are {', '.join(self)}."
            )
        return self.structures.loc[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.structures.index)

    def __len__(self) -> int:
        return len(self.structures)

    # as objects, since rows have no truth value
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Predictor:
    """A trained model, ready to predict images one after the other.

    Args:
        model_folder: nnU-Net's, TRAINER__PLANS__CONFIGURATION.
        folds, checkpoint, device, step_size, mirroring, trust_checkpoint: Which networks predict,
            and how, see :class:`~nnunet_nacl.settings.NetworkSettings`.
        calibration_map: calibration_map.json of this model; None looks for it in the model folder.
        bad, find, miss, unlike, findings: As of a list, see
            :class:`~nnunet_nacl.settings.ListSettings`. Scans that may be bad have a reason to
            look; without ``bad`` no score is a reason.
        any_size: Predict images of any size: without, one that would be more than 30 times as large
            for the network as any of the training, or with voxels 30 times as long or short, is
            refused: mostly a header is wrong then, and it would take hours.

    Attributes:
        missing: What the model lacks, such as a calibration, each with the remedy.

    Raises:
        UserError: The model cannot be used.

    Examples:
        >>> predictor = Predictor(model_folder, bad=0.7, device="cpu")
        >>> # as read by nnunetv2.imageio's SimpleITKIO().read_images
        >>> answer = predictor.predict(image, properties)
        >>> answer.segmentation.shape == image.shape[1:]
        True
        >>> structure = answer["anterior"]
        >>> bool(0 <= structure.dice_low <= structure.dice_high <= 1)
        True
        >>> answer.flag == bool(answer.reasons)
        True
        >>> list(answer)
        ['anterior', 'posterior']
    """

    def __init__(
        self,
        model_folder: str | os.PathLike,
        *,
        folds: Sequence[str | int] | None = None,
        checkpoint: str | None = None,
        calibration_map: str | os.PathLike | None = None,
        bad: BadSpec | None = None,
        find: float | None = None,
        miss: float | None = None,
        device: str = "auto",
        step_size: float = 0.5,
        mirroring: bool = True,
        findings: Sequence[str] | None = None,
        any_size: bool = False,
        unlike: float = 0.05,
        trust_checkpoint: bool = False,
    ) -> None:
        arguments = locals()
        wanted = settings_of(ListSettings, arguments)
        network = on_present_device(settings_of(NetworkSettings, arguments))
        map_path = Path(calibration_map) if calibration_map is not None else None
        self._any_size = any_size
        self._trust_checkpoint = trust_checkpoint
        with trusting(trust_checkpoint):
            self._model = TrainedModel.open(Path(model_folder), folds, checkpoint)
            self._calibrator = Calibrator.of_model(self._model, map_path)
            num_networks = len(self._model.folds)
            self._aims = read_aims(wanted, self._model.labels, self._calibrator, num_networks)
            self._network = Network(self._model, network)
        self.missing = self._calibrator.missing

    def predict(
        self,
        image: np.ndarray,
        properties: Mapping[str, Any],
        *,
        case: str = "image",
        previous_stage: np.ndarray | None = None,
        probabilities: bool = False,
    ) -> Answer:
        """Segment an image and say how far that can be trusted.

        Args:
            image: (C, z, y, x) channels in the units of the files, as nnU-Net's reader of the data
                set returns them; 2D images with z = 1.
            properties: Its ``spacing`` in mm in the order (z, y, x), as that reader returns it;
                what else it returns tells where the image lies. Stays as it is.
            case: A name for messages.
            previous_stage: (z, y, x) label map of the stage before; for cascades, which need it.
            probabilities: Return them too; they take 4 bytes a voxel and class.

        Raises:
            UserError: The image or the stage before has the wrong shape or values, or the image is
                far larger than those of the training.
        """
        image = np.asarray(image)
        previous_stage = self._check_previous_stage(previous_stage, image)
        with trusting(self._trust_checkpoint):
            prepared = preprocess(
                self._model,
                case,
                image,
                dict(properties),
                previous_stage,
                source=[case],
                any_size=self._any_size,
            )
            segmented = predicted_case(self._model, self._network.predict(prepared))
        return self._answer(segmented, with_probabilities=probabilities)

    def _check_previous_stage(
        self, previous_stage: np.ndarray | None, image: np.ndarray
    ) -> np.ndarray | None:
        """The segmentation of the stage before as nnU-Net takes it; UserError where it does not
        fit."""
        model = self._model
        if previous_stage is None:
            if model.previous_stage is not None:
                raise UserError(
                    f"{model.configuration} is a cascade: give the segmentation of"
                    f" {model.previous_stage} as previous_stage."
                )
            return None
        if model.previous_stage is None:
            raise UserError(
                f"{model.configuration} is no cascade, which alone has a previous_stage."
            )
        # nnU-Net marks what it crops by -1
        previous_stage = np.asarray(previous_stage, np.float32)
        if previous_stage.shape != image.shape[1:]:
            shapes = f"{previous_stage.shape}, the image has {image.shape[1:]}"
            raise UserError(
                f"previous_stage has the shape {shapes}; give the segmentation of this image."
            )
        model.labels.check(previous_stage, Path("previous_stage"), is_truth=False)
        return previous_stage

    def _answer(self, case: Case, *, with_probabilities: bool) -> Answer:
        """What is known of a case that was predicted."""
        uncertainty = VoxelUncertainty.of(case, ())
        calibration = self._calibrator.log_odds_map
        record = measure(case, calibration, uncertainty, findings=self._aims.findings)
        judged = judge_scan(record, self._calibrator, self._aims)
        names = structures_by_need(judged.reasons, judged.structures)
        places = uncertainty.least_certain_places(case, names, calibration)
        probabilities = None
        if with_probabilities:
            whole = case.probabilities.whole(calibration)
            probabilities = Probabilities(whole, calibration is not None)
        return Answer(
            segmentation=case.segmentation,
            structures=judged.structures.set_index("name"),
            findings=record.findings,
            reasons=[reason.text for reason in judged.reasons],
            flag=bool(judged.reasons) if self._aims.flags is not None else None,
            least_certain=next(iter(places.values()), ()),
            probabilities=probabilities,
        )
