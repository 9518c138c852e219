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
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.cases.case import MadeBy
from nnunet_nacl.cases.probabilities import Box, CaseProbabilities, common_box
from nnunet_nacl.cases.record import RECORDS, check_records, is_replaceable_record, record_path
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work


class ExportedLogits(CaseProbabilities):
    """What nnU-Net makes of the logits of one case, and these logits: probabilities that are never
    all in memory.

    ``segmentation`` (*spatial) is in the axis order of the reader, ``logits`` (C, *crop) at the
    image's spacing in nnU-Net's transposed order; ``transpose_backward`` tells which transposed
    axis each axis of the reader is.
    """

    def __init__(
        self,
        segmentation: np.ndarray,
        logits: np.ndarray,
        properties: Mapping[str, Any],
        transpose_backward: Sequence[int],
        label_manager: Any,
    ) -> None:
        self.segmentation, self.logits, self.properties = segmentation, logits, properties
        self.transpose_backward, self.label_manager = transpose_backward, label_manager
        self.num_channels, self.regions = len(logits), bool(label_manager.has_regions)
        self.shape = tuple(
            int(properties["shape_before_cropping"][axis]) for axis in transpose_backward
        )

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
        probs[0] = not self.regions
        return probs

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) contiguous float32 as nnU-Net saves it, but for the last bit of its
        softmax."""
        shape = [part.stop - part.start for part in where]
        shared = common_box(where, self.crop)
        if shared is None:
            return self._outside(shape)
        target, source = shared
        seen = np.ascontiguousarray(self._turned(self.logits)[(slice(None), *source)])
        inner = self.label_manager.apply_inference_nonlin(seen).numpy()
        if list(inner.shape[1:]) == shape:
            return inner
        probs = self._outside(shape)
        probs[(slice(None), *target)] = inner
        return probs

    def whole(self, calibration: LogOddsMap | None = None) -> np.ndarray:
        """Without a map bit by bit as nnU-Net saves them."""
        if calibration is not None:
            return super().whole(calibration)
        probs = self._outside(self.shape)
        inner = self.label_manager.apply_inference_nonlin(self.logits).numpy()
        probs[(slice(None), *self.crop)] = self._turned(inner)
        return probs

    def odds_blocks(self) -> Iterator[tuple[Box, Any]]:
        """From the logits themselves: float32's sigmoid is 1 from z = 17 on, and these are not."""
        for where in self.crop_layers():
            inner = tuple(
                slice(w.start - b.start, w.stop - b.start) for w, b in zip(where, self.crop)
            )
            block = torch.from_numpy(
                np.ascontiguousarray(self._turned(self.logits)[(slice(None), *inner)])
            ).float()
            yield where, block if self.regions else block[1:] - block[:1]


def watch_plans(plans_manager: Any, seen: Callable[[Any], None]) -> Any:
    """A copy of nnU-Net's plans manager whose label managers call ``seen`` with the logits, once
    for every case."""
    watching, original = copy.copy(plans_manager), plans_manager.get_label_manager
    watching.get_label_manager = lambda *args, **options: _watched(original(*args, **options), seen)
    return watching


def _watched(label_manager: Any, seen: Callable[[Any], None]) -> Any:
    def watched(method: Callable[[Any], Any], logits: Any) -> Any:
        seen(logits)
        return method(logits)

    watching = copy.copy(label_manager)
    for name in ("convert_logits_to_segmentation", "apply_inference_nonlin"):
        setattr(watching, name, partial(watched, getattr(label_manager, name)))
    return watching


def export_logits(
    logits: Any,
    properties: Mapping[str, Any],
    configuration_manager: Any,
    plans_manager: Any,
    label_manager: Any,
) -> ExportedLogits:
    """Make the segmentation of a case from (C, *grid) logits as nnU-Net does, bit by bit, and keep
    the logits."""
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape,
    )

    shown, managers = list[Any](), (plans_manager, configuration_manager)
    watching, axes = _watched(label_manager, shown.append), plans_manager.transpose_backward
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, *managers, watching, dict(properties)
    )
    return ExportedLogits(segmentation, np.asarray(shown[0]), properties, axes, label_manager)


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
        """As nnU-Net's function, which runs itself where it cannot be watched; the case then has no
        record."""
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        torch.set_num_threads(1)  # there are as many workers as there may be threads
        _, properties, _, plans, _, path, *_ = arguments
        case, shown = Path(path).name, list[Any]()
        record = record_path(self.folder.folder / RECORDS, case)
        if is_replaceable_record(record):
            with contextlib.suppress(OSError):  # of an earlier network
                record.unlink(missing_ok=True)
        try:
            export_prediction_from_logits(
                *arguments[:3], watch_plans(plans, shown.append), *arguments[4:], **options
            )
            logits = np.asarray(shown[0])
        except Exception as error:
            # nnU-Net's own failure comes again, and goes where it always went
            export_prediction_from_logits(*arguments, **options)
            problem = f"nnU-Net's export cannot be watched: {type(error).__name__}: {error}"
        else:
            try:
                return self._measure(case, logits, properties, plans.transpose_backward)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        logging.getLogger(__name__).warning(
            "WARNING: calibration: %s: %s", case, " ".join(problem.split())
        )

    def _measure(
        self, case: str, logits: np.ndarray, properties: Mapping[str, Any], axes: Sequence[int]
    ) -> None:
        folder = self.folder
        made = folder.case(case, probabilities=False)
        exported = ExportedLogits(made.segmentation, logits, properties, axes, folder.label_manager)
        work = Work(settings=folder.settings, with_sample=True)
        record = work.make_record(replace(made, probabilities=exported, made_by=self.made_by))
        key = folder.key(case, work.key, None)
        check_records(folder.folder / RECORDS, [case])
        replace(record, key=key).save(record_path(folder.folder / RECORDS, case))
