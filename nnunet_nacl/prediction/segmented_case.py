"""From a network's logits to what is delivered: the segmentation, its row of the review list, and maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.cases.case_review import review_case
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.image_files import quiet
from nnunet_nacl.cases.logits_export import ExportedCase, export_logits
from nnunet_nacl.documents.review_list import CaseReview
from nnunet_nacl.metrics.foreground_mean import foreground_uncertainty
from nnunet_nacl.metrics.least_certain import Place, least_certain_place
from nnunet_nacl.metrics.voxel_uncertainty import confidence, margin, normalised_entropy
from nnunet_nacl.prediction.network import PredictedLogits
from nnunet_nacl.prediction.trained_model import TrainedModel

__all__ = ["MAP_NAMES", "Postprocessing", "SegmentedCase", "segment_case"]

Postprocessing = tuple[list[Callable], list[dict[str, Any]]]
"""nnU-Net's functions and the arguments of each."""

MAP_NAMES = ("confidence", "entropy", "margin", "mutual_information")
_OUTSIDE = {"confidence": 1.0, "entropy": 0.0, "margin": 1.0, "mutual_information": 0.0}  # of nnU-Net's crop


@dataclass(frozen=True, eq=False)
class SegmentedCase:
    """What is delivered of a case, all arrays in the axis order of nnU-Net's reader.

    Attributes:
        segmentation: (*spatial) label map.
        review: The row that describes it.
        unlike: How the image differs from the training's, in words.
        place: The voxel where the network is least certain.
        geometry: Where the image lies.
        maps: (*spatial) float32 by name.
        probabilities: (C, *spatial) float32 class or region probabilities; None if they were not asked for.
    """

    segmentation: np.ndarray
    review: CaseReview
    unlike: tuple[str, ...]
    place: Place
    geometry: Geometry
    maps: dict[str, np.ndarray]
    probabilities: np.ndarray | None


def segment_case(
    model: TrainedModel,
    predicted: PredictedLogits,
    *,
    maps: Sequence[str] = (),
    postprocessing: Postprocessing | None = None,
    probabilities: bool = False,
) -> SegmentedCase:
    """Make the segmentation, by nnU-Net's own export, and look at it.

    Without a decision the segmentation is nnUNetv2_predict's, bit by bit on the CPU. Everything else is found inside
    nnU-Net's crop: outside, all is background for certain.

    Args:
        model: The model.
        predicted: What its networks say.
        maps: Some of ``MAP_NAMES``; ``mutual_information`` takes several folds.
        postprocessing: Of nnU-Net, applied to the segmentation before the row is made.
        probabilities: Keep them.
    """
    from nnunetv2.configuration import default_num_processes

    labels, manager, plans = model.labels, model.opened.label_manager, model.plans_manager
    with quiet():
        exported = export_logits(
            predicted.logits,
            predicted.properties,
            model.configuration_manager,
            plans,
            manager,
            num_threads=default_num_processes,
        )
    probs = manager.apply_inference_nonlin(exported.logits).numpy()  # (C, *crop), transposed as nnU-Net has it
    segmentation = exported.segmentation
    if model.decided:
        order = manager.regions_class_order if labels.regions else None
        decision = decide(probs, regions=labels.values if labels.regions else None, region_labels=order)
        segmentation = _to_image(decision.segmentation, exported, np.zeros(exported.shape, segmentation.dtype))
    if postprocessing is not None:
        from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing

        segmentation = np.asarray(apply_postprocessing(segmentation, *postprocessing), segmentation.dtype)
    geometry = Geometry.of(predicted.properties)
    inside = segmentation[exported.crop].transpose(plans.transpose_forward)
    spacing = [geometry.spacing_mm[axis] for axis in plans.transpose_forward]
    found = least_certain_place(probs, labels.foreground, spacing, regions=labels.regions)
    backward = exported.transpose_backward
    place = Place(tuple(found.index[axis] + exported.box[axis][0] for axis in backward), found.channel)
    return SegmentedCase(
        segmentation,
        _review(model, predicted, probs, inside, geometry),
        predicted.unlike + tuple(model.training.compare_intensities(predicted.image, segmentation != 0)),
        place,
        geometry,
        {name: _map(name, model, predicted, probs, exported) for name in maps},
        exported.probabilities() if probabilities else None,
    )


def _to_image(inside: np.ndarray, exported: ExportedCase, whole: np.ndarray) -> np.ndarray:
    """Put (*crop), transposed as nnU-Net has it, into the image."""
    whole[exported.crop] = inside.transpose(exported.transpose_backward)
    return whole


def _review(
    model: TrainedModel, predicted: PredictedLogits, probs: np.ndarray, inside: np.ndarray, geometry: Geometry
) -> CaseReview:
    labels, disagreement = model.labels, predicted.disagreement
    means = foreground_uncertainty(probs, inside != 0, regions=labels.regions)
    means["mutual_information"] = disagreement.foreground_mutual_information if disagreement else float("nan")
    means = {f"mean_foreground_{name}": value for name, value in means.items()}
    n_structures = len(labels.foreground)
    if disagreement is None:
        chosen = [int(np.count_nonzero(labels.mask(inside, channel))) for channel in labels.foreground]
        dice, volumes = np.full(n_structures, np.nan), np.array([chosen]) * geometry.voxel_size
    else:
        grid_voxel = geometry.voxel_size * inside.size / disagreement.mutual_information.size
        dice, volumes = disagreement.dice, disagreement.voxels * grid_voxel
    return review_case(predicted.case, probs, inside, labels, geometry, means, dice.tolist(), volumes.tolist())


def _map(
    name: str, model: TrainedModel, predicted: PredictedLogits, probs: np.ndarray, exported: ExportedCase
) -> np.ndarray:
    """(*spatial) float32 map over the image."""
    if name == "mutual_information":
        assert predicted.disagreement is not None
        values = _resample(predicted.disagreement.mutual_information, model, predicted.properties)
    else:
        function = {"confidence": confidence, "entropy": normalised_entropy, "margin": margin}[name]
        values = function(probs, regions=model.labels.regions, check_values=False)
    return _to_image(values, exported, np.full(exported.shape, _OUTSIDE[name], np.float32))


def _resample(values: np.ndarray, model: TrainedModel, properties: dict[str, Any]) -> np.ndarray:
    """A map on the network's grid, brought to the image's as nnU-Net does it with logits."""
    shape = properties["shape_after_cropping_and_before_resampling"]
    there = [properties["spacing"][axis] for axis in model.plans_manager.transpose_forward]
    here = list(model.configuration_manager.spacing)
    here = [*there[: len(there) - len(here)], *here]  # 2D: slices stay apart as they are
    resampled = model.configuration_manager.resampling_fn_probabilities(
        values[None].astype(np.float32), shape, here, there
    )
    return np.asarray(resampled)[0].clip(0, 1)
