"""One case: its maps and its row of the list."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.geometry import geometry_difference
from nnunet_nacl.evaluation.prediction_folder import Labels, PredictionFolder
from nnunet_nacl.quality.images import voxel_unit
from nnunet_nacl.quality.maps import confidence, margin, normalised_entropy
from nnunet_nacl.quality.members import Ensemble, MemberCase
from nnunet_nacl.quality.review import CaseReview, StructureReview

__all__ = ["MAPS", "MEMBER_MAPS", "ComputedCase", "compute_case"]

MEMBER_MAPS = ("mutual_information", "expected_entropy")
MAPS = ("confidence", "entropy", "margin", *MEMBER_MAPS)


@dataclass(frozen=True)
class ComputedCase:
    """What can be written about a case.

    Attributes:
        maps: (*spatial) float maps in [0, 1] by name.
        probs: (K, *spatial) class or (R, *spatial) region probabilities, the mean over members.
        segmentation: (*spatial) label map that the row describes.
        properties: Where the image lies.
        review: The row.
    """

    maps: dict[str, np.ndarray]
    probs: np.ndarray
    segmentation: np.ndarray
    properties: dict[str, Any]
    review: CaseReview


def compute_case(
    folders: Sequence[PredictionFolder], case: MemberCase, wanted: Sequence[str] = MAPS[:3]
) -> ComputedCase:
    """Read a case from every folder, one after the other, and compute its maps.

    With one folder the segmentation is the saved one, postprocessing included. With several it follows from the mean
    probabilities, as nnUNetv2_ensemble makes it.

    Args:
        folders: The members.
        case: The case's files in each.
        wanted: Names of the maps.

    Raises:
        UserError: A file cannot be read or does not fit; the message names it.
    """
    labels = folders[0].labels
    ensemble = Ensemble(regions=labels.regions)
    member_voxels: list[list[int]] = []
    segmentation, properties = None, None
    for folder, files in zip(folders, case.files):
        prediction = folder.load_prediction(files)
        if segmentation is None:
            segmentation, properties = prediction.segmentation, prediction.properties
        else:
            difference = geometry_difference(
                properties, prediction.properties, segmentation.shape, prediction.segmentation.shape
            )
            if difference:
                raise UserError(
                    f"{files.segmentation}: other geometry than {case.files[0].segmentation} ({difference}); "
                    "give predictions of the same images."
                )
        member_voxels.append(
            [int(np.count_nonzero(labels.mask(prediction.segmentation, c))) for c in labels.foreground]
        )
        try:
            ensemble.add(prediction.probs)
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
        del prediction
    probs, expected = ensemble.finish()
    if ensemble.n_members > 1:
        segmentation = _segmentation(probs, folders[0])
    maps = _maps(probs, expected, ensemble.n_members, labels.regions, wanted)
    review = _review(case.case, probs, segmentation, maps, labels, voxel_unit(properties), member_voxels)
    return ComputedCase({name: maps[name] for name in wanted}, probs, segmentation, properties, review)


def _maps(
    probs: np.ndarray, expected: np.ndarray, n_members: int, regions: bool, wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    def per_voxel(forms: np.ndarray) -> np.ndarray:
        return forms.max(0) if regions else forms

    known = dict(regions=regions, check_values=False)  # each member was checked, and a mean of probabilities is one
    maps = {"confidence": confidence(probs, **known)}
    if "margin" in wanted:
        maps["margin"] = margin(probs, **known)
    if n_members == 1:
        return maps | {"entropy": per_voxel(expected)}
    entropy = normalised_entropy(probs, aggregate=False, **known)
    maps |= {"entropy": per_voxel(entropy), "mutual_information": per_voxel((entropy - expected).clip(0, 1))}
    return maps | {"expected_entropy": per_voxel(expected)}


def _segmentation(probs: np.ndarray, folder: PredictionFolder) -> np.ndarray:
    """nnU-Net's label map of probabilities."""
    if folder.labels.regions:
        return np.asarray(folder.label_manager.convert_probabilities_to_segmentation(probs)).astype(np.int16)
    flat = torch.from_numpy(probs).flatten(1)
    parts = [part.max(0)[1].to(torch.int16) for part in flat.split(1 << 16, dim=1)]  # faster than argmax over axis 0
    return torch.cat(parts).numpy().reshape(probs.shape[1:])


def _review(
    case: str,
    probs: np.ndarray,
    segmentation: np.ndarray,
    maps: dict[str, np.ndarray],
    labels: Labels,
    voxel: tuple[float, str],
    member_voxels: list[list[int]],
) -> CaseReview:
    size, unit = voxel
    structures, foreground = [], np.zeros(segmentation.shape, dtype=bool)
    for i, channel in enumerate(labels.foreground):
        mask = labels.mask(segmentation, channel)
        foreground |= mask
        structures.append(
            StructureReview(
                name=labels.names[channel],
                volume=int(np.count_nonzero(mask)) * size,
                max_probability=float(probs[channel].max()),
                pieces=_count_pieces(mask),
                member_volumes=tuple(voxels[i] * size for voxels in member_voxels),
            )
        )
    mean = _mean_over(foreground)
    return CaseReview(
        case=case,
        mean_foreground_entropy=mean(maps["entropy"]),
        mean_foreground_confidence=mean(maps["confidence"]),
        mean_foreground_mutual_information=mean(maps.get("mutual_information")),
        unit=unit,
        structures=tuple(structures),
        n_members=len(member_voxels),
    )


def _mean_over(mask: np.ndarray) -> Callable[[np.ndarray | None], float]:
    empty = not mask.any()
    return lambda values: math.nan if values is None or empty else float(values[mask].mean(dtype=np.float64))


def _count_pieces(mask: np.ndarray) -> int:
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return 0
    return int(ndimage.label(mask[boxes[0]], structure=np.ones((3,) * mask.ndim))[1])
