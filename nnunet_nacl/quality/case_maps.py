"""One case: its maps and its row of the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import ndimage

from nnunet_nacl.decision.expected_dice import count_expected
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.geometry import Geometry, geometry_difference
from nnunet_nacl.evaluation.prediction_folder import Labels, PredictionFolder
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.quality.ensemble_members import MemberCase
from nnunet_nacl.quality.foreground_mean import foreground_mean
from nnunet_nacl.quality.review_list import CaseReview, StructureReview
from nnunet_nacl.quality.voxel_uncertainty import confidence, margin, normalised_entropy

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
        geometry: Where the image lies.
        review: The row.
    """

    maps: dict[str, np.ndarray]
    probs: np.ndarray
    segmentation: np.ndarray
    geometry: Geometry
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
    # Sums of the probabilities and entropies of the members, added in place: memory holds two of each. The entropies
    # are kept for each region, because the mutual information of a voxel is that of its most disputed region.
    sums: list[np.ndarray] = []
    segmentations: list[np.ndarray] = []
    geometries: list[Geometry] = []
    for folder, files in zip(folders, case.files):
        prediction = folder.load_prediction(files)
        segmentations.append(prediction.segmentation)
        geometries.append(Geometry.of(prediction.properties))
        difference = geometry_difference(geometries[0], geometries[-1], segmentations[0].shape, segmentations[-1].shape)
        if difference:
            raise UserError(
                f"{files.segmentation}: other geometry than {case.files[0].segmentation} ({difference}); "
                "give predictions of the same images."
            )
        probs = prediction.probs.astype(np.promote_types(prediction.probs.dtype, np.float32), copy=False)
        try:
            entropy = normalised_entropy(probs, regions=labels.regions, aggregate=False)
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
        sums = [np.add(total, part, out=total) for total, part in zip(sums, (probs, entropy))] or [probs, entropy]
        del prediction
    n_members = len(folders)
    probs, expected = (total if n_members == 1 else np.divide(total, n_members, out=total) for total in sums)
    segmentation = segmentations[0] if n_members == 1 else folders[0].label_map(probs)
    maps = _maps(probs, expected, n_members, labels.regions, wanted)
    review = _review(case.case, probs, segmentation, maps, labels, geometries[0], segmentations)
    return ComputedCase({name: maps[name] for name in wanted}, probs, segmentation, geometries[0], review)


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


def _review(
    case: str,
    probs: np.ndarray,
    segmentation: np.ndarray,
    maps: dict[str, np.ndarray],
    labels: Labels,
    geometry: Geometry,
    member_segmentations: Sequence[np.ndarray],
) -> CaseReview:
    overlap = count_expected(probs, segmentation, regions=labels.values if labels.regions else None)
    size, structures, foreground = geometry.voxel_size, [], np.zeros(segmentation.shape, dtype=bool)
    for i, channel in enumerate(labels.foreground):
        mask = labels.mask(segmentation, channel)
        foreground |= mask
        of_members = [labels.mask(member, channel) for member in member_segmentations]
        structures.append(
            StructureReview(
                name=labels.names[channel],
                expected_dice=float(overlap.dice[i]),
                members_dice=_mean_pairwise_dice(of_members),
                volume=int(overlap.chosen[i]) * size,
                expected_volume=float(overlap.expected[i]) * size,
                max_probability=float(probs[channel].max()),
                pieces=_count_pieces(mask),
                member_volumes=tuple(int(np.count_nonzero(member)) * size for member in of_members),
            )
        )
    return CaseReview(
        case=case,
        mean_foreground_entropy=foreground_mean(maps["entropy"], foreground),
        mean_foreground_confidence=foreground_mean(maps["confidence"], foreground),
        mean_foreground_mutual_information=foreground_mean(maps.get("mutual_information"), foreground),
        unit=geometry.unit,
        structures=tuple(structures),
        n_members=len(member_segmentations),
    )


def _mean_pairwise_dice(masks: Sequence[np.ndarray]) -> float:
    """Mean over the pairs that have the structure in at least one of the two; NaN if there is no such pair."""
    return nanmean(count_overlap(a, b).dice for a, b in combinations(masks, 2))


def _count_pieces(mask: np.ndarray) -> int:
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return 0
    return int(ndimage.label(mask[boxes[0]], structure=np.ones((3,) * mask.ndim))[1])
