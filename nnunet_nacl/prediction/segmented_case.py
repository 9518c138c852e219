"""From a network's logits to what is delivered: nnU-Net's own export, calibrated, and decided where that is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnunet_nacl.io.case import Case
from nnunet_nacl.io.geometry import Geometry
from nnunet_nacl.io.image_files import quiet
from nnunet_nacl.metrics.disagreement import Disagreement
from nnunet_nacl.prediction.preprocessed_case import GridCase
from nnunet_nacl.prediction.trained_model import TrainedModel
from nnunet_nacl.review.reviewed_case import ReviewedCase, review_case
from nnunet_nacl.runs.logits_export import ExportedLogits, export_logits

Postprocessing = tuple[list[Callable], list[dict[str, Any]]]
"""nnU-Net's functions and the arguments of each."""

MAPS_OF_SCANS = ("confidence", "entropy", "margin", "mutual_information")


def segment_case(
    model: TrainedModel,
    predicted: GridCase,
    maps: Sequence[str] = (),
    findings: Sequence[int] = (),
    postprocessing: Postprocessing | None = None,
) -> ReviewedCase:
    """Make the segmentation, by nnU-Net's own export, and look at it.

    Without a decision the segmentation is nnUNetv2_predict's, bit by bit on the CPU: a map changes no label. What
    the folds disagree about is that of the networks as they are. Everything else is found inside nnU-Net's crop:
    outside, all is background for certain.

    Args:
        model: The model.
        predicted: With what its networks answer.
        maps: Some of ``MAPS_OF_SCANS``; ``mutual_information`` takes several folds.
        findings: Channels of the structures whose components are listed.
        postprocessing: Of nnU-Net, applied to the segmentation before the row is made.
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
    geometry, kind = Geometry.of(predicted.properties), exported.segmentation.dtype
    case = Case(
        predicted.case, model.labels, geometry, exported.segmentation, exported, properties=predicted.properties
    )
    case = model.treatment(case)
    if postprocessing is not None:
        from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing

        case = replace(case, segmentation=apply_postprocessing(case.segmentation.astype(kind), *postprocessing))
    case = replace(case, segmentation=np.asarray(case.segmentation, kind))
    differences = predicted.differences + tuple(
        model.training.compare_intensities(predicted.image, case.segmentation != 0)
    )
    members = _on_image(predicted.disagreement, model, exported, "mutual_information" in maps)
    return review_case(case, members=members, maps=maps, differences=differences, findings=findings)


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
