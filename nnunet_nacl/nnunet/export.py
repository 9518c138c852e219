"""nnU-Net's export of a case, watched: its logits are kept, or measured while a trainer validates.

nnU-Net resamples logits to the image, makes the label map, and drops them, though its
probabilities, of twice their size, follow from them. A label manager that tells what it was shown
stands in for nnU-Net's: no step is done again.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_nacl.cases.case import MadeBy
from nnunet_nacl.cases.probabilities import Box, CaseProbabilities, common_box, counted_from
from nnunet_nacl.cases.record import check_records, is_replaceable_record, record_path
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )


class ExportedLogits(CaseProbabilities):
    """What nnU-Net makes of the logits of one case; its probabilities are never all in memory.

    Attributes:
        segmentation: (*spatial) label map in the axis order of the reader.
        logits: (C, *crop) at the image's spacing, in nnU-Net's transposed order.
        properties: nnU-Net's, of the preprocessed image.
        transpose_backward: Which transposed axis each axis of the reader is.
        label_manager: nnU-Net's, which makes probabilities of logits.
    """

    def __init__(
        self,
        segmentation: np.ndarray,
        logits: np.ndarray,
        properties: Mapping[str, Any],
        transpose_backward: Sequence[int],
        label_manager: LabelManager,
    ) -> None:
        self.segmentation = segmentation
        self.logits = logits
        self.properties = properties
        self.transpose_backward = transpose_backward
        self.label_manager = label_manager
        self.num_channels = len(logits)
        self.regions = bool(label_manager.has_regions)
        transposed_shape = properties["shape_before_cropping"]
        self.shape = tuple(int(transposed_shape[axis]) for axis in transpose_backward)

    @property
    def crop(self) -> Box:
        """nnU-Net's crop in the axis order of the reader: what lies outside no network has seen."""
        box = self.properties["bbox_used_for_cropping"]
        return tuple(
            slice(int(box[axis][0]), int(box[axis][1])) for axis in self.transpose_backward
        )

    def _turned(self, values: np.ndarray) -> np.ndarray:
        """(C, *crop) view in the axis order of the reader."""
        return values.transpose([0] + [axis + 1 for axis in self.transpose_backward])

    def _outside(self, shape: Sequence[int]) -> np.ndarray:
        """(C, *shape) float32, background for certain."""
        probs = np.zeros((self.num_channels, *shape), np.float32)
        if not self.regions:
            probs[0] = 1  # the background's class; of regions no channel has the background
        return probs

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) contiguous float32 as nnU-Net saves it.

        A softmax of a part may differ from that of the whole image in its last bit.
        """
        shape = [part.stop - part.start for part in where]
        shared = common_box(where, self.crop)
        if shared is None:
            return self._outside(shape)
        in_block, in_crop = shared
        probs_in_crop = self.label_manager.apply_inference_nonlin(self._logits_in(in_crop)).numpy()
        if list(probs_in_crop.shape[1:]) == shape:
            return probs_in_crop
        probs = self._outside(shape)
        probs[(slice(None), *in_block)] = probs_in_crop
        return probs

    def _logits_in(self, in_crop: Box) -> np.ndarray:
        """(C, *block) contiguous, of a box that is counted from the corner of the crop."""
        return np.ascontiguousarray(self._turned(self.logits)[(slice(None), *in_crop)])

    def whole(self, calibration: LogOddsMap | None = None) -> np.ndarray:
        """Without a map bit by bit as nnU-Net saves them."""
        if calibration is not None:
            return super().whole(calibration)
        probs = self._outside(self.shape)
        probs_in_crop = self.label_manager.apply_inference_nonlin(self.logits).numpy()
        probs[(slice(None), *self.crop)] = self._turned(probs_in_crop)
        return probs

    def odds_blocks(self) -> Iterator[tuple[Box, torch.Tensor]]:
        """As in the base class, but from the logits themselves.

        The sigmoid of any logit above 17 is 1 in float32: probabilities no longer tell them apart.
        """
        for where in self.crop_layers():
            in_crop = counted_from(self.crop, where)
            logits = torch.from_numpy(self._logits_in(in_crop)).float()
            yield where, logits if self.regions else logits[1:] - logits[:1]


class LogitsWatch:
    """Notes the logits that nnU-Net's export hands to a label manager.

    nnU-Net resamples logits to the image before it does, and lets go of them after.
    """

    def __init__(self) -> None:
        self._logits: list[torch.Tensor | np.ndarray] = []

    @property
    def logits(self) -> np.ndarray:
        """(C, *crop) those that were handed over first; IndexError where none were."""
        return np.asarray(self._logits[0])

    def watch_plans(self, plans_manager: PlansManager) -> PlansManager:
        """A copy of nnU-Net's plans manager whose label managers are watched."""
        make_label_manager = plans_manager.get_label_manager

        def make_watched(*arguments: object, **options: object) -> LabelManager:
            return self.watch_labels(make_label_manager(*arguments, **options))

        watched = copy.copy(plans_manager)
        watched.get_label_manager = make_watched
        return watched

    def watch_labels(self, label_manager: LabelManager) -> LabelManager:
        """A copy of nnU-Net's label manager that is watched."""
        watched = copy.copy(label_manager)
        for name in ("convert_logits_to_segmentation", "apply_inference_nonlin"):
            setattr(watched, name, partial(self._note, getattr(label_manager, name)))
        return watched

    def _note(
        self, method: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor
    ) -> torch.Tensor:
        self._logits.append(logits)
        return method(logits)


def export_logits(
    logits: torch.Tensor | np.ndarray,
    properties: Mapping[str, Any],
    configuration_manager: ConfigurationManager,
    plans_manager: PlansManager,
    label_manager: LabelManager,
) -> ExportedLogits:
    """Make the segmentation of a case as nnU-Net does, bit by bit, and keep the logits.

    Args:
        logits: (C, *grid), which a network answered.
        properties: nnU-Net's, of the preprocessed image.
        configuration_manager: nnU-Net's, of the model.
        plans_manager: nnU-Net's, of the model.
        label_manager: nnU-Net's, of the model.
    """
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape,
    )

    watch = LogitsWatch()
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans_manager,
        configuration_manager,
        watch.watch_labels(label_manager),
        dict(properties),
    )
    return ExportedLogits(
        segmentation, watch.logits, properties, plans_manager.transpose_backward, label_manager
    )


@dataclass(frozen=True)
class MeasuredExport:
    """Stands in for nnU-Net's ``export_prediction_from_logits``; can be pickled.

    Attributes:
        folder: Where the predictions go, and their ground truth.
        made_by: How the probabilities are made, as far as it is known: see the record's.
    """

    folder: PredictionFolder
    made_by: MadeBy = field(default_factory=MadeBy)

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """As nnU-Net's function, which runs itself where it cannot be watched.

        The case then has no record, and a warning says why.
        """
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        torch.set_num_threads(1)  # there are as many workers as there may be threads
        # of nnU-Net's arguments the properties, the plans manager, and the output file without its
        # ending
        _, properties, _, plans_manager, _, path, *_ = arguments
        case = Path(path).name
        self._remove_earlier_record(case)
        watch = LogitsWatch()
        try:
            export_prediction_from_logits(
                *arguments[:3], watch.watch_plans(plans_manager), *arguments[4:], **options
            )
            logits = watch.logits
        except Exception as error:
            # if nnU-Net itself failed, it fails here again, as it would without the watch
            export_prediction_from_logits(*arguments, **options)
            _warn(case, f"nnU-Net's export cannot be watched: {type(error).__name__}: {error}")
            return
        try:
            self._measure(case, logits, properties, plans_manager.transpose_backward)
        except Exception as error:  # what is lost is the record: the training goes on
            _warn(case, f"{type(error).__name__}: {error}")

    def _remove_earlier_record(self, case: str) -> None:
        """Remove the record of an earlier network; files of others stay."""
        record = record_path(self.folder.folder / RECORDS, case)
        if is_replaceable_record(record):
            with contextlib.suppress(OSError):  # it stays: its key tells that it is another's
                record.unlink(missing_ok=True)

    def _measure(
        self, name: str, logits: np.ndarray, properties: Mapping[str, Any], axes: Sequence[int]
    ) -> None:
        """Write the record of a case whose segmentation lies in the folder."""
        folder = self.folder
        case = folder.case(name, probabilities=False)
        exported = ExportedLogits(
            case.segmentation, logits, properties, axes, folder.dataset.label_manager
        )
        work = Work(settings=folder.dataset.settings, with_sample=True)
        record = work.make_record(replace(case, probabilities=exported, made_by=self.made_by))
        key = folder.key(name, work.key, None)
        check_records(folder.folder / RECORDS, [name])
        replace(record, key=key).save(record_path(folder.folder / RECORDS, name))


def _warn(case: str, problem: str) -> None:
    logging.getLogger(__name__).warning(
        "WARNING: calibration: %s: %s", case, " ".join(problem.split())
    )
