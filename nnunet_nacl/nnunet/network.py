"""Predicts single cases by nnU-Net's networks, and exports the logits by nnU-Net's own function.

nnU-Net resamples logits to the image, makes the label map, and drops them, though its probabilities, of twice their
size, follow from them. A label manager that tells what it was shown stands in for nnU-Net's: no step is done again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.probabilities import Box, Probabilities, common_box
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.images import quiet
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.trained_model import GridCase, TrainedModel
from nnunet_nacl.nnunet.trust import check_model, read_checkpoint
from nnunet_nacl.numbers.voxel_uncertainty import Disagreement, MemberSums

_OVERFLOW = (
    "the network's answer is no number, or beyond half precision; check the scan's intensities (are they in the "
    "training's units?) and the checkpoint."
)


class Network:
    """The networks of a model's folds, built by nnU-Net once the model's files were judged; no other place builds any.

    UserError for a device that is none, or files that are damaged, or can run code and are not trusted.

    Args:
        model: The model.
        device: ``cuda``, ``cpu`` or ``mps``.
        step_size: Of the sliding window, as a share of the patch, in (0, 1].
        mirroring: Predict mirrored copies too, as calibration expects.
        everything_on_device: Keep a case's logits on a GPU.
        verbose: Let nnU-Net print what it does.
    """

    def __init__(
        self,
        model: TrainedModel,
        *,
        device: str = "cuda",
        step_size: float = 0.5,
        mirroring: bool = True,
        everything_on_device: bool = True,
        verbose: bool = False,
    ) -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        if not 0 < step_size <= 1:
            raise UserError(f"-step_size is a share of the patch, above 0 and at most 1; got {step_size}.")
        devices = {"cuda": torch.cuda.is_available(), "cpu": True, "mps": torch.backends.mps.is_available()}
        if device not in devices:
            raise UserError(f"-device must be one of {', '.join(devices)}, got {device!r}.")
        if not devices[device]:
            raise UserError(f"-device {device}: PyTorch finds none here; use -device cpu.")
        folder = model.folder
        heads = [read_checkpoint(folder / f"fold_{fold}" / model.checkpoint) for fold in model.folds]
        plans, dataset_json = (read_dict(folder / name) for name in ("plans.json", "dataset.json"))
        try:
            with quiet():
                check_model(plans, dataset_json, heads[0], folder)
                predictor = nnUNetPredictor(
                    tile_step_size=step_size,
                    use_mirroring=mirroring,
                    perform_everything_on_device=everything_on_device,
                    device=torch.device(device),
                    verbose=verbose,
                    allow_tqdm=False,
                )
                predictor.initialize_from_trained_model_folder(str(folder), model.folds, model.checkpoint)
        except UserError:
            raise
        except Exception as error:  # an unknown trainer, weights of another network, ...
            raise UserError(f"{folder}: nnU-Net cannot build this network ({first_line(error)}).") from None
        self._model, self._predictor, self._weights = model, predictor, predictor.list_of_parameters

    @torch.inference_mode()
    def predict(self, case: GridCase) -> GridCase:
        """The average of the folds' logits, bit by bit nnU-Net's on the CPU, and what they disagree on; UserError."""
        labels, manager = self._model.labels, self._model.opened.label_manager
        sums = MemberSums(
            [labels.values[channel] for channel in labels.foreground],
            lambda probs: np.asarray(manager.convert_probabilities_to_segmentation(probs)),
            regions=labels.regions,
            to_probs=lambda logits: manager.apply_inference_nonlin(logits).numpy(),
        )
        data = torch.from_numpy(case.values)
        total = self._answer(self._weights[0], data)
        if len(self._weights) == 1:
            return replace(case, values=total.numpy())
        sums.add(total.numpy())
        for weights in self._weights[1:]:
            logits = self._answer(weights, data)
            sums.add(logits.numpy())
            total += logits  # in half precision, and in the order of the folds: as nnU-Net does
        total /= len(self._weights)
        found = sums.result(total.numpy())
        found = replace(found, mutual_information=found.mutual_information.astype(np.float16))
        return replace(case, values=total.numpy(), disagreement=found)

    def _answer(self, weights: Any, data: torch.Tensor) -> torch.Tensor:
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


class ExportedLogits(Probabilities):
    """What nnU-Net makes of the logits of one case, and these logits: probabilities that are never all in memory.

    Args:
        segmentation: (*spatial) label map in the axis order of the reader.
        logits: (C, *crop) float16 at the image's spacing, in nnU-Net's transposed axis order; C classes or regions.
        properties: nnU-Net's, of reading and preprocessing.
        transpose_backward: Which transposed axis each axis of the reader is.
        label_manager: nnU-Net's.
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
        self.shape = tuple(int(properties["shape_before_cropping"][axis]) for axis in transpose_backward)

    @property
    def crop(self) -> Box:
        """nnU-Net's crop in the axis order of the reader: what lies outside no network has seen."""
        box = self.properties["bbox_used_for_cropping"]
        return tuple(slice(int(box[axis][0]), int(box[axis][1])) for axis in self.transpose_backward)

    def _turned(self, values: np.ndarray) -> np.ndarray:
        """(C, *crop) view in the axis order of the reader."""
        return values.transpose([0] + [axis + 1 for axis in self.transpose_backward])

    def _outside(self, shape: Sequence[int]) -> np.ndarray:
        """(C, *shape) float32, background for certain."""
        probs = np.zeros((self.num_channels, *shape), np.float32)
        probs[0] = not self.regions
        return probs

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) contiguous float32 as nnU-Net saves it, but for the last bit of its softmax."""
        probs = self._outside([part.stop - part.start for part in where])
        if shared := common_box(where, self.crop):
            target, source = shared
            seen = np.ascontiguousarray(self._turned(self.logits)[(slice(None), *source)])
            probs[(slice(None), *target)] = self.label_manager.apply_inference_nonlin(seen).numpy()
        return probs

    def whole(self) -> np.ndarray:
        """Bit by bit as nnU-Net saves them."""
        probs = self._outside(self.shape)
        inner = self.label_manager.apply_inference_nonlin(self.logits).numpy()
        probs[(slice(None), *self.crop)] = self._turned(inner)
        return probs

    def odds_blocks(self) -> Iterator[tuple[Box, Any]]:
        """From the logits themselves: float32's sigmoid is 1 from z = 17 on, and these are not."""
        for where in self.crop_layers():
            inner = tuple(slice(w.start - b.start, w.stop - b.start) for w, b in zip(where, self.crop))
            block = torch.from_numpy(np.ascontiguousarray(self._turned(self.logits)[(slice(None), *inner)])).float()
            yield where, block if self.regions else block[1:] - block[:1]


def watch_plans(plans_manager: Any, seen: Callable[[Any], None]) -> Any:
    """A copy of nnU-Net's plans manager whose label managers call ``seen`` with the logits, once for every case."""
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
    *,
    num_threads: int = 1,
) -> ExportedLogits:
    """Make the segmentation of a case from (C, *grid) logits as nnU-Net does, bit by bit, and keep the logits."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    shown, managers = list[Any](), (plans_manager, configuration_manager)
    watching, axes = _watched(label_manager, shown.append), plans_manager.transpose_backward
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, *managers, watching, dict(properties), num_threads_torch=num_threads
    )
    return ExportedLogits(segmentation, np.asarray(shown[0]), properties, axes, label_manager)


def export_case(model: TrainedModel, predicted: GridCase) -> tuple[Case, ExportedLogits]:
    """A case without a truth as nnUNetv2_predict makes it, bit by bit on the CPU, and its probabilities again."""
    from nnunetv2.configuration import default_num_processes

    properties, manager = predicted.properties, model.opened.label_manager
    managers = model.configuration_manager, model.plans_manager, manager
    with quiet():
        exported = export_logits(predicted.values, properties, *managers, num_threads=default_num_processes)
    place = Geometry.of(properties)
    return Case(predicted.case, model.labels, place, exported.segmentation, exported, properties=properties), exported


def on_image(folds: Disagreement, model: TrainedModel, exported: ExportedLogits, *, with_map: bool) -> Disagreement:
    """What the folds disagree about, in voxels of the image; ``with_map`` also its map, resampled as logits are."""
    folds = replace(folds, voxels=folds.voxels * (exported.logits[0].size / folds.mutual_information.size))
    if not with_map:
        return folds
    configuration = model.configuration_manager
    image_mm = [exported.properties["spacing"][axis] for axis in model.plans_manager.transpose_forward]
    grid_mm = [*image_mm[: len(image_mm) - len(configuration.spacing)], *configuration.spacing]  # 2D: slices stay apart
    values, shape = folds.mutual_information[None].astype(np.float32), exported.logits.shape[1:]
    inside = np.asarray(configuration.resampling_fn_probabilities(values, shape, grid_mm, image_mm))
    information = np.zeros(exported.shape, np.float32)
    information[exported.crop] = inside[0].clip(0, 1).transpose(exported.transpose_backward)
    return replace(folds, mutual_information=information)
