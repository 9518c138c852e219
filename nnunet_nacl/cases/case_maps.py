"""One case: its maps and its row of the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_nacl.cases.case_review import review_case
from nnunet_nacl.cases.ensemble_members import MemberCase
from nnunet_nacl.cases.geometry import Geometry, geometry_difference
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.documents.review_list import CaseReview
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.foreground_mean import foreground_mean
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.metrics.voxel_uncertainty import confidence, margin, normalised_entropy

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
    means = {
        f"mean_foreground_{name}": foreground_mean(maps.get(name), segmentation != 0)
        for name in ("entropy", "confidence", "mutual_information")
    }
    members = [[labels.mask(each, channel) for channel in labels.foreground] for each in segmentations]
    overlap = [nanmean(count_overlap(*pair).dice for pair in combinations(masks, 2)) for masks in zip(*members)]
    sizes = [[int(np.count_nonzero(mask)) * geometries[0].voxel_size for mask in masks] for masks in members]
    review = review_case(case.case, probs, segmentation, labels, geometries[0], means, overlap, sizes)
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
