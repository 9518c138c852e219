"""nnU-Net's networks, asked for one case and one fold at a time, and what is delivered of their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.image_files import quiet
from nnunet_nacl.nnunet.logits_export import ExportedLogits, export_logits
from nnunet_nacl.nnunet.nnunet_objects import check_model
from nnunet_nacl.nnunet.preprocessed_case import GridCase
from nnunet_nacl.nnunet.profile import profile
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import read_checkpoint
from nnunet_nacl.numbers.disagreement import Disagreement, MemberSums
from nnunet_nacl.review.reviewed_case import ReviewedCase, review_case

DEVICES = ("cuda", "cpu", "mps")
_OVERFLOW = (
    "the network's answer is no number, or beyond half precision; check that the scan's intensities are in the "
    "training's units, and that the checkpoint is whole."
)


def build_predictor(
    folder: Path,
    folds: Sequence[str],
    checkpoint: str,
    *,
    device: str = "cuda",
    step_size: float = 0.5,
    mirroring: bool = True,
    everything_on_device: bool = True,
    verbose: bool = False,
) -> Any:
    """nnU-Net's predictor with the networks of a model's folds, once its files were judged. No other place builds any.

    Args:
        folder: The model folder.
        folds: Its folds.
        checkpoint: File in each.
        device: One of ``DEVICES``.
        step_size: Of the sliding window, as a share of the patch, in (0, 1].
        mirroring: Predict mirrored copies too, as calibration expects.
        everything_on_device: Keep a case's logits on the device, if it is a GPU.
        verbose: Let nnU-Net print what it does.

    Raises:
        UserError: There is no such device; a file is missing, damaged, or can run code and is not trusted; or nnU-Net
            cannot build the network.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    check_step_size(step_size)
    if device not in DEVICES:
        raise UserError(f"-device must be one of {', '.join(DEVICES)}, got {device!r}.")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there[device]:
        raise UserError(f"-device {device}: PyTorch finds none here; use -device cpu.")
    heads = [read_checkpoint(folder / f"fold_{fold}" / checkpoint, mmap=True) for fold in folds]
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
            predictor.initialize_from_trained_model_folder(str(folder), tuple(folds), checkpoint)
    except UserError:
        raise
    except Exception as error:  # an unknown trainer, weights of another network, ...
        raise UserError(f"{folder}: nnU-Net cannot build this network ({first_line(error)}).") from None
    return predictor


def check_step_size(step_size: float) -> None:
    """UserError unless it is a share of the patch."""
    if not 0 < step_size <= 1:
        raise UserError(f"-step_size is a share of the patch, above 0 and at most 1; got {step_size}.")


class Network:
    """The networks of a model's folds on a device.

    Args:
        model: The model.
        **options: See :func:`build_predictor`, which raises UserError.
    """

    def __init__(self, model: TrainedModel, **options: Any) -> None:
        self._model = model
        self._predictor = build_predictor(model.folder, model.folds, model.checkpoint, **options)
        self._weights = self._predictor.list_of_parameters

    @torch.inference_mode()
    def predict(self, case: GridCase) -> GridCase:
        """The average of the folds' logits, bit by bit as nnU-Net makes it on the CPU, and what they disagree about.

        UserError if a network answers with NaN, or beyond the half precision in which nnU-Net adds tiles up.
        """
        labels, manager = self._model.labels, self._model.opened.label_manager
        sums = MemberSums(
            [labels.values[channel] for channel in labels.foreground],
            lambda probs: np.asarray(manager.convert_probabilities_to_segmentation(probs)),
            regions=labels.regions,
            to_probs=lambda logits: manager.apply_inference_nonlin(logits).numpy(),
        )
        data, average = torch.from_numpy(case.values), None
        for weights in self._weights:
            self._predictor.list_of_parameters = [weights]
            try:
                logits = self._predictor.predict_logits_from_preprocessed_data(data).to("cpu")
            except RuntimeError as error:
                if "Encountered inf" not in str(error):
                    raise
                raise UserError(_OVERFLOW) from None
            if logits.isnan().any():
                raise UserError(_OVERFLOW)
            if len(self._weights) > 1:
                sums.add(logits.numpy())
            if average is None:
                average = logits
            else:
                average += logits  # in half precision, and in the order of the folds: as nnU-Net does
        assert average is not None
        disagreement = None
        if len(self._weights) > 1:
            average /= len(self._weights)
            disagreement = sums.result(average.numpy())
            small = disagreement.mutual_information.astype(np.float16)
            disagreement = replace(disagreement, mutual_information=small)
        return replace(case, values=average.numpy(), disagreement=disagreement)


def segment_case(
    model: TrainedModel,
    predicted: GridCase,
    maps: Sequence[str] = (),
    findings: Sequence[int] = (),
) -> ReviewedCase:
    """Make the segmentation, by nnU-Net's own export, and look at it.

    The segmentation is nnUNetv2_predict's, bit by bit on the CPU: a map changes no label. What the folds disagree about
    is that of the networks as they are. Everything else is found inside nnU-Net's crop: outside, all is background for
    certain.

    Args:
        model: The model.
        predicted: With what its networks answer.
        maps: Some of :data:`~nnunet_nacl.review.reviewed_case.MAPS`, or ``probabilities``.
        findings: Channels of the structures whose components are listed.
    """
    from nnunetv2.configuration import default_num_processes

    with quiet():
        exported = export_logits(
            predicted.values,
            predicted.properties,
            model.configuration_manager,
            model.plans_manager,
            model.opened.label_manager,
            num_threads=default_num_processes,
        )
    segmentation, place = exported.segmentation, Geometry.of(predicted.properties)
    case = Case(predicted.case, model.labels, place, segmentation, exported, properties=predicted.properties)
    case = case.through(model.calibration)
    members = _on_image(predicted.disagreement, model, exported, "mutual_information" in maps)
    reviewed = review_case(case, members=members, maps=maps, differences=predicted.differences, findings=findings)
    transpose = model.plans_manager.transpose_forward
    seen = profile(predicted.channels, exported.segmentation, model.labels, predicted.properties, transpose)
    return replace(reviewed, finished=replace(reviewed.finished, profile=tuple(seen.tolist())))


def _on_image(
    folds: Disagreement | None, model: TrainedModel, exported: ExportedLogits, mapped: bool
) -> Disagreement | None:
    """What the folds disagree about, in voxels of the image; the map is brought to its grid as nnU-Net does logits."""
    if folds is None:
        return None
    folds = replace(folds, voxels=folds.voxels * (exported.logits[0].size / folds.mutual_information.size))
    if not mapped:
        return folds
    there = [exported.properties["spacing"][axis] for axis in model.plans_manager.transpose_forward]
    here = list(model.configuration_manager.spacing)
    here = [*there[: len(there) - len(here)], *here]  # 2D: slices stay apart as they are
    values, shape = folds.mutual_information[None].astype(np.float32), exported.logits.shape[1:]
    inside = model.configuration_manager.resampling_fn_probabilities(values, shape, here, there)
    information = np.zeros(exported.shape, np.float32)
    information[exported.crop] = np.asarray(inside)[0].clip(0, 1).transpose(exported.transpose_backward)
    return replace(folds, mutual_information=information)
