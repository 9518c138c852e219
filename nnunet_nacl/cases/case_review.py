"""One row of the review list, from the probabilities and the segmentation of a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.prediction_folder import Labels
from nnunet_nacl.documents.review_list import CaseReview, StructureReview
from nnunet_nacl.metrics.expected_dice import count_expected

__all__ = ["review_case"]


def review_case(
    case: str,
    probs: np.ndarray,
    segmentation: np.ndarray,
    labels: Labels,
    geometry: Geometry,
    means: Mapping[str, float],
    members_dice: Sequence[float],
    member_volumes: Sequence[Sequence[float]],
) -> CaseReview:
    """The row of a case. Axes may be in any order, and what lies outside nnU-Net's crop may be left out.

    Args:
        case: Its name.
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        segmentation: (*spatial) label map that the row describes.
        labels: Of the data set.
        geometry: Where the image lies.
        means: ``mean_foreground_entropy``, ``_confidence`` and ``_mutual_information``.
        members_dice: (S,) mean Dice between two members of each structure; NaN with one member.
        member_volumes: (M, S) volumes that each member predicted, in the geometry's unit.
    """
    overlap = count_expected(probs, segmentation, regions=labels.values if labels.regions else None)
    size, structures = geometry.voxel_size, []
    for i, channel in enumerate(labels.foreground):
        pieces = _sizes_of_pieces(labels.mask(segmentation, channel))
        structures.append(
            StructureReview(
                name=labels.names[channel],
                expected_dice=float(overlap.dice[i]),
                members_dice=float(members_dice[i]),
                volume=int(overlap.chosen[i]) * size,
                expected_volume=float(overlap.expected[i]) * size,
                max_probability=float(probs[channel].max()),
                pieces=len(pieces),
                largest_piece=float(pieces.max() / pieces.sum()) if len(pieces) else float("nan"),
                member_volumes=tuple(float(volumes[i]) for volumes in member_volumes),
            )
        )
    return CaseReview(
        case=case, **means, unit=geometry.unit, structures=tuple(structures), n_members=len(member_volumes)
    )


def _sizes_of_pieces(mask: np.ndarray) -> np.ndarray:
    """Voxels of each connected piece; voxels that touch at a corner are connected."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return np.zeros(0, int)
    return np.bincount(ndimage.label(mask[boxes[0]], structure=np.ones((3,) * mask.ndim))[0].ravel())[1:]
